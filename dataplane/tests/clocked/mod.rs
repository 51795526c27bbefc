//! One end of WireGuard whose time is the test's, on a real socket.
#![allow(dead_code, missing_docs)]

use super::build::Seeded;
use super::namespace::PATIENCE;
use margay_dataplane::net::Nanos;
use margay_dataplane::wire::wireguard::{Message, TRANSPORT_HEADER};
use margay_dataplane::wireguard::aead::{Batch, Kernel};
use margay_dataplane::wireguard::{
    Event, Interface, KeyPair, Moment, PeerSettings, PublicKey, Replay, Secret, Session, padded_len,
    sealed_len,
};
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const MTU: usize = 1420;

pub struct Clocked {
    pub interface: Interface,
    pub socket: UdpSocket,
    pub now: Nanos,
    pub far: PublicKey,
    /// Packets that came, without padding cut off.
    pub received: Vec<Vec<u8>>,
    /// Messages that came, by type, and those that were refused.
    pub kinds: Vec<u8>,
    pub refused: Vec<String>,
    /// Packets that came again.
    pub replayed: usize,
    random: Seeded,
    batch: Batch,
    windows: HashMap<u32, Replay>,
    unix: Duration,
}

impl Clocked {
    /// At a socket of its own, with one peer.
    pub fn new(at: SocketAddr, private: [u8; 32], far: PublicKey, endpoint: SocketAddr) -> Self {
        let mut interface = Interface::new(KeyPair::new(&private));
        let preshared = Secret::default();
        let settings = PeerSettings { public: far, preshared, endpoint: Some(endpoint), keepalive: None };
        interface.set_peer(&settings, Nanos(0)).unwrap();
        Self {
            interface,
            socket: Self::socket(at),
            now: Nanos::from_secs(1),
            far,
            received: vec![],
            kinds: vec![],
            refused: vec![],
            replayed: 0,
            random: Seeded(5),
            batch: Batch::new(Kernel::best()),
            windows: HashMap::new(),
            unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap(),
        }
    }

    /// To listen at.
    pub fn socket(at: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket
    }

    /// From now on with this pre-shared key: the sessions that there are end.
    pub fn share(&mut self, preshared: Secret) {
        let settings = PeerSettings { public: self.far, preshared, endpoint: None, keepalive: None };
        let endpoint = self.interface.endpoint(self.far);
        self.interface.set_peer(&PeerSettings { endpoint, ..settings }, self.now).unwrap();
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, unix: self.unix + Duration::from_nanos(self.now.0) }
    }

    pub fn session(&self) -> Option<Arc<Session>> {
        self.interface.current(self.far, self.now).cloned()
    }

    /// Asks for a session.
    pub fn ask(&mut self) {
        let moment = self.moment();
        self.interface.want_session(self.far, moment, &mut self.random);
    }

    /// Forgets the sessions that there are.
    pub fn restart(&mut self) {
        self.interface.restart(self.far);
    }

    /// Waits for a session that is not `old`, having asked for it.
    pub fn shake_hands(&mut self, old: Option<u32>) -> Arc<Session> {
        self.ask();
        self.until("a session", |end| end.session().is_some_and(|session| Some(session.local()) != old));
        self.session().unwrap()
    }

    /// The message for a packet, and what follows from having sent it.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let session = self.session().expect("there is a session");
        let message = self.sealed(&session, packet);
        let moment = self.moment();
        self.interface.sent(self.far, !packet.is_empty(), moment, &mut self.random);
        message
    }

    fn sealed(&mut self, session: &Session, packet: &[u8]) -> Vec<u8> {
        let padded = padded_len(packet.len(), MTU);
        let mut message = vec![0; sealed_len(padded)];
        message[TRANSPORT_HEADER..][..packet.len()].copy_from_slice(packet);
        let counter = session.reserve(0, 1).unwrap();
        self.batch.seal(&mut [session.outgoing(counter, packet.len(), padded, &mut message).unwrap()]);
        message
    }

    pub fn send(&mut self, message: &[u8]) {
        let to = self.interface.endpoint(self.far).unwrap();
        self.socket.send_to(message, to).unwrap();
    }

    /// Lets everything happen, until this is so.
    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tell();
            if done(self) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}, refused {:?}", self.kinds, self.refused);
            if !self.hear() {
                // What they do not heed is said again, sooner than in earnest.
                self.now = self.now.plus(Nanos::from_millis(500));
            }
        }
    }

    /// One datagram, if one comes.
    pub fn hear(&mut self) -> bool {
        let heard = self.datagram();
        if let Some((datagram, from)) = &heard {
            self.take(datagram, *from);
        }
        heard.is_some()
    }

    fn datagram(&self) -> Option<(Vec<u8>, SocketAddr)> {
        let mut room = [0; 2_048];
        let (len, from) = self.socket.recv_from(&mut room).ok()?;
        Some((room[..len].to_vec(), from))
    }

    /// So many packets that are not empty, as they come, and not looked into; what else comes is taken.
    pub fn gather(&mut self, count: usize) -> Vec<(Vec<u8>, SocketAddr)> {
        let mut packets = vec![];
        let deadline = Instant::now() + PATIENCE;
        while packets.len() < count {
            assert!(Instant::now() < deadline, "{} packets of {count}", packets.len());
            match self.datagram() {
                Some((datagram, from)) if datagram[0] == 4 && datagram.len() > sealed_len(0) => {
                    packets.push((datagram, from));
                }
                Some((datagram, from)) => self.take(&datagram, from),
                None => {}
            }
        }
        packets
    }

    /// A datagram as if it had come now.
    pub fn take(&mut self, datagram: &[u8], from: SocketAddr) {
        self.kinds.push(datagram[0]);
        let moment = self.moment();
        if let Ok(Message::Transport(message)) = Message::parse(datagram) {
            let Some(session) = self.interface.session(message.receiver).cloned() else { return };
            let (mut text, mut genuine) = (message.packet.to_vec(), [false]);
            self.batch.open(&mut [session.incoming(message.counter, &mut text).unwrap()], &mut genuine);
            assert!(genuine[0], "what they seal is genuine");
            if !self.windows[&message.receiver].accept(message.counter) {
                self.replayed += 1;
                return;
            }
            text.truncate(text.len() - 16);
            let data = !text.is_empty();
            self.interface.received(message.receiver, from, data, moment, &mut self.random);
            self.received.extend(Some(text).filter(|_| data));
        } else if let Err(refused) = self.interface.receive(datagram, from, moment, &mut self.random) {
            self.refused.push(refused.to_string());
        }
    }

    /// Sends what there is to be sent.
    pub fn tell(&mut self) {
        let moment = self.moment();
        self.interface.poll(moment, &mut self.random);
        for event in self.interface.events().collect::<Vec<_>>() {
            match event {
                Event::Send { to, message } => {
                    self.socket.send_to(&message, to).unwrap();
                }
                Event::Receive(_, session) => {
                    self.windows.insert(session.local(), Replay::default());
                }
                Event::Keepalive(_, session) => {
                    let message = self.sealed(&session, &[]);
                    self.send(&message);
                }
                Event::Transmit(..) | Event::End(..) | Event::Unreachable(_) => {}
            }
        }
    }
}
