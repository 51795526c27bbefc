//! One end of WireGuard whose time is the test's, on a real socket.
#![allow(dead_code, missing_docs)]

use super::build::Seeded;
use super::namespace::PATIENCE;
use margay_dataplane::net::Nanos;
use margay_dataplane::wire::wireguard::{Message, TRANSPORT_HEADER};
use margay_dataplane::wireguard::aead::{Batch, Kernel};
use margay_dataplane::wireguard::{
    Event, Interface, KeyPair, Moment, PeerSettings, PublicKey, Random as _, Replay, Secret, Session,
    padded_len, sealed_len,
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
    random: Seeded,
    batch: Batch,
    windows: HashMap<u32, Replay>,
    unix: Duration,
}

impl Clocked {
    /// At a socket of its own, with one peer.
    pub fn new(at: SocketAddr, private: [u8; 32], far: PublicKey, endpoint: SocketAddr) -> Self {
        let socket = UdpSocket::bind(at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut interface = Interface::new(KeyPair::new(&private));
        let settings = PeerSettings {
            public: far,
            preshared: Secret::default(),
            endpoint: Some(endpoint),
            keepalive: None,
        };
        interface.set_peer(&settings, Nanos(0)).unwrap();
        Self {
            interface,
            socket,
            now: Nanos::from_secs(1),
            far,
            received: vec![],
            kinds: vec![],
            refused: vec![],
            random: Seeded(5),
            batch: Batch::new(Kernel::best()),
            windows: HashMap::new(),
            unix: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap(),
        }
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
        let mut room = [0; 2_048];
        let Ok((len, from)) = self.socket.recv_from(&mut room) else { return false };
        let datagram = &room[..len];
        self.kinds.push(datagram[0]);
        let moment = self.moment();
        if let Ok(Message::Transport(message)) = Message::parse(datagram) {
            let Some(session) = self.interface.session(message.receiver).cloned() else { return true };
            let (mut text, mut genuine) = (message.packet.to_vec(), [false]);
            self.batch.open(&mut [session.incoming(message.counter, &mut text).unwrap()], &mut genuine);
            assert!(genuine[0] && self.windows[&message.receiver].accept(message.counter));
            text.truncate(text.len() - 16);
            let data = !text.is_empty();
            self.interface.received(message.receiver, from, data, moment, &mut self.random);
            self.received.extend(Some(text).filter(|_| data));
        } else if let Err(refused) = self.interface.receive(datagram, from, moment, &mut self.random) {
            self.refused.push(refused.to_string());
        }
        true
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

/// An initiation for somebody, by nobody that he knows.
pub fn bogus_initiation(for_whom: PublicKey) -> Vec<u8> {
    let mut random = Seeded(77);
    let mut key = [0; 32];
    random.fill(&mut key);
    let mut interface = Interface::new(KeyPair::new(&key));
    let settings = PeerSettings {
        public: for_whom,
        preshared: Secret::default(),
        endpoint: Some(([192, 0, 2, 1], 1).into()),
        keepalive: None,
    };
    interface.set_peer(&settings, Nanos(0)).unwrap();
    let moment = Moment { now: Nanos(0), unix: Duration::from_secs(1_700_000_000) };
    interface.want_session(for_whom, moment, &mut random);
    match interface.events().next() {
        Some(Event::Send { message, .. }) => message,
        other => panic!("an initiation: {other:?}"),
    }
}
