//! BGP communities.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::model::kind::shorten;

/// `aa:nn` of 16 bits each (RFC 1997), or `aa:nn:mm` of 32 bits each (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// RFC 1997.
    Standard([u16; 2]),
    /// RFC 8092.
    Large([u32; 3]),
}

/// A [`Community`], or the name that one is given elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AnyCommunity {
    /// A community itself.
    Value(Community),
    /// A name to look up.
    Name(String),
}

/// Why some text is not a [`Community`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunityError {
    /// Neither two numbers nor three.
    #[error("{0:?} is not a community; write aa:nn or aa:nn:mm")]
    Malformed(String),
    /// A part is too large.
    #[error("{0:?} has a number that is too large; each is at most 65535 in aa:nn, 4294967295 in aa:nn:mm")]
    TooLarge(String),
}

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let parts: Vec<&str> = text.split(':').take(4).collect();
        let digits = |s: &&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !parts.iter().all(digits) {
            return Err(CommunityError::Malformed(shorten(text)));
        }
        let too_large = || CommunityError::TooLarge(shorten(text));
        match parts[..] {
            [a, n] => match (a.parse(), n.parse()) {
                (Ok(a), Ok(n)) => Ok(Self::Standard([a, n])),
                _ => Err(too_large()),
            },
            [a, n, m] => match (a.parse(), n.parse(), m.parse()) {
                (Ok(a), Ok(n), Ok(m)) => Ok(Self::Large([a, n, m])),
                _ => Err(too_large()),
            },
            _ => Err(CommunityError::Malformed(shorten(text))),
        }
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard([a, n]) => write!(f, "{a}:{n}"),
            Self::Large([a, n, m]) => write!(f, "{a}:{n}:{m}"),
        }
    }
}

impl Serialize for Community {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Community {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        String::deserialize(de)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for AnyCommunity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(s),
            Self::Name(name) => name.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for AnyCommunity {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        match text.parse() {
            Ok(value) => Ok(Self::Value(value)),
            Err(CommunityError::Malformed(_)) => Ok(Self::Name(text)),
            Err(too_large) => Err(de::Error::custom(too_large)),
        }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Community {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Community".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+:[0-9]+(:[0-9]+)?$" })
    }
}

#[cfg(test)]
impl schemars::JsonSchema for AnyCommunity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CommunityOrName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_numbers_or_three() {
        for good in ["0:0", "65535:65535", "4294967295:0:1"] {
            assert_eq!(good.parse::<Community>().unwrap().to_string(), good);
        }
        for bad in ["", "1", "1:", "a:1", "1:2:3:4", "+1:2", "65536:1", "1:65536", "1:2:4294967296"] {
            assert!(bad.parse::<Community>().is_err(), "{bad}");
        }
        let any = |text: &str| serde_json::from_str::<AnyCommunity>(text);
        assert_eq!(any("\"blue\"").unwrap(), AnyCommunity::Name("blue".to_owned()));
        assert!(any("\"65536:1\"").is_err());
    }
}
