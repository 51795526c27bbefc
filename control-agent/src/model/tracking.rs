//! How sessions are tracked: the timeouts of a FelixConfiguration, and what Calico has no field for,
//! annotations of it.

use std::str::FromStr;

use super::kinds::BpfConntrackTimeouts;
use super::scalar::{BpfTimeout, Duration, either};

/// What becomes of TCP connections and SCTP associations whose beginning was not seen.
pub const MIDSTREAM: &str = "margay.io/midstream";

/// What becomes of TCP segments out of their window.
pub const TCP_WINDOWS: &str = "margay.io/tcp-windows";

/// Reads [`MIDSTREAM`]: they are picked up if policy allows, `PickUp`, or refused, `Refuse`.
///
/// # Errors
/// Anything else.
pub fn picks_up(text: &str) -> Result<bool, String> {
    either(text, ["PickUp", "Refuse"])
}

/// Reads [`TCP_WINDOWS`]: they are dropped, `Strict`, or pass, `Liberal`, unless they are resets.
///
/// # Errors
/// Anything else.
pub fn is_strict(text: &str) -> Result<bool, String> {
    either(text, ["Strict", "Liberal"])
}

/// A timeout in milliseconds; `None`: the dataplane's own.
///
/// # Errors
/// None at all, or too long.
pub fn milliseconds(timeout: &BpfTimeout) -> Result<Option<u64>, String> {
    /// The dataplane takes a year at most.
    const MAX: u64 = 366 * 24 * 3_600 * 1_000;
    let text = timeout.as_str();
    if text == "Auto" {
        return Ok(None);
    }
    let span = Duration::from_str(text).map_err(|error| error.to_string())?;
    match span.as_nanos() / 1_000_000 {
        0 => Err(format!("{text} is too short; write a millisecond at least, as in 40s")),
        ms if ms > MAX => Err(format!("{text} is too long; a year is the most, as in 8784h")),
        ms => Ok(Some(ms)),
    }
}

impl BpfConntrackTimeouts {
    /// Why the timeouts cannot be honoured, each with its field.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, String)> {
        const AUTO: &str = "Auto would be the kernel's, which nobody asks here; write a duration, as in 40s";
        let grace = "not supported yet; a session lives by its state from the start, so remove it";
        let grace = self.creation_grace_period.as_ref().map(|_| ("creationGracePeriod", grace.to_owned()));
        let others = [
            ("tcpSynSent", &self.tcp_syn_sent),
            ("tcpEstablished", &self.tcp_established),
            ("tcpFinsSeen", &self.tcp_fins_seen),
            ("tcpResetSeen", &self.tcp_reset_seen),
            ("udpTimeout", &self.udp_timeout),
            ("genericTimeout", &self.generic_timeout),
            ("icmpTimeout", &self.icmp_timeout),
        ];
        let wrong = others.into_iter().filter_map(|(field, timeout)| match milliseconds(timeout.as_ref()?) {
            Err(why) => Some((field, why)),
            // Calico's own default for this one, which is ours.
            Ok(None) if field != "tcpFinsSeen" => Some((field, AUTO.to_owned())),
            Ok(_) => None,
        });
        grace.into_iter().chain(wrong)
    }
}
