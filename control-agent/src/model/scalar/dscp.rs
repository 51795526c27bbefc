//! Differentiated services code points.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use crate::model::kind::shorten;
use crate::model::net::NumberOrText;

/// Six bits of the IP header (RFC 2474), written as a number or by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Dscp(u8);

impl Dscp {
    /// 0 to 63.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// RFC 2474, 2597 and 3246.
    fn named(name: &str) -> Option<u8> {
        let digit = |b: u8, max: u8| Some(b.wrapping_sub(b'0')).filter(|n| *n <= max);
        match name.to_ascii_uppercase().as_bytes() {
            b"DF" => Some(0),
            b"EF" => Some(46),
            [b'C', b'S', class] => Some(8 * digit(*class, 7)?),
            [b'A', b'F', class, drop] => {
                let (class, drop) = (digit(*class, 4)?, digit(*drop, 3)?);
                (class > 0 && drop > 0).then_some(8 * class + 2 * drop)
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Dscp {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let wrong = |given| {
            let message = "is not a DSCP; write 0 to 63, or DF, EF, CS0 to CS7 or AF11 to AF43";
            de::Error::custom(format!("{given} {message}"))
        };
        match NumberOrText::deserialize(de)? {
            NumberOrText::Number(n) => {
                u8::try_from(n).ok().filter(|n| *n < 64).map(Self).ok_or_else(|| wrong(n.to_string()))
            }
            NumberOrText::Text(text) => {
                let number = text.parse().ok().filter(|n| *n < 64);
                number
                    .or_else(|| Self::named(&text))
                    .map(Self)
                    .ok_or_else(|| wrong(format!("{:?}", shorten(&text))))
            }
        }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Dscp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dscp".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 63 },
            { "type": "string", "pattern": "^([0-9]{1,2}|DF|EF|CS[0-7]|AF[1-4][1-3])$" },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        let dscp = |text: &str| serde_json::from_str::<Dscp>(text).map(Dscp::get);
        for (text, number) in [
            ("0", 0),
            ("63", 63),
            ("\"23\"", 23),
            ("\"EF\"", 46),
            ("\"af41\"", 34),
            ("\"CS7\"", 56),
            ("\"DF\"", 0),
        ] {
            assert_eq!(dscp(text).unwrap(), number, "{text}");
        }
        for bad in ["64", "-1", "\"64\"", "\"CS8\"", "\"AF01\"", "\"AF14\"", "\"\"", "\"AF511\""] {
            assert!(dscp(bad).is_err(), "{bad}");
        }
    }
}
