//! Lengths of time, as Go writes them.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::model::kind::shorten;

/// A length of time in nanoseconds, at most some 292 years: `90s`, `1m30s`, `1h0m0s`, `100ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(u64);

/// Why some text is not a [`Duration`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Without a unit, or of another form.
    #[error("{0:?} is not a duration; write numbers with units, as in 90s, 1m30s or 500ms")]
    Malformed(String),
    /// `-5s`
    #[error("{0:?} is negative; a duration is 0s or more")]
    Negative(String),
    /// Beyond what Go's 64 bits hold.
    #[error("{0:?} is too long; the longest duration is 2562047h")]
    TooLong(String),
}

const SECOND: u64 = 1_000_000_000;

/// Longer names first where one is the start of another.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];

impl Duration {
    /// Of whole seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds as u64 * SECOND)
    }

    /// In nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let malformed = || DurationError::Malformed(shorten(text));
        let too_long = || DurationError::TooLong(shorten(text));
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut nanos: u128 = 0;
        // The one number that needs no unit.
        if rest == "0" {
            rest = "";
        }
        while !rest.is_empty() {
            let (whole, after) = digits(rest);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => digits(after),
                None => ("", after),
            };
            let Some((unit, length)) = UNITS.into_iter().find(|(unit, _)| is_unit(after, unit)) else {
                return Err(malformed());
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(malformed());
            }
            nanos = scaled(whole, fraction, length)
                .and_then(|more| nanos.checked_add(more))
                .filter(|sum| *sum <= i64::MAX as u128)
                .ok_or_else(too_long)?;
            rest = &after[unit.len()..];
        }
        if negative && nanos != 0 {
            return Err(DurationError::Negative(shorten(text)));
        }
        u64::try_from(nanos).map(Self).map_err(|_| too_long())
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// `m` is not the unit of `ms`.
fn is_unit(text: &str, unit: &str) -> bool {
    text.strip_prefix(unit)
        .is_some_and(|after| after.bytes().next().is_none_or(|b| b.is_ascii_digit() || b == b'.'))
}

/// `whole.fraction` units of `length` nanoseconds; what is less than one is cut off.
fn scaled(whole: &str, fraction: &str, length: u64) -> Option<u128> {
    let length = u128::from(length);
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()? }.checked_mul(length)?;
    let mut part = length;
    let fraction = fraction.bytes().map(|digit| {
        let worth = part * u128::from(digit - b'0') / 10;
        part /= 10;
        worth
    });
    whole.checked_add(fraction.sum())
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str| {
            let digits = unit.ilog10() as usize;
            let mut fraction = format!("{:0digits$}", nanos % unit);
            fraction.truncate(fraction.trim_end_matches('0').len());
            write!(f, "{}", nanos / unit)?;
            if digits > 0 && !fraction.is_empty() {
                write!(f, ".{fraction}")?;
            }
            f.write_str(name)
        };
        match self.0 {
            0 => f.write_str("0s"),
            n @ 1..1_000 => with(f, n, 1, "ns"),
            n @ 1_000..1_000_000 => with(f, n, 1_000, "µs"),
            n @ 1_000_000..SECOND => with(f, n, 1_000_000, "ms"),
            n => {
                let (hours, minutes) = (n / (3_600 * SECOND), n / (60 * SECOND) % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                with(f, n % (60 * SECOND), SECOND, "s")
            }
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        String::deserialize(de)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Numbers with units ns, us, ms, s, m and h, as in 90s or 1m30s",
            "pattern": "^(0|([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|ms|s|m|h))+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_go_reads_and_writes_them() {
        for (text, written) in [
            ("0", "0s"),
            ("-0s", "0s"),
            ("90s", "1m30s"),
            ("5m30s", "5m30s"),
            ("1h", "1h0m0s"),
            ("1.5s", "1.5s"),
            (".5m", "30s"),
            ("1.s", "1s"),
            ("100ms", "100ms"),
            ("1us", "1µs"),
            ("1500ns", "1.5µs"),
            ("+2h3m0.25s", "2h3m0.25s"),
            ("2562047h47m16.854775807s", "2562047h47m16.854775807s"),
        ] {
            assert_eq!(text.parse::<Duration>().map(|d| d.to_string()), Ok(written.to_owned()), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            ".s",
            "1 s",
            "1x",
            "1msx",
            "1h-1m",
            "2562048h",
            "-1ns",
            "1e3s",
            "99999999999999999999999999999999999999999s",
        ] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(nanos in 0..=i64::MAX as u64) {
            let duration = Duration(nanos);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+.0-9nuµmsh]{0,30}") {
            let _ = text.parse::<Duration>();
        }
    }
}
