//! What an entry of a journal says, as its owner tells it: for people and for programs.

use std::fmt;

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

/// Words: text and bytes in quotes, `[..]` around several, `{name=value ..}` around a structure.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Nothing => f.write_str("-"),
            Field::Flag(flag) => write!(f, "{flag}"),
            Field::Number(number) => write!(f, "{number}"),
            Field::Text(text) => write!(f, "{text:?}"),
            Field::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Field::List(all) => {
                f.write_str("[")?;
                for (i, field) in all.iter().enumerate() {
                    write!(f, "{}{field}", if i == 0 { "" } else { " " })?;
                }
                f.write_str("]")
            }
            Field::Fields(fields) => {
                f.write_str("{")?;
                for (i, (name, field)) in fields.iter().enumerate() {
                    write!(f, "{}{name}={field}", if i == 0 { "" } else { " " })?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_within_values_are_words_in_a_line() {
        let fields: Fields = vec![
            ("name", "a \"b\"".into()),
            ("body", (&b"\xff\n"[..]).into()),
            ("none", None::<u64>.into()),
            ("list", vec![Field::from(1u64), Field::from(-2i64)].into()),
            ("inner", Fields::from([("is", true.into())]).into()),
        ];
        let words = r#"{name="a \"b\"" body="\xff\n" none=- list=[1 -2] inner={is=true}}"#;
        assert_eq!(Field::from(fields).to_string(), words);
    }
}
