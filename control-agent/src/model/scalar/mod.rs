//! Values of settings as users write them: numbers with bounds, durations, times, text of a known form,
//! choices, and structs of many optional settings.
//!
//! Each type parses once, where the text enters, and is right from then on. A setting written as
//! `""` is absent, as Go's encoder has it.

mod as_number;
mod community;
mod dscp;
mod duration;
mod peer;
mod text;
mod timestamp;
mod whole;

pub use as_number::AsNumber;
pub use community::{AnyCommunity, Community};
pub use dscp::Dscp;
pub use duration::Duration;
pub use peer::PeerAddr;
pub use text::{
    BindHost, BpfTimeout, FeatureGates, FeatureOverrides, IgnoredInterface, InterfaceFilter, InterfaceGlob,
    InterfaceName, LogPrefix, Pattern, RateLimit, Region,
};
pub use timestamp::{Timestamp, TimestampError};
pub use whole::Whole;

/// Reads a choice of two: whether it is the first.
pub(super) fn either(text: &str, [yes, no]: [&str; 2]) -> Result<bool, String> {
    match text {
        _ if text == yes => Ok(true),
        _ if text == no => Ok(false),
        other => Err(format!("{other:?} is not a valid value; use {yes} or {no}")),
    }
}

/// A struct of settings, each absent unless written.
///
/// A line is `field: Type, "name in manifests";`, or `field: Type | "", "name";` for what is
/// written as text, where empty text is absence.
macro_rules! settings {
    ($(#[$on:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* $field:ident: $type:ty $(| $empty:literal)?, $key:literal;)*
    }) => {
        $(#[$on])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$doc])*
                $(#[serde(deserialize_with = "crate::model::net::empty_is_none")] #[doc = $empty])?
                #[serde(rename = $key, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }
    };
}
pub(in crate::model) use settings;

/// Enums of names, each written exactly so, or, after `any case`, in any case.
macro_rules! choices {
    ($($(#[$on:meta])* $name:ident $(($how:ident case))? { $($(#[$doc:meta])* $choice:ident $(= $text:literal)?),* $(,)? })*) => {$(
        $(#[$on])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$doc])* $(#[serde(rename = $text)])? $choice,)*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                const NAMES: &[&str] = &[$($crate::model::scalar::choices!(@name $choice $($text)?)),*];
                const CHOICES: &[$name] = &[$($name::$choice),*];
                const ANY_CASE: bool = $crate::model::scalar::choices!(@any_case $($how)?);
                let text = String::deserialize(de)?;
                let same = |name: &&str| **name == *text || (ANY_CASE && name.eq_ignore_ascii_case(&text));
                match NAMES.iter().position(|name| same(&name)) {
                    Some(i) => Ok(CHOICES[i]),
                    None => Err(serde::de::Error::unknown_variant(&text, NAMES)),
                }
            }
        }
    )*};
    (@name $choice:ident) => { stringify!($choice) };
    (@name $choice:ident $text:literal) => { $text };
    (@any_case any) => { true };
    (@any_case) => { false };
}
pub(in crate::model) use choices;
