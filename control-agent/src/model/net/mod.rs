//! Addresses, prefixes, protocols and ports as users write them.
//!
//! Each type parses once, where the text enters, and is right from then on.

mod cidr;
mod port;
mod protocol;
#[cfg(test)]
mod schema;

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

pub use cidr::{Cidr, CidrError, SubnetAddr};
pub(super) use cidr::{subnet, subnets};
pub use port::Port;
pub(super) use port::is_port_name;
pub use protocol::{IpVersion, Protocol};

/// Six bytes in hexadecimal, with colons or hyphens between them.
pub(super) fn parse_mac(s: &str) -> Option<[u8; 6]> {
    let separator = s.chars().find(|c| matches!(c, ':' | '-'))?;
    let mut bytes = [0; 6];
    let mut parts = s.split(separator);
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

/// For optional fields that Go's encoder writes as `""` when they are absent.
pub(super) fn empty_is_none<'de, D, T>(de: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let text = String::deserialize(de)?;
    if text.is_empty() {
        return Ok(None);
    }
    T::deserialize(de::value::StringDeserializer::new(text)).map(Some)
}

/// What a protocol or a port may be written as.
pub(super) enum NumberOrText {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for NumberOrText {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = NumberOrText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a string")
            }

            fn visit_i64<E>(self, n: i64) -> Result<NumberOrText, E> {
                Ok(NumberOrText::Number(n))
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<NumberOrText, E> {
                // Too large for anything that is read this way, and stays so.
                Ok(NumberOrText::Number(i64::try_from(n).unwrap_or(i64::MAX)))
            }

            fn visit_str<E>(self, s: &str) -> Result<NumberOrText, E> {
                Ok(NumberOrText::Text(s.to_owned()))
            }
        }
        de.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::parse_mac;

    #[test]
    fn ethernet_addresses() {
        assert_eq!(parse_mac("02:00:00:00:0a:FF"), Some([2, 0, 0, 0, 10, 255]));
        assert_eq!(parse_mac("02-00-00-00-00-01"), Some([2, 0, 0, 0, 0, 1]));
        for bad in
            ["", "02", "02:00:00:00:00", "02:00:00:00:00:01:02", "02:00-00:00:00:01", "+2:00:00:00:00:01"]
        {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
