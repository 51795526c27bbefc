//! WireGuard: who its peers are, and what is done about what happens to them.

use super::{Action, State};
use crate::control::wireguard::{Outgoing, Wanted, Wireguard};
use crate::fib::{Fib, Hop, PeerEnd, Scope, TunnelKind};
use crate::net::{Addr, Nanos};
use crate::nodes::{Datagram, Event};
use crate::wire::tunnel::Outer;
use crate::wireguard::Secret;
use crossbeam::queue::ArrayQueue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// DSCP of handshakes, as the kernel's: AF41.
const CLASS: u8 = 0x88;
/// How long a message waits for the way to where it goes.
const PATIENCE: Nanos = Nanos::from_secs(3);
/// Messages that wait at most.
const WAITING: usize = 256;

impl State {
    /// There are to be encrypted tunnels, and there is no key yet.
    pub fn wants_wireguard(&self) -> bool {
        self.wireguard.is_none()
            && TunnelKind::WIREGUARD.into_iter().any(|kind| self.desired.overlay.near(kind).is_some())
    }

    /// Gives it a key, and what goes with it.
    pub fn set_wireguard(&mut self, wireguard: Wireguard, now: Nanos) {
        self.wireguard = Some(wireguard);
        self.follow_peers(now);
        self.dirty = true;
    }

    /// Takes another key, if it has one. Sessions go on.
    pub fn rotate_key(&mut self, private: &Secret, now: Nanos) {
        if let Some(wireguard) = &mut self.wireguard {
            wireguard.rotate(private, now);
        }
    }

    /// WireGuard, once there is a key.
    pub fn wireguard(&self) -> Option<&Wireguard> {
        self.wireguard.as_ref()
    }

    /// Takes the messages of handshakes that a worker was sent, and tells how many: no more than its queue holds, since they may come
    /// faster than they are dealt with, and there is other work.
    pub fn handshakes(&mut self, queue: &ArrayQueue<Datagram>, now: Nanos) -> usize {
        let waiting = std::iter::from_fn(|| queue.pop()).take(queue.capacity());
        let Some(wireguard) = &mut self.wireguard else { return waiting.count() };
        waiting.map(|datagram| wireguard.datagram(&datagram, now)).count()
    }

    /// Lets time pass for WireGuard, and looks at what workers sealed and opened. To be called often.
    pub fn pass_wireguard(&mut self, now: Nanos) -> Vec<Action> {
        let Some(wireguard) = &mut self.wireguard else { return vec![] };
        wireguard.pass(now);
        if let Some(keyring) = wireguard.take_keyring() {
            self.keyring = keyring;
            self.judges_anew = true;
        }
        let out = wireguard.take_out();
        self.dirty |= wireguard.take_moved();
        // Whoever gets an answer may send at once: workers are to know of the session before it goes out.
        self.publish();
        let mut actions = vec![];
        let mut waiting = std::mem::take(&mut self.unsent);
        waiting.extend(out.into_iter().map(|outgoing| (now, outgoing)));
        for (since, outgoing) in waiting {
            match self.framed(&outgoing) {
                Some(Ok(action)) => actions.push(action),
                Some(Err((interface, addr))) => {
                    if now == since {
                        actions.extend(self.event(&Event::NeighbourWanted { interface, addr }, now));
                    }
                    if now.since(since) < PATIENCE && self.unsent.len() < WAITING {
                        self.unsent.push((since, outgoing));
                    }
                }
                // No way there: it is asked for again.
                None => {}
            }
        }
        actions
    }

    /// News of workers about peers.
    pub(super) fn peer_event(&mut self, event: &Event, now: Nanos) {
        let Some(wireguard) = &mut self.wireguard else { return };
        match *event {
            Event::SessionWanted(peer) => wireguard.session_wanted(peer, now),
            Event::PeerMoved { v6, session, from } => wireguard.peer_moved(v6, session, from, now),
            _ => {}
        }
    }

    /// Brings peers in line with what is desired.
    pub(super) fn follow_peers(&mut self, now: Nanos) {
        let Some(wireguard) = &mut self.wireguard else { return };
        let (overlay, nodes) = (&self.desired.overlay, &self.desired.wireguard_peers);
        let wanted = [0, 1].map(|family| {
            if overlay.near(TunnelKind::WIREGUARD[family]).is_none() {
                return vec![];
            }
            let ends = nodes.iter().filter_map(|(node, peer)| Some((node, peer.ends[family]?, peer.lanes)));
            let wanted = |node: &Arc<str>, at, lanes| Wanted {
                node: node.clone(),
                at,
                lanes,
                keepalive: overlay.keepalive,
            };
            ends.map(|(node, at, lanes)| wanted(node, at, lanes)).collect()
        });
        wireguard.follow(wanted, now);
    }

    /// Peers as the FIB needs them, by the address that routes name.
    pub(super) fn peer_ends(&self) -> BTreeMap<Addr, PeerEnd> {
        let kinds = TunnelKind::WIREGUARD.into_iter();
        let peers = kinds.flat_map(|kind| self.wireguard.iter().flat_map(move |of| of.peers(kind)));
        peers
            .map(|(said, peer, endpoint, lanes)| {
                let path_mtu = self.path_mtus.get(endpoint.0);
                (said, PeerEnd { peer, endpoint, lanes, path_mtu })
            })
            .collect()
    }

    /// The frame that carries a message; or the neighbour that is to be asked first.
    fn framed(&self, outgoing: &Outgoing) -> Option<Result<Action, (crate::net::IfId, Addr)>> {
        let near = self.desired.overlay.near(outgoing.kind)?;
        let fib = &self.publisher.current().fib;
        let (from, to) = ((near.address, near.port), outgoing.to);
        let (outer, interface) = match fib.lookup(to.0, Scope::Host, 0) {
            Hop::Adjacency(index) if index < Fib::TUNNELS => {
                let link = fib.adjacency(index)?;
                (Outer::udp(&link.header, from, to), link.tx_if)
            }
            // What the host itself sends there goes by the tunnel, whose own messages go where its packets do.
            Hop::Adjacency(index) => {
                let tunnel = fib.tunnel(index)?;
                (tunnel.outer.beside(from, to), tunnel.underlay)
            }
            Hop::Unresolved { link, next_hop, .. } => return Some(Err((link, next_hop))),
            _ => return None,
        };
        let headers = outer.complete(&outgoing.message, CLASS, 0);
        let frame = [headers.as_slice(), &outgoing.message].concat();
        Some(Ok(Action::Send { interface, frame }))
    }
}
