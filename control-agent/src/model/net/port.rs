//! Ports, ranges of them, and their names.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::NumberOrText;
use crate::model::kind::shorten;

/// One entry of a list of ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Both ends included, neither 0.
    Range {
        /// Lowest.
        first: u16,
        /// Highest, not below `first`.
        last: u16,
    },
    /// What the peer's endpoint calls it.
    Named(String),
}

impl Port {
    /// One port.
    pub const fn one(port: u16) -> Self {
        Self::Range { first: port, last: port }
    }
}

/// Why something is not a [`Port`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// 0, or beyond 65535.
    #[error("{0} is not a port; ports are 1 to 65535")]
    OutOfRange(String),
    /// `9:8`
    #[error("the range {0:?} ends before it begins; write the lower port first")]
    Backwards(String),
    /// Not a name either.
    #[error(
        "{0:?} is neither a port, a range like \"80:90\", nor a port's name: at most 15 lower case letters, \
         digits and single hyphens between them, with one letter or more (RFC 6335)"
    )]
    BadName(String),
}

impl FromStr for Port {
    type Err = PortError;

    fn from_str(s: &str) -> Result<Self, PortError> {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let number = |n: &str| match n.parse::<u16>() {
            Ok(n) if n != 0 => Ok(n),
            _ => Err(PortError::OutOfRange(shorten(n))),
        };
        if digits(s) {
            return number(s).map(Self::one);
        }
        match s.split_once(':') {
            Some((first, last)) if digits(first) && digits(last) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    Err(PortError::Backwards(shorten(s)))
                } else {
                    Ok(Self::Range { first, last })
                }
            }
            _ if is_port_name(s) => Ok(Self::Named(s.to_owned())),
            _ => Err(PortError::BadName(shorten(s))),
        }
    }
}

/// RFC 6335 §5.1, lower case only, as Kubernetes has it.
pub(in crate::model) fn is_port_name(s: &str) -> bool {
    (1..=15).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && s.bytes().any(|b| b.is_ascii_lowercase())
        && !s.contains("--")
        && !s.starts_with('-')
        && !s.ends_with('-')
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, last } if first == last => write!(f, "{first}"),
            Self::Range { first, last } => write!(f, "{first}:{last}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Range { first, last } if first == last => s.serialize_u16(*first),
            _ => s.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(de)? {
            NumberOrText::Number(n) => match u16::try_from(n) {
                Ok(n) if n != 0 => Ok(Self::one(n)),
                _ => Err(de::Error::custom(PortError::OutOfRange(n.to_string()))),
            },
            NumberOrText::Text(s) => s.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let port = |s: &str| serde_json::from_str::<Port>(s).map(|p| serde_json::to_string(&p).unwrap());
        for (from, to) in [
            ("80", "80"),
            ("\"80\"", "80"),
            ("\"80:90\"", "\"80:90\""),
            ("\"80:80\"", "80"),
            ("\"http\"", "\"http\""),
        ] {
            assert_eq!(port(from).unwrap(), to);
        }
        for bad in [
            "0",
            "65536",
            "-1",
            "1.5",
            "true",
            "\"0:5\"",
            "\"9:8\"",
            "\"\"",
            "\"-a\"",
            "\"a--b\"",
            "\"A\"",
            "\"1:2:3\"",
            "\"abcdefghijklmnop\"",
            "18446744073709551615",
        ] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }
}
