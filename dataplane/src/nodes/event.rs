//! What a worker tells the control thread.

use crate::fib::Hearing;
use crate::net::{Addr, FlowKey, Generation, Icmp, IfId, Mac, PeerId, WorkerId};
use crate::packet::DropReason;
use crate::policy::Query;
use crate::wire::wireguard::{COOKIE_REPLY, INITIATION, RESPONSE};
use crate::wireguard::Endpoint;

/// A piece of news. Small and plain: it is copied into a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// ARP or neighbour discovery said so.
    NeighbourSeen {
        /// On this interface.
        interface: IfId,
        /// This address
        addr: Addr,
        /// is here.
        mac: Mac,
        /// On what occasion.
        hearing: Hearing,
    },
    /// A packet waits for this neighbour.
    NeighbourWanted {
        /// On this interface.
        interface: IfId,
        /// Its address.
        addr: Addr,
    },
    /// A router said what the way to another node takes.
    PathMtu {
        /// That node.
        to: Addr,
        /// In bytes, the tunnel's headers included.
        mtu: u16,
    },
    /// A packet waits for a session with this peer.
    SessionWanted(PeerId),
    /// A genuine packet came from another place than its peer was heard at last.
    PeerMoved {
        /// To the WireGuard interface over IPv6.
        v6: bool,
        /// The session, by our number.
        session: u32,
        /// From there.
        from: Endpoint,
    },
    /// One of the dropped packets.
    Dropped {
        /// Why.
        reason: DropReason,
        /// Interface it came in by.
        interface: IfId,
        /// Its flow; default for what was dropped before it had one.
        key: FlowKey,
        /// For ICMP.
        icmp: Icmp,
        /// What decided, for what policy denied.
        deciding: Option<Deciding>,
    },
    /// A new flow was refused, all places being taken by established ones. Told once a minute.
    TableFull {
        /// Whose flow table it is.
        worker: WorkerId,
    },
    /// A new flow was refused: no port is free to leave with towards its destination. Told once a minute.
    NatExhausted {
        /// Whose flow it was.
        worker: WorkerId,
    },
    /// One of the packets that staged policies would have had judged otherwise.
    WouldDiffer {
        /// As policy was asked.
        query: Query,
        /// What would have decided: a slot of the shadow's tree.
        deciding: Deciding,
    },
}

/// What denied a packet, or would have judged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// The snapshot whose policy it was.
    pub generation: Generation,
    /// The endpoint whose policy it was, as the policy table numbers it.
    pub endpoint: u32,
    /// Ingress of the destination, else egress of the source.
    pub ingress: bool,
    /// The decider within the tree.
    pub slot: u32,
}

/// A message of a WireGuard handshake, for the control thread.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// It came over IPv6.
    pub v6: bool,
    /// From there.
    pub from: Endpoint,
    len: u8,
    bytes: [u8; INITIATION],
}

impl Datagram {
    /// Of the bytes that came, if they are as long as the message that they say they are.
    pub fn new(v6: bool, from: Endpoint, datagram: &[u8]) -> Option<Self> {
        let len = match datagram.first()? {
            1 => INITIATION,
            2 => RESPONSE,
            3 => COOKIE_REPLY,
            _ => return None,
        };
        let mut bytes = [0; INITIATION];
        bytes[..len].copy_from_slice(Some(datagram).filter(|datagram| datagram.len() == len)?);
        Some(Self { v6, from, len: len as u8, bytes })
    }

    /// The message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

const _: () = assert!(INITIATION <= u8::MAX as usize);
