//! Whole numbers with bounds.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// From `MIN` to `MAX`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Whole<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    /// `None`: out of bounds.
    pub const fn new(n: i64) -> Option<Self> {
        if MIN <= n && n <= MAX { Some(Self(n)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let n = i64::deserialize(de)?;
        Self::new(n).ok_or_else(|| de::Error::custom(format!("{n}; write a number from {MIN} to {MAX}")))
    }
}

#[cfg(test)]
impl<const MIN: i64, const MAX: i64> schemars::JsonSchema for Whole<MIN, MAX> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Whole{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_included_and_named() {
        let port = |text: &str| serde_json::from_str::<Whole<1, 65535>>(text);
        assert_eq!(port("1").unwrap().get(), 1);
        assert_eq!(serde_json::to_string(&port("65535").unwrap()).unwrap(), "65535");
        for bad in ["0", "65536", "-1", "1.5", "\"1\"", "99999999999999999999"] {
            assert!(port(bad).is_err(), "{bad}");
        }
        assert!(port("0").unwrap_err().to_string().starts_with("0; write a number from 1 to 65535"));
    }
}
