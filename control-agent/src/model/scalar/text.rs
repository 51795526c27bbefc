//! Text of a known form.

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use crate::model::kind::shorten;
use crate::model::validate::is_label;

/// Newtypes of text, each with a regular expression for its JSON Schema and what makes text one: a function and what to
/// write instead.
macro_rules! texts {
    ($($(#[$on:meta])* $name:ident: $pattern:literal, $is:expr, $remedy:literal;)*) => {$(
        $(#[$on])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(String);

        impl $name {
            /// As written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                let text = String::deserialize(de)?;
                let is: fn(&str) -> bool = $is;
                if is(&text) {
                    Ok(Self(text))
                } else {
                    Err(de::Error::custom(format!("{:?} {}", shorten(&text), $remedy)))
                }
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )*};
}

texts! {
    /// A regular expression, of RE2's syntax.
    Pattern: ".*",
        |s| regex_syntax::parse(s).is_ok(),
        "is not a regular expression; escape what should stand for itself, as in eth\\.0, and write .* for anything";
    /// A network interface, as the kernel calls it, or `*`.
    InterfaceName: "^([a-zA-Z0-9_.-]{1,15}|\\*)$",
        |s| s == "*" || short(s, "_.-"),
        "is not an interface's name; use 1 to 15 letters, digits and _ . -";
    /// Interfaces by name, with `+` for any ending.
    InterfaceFilter: "^[a-zA-Z0-9:._+-]{1,15}$",
        |s| short(s, ":._+-"),
        "does not name interfaces; use 1 to 15 letters, digits and : . _ -, with + for any ending";
    /// Interfaces by name, with `*` for anything.
    InterfaceGlob: "^[a-zA-Z0-9_.*-]{1,15}$",
        |s| short(s, "_.*-"),
        "does not name interfaces; use 1 to 15 letters, digits and _ . -, with * for anything";
    /// As [`InterfaceGlob`], but not all interfaces.
    IgnoredInterface: "^[a-zA-Z0-9_.*-]{1,15}$",
        |s| s != "*" && short(s, "_.*-"),
        "does not name some interfaces; use 1 to 15 letters, digits and _ . -, with * for anything beside them";
    /// Where a server listens: an address or a host's name.
    BindHost: "^[a-zA-Z0-9:._+-]{1,64}$",
        |s| limited(s, 64, ":._+-"),
        "is not a host; write an address or a name of up to 64 letters, digits and : . _ + -";
    /// `Name=true,Other=false,Third=`
    FeatureOverrides: "^(\\w+=(true|false|),)*(\\w+=(true|false|))?$",
        |s| pairs(s, |value| matches!(value, "true" | "false" | "")),
        "does not list features; write Name=true or Name=false, with commas between";
    /// `Name=value,Other=value`
    FeatureGates: "^(\\w+=([^=]+),)*(\\w+=([^=]+))?$",
        |s| pairs(s, |value| !value.is_empty()),
        "does not list features; write Name=value, with commas between";
    /// What log lines of packets begin with.
    LogPrefix: "^([a-zA-Z0-9%: /_-])*$",
        |s| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"%: /_-".contains(&b)),
        "is not a log prefix; use letters, digits, spaces and % : / _ -";
    /// `100/second`
    RateLimit: "^[1-9][0-9]{0,3}/(second|minute|hour|day)$",
        is_rate,
        "is not a rate; write 1 to 9999, and /second, /minute, /hour or /day after it";
    /// A region of OpenStack, which becomes a part of the name of a namespace.
    Region: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        |s| s.len() <= REGION && is_label(s),
        "is not a region; use up to 46 lower case letters, digits and '-', with a letter or digit at both ends";
    /// A duration of units us, ms, s, m and h, or `Auto` for the kernel's own.
    BpfTimeout: "^(([0-9]*(\\.[0-9]*)?(ms|s|h|m|us)+)+|Auto)$",
        |s| s == "Auto" || s.parse::<super::Duration>().is_ok(),
        "is not a timeout; write a duration, as in 40s, or Auto";
}

/// What is left of a label after `openstack-region-`.
const REGION: usize = 63 - "openstack-region-".len();

fn limited(s: &str, max: usize, others: &str) -> bool {
    (1..=max).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || others.as_bytes().contains(&b))
}

/// As long as the kernel's names of interfaces.
fn short(s: &str, others: &str) -> bool {
    limited(s, 15, others)
}

fn pairs(s: &str, value_ok: fn(&str) -> bool) -> bool {
    s.strip_suffix(',').unwrap_or(s).split(',').all(|pair| {
        let named = |name: &str| limited(name, usize::MAX, "_");
        s.is_empty()
            || pair
                .split_once('=')
                .is_some_and(|(name, value)| named(name) && value_ok(value) && !value.contains('='))
    })
}

fn is_rate(s: &str) -> bool {
    s.split_once('/').is_some_and(|(count, per)| {
        count.len() <= 4
            && !count.starts_with('0')
            && limited(count, 4, "")
            && count.bytes().all(|b| b.is_ascii_digit())
            && matches!(per, "second" | "minute" | "hour" | "day")
    })
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn takes<T: DeserializeOwned>(good: &[&str], bad: &[&str]) {
        let read = |text: &str| serde_json::from_value::<T>(text.into()).is_ok();
        for text in good {
            assert!(read(text), "{text:?}");
        }
        for text in bad {
            assert!(!read(text), "{text:?}");
        }
    }

    #[test]
    fn each_form() {
        takes::<Pattern>(&["eth.*", "^((en|wl)[opsx].*|(eth|bond).*)", ""], &["*", "(", "[a"]);
        takes::<InterfaceName>(&["*", "eth0.5", "a_b-c"], &["", "wg&0", "eth*", "sixteenletters16"]);
        takes::<InterfaceFilter>(&["eth+", "docker0", "a:b"], &["", "eth*", "sixteenletters16"]);
        takes::<InterfaceGlob>(&["*", "*.calico", "eth*"], &["", "eth&", "\"a"]);
        takes::<IgnoredInterface>(&["eth*", "a"], &["*", ""]);
        takes::<BindHost>(&["localhost", "fe80::1"], &["", "a b"]);
        takes::<FeatureOverrides>(
            &["", "A=true", "A=true,B=,c_d=false,"],
            &["A", "A=yes", "=true", ",A=true", "a-b=true"],
        );
        takes::<FeatureGates>(&["A=enabled,B=x"], &["A=", "A=b=c"]);
        takes::<LogPrefix>(&["calico-packet", "%n: a/b_c"], &["a\"b", "ä"]);
        takes::<RateLimit>(&["1/second", "9999/day"], &["0/second", "10000/day", "5/week", "5", "01/day"]);
        takes::<Region>(&["a-b"], &["A", "-a", "my-region-has-a-very-long-and-extremely-interesting-name"]);
        takes::<BpfTimeout>(&["Auto", "40s", "1h30m"], &["auto", "5", "soon"]);
    }
}
