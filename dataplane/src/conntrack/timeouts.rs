//! How long a session may be idle, by what state it is in.

use super::sctp::SctpState;
use super::state::State;
use super::tcp::TcpState;
use crate::net::Nanos;

/// How long a session may be idle in each kind of state. All above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and SCTP until the handshake is complete.
    pub tcp_syn_sent: Nanos,
    /// TCP from then on, while at most one end has finished.
    pub tcp_established: Nanos,
    /// TCP when both ends have sent their FIN.
    pub tcp_fins_seen: Nanos,
    /// TCP after a reset, SCTP at its end.
    pub tcp_reset_seen: Nanos,
    /// UDP and UDP-Lite.
    pub udp: Nanos,
    /// ICMP and ICMPv6.
    pub icmp: Nanos,
    /// Every other protocol, and SCTP in between.
    pub generic: Nanos,
}

impl Default for Timeouts {
    /// Calico's (its `bpfConntrackTimeouts`); for `tcp_fins_seen`, which Calico takes from the
    /// kernel, the kernel's own default for TIME_WAIT.
    fn default() -> Self {
        Self {
            tcp_syn_sent: Nanos::from_secs(20),
            tcp_established: Nanos::from_secs(3_600),
            tcp_fins_seen: Nanos::from_secs(120),
            tcp_reset_seen: Nanos::from_secs(40),
            udp: Nanos::from_secs(60),
            icmp: Nanos::from_secs(5),
            generic: Nanos::from_secs(600),
        }
    }
}

impl Timeouts {
    /// The idle time after which a session in `state` is gone.
    #[inline]
    pub const fn of(&self, state: State) -> Nanos {
        match state {
            State::Tcp(TcpState::Established | TcpState::FinWait(_)) => self.tcp_established,
            State::Tcp(TcpState::Closing | TcpState::TimeWait) => self.tcp_fins_seen,
            State::Tcp(TcpState::Closed) => self.tcp_reset_seen,
            State::Tcp(_) => self.tcp_syn_sent,
            State::Udp(_) => self.udp,
            State::Icmp(_) => self.icmp,
            State::Other(_) => self.generic,
            State::Sctp(SctpState::Established | SctpState::ShutdownSent(_)) => self.generic,
            State::Sctp(SctpState::ShutdownAckSent | SctpState::Closed) => self.tcp_reset_seen,
            State::Sctp(_) => self.tcp_syn_sent,
        }
    }

    /// The shortest.
    pub(super) fn least(&self) -> Nanos {
        let Self { tcp_syn_sent, tcp_established, tcp_fins_seen, tcp_reset_seen, udp, icmp, generic } = *self;
        let all = [tcp_syn_sent, tcp_established, tcp_fins_seen, tcp_reset_seen, udp, icmp, generic];
        all.into_iter().min().unwrap_or_default()
    }
}
