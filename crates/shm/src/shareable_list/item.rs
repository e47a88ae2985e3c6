/// An item of a [`ShareableList`](crate::ShareableList): what Python's can hold.
///
/// # Examples
///
/// ```
/// use multiproc_shm::Item;
///
/// assert_eq!(Item::from(7), Item::Int(7));
/// assert_eq!(Item::from("a"), Item::Str("a".to_string()));
/// assert_eq!(Item::from(None::<f64>), Item::None);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Python's `int`, of 64 bits.
    Int(i64),
    /// Python's `float`.
    Float(f64),
    /// Python's `bool`.
    Bool(bool),
    /// Python's `str`. Zeros at its end are lost.
    Str(String),
    /// Python's `bytes`. Zeros at their end are lost.
    Bytes(Vec<u8>),
    /// Python's `None`.
    None,
}

impl Item {
    /// Those of a text or of bytes.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Item::Str(text) => Some(text.as_bytes()),
            Item::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Conversions that lose nothing.
macro_rules! from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Item {
            fn from(value: $from) -> Self {
                Item::$variant(value.into())
            }
        }
    )*};
}

from!(
    i8 => Int, i16 => Int, i32 => Int, i64 => Int, u8 => Int, u16 => Int, u32 => Int,
    f32 => Float, f64 => Float,
    bool => Bool,
    &str => Str, String => Str,
    &[u8] => Bytes, Vec<u8> => Bytes,
);

impl<const N: usize> From<&[u8; N]> for Item {
    fn from(bytes: &[u8; N]) -> Self {
        Item::Bytes(bytes.to_vec())
    }
}

impl<T: Into<Item>> From<Option<T>> for Item {
    fn from(value: Option<T>) -> Self {
        value.map_or(Item::None, T::into)
    }
}
