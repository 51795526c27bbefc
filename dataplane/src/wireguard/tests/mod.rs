//! Whole nodes in memory, on a virtual clock: control and worker in one, as a process wires them.

mod behaviour;
mod oracle;
mod vectors;
mod week;

use super::aead::{Batch, Kernel};
use super::*;
use crate::net::{Addr, Nanos, Proto};
use crate::wire::ip4;
use crate::wire::wireguard::{Message, TRANSPORT_HEADER};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Chance that follows from its seed: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(super) struct Seeded(pub(super) u64);

impl Seeded {
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// A place among so many.
    pub(super) fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.bits() as u8)
    }
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.bits() as u8);
    }
}

/// Digits in pairs, with any white space between them.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digits = text.as_chunks::<2>().0.iter().map(|digits| str::from_utf8(digits).unwrap());
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// Of tunnels here.
const MTU: usize = 1420;

fn at(now: Nanos) -> Moment {
    Moment { now, unix: Duration::from_secs(1_700_000_000) + Duration::from_nanos(now.0) }
}

/// A packet whose payload is this.
fn packet(payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]));
    [&ip4::emit(src, dst, Proto(17), 64, payload.len())[..], payload].concat()
}

/// A node.
struct Node {
    interface: Interface,
    address: SocketAddr,
    random: Seeded,
    batch: Batch,
    windows: HashMap<u32, Replay>,
    waiting: VecDeque<(PublicKey, Vec<u8>)>,
    /// What it sent, and where to.
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Packets that came.
    received: Vec<Vec<u8>>,
    /// Each session that there was, and each counter that it used.
    sessions: Vec<Weak<Session>>,
    counters: HashSet<(*const Session, u64)>,
    unreachable: u32,
    /// Whoever is at the other end pads what it sends, as the paper asks for.
    hears_padded: bool,
}

impl Node {
    fn new(number: u8) -> Self {
        let interface = Interface::new(KeyPair::new(&[number; 32]));
        Self {
            interface,
            address: SocketAddr::from(([192, 0, 2, number], 51_820)),
            random: Seeded(number.into()),
            batch: Batch::new(Kernel::best()),
            windows: HashMap::new(),
            waiting: VecDeque::new(),
            out: VecDeque::new(),
            received: vec![],
            sessions: vec![],
            counters: HashSet::new(),
            unreachable: 0,
            hears_padded: true,
        }
    }

    /// Two that know each other. Only the first knows where the other is.
    fn pair() -> [Self; 2] {
        let mut nodes = [Self::new(1), Self::new(2)];
        let [a, b] = &mut nodes;
        a.knows(b.interface.public(), Some(b.address), [7; 32]);
        b.knows(a.interface.public(), None, [7; 32]);
        nodes
    }

    fn knows(&mut self, public: PublicKey, endpoint: Option<SocketAddr>, preshared: [u8; 32]) {
        let settings = PeerSettings { public, preshared: Secret::new(preshared), endpoint, keepalive: None };
        self.interface.set_peer(&settings, Nanos(0)).unwrap();
    }

    /// The only peer of a node that has one.
    fn send(&mut self, to: PublicKey, payload: &[u8], now: Nanos) {
        self.waiting.push_back((to, packet(payload)));
        self.transmit(to, now);
        self.flush(now);
    }

    /// Sends what waits, or asks for a session.
    fn transmit(&mut self, to: PublicKey, now: Nanos) {
        let mut rest = VecDeque::new();
        for (peer, packet) in std::mem::take(&mut self.waiting) {
            match self.interface.current(peer, now).cloned() {
                Some(session) if peer == to => {
                    self.seal(&session, peer, &packet);
                    self.interface.sent(peer, true, at(now), &mut self.random);
                }
                _ => rest.push_back((peer, packet)),
            }
        }
        if !rest.is_empty() {
            self.interface.want_session(to, at(now), &mut self.random);
        }
        self.waiting.append(&mut rest);
    }

