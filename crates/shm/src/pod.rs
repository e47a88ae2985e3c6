//! Views of bytes as types that implement the traits of bytemuck and not those of zerocopy: vectors,
//! vertices and pixels of graphics crates.

use bytemuck::{AnyBitPattern, NoUninit};

use crate::{Array, ArrayGuard, Error, ShmArc, ShmBox};

/// With the feature `bytemuck`.
impl ShmBox<[u8]> {
    /// Copies elements into shared memory, as bytes.
    ///
    /// # Errors
    ///
    /// As for [`zeroed`](Self::zeroed).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShmBox;
    ///
    /// #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
    /// #[repr(C)]
    /// struct Vertex {
    ///     position: [f32; 3],
    ///     color: [u8; 4],
    /// }
    ///
    /// let vertex = Vertex { position: [1.0; 3], color: [255; 4] };
    /// let mut vertices = ShmBox::from_pod_slice(&[vertex; 100])?;
    /// for vertex in vertices.cast_slice_mut::<Vertex>() {
    ///     vertex.color[3] = 0;
    /// }
    /// // Chunks have a length in bytes.
    /// let chunks = vertices.into_chunks(10 * size_of::<Vertex>());
    /// assert_eq!(chunks[9].cast_slice::<Vertex>()[9].color, [255, 255, 255, 0]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn from_pod_slice<P: NoUninit>(elements: &[P]) -> Result<Self, Error> {
        ShmBox::from_slice(bytemuck::cast_slice(elements))
    }

    /// The bytes, as elements.
    ///
    /// # Panics
    ///
    /// If they are not a number of whole elements, or not aligned as these want: parts that were split
    /// between elements are neither. `bytemuck::try_cast_slice` gives an error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = multiproc_shm::ShmBox::from_pod_slice(&[1u32, 2])?;
    /// assert_eq!(pair.cast_slice::<u32>(), [1, 2]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn cast_slice<P: AnyBitPattern>(&self) -> &[P] {
        cast(self)
    }

    /// The bytes, as elements that can be changed.
    ///
    /// # Panics
    ///
    /// As for [`cast_slice`](Self::cast_slice).
    ///
    /// # Examples
    ///
    /// ```
    /// let mut pair = multiproc_shm::ShmBox::<[u8]>::zeroed(8)?;
    /// pair.cast_slice_mut::<u32>()[1] = 7;
    /// assert_eq!(pair.cast_slice::<u32>(), [0, 7]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn cast_slice_mut<P: AnyBitPattern + NoUninit>(&mut self) -> &mut [P] {
        cast_mut(self)
    }
}

/// With the feature `bytemuck`.
impl ShmArc<[u8]> {
    /// Copies elements into shared memory, as bytes, for good.
    ///
    /// # Errors
    ///
    /// As for [`from_slice`](Self::from_slice).
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = multiproc_shm::ShmArc::from_pod_slice(&[1.5f32, 2.5])?;
    /// assert_eq!(pair.cast_slice::<f32>(), [1.5, 2.5]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn from_pod_slice<P: NoUninit>(elements: &[P]) -> Result<Self, Error> {
        ShmArc::from_slice(bytemuck::cast_slice(elements))
    }

    /// The bytes, as elements.
    ///
    /// # Panics
    ///
    /// If they are not a number of whole elements, or not aligned as these want.
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = multiproc_shm::ShmArc::from_pod_slice(&[1u32, 2])?;
    /// assert_eq!(pair.slice(4..).cast_slice::<u32>(), [2]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn cast_slice<P: AnyBitPattern>(&self) -> &[P] {
        cast(self)
    }
}

/// With the feature `bytemuck`.
impl Array<u8> {
    /// Copies elements into shared memory, as bytes.
    ///
    /// # Errors
    ///
    /// As for [`zeroed`](Self::zeroed).
    ///
    /// # Examples
    ///
    /// ```
    /// let pair = multiproc_shm::Array::from_pod_slice(&[1.5f32, 2.5])?;
    /// pair.lock()?.cast_slice_mut::<f32>()[0] = 0.5;
    /// assert_eq!(pair.lock()?.cast_slice::<f32>(), [0.5, 2.5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_pod_slice<P: NoUninit>(elements: &[P]) -> Result<Self, Error> {
        Array::from_slice(bytemuck::cast_slice(elements))
    }
}

/// With the feature `bytemuck`.
impl ArrayGuard<'_, u8> {
    /// The bytes, as elements. They are aligned as these want if they are a number of whole ones.
    ///
    /// # Panics
    ///
    /// If they are not a number of whole elements, or these want to be aligned to more than 4096 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_pod_slice(&[1u32, 2])?;
    /// assert_eq!(array.lock()?.cast_slice::<u32>(), [1, 2]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cast_slice<P: AnyBitPattern>(&self) -> &[P] {
        cast(self)
    }

    /// The bytes, as elements that can be changed.
    ///
    /// # Panics
    ///
    /// As for [`cast_slice`](Self::cast_slice); the array is poisoned then.
    ///
    /// # Examples
    ///
    /// ```
    /// let array = multiproc_shm::Array::from_pod_slice(&[1u32, 2])?;
    /// array.lock()?.cast_slice_mut::<u32>().reverse();
    /// assert_eq!(array.lock()?.cast_slice::<u32>(), [2, 1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cast_slice_mut<P: AnyBitPattern + NoUninit>(&mut self) -> &mut [P] {
        cast_mut(self)
    }
}

fn cast<P: AnyBitPattern>(bytes: &[u8]) -> &[P] {
    match bytes {
        // There is no memory, which bytemuck would find badly aligned.
        [] => &[],
        bytes => bytemuck::cast_slice(bytes),
    }
}

/// As `cast`.
fn cast_mut<P: AnyBitPattern + NoUninit>(bytes: &mut [u8]) -> &mut [P] {
    match bytes {
        [] => &mut [],
        bytes => bytemuck::cast_slice_mut(bytes),
    }
}
