//! Views of bytes through bytemuck: any alignment, lengths that do not fit, parts and messages.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytemuck::{Pod, Zeroable};
use multiproc_shm::{Array, ShmArc, ShmBox, Value};
use multiproc_wire::{decode, encode, encode_move};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(16))]
struct Vertex([f32; 12]);

const VERTEX: Vertex = Vertex([1.5; 12]);

#[test]
fn elements_are_aligned_whatever_their_number() {
    for count in [0, 1, 3, 85, 4096] {
        let vertices = vec![VERTEX; count];
        let owned = ShmBox::from_pod_slice(&vertices).unwrap();
        assert_eq!(owned.cast_slice::<Vertex>(), vertices);
        assert_eq!(ShmArc::from_pod_slice(&vertices).unwrap().cast_slice::<Vertex>(), vertices);
        let array = Array::from_pod_slice(&vertices).unwrap();
        let again: Array<u8> = decode(encode(&array).unwrap()).unwrap();
        for vertex in again.lock().unwrap().cast_slice_mut::<Vertex>() {
            vertex.0[11] = 0.0;
        }
        let guard = array.lock().unwrap();
        assert!(guard.cast_slice::<Vertex>().iter().all(|vertex| vertex.0[10..] == [1.5, 0.0]));
    }
    // A value is its bytes.
    let value = Value::new([0u8; size_of::<Vertex>()]).unwrap();
    *bytemuck::from_bytes_mut::<Vertex>(&mut *value.lock().unwrap()) = VERTEX;
    assert_eq!(*bytemuck::from_bytes::<Vertex>(&*value.lock().unwrap()), VERTEX);
}

#[test]
fn parts_are_elements_if_they_are_whole() {
    let owned = ShmBox::from_pod_slice(&[VERTEX; 6]).unwrap();
    let mut parts = owned.into_chunks(2 * size_of::<Vertex>());
    let part: ShmBox<[u8]> = decode(encode_move(parts.remove(1)).unwrap().into_message()).unwrap();
    assert_eq!(part.cast_slice::<Vertex>(), [VERTEX; 2]);
    let (head, tail) = part.split_at(4);
    for odd in [head, tail] {
        assert!(catch_unwind(|| odd.cast_slice::<Vertex>().len()).is_err());
    }
    let frozen = ShmArc::from_pod_slice(&[VERTEX; 2]).unwrap();
    let shifted = frozen.slice(4..4 + size_of::<Vertex>());
    assert!(catch_unwind(|| shifted.cast_slice::<Vertex>().len()).is_err());
    let array = Array::<u8>::zeroed(size_of::<Vertex>() + 1).unwrap();
    let cast = || array.lock().unwrap().cast_slice_mut::<Vertex>().len();
    assert!(catch_unwind(AssertUnwindSafe(cast)).is_err());
    assert!(array.is_poisoned());
}
