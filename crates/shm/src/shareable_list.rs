//! A list of plain values in shared memory, laid out as Python lays it out.

mod item;
mod layout;
mod slot;

use std::fmt;
use std::sync::Arc;

use multiproc_os::memory::Mapping;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind};
use crate::shared_memory::{SharedMemory, unique_name};
use layout::Layout;

pub use item::Item;

/// A list of numbers, texts and bytes in shared memory: Python's
/// `multiprocessing.shared_memory.ShareableList`, byte for byte.
///
/// Its length stays the same, and so does the room that an item has: eight bytes, and for a text or
/// bytes as many as they had at first, rounded up to the next multiple of eight. Zeros at the end of
/// a text or of bytes are lost, as in Python.
///
/// A list with a name stays until [`unlink`](SharedMemory::unlink) is called on its
/// [`memory`](Self::memory).
///
/// # Others that change it
///
/// It has no lock, as in Python: use one of your own where items belong together, or where texts and
/// bytes are changed while others read them. A reader sees a number, a truth value or a text of up to
/// eight bytes of one moment. A writer that is killed while it changes anything longer, or the type of
/// an item, leaves an item that [`get`](Self::get) refuses until it is set anew. What [`SharedMemory`]
/// says of memory that others cut short holds here too.
///
/// # Examples
///
/// ```
/// use multiproc_shm::{Item, ShareableList};
///
/// let name = format!("example-list-{}", std::process::id());
/// let list = ShareableList::create(&name, ["howdy".into(), 273.15.into(), Item::None])?;
/// list.set(2, 7)?;
///
/// // In any program; in Python, `ShareableList(name=...)`:
/// let same = ShareableList::open(&name)?;
/// assert_eq!(same.to_vec()?, ["howdy".into(), 273.15.into(), Item::Int(7)]);
///
/// list.memory().unlink()?;
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone)]
pub struct ShareableList {
    memory: SharedMemory,
    layout: Arc<Layout>,
}