    fn seal(&mut self, session: &Arc<Session>, peer: PublicKey, packet: &[u8]) {
        let counter = session.reserve(0, 1).unwrap();
        assert!(self.counters.insert((Arc::as_ptr(session), counter)), "a nonce came twice");
        let mut bytes = vec![0xa5; sealed_len(padded_len(packet.len(), MTU))];
        bytes[TRANSPORT_HEADER..][..packet.len()].copy_from_slice(packet);
        let padded = padded_len(packet.len(), MTU);
        self.batch.seal(&mut [session.outgoing(counter, packet.len(), padded, &mut bytes).unwrap()]);
        self.out.push_back((self.interface.endpoint(peer).unwrap(), bytes));
    }

    /// Does what the interface wants, until it wants nothing more.
    fn flush(&mut self, now: Nanos) {
        loop {
            let events: Vec<_> = self.interface.events().collect();
            if events.is_empty() {
                return;
            }
            for event in events {
                match event {
                    Event::Send { to, message } => self.out.push_back((to, message)),
                    Event::Receive(_, session) => {
                        self.windows.insert(session.local(), Replay::default());
                        self.sessions.push(Arc::downgrade(&session));
                        // An address may be that of one that is gone.
                        self.counters.retain(|(used, _)| *used != Arc::as_ptr(&session));
                    }
                    Event::Transmit(peer, _) => self.transmit(peer, now),
                    Event::Keepalive(peer, session) => {
                        self.seal(&session, peer, &[]);
                        self.interface.sent(peer, false, at(now), &mut self.random);
                    }
                    Event::End(_, session) => {
                        self.windows.remove(&session.local());
                    }
                    Event::Unreachable(peer) => {
                        self.waiting.retain(|(waiting, _)| *waiting != peer);
                        self.unreachable += 1;
                    }
                }
            }
        }
    }

    /// True where the datagram was heeded.
    fn deliver(&mut self, datagram: &[u8], from: SocketAddr, now: Nanos) -> bool {
        let heeded = match Message::parse(datagram) {
            Ok(Message::Transport(message)) => {
                self.open(message.receiver, message.counter, message.packet, from, now)
            }
            _ => self.interface.receive(datagram, from, at(now), &mut self.random).is_ok(),
        };
        self.flush(now);
        heeded
    }

    fn open(&mut self, local: u32, counter: u64, sealed: &[u8], from: SocketAddr, now: Nanos) -> bool {
        let Some(session) = self.interface.session(local).filter(|session| session.is_good(now)).cloned()
        else {
            return false;
        };
        let mut text = sealed.to_vec();
        let mut genuine = [false];
        self.batch.open(&mut [session.incoming(counter, &mut text).unwrap()], &mut genuine);
        let window = &self.windows[&local];
        if genuine != [true] || !window.accept(counter) {
            return false;
        }
        text.truncate(text.len() - 16);
        assert!(text.len().is_multiple_of(16) || !self.hears_padded, "padded");
        self.interface.received(local, from, !text.is_empty(), at(now), &mut self.random);
        if !text.is_empty() {
            let header = ip4::Header::parse(&text).unwrap();
            assert!(text[header.total_len..].iter().all(|byte| *byte == 0), "padding says nothing");
            self.received.push(text[header.len..header.total_len].to_vec());
        }
        true
    }

    fn poll(&mut self, now: Nanos) {
        self.interface.poll(at(now), &mut self.random);
        self.flush(now);
    }

    /// Sessions whose keys are in memory still.
    fn alive(&self) -> usize {
        self.sessions.iter().filter(|session| session.strong_count() > 0).count()
    }
}

/// Delivers everything, until nothing is sent any more.
fn settle(nodes: &mut [Node; 2], now: Nanos) {
    while nodes.iter().any(|node| !node.out.is_empty()) {
        for from in 0..2 {
            let address = nodes[from].address;
            for (_, datagram) in std::mem::take(&mut nodes[from].out) {
                nodes[1 - from].deliver(&datagram, address, now);
            }
        }
    }
}

/// Lets time pass, second by second, without loss.
fn pass(nodes: &mut [Node; 2], from: u64, to: u64) {
    for second in from..to {
        let now = Nanos::from_secs(second);
        nodes.iter_mut().for_each(|node| node.poll(now));
        settle(nodes, now);
    }
}
