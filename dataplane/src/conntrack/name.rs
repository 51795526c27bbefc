//! What states are called where people read them, and where they ask for them.

use super::icmp::IcmpState;
use super::sctp::SctpState;
use super::state::State;
use super::tcp::TcpState;
use super::udp::Exchange;

impl State {
    /// Every name that [`name`](Self::name) gives.
    pub const NAMES: &[&str] = &[
        "syn-sent",
        "syn-crossed",
        "syn-received",
        "picked-up",
        "established",
        "fin-wait",
        "closing",
        "time-wait",
        "closed",
        "message",
        "unreplied",
        "replied",
        "cookie-wait",
        "cookie-echoed",
        "shutdown-sent",
        "shutdown-ack-sent",
    ];

    /// In a word. Of two states of one name, people need not know the difference.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp(tcp) => match tcp {
                TcpState::SynSent => "syn-sent",
                TcpState::SynCrossed => "syn-crossed",
                TcpState::SynRecv => "syn-received",
                TcpState::PickedUp => "picked-up",
                TcpState::Established => "established",
                TcpState::FinWait(_) => "fin-wait",
                TcpState::Closing => "closing",
                TcpState::TimeWait => "time-wait",
                TcpState::Closed => "closed",
            },
            Self::Sctp(sctp) => match sctp {
                SctpState::CookieWait => "cookie-wait",
                SctpState::CookieEchoed => "cookie-echoed",
                SctpState::PickedUp => "picked-up",
                SctpState::Established => "established",
                SctpState::ShutdownSent(_) => "shutdown-sent",
                SctpState::ShutdownAckSent => "shutdown-ack-sent",
                SctpState::Closed => "closed",
            },
            Self::Icmp(IcmpState::Message) => "message",
            Self::Udp(of) | Self::Other(of) | Self::Icmp(IcmpState::Echo(of)) => match of {
                Exchange::Unreplied => "unreplied",
                Exchange::Replied => "replied",
            },
        }
    }
}
