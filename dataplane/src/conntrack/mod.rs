#![doc = include_str!("README.md")]

mod directory;
mod filter;
mod flow;
mod fragments;
mod icmp;
mod log;
mod name;
pub mod nat;
mod quota;
mod sctp;
mod settings;
mod state;
mod table;
mod tcp;
mod timeouts;
mod udp;

#[cfg(test)]
mod fragments_reference;

pub use directory::Directory;
pub use filter::{Filter, FilterError, PacketLike};
pub use flow::{Direction, FlowHasher, FlowRef};
pub use fragments::{Datagram, Fate, First, Fragments, Part, Ticket};
pub use icmp::IcmpState;
pub use log::{FlowEvent, FlowLog, FlowRecord, Passed, RecordRing};
pub use nat::Masquerade;
pub use quota::{Over, Quotas, Side};
pub use sctp::{SctpState, SctpTrack};
pub use settings::{Settings, SettingsError, Tracking};
pub use state::{Admit, Observed, Segment, State, Step};
pub use table::{Counters, Entry, InsertError, NewSession, Table};
pub use tcp::{TcpFlags, TcpSegment, TcpState, TcpTrack};
pub use timeouts::Timeouts;
pub use udp::Exchange;
