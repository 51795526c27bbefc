//! Numbers of autonomous systems.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::model::kind::shorten;

/// An AS number of 32 bits; read as a number, or as a dotted pair of 16-bit ones (RFC 5396,
/// asdot+).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AsNumber(u32);

impl AsNumber {
    /// Of that number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = AsNumber;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number, as in 64512 or \"1.10\"")
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<AsNumber, E> {
                u32::try_from(n).map(AsNumber).map_err(|_| wrong(n))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<AsNumber, E> {
                u32::try_from(n).map(AsNumber).map_err(|_| wrong(n))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AsNumber, E> {
                let number = match text.split_once('.') {
                    Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
                        (Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
                        _ => None,
                    },
                    None => text.parse().ok(),
                };
                number.map(AsNumber).ok_or_else(|| wrong(format_args!("{:?}", shorten(text))))
            }
        }
        de.deserialize_any(Either)
    }
}

fn wrong<E: de::Error>(given: impl fmt::Display) -> E {
    E::custom(format!("{given} is not an AS number; write 0 to 4294967295, or of two halves, as in 1.10"))
}

#[cfg(test)]
impl schemars::JsonSchema for AsNumber {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AsNumber".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": u32::MAX },
            { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$" },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_both_notations() {
        let number = |text: &str| serde_json::from_str::<AsNumber>(text).map(AsNumber::get);
        assert_eq!(number("64512").unwrap(), 64_512);
        assert_eq!(number("\"1.10\"").unwrap(), 65_546);
        assert_eq!(number("\"4294967295\"").unwrap(), u32::MAX);
        for bad in ["-1", "4294967296", "\"1.65536\"", "\"\"", "\"1.2.3\"", "1.5", "[]"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
