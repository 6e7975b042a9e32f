//! What an entry of a journal says, as its owner tells it: for people and for programs.

/// Named values, in the order of their bytes.
pub type Fields = Vec<(&'static str, Field)>;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// There is none.
    Nothing,
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(i128),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several values.
    List(Vec<Field>),
    /// A structure.
    Fields(Fields),
}

macro_rules! from {
    ($($variant:ident: $($type:ty),*;)*) => {
        $($(impl From<$type> for Field {
            fn from(value: $type) -> Field {
                Field::$variant(value.into())
            }
        })*)*
    };
}

from! {
    Flag: bool;
    Number: u8, u32, u64, i64;
    Text: &str, String;
    Bytes: &[u8], Vec<u8>;
    List: Vec<Field>;
    Fields: Fields;
}

impl<T: Into<Field>> From<Option<T>> for Field {
    fn from(value: Option<T>) -> Field {
        value.map_or(Field::Nothing, Into::into)
    }
}

impl<T: Clone + Into<Field>> From<&T> for Field {
    fn from(value: &T) -> Field {
        value.clone().into()
    }
}

/// The [`Fields`](crate::dump::Fields) of an entry of a journal: `entry_fields!("kind of entry", field, ..)`, where each field is
/// a variable, whose name it gets.
#[macro_export]
macro_rules! entry_fields {
    ($kind:literal $(, $name:ident)*) => {{
        use $crate::dump::Field;
        vec![("entry", Field::from($kind)) $(, (stringify!($name), Field::from($name)))*]
    }};
}
