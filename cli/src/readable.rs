//! Bytes, times and shares as people read them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use margay_agent::model::scalar::Timestamp;
use std::net::IpAddr;

/// A hardware address: `02:00:00:00:00:01`. Other lengths are shown the same way.
pub fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A key, in base64 (RFC 4648 §4).
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// An IP address of 4 or 16 bytes. Nothing for other lengths.
pub fn address(bytes: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    ip.map(|ip| ip.to_string()).unwrap_or_default()
}

/// A point in time, in UTC: `2026-01-31T12:00:00Z`. Nothing for 0, which stands for "never".
pub fn utc(unix_seconds: u64) -> Option<String> {
    (unix_seconds > 0).then(|| Timestamp::from_unix(unix_seconds).to_string())
}

/// A length of time in its two largest units: `3d4h`, `2m5s`.
pub fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, second) => format!("{second}s"),
        (0, 0, minute, second) => format!("{minute}m{second}s"),
        (0, hour, minute, _) => format!("{hour}h{minute}m"),
        (day, hour, _, _) => format!("{day}d{hour}h"),
    }
}

/// A part of a whole: `12.5%`.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// One count over another, 0 over nothing.
pub fn ratio(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { count as f64 / of as f64 }
}

/// A ratio for JSON: four decimals say all that is known, and the rest would be noise.
pub fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// `1 policy`, `2 policies`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(mac(&[2, 0, 0, 0, 0xab, 1]), "02:00:00:00:ab:01");
        assert_eq!(mac(&[]), "");
    }

    #[test]
    fn keys() {
        // RFC 4648 §10.
        let all = ["", "f", "fo", "foo", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(all, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]);
        assert_eq!(base64(&[7; 32]), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
    }

    #[test]
    fn times() {
        assert_eq!(utc(0), None);
        let known = [
            (1, "1970-01-01T00:00:01Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in known {
            assert_eq!(utc(seconds).as_deref(), Some(text));
        }
    }

    #[test]
    fn spans() {
        assert_eq!(
            [0, 59, 60, 3_600, 86_399, 90_000].map(span),
            ["0s", "59s", "1m0s", "1h0m", "23h59m", "1d1h"]
        );
    }

    #[test]
    fn shares() {
        assert_eq!(percent(ratio(1, 8)), "12.5%");
        assert_eq!(ratio(1, 0), 0.0);
        assert_eq!(rounded(1.0 / 3.0), 0.3333);
        assert_eq!(
            (count(1, "policy", "policies"), count(0, "policy", "policies")),
            ("1 policy".into(), "0 policies".into())
        );
    }
}
