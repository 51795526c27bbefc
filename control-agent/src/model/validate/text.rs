//! The shapes of names and labels (RFC 1123, and Kubernetes' qualified names).

use crate::model::kind::shorten;

/// The longest name of an object.
pub(super) const MAX_SUBDOMAIN: usize = 253;
/// The longest label of a domain name, and the longest label value.
pub(super) const MAX_LABEL: usize = 63;

/// Lower case letters, digits and `-`, not at the ends. The length is for the caller to limit.
pub(in crate::model) fn is_label(s: &str) -> bool {
    !s.is_empty()
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

/// Labels joined by dots. The length is for the caller to limit.
pub(super) fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

/// A name that the kernel would take for an interface.
pub(super) fn is_interface(s: &str) -> bool {
    (1..=15).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

pub(super) fn bad_name(name: &str) -> String {
    format!(
        "{:?} is not a name; use lower case letters, digits, '-' and '.', with a letter or digit at both ends \
         and beside each dot",
        shorten(name)
    )
}

/// Why `key` is not a label's key, that is `name` or `prefix/name`.
pub(in crate::model) fn bad_label_key(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let bad_prefix = prefix.is_some_and(|p| p.len() > MAX_SUBDOMAIN || !is_subdomain(p));
    (bad_prefix || !is_qualified(name)).then(|| {
        format!(
            "{:?} is not a valid key; use up to 63 letters, digits and - _ . with a letter or digit at both ends, \
             after an optional domain and '/'",
            shorten(key)
        )
    })
}

/// Why `value` is not a label's value.
pub(in crate::model) fn bad_label_value(value: &str) -> Option<String> {
    (!value.is_empty() && !is_qualified(value)).then(|| {
        format!(
            "{:?} is not a valid value; use up to 63 letters, digits and - _ . with a letter or digit at both ends, \
             or nothing",
            shorten(value)
        )
    })
}

fn is_qualified(s: &str) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    s.len() <= MAX_LABEL
        && ends(s.bytes().next())
        && ends(s.bytes().last())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
