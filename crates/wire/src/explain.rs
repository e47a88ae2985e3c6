//! The texts of failed serialisations, which postcard's errors do not keep.

use std::any::type_name;
use std::error::Error as StdError;
use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use crate::error::{Error, Kind};
use crate::table::Building;

/// Says why the value could not be serialised.
#[cold]
pub(crate) fn encode_error<T: Serialize + ?Sized>(value: &T, error: &postcard::Error) -> Error {
    let reason = failure(value).unwrap_or_else(|| error.to_string());
    Kind::Encode { type_name: type_name::<T>(), reason }.into()
}

/// Says why a value could not be read, by what a handle in it has recorded, if one has.
#[cold]
pub(crate) fn decode_error<T>(
    recorded: Option<Box<dyn StdError + Send + Sync>>,
    error: &postcard::Error,
) -> Error {
    let reason = recorded.map_or_else(|| error.to_string(), |recorded| recorded.to_string());
    Kind::Decode { type_name: type_name::<T>(), reason }.into()
}

/// Serialises the value once more, into nothing, and gives the text of its error.
///
/// `None` if it succeeds this time: then the failure was postcard's own, and it has a text for that.
fn failure<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    let mut fds = Vec::new();
    let building = Building::begin(&mut fds);
    let result = value.serialize(Probe);
    building.end();
    result.err().map(|Text(text)| text)
}

#[derive(Debug)]
struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Text {}

impl ser::Error for Text {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Text(message.to_string())
    }
}

/// A serializer that writes nothing and hands errors through.
struct Probe;

macro_rules! ignore {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method(self, _: $type) -> Result<(), Text> {
            Ok(())
        }
    )*};
}

impl Serializer for Probe {
    type Ok = ();
    type Error = Text;
    type SerializeSeq = Probe;
    type SerializeTuple = Probe;
    type SerializeTupleStruct = Probe;
    type SerializeTupleVariant = Probe;
    type SerializeMap = Probe;
    type SerializeStruct = Probe;
    type SerializeStructVariant = Probe;

    ignore! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_none(self) -> Result<(), Text> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Text> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Text> {
        value.serialize(Probe)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Text> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Text> {
        value.serialize(Probe)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Text> {
        value.serialize(Probe)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Probe, Text> {
        match len {
            Some(_) => Ok(Probe),
            None => Err(Text("a sequence must know its length before it is written".into())),
        }
    }

    fn serialize_tuple(self, _: usize) -> Result<Probe, Text> {
        Ok(Probe)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Probe, Text> {
        Ok(Probe)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Probe, Text> {
        Ok(Probe)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Probe, Text> {
        match len {
            Some(_) => Ok(Probe),
            None => Err(Text(
                "a map must know its length before it is written (serde's flatten does not)".into(),
            )),
        }
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Probe, Text> {
        Ok(Probe)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Probe, Text> {
        Ok(Probe)
    }
}

macro_rules! compound {
    ($($trait:ident: $method:ident($($key:ty)?),)*) => {$(
        impl ser::$trait for Probe {
            type Ok = ();
            type Error = Text;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $key,)? value: &T) -> Result<(), Text> {
                value.serialize(Probe)
            }

            fn end(self) -> Result<(), Text> {
                Ok(())
            }
        }
    )*};
}

compound! {
    SerializeSeq: serialize_element(),
    SerializeTuple: serialize_element(),
    SerializeTupleStruct: serialize_field(),
    SerializeTupleVariant: serialize_field(),
    SerializeStruct: serialize_field(&'static str),
    SerializeStructVariant: serialize_field(&'static str),
}

impl ser::SerializeMap for Probe {
    type Ok = ();
    type Error = Text;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Text> {
        key.serialize(Probe)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Text> {
        value.serialize(Probe)
    }

    fn end(self) -> Result<(), Text> {
        Ok(())
    }
}