impl ShareableList {
    /// Makes a list without a name: others get it in a message.
    ///
    /// # Errors
    ///
    /// A text or bytes have more than 9,999,991 bytes, or the system has no descriptor or address
    /// space left.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::{Item, ShareableList};
    ///
    /// let list = ShareableList::new([1, 2, 3].map(Item::from))?;
    /// assert_eq!(list.len(), 3);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn new(items: impl IntoIterator<Item = Item>) -> Result<Self, Error> {
        let (layout, bytes) = Layout::of(items)?;
        let memory = SharedMemory::new(bytes.len())?;
        memory.write(0, &bytes)?;
        Ok(ShareableList { memory, layout: Arc::new(layout) })
    }

    /// Makes a list of this name. Nobody sees it before it is complete.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new) and [`SharedMemory::create`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShareableList;
    ///
    /// let name = format!("example-list-create-{}", std::process::id());
    /// let list = ShareableList::create(&name, [1.into(), true.into()])?;
    /// assert!(ShareableList::create(&name, []).unwrap_err().is_already_exists());
    /// list.memory().unlink()?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn create(name: &str, items: impl IntoIterator<Item = Item>) -> Result<Self, Error> {
        let (layout, bytes) = Layout::of(items)?;
        let fill = |mapping: &Mapping| match mapping.write(0, &bytes) {
            Some(()) => Ok(()),
            None => Err(Kind::Bounds { offset: 0, len: bytes.len(), size: mapping.len() }.into()),
        };
        let memory = SharedMemory::create_filled(name, bytes.len(), fill)?;
        Ok(ShareableList { memory, layout: Arc::new(layout) })
    }

    /// Makes a list of a name that no other memory has.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create), but for the name.
    ///
    /// # Examples
    ///
    /// ```
    /// let list = multiproc_shm::ShareableList::create_unique([1.5.into()])?;
    /// println!("ShareableList(name={:?})", list.memory().name());
    /// list.memory().unlink()?;
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn create_unique(items: impl IntoIterator<Item = Item>) -> Result<Self, Error> {
        Self::create(&unique_name(), items)
    }

    /// Opens the list of this name.
    ///
    /// # Errors
    ///
    /// - [`is_not_found`](Error::is_not_found): there is none;
    /// - [`is_foreign`](Error::is_foreign): the memory holds no list, or its creator in another program
    ///   has not come to that;
    /// - as for [`SharedMemory::open`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::ShareableList;
    ///
    /// assert!(ShareableList::open("there is none").unwrap_err().is_not_found());
    /// ```
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::from_memory(SharedMemory::open(name)?)
    }

    /// Takes memory that holds a list.
    ///
    /// # Errors
    ///
    /// [`is_foreign`](Error::is_foreign): it holds none.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::{ShareableList, SharedMemory};
    ///
    /// let list = ShareableList::new([7.into()])?;
    /// let same = ShareableList::from_memory(list.memory().clone())?;
    /// assert_eq!(same.get(0)?, Some(7.into()));
    /// assert!(ShareableList::from_memory(SharedMemory::new(100)?).unwrap_err().is_foreign());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn from_memory(memory: SharedMemory) -> Result<Self, Error> {
        let layout = Arc::new(Layout::read(memory.mapping())?);
        Ok(ShareableList { memory, layout })
    }

    /// The memory that holds it, to unlink it, or for its name.
    ///
    /// # Examples
    ///
    /// ```
    /// let list = multiproc_shm::ShareableList::new([7.into()])?;
    /// assert_eq!(list.memory().name(), None);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[doc(alias = "shm")]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// How many items there are.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiproc_shm::ShareableList::new([7.into()])?.len(), 1);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Tells whether there are none.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(multiproc_shm::ShareableList::new([])?.is_empty());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies an item. `None` if there are not so many.
    ///
    /// # Errors
    ///
    /// [`is_foreign`](Error::is_foreign): what is there is no item. Its writer has not finished, or was
    /// killed, or is no friend.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::{Item, ShareableList};
    ///
    /// let list = ShareableList::new(["a".into()])?;
    /// assert_eq!(list.get(0)?, Some(Item::Str("a".to_string())));
    /// assert_eq!(list.get(1)?, None);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn get(&self, index: usize) -> Result<Option<Item>, Error> {
        let Some(slot) = self.layout.slot(index) else { return Ok(None) };
        match slot.read(self.memory.mapping()) {
            Ok(item) => Ok(Some(item)),
            Err(why) => Err(Kind::NoItem { index, why }.into()),
        }
    }

    /// Replaces an item, perhaps by one of another type.
    ///
    /// # Errors
    ///
    /// - [`is_out_of_bounds`](Error::is_out_of_bounds): there are not so many items;
    /// - [`is_too_long`](Error::is_too_long): a text or bytes have more bytes than there is room for.
    ///
    /// The list is as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// let list = multiproc_shm::ShareableList::new(["short".into(), 1.into()])?;
    /// list.set(1, 2.5)?;
    /// list.set(0, "eight by")?;
    /// assert!(list.set(0, "no room for nine").unwrap_err().is_too_long());
    /// assert!(list.set(2, true).unwrap_err().is_out_of_bounds());
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn set(&self, index: usize, item: impl Into<Item>) -> Result<(), Error> {
        let item = item.into();
        let Some(slot) = self.layout.slot(index) else {
            return Err(Kind::Index { index, len: self.len() }.into());
        };
        if let Some(len) = item.bytes().map(<[u8]>::len).filter(|len| *len > slot.len) {
            return Err(Kind::ItemTooLong { index, len, room: slot.len }.into());
        }
        match slot.write(self.memory.mapping(), &item) {
            Some(()) => Ok(()),
            None => Err(Kind::NoItem { index, why: "it is not within the memory" }.into()),
        }
    }

    /// Copies all items.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// let list = multiproc_shm::ShareableList::new([1.into(), "a".into()])?;
    /// assert_eq!(list.to_vec()?, [1.into(), "a".into()]);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn to_vec(&self) -> Result<Vec<Item>, Error> {
        self.iter().collect()
    }

    /// Copies one item after the other.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_shm::Item;
    ///
    /// let list = multiproc_shm::ShareableList::new([1, 2].map(Item::from))?;
    /// let mut sum = 0;
    /// for item in &list {
    ///     let Item::Int(number) = item? else { continue };
    ///     sum += number;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn iter(&self) -> Items<'_> {
        Items { list: self, next: 0 }
    }

    /// Counts the items that are equal to this one. Those of other types never are, other than in
    /// Python, to which `1`, `1.0` and `True` are equal.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// let list = multiproc_shm::ShareableList::new([1.into(), 1.0.into(), 1.into()])?;
    /// assert_eq!(list.count(1)?, 2);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    pub fn count(&self, item: impl Into<Item>) -> Result<usize, Error> {
        let item = item.into();
        let mut count = 0;
        for each in self {
            count += usize::from(each? == item);
        }
        Ok(count)
    }

    /// Finds the first item that is equal to this one, in the sense of [`count`](Self::count).
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// let list = multiproc_shm::ShareableList::new([1.into(), "a".into()])?;
    /// assert_eq!(list.index("a")?, Some(1));
    /// assert_eq!(list.index("b")?, None);
    /// # Ok::<(), multiproc_shm::Error>(())
    /// ```
    #[doc(alias = "position")]
    pub fn index(&self, item: impl Into<Item>) -> Result<Option<usize>, Error> {
        let item = item.into();
        for (index, each) in self.iter().enumerate() {
            if each? == item {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}

/// The items of a [`ShareableList`], as they are when it comes to them.
///
/// # Examples
///
/// ```
/// let list = multiproc_shm::ShareableList::new([1.into(), 2.into()])?;
/// assert_eq!(list.iter().len(), 2);
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Items<'a> {
    list: &'a ShareableList,
    next: usize,
}

impl Iterator for Items<'_> {
    type Item = Result<Item, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.list.get(self.next).transpose()?;
        self.next += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.list.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Items<'_> {}

impl<'a> IntoIterator for &'a ShareableList {
    type Item = Result<Item, Error>;
    type IntoIter = Items<'a>;

    fn into_iter(self) -> Items<'a> {
        self.iter()
    }
}

impl fmt::Debug for ShareableList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareableList")
            .field("name", &self.memory.name())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Serialize for ShareableList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.memory.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ShareableList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_memory(SharedMemory::deserialize(deserializer)?).map_err(multiproc_wire::fail)
    }
}
