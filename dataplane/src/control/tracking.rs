//! How flows are tracked, as the node's configuration says.

use super::convert::FieldError;
use crate::conntrack::{Timeouts, Tracking};
use crate::net::Nanos;
use margay_api::dataplane::v1::{
    self as pb,
    node_config::{Midstream, TcpWindows},
};

/// A timeout at most, in milliseconds: a year.
const MAX_MS: u64 = 366 * 24 * 3_600 * 1_000;

/// What is said of tracking.
pub(super) fn parse(config: &pb::NodeConfig) -> Result<Tracking, FieldError> {
    let timeouts = config.conntrack_timeouts.as_ref().map(timeouts).transpose();
    Ok(Tracking {
        timeouts: timeouts.map_err(|error| error.within("conntrack_timeouts"))?.unwrap_or_default(),
        midstream: config.midstream() == Midstream::PickUp,
        liberal: config.tcp_windows() == TcpWindows::Liberal,
    })
}

fn timeouts(message: &pb::ConntrackTimeouts) -> Result<Timeouts, FieldError> {
    let default = Timeouts::default();
    let span = |name: &str, ms: u64, default: Nanos| match ms {
        0 => Ok(default),
        1..=MAX_MS => Ok(Nanos::from_millis(ms)),
        _ => Err(FieldError::new(name, format!("{ms} is above {MAX_MS}, a year; write 0 for the default"))),
    };
    Ok(Timeouts {
        tcp_syn_sent: span("tcp_syn_sent_ms", message.tcp_syn_sent_ms, default.tcp_syn_sent)?,
        tcp_established: span("tcp_established_ms", message.tcp_established_ms, default.tcp_established)?,
        tcp_fins_seen: span("tcp_fins_seen_ms", message.tcp_fins_seen_ms, default.tcp_fins_seen)?,
        tcp_reset_seen: span("tcp_reset_seen_ms", message.tcp_reset_seen_ms, default.tcp_reset_seen)?,
        udp: span("udp_ms", message.udp_ms, default.udp)?,
        icmp: span("icmp_ms", message.icmp_ms, default.icmp)?,
        generic: span("generic_ms", message.generic_ms, default.generic)?,
    })
}
