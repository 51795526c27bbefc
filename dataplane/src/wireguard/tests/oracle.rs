//! Beside boringtun, in both roles, in memory: what either writes the other reads, byte for byte.

use super::*;
use crate::wireguard::timers::{JITTER, REKEY_TIMEOUT};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey as TheirPublic, StaticSecret};

/// Boringtun at the other end.
struct Oracle {
    tunn: Tunn,
    public: PublicKey,
    /// Packets that came.
    received: Vec<Vec<u8>>,
}

const ADDRESS: ([u8; 4], u16) = ([192, 0, 2, 9], 51_820);

impl Oracle {
    fn beside(node: &mut Node, preshared: [u8; 32]) -> Self {
        Self::that_bears(node, preshared, u64::MAX)
    }

    /// One that is under load above so many handshakes a second.
    fn that_bears(node: &mut Node, preshared: [u8; 32], most: u64) -> Self {
        let private = StaticSecret::from([9; 32]);
        let public = PublicKey(TheirPublic::from(&private).to_bytes());
        let ours = TheirPublic::from(node.interface.public().0);
        let limiter = Arc::new(RateLimiter::new(&TheirPublic::from(public.0), most));
        let preshared_key = Some(preshared).filter(|key| *key != [0; 32]);
        let tunn = Tunn::new(private, ours, preshared_key, None, 77, Some(limiter));
        // It does not pad.
        node.hears_padded = false;
        node.knows(public, Some(ADDRESS.into()), preshared);
        Self { tunn, public, received: vec![] }
    }

    /// What it sends for a packet.
    fn send(&mut self, payload: &[u8]) -> Vec<Vec<u8>> {
        let mut room = vec![0; 2_048];
        match self.tunn.encapsulate(&packet(payload), &mut room) {
            TunnResult::WriteToNetwork(datagram) => vec![datagram.to_vec()],
            other => panic!("{other:?}"),
        }
    }

    /// What it answers to a datagram.
    fn deliver(&mut self, datagram: &[u8], from: SocketAddr) -> Vec<Vec<u8>> {
        let mut answers = vec![];
        let mut datagram = datagram.to_vec();
        loop {
            let mut room = vec![0; 2_048];
            match self.tunn.decapsulate(Some(from.ip()), &datagram, &mut room) {
                TunnResult::WriteToNetwork(answer) => answers.push(answer.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) => {
                    self.received.push(packet[20..].to_vec());
                    return answers;
                }
                TunnResult::Done => return answers,
                other => panic!("{other:?}"),
            }
            // Asked again, it sends what waited.
            datagram.clear();
        }
    }

    /// Until neither has anything to say.
    fn settle(&mut self, node: &mut Node, mut theirs: Vec<Vec<u8>>, now: Nanos) {
        loop {
            for datagram in theirs.drain(..) {
                assert!(node.deliver(&datagram, ADDRESS.into(), now), "refused");
            }
            if node.out.is_empty() {
                return;
            }
            for (_, datagram) in std::mem::take(&mut node.out) {
                theirs.extend(self.deliver(&datagram, node.address));
            }
        }
    }
}

/// Packets of many lengths, in both directions.
fn converse(node: &mut Node, oracle: &mut Oracle, now: Nanos) {
    for len in [0, 1, 15, 16, 44, 45, 500, 1_400] {
        let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
        node.send(oracle.public, &payload, now);
        oracle.settle(node, vec![], now);
        assert_eq!(oracle.received.pop().unwrap(), payload);
        let datagrams = oracle.send(&payload);
        oracle.settle(node, datagrams, now);
        assert_eq!(node.received.pop().unwrap(), payload);
    }
}

#[test]
fn we_begin() {
    for preshared in [[0; 32], [5; 32]] {
        let mut node = Node::new(1);
        let mut oracle = Oracle::beside(&mut node, preshared);
        let now = Nanos::from_secs(1);
        node.send(oracle.public, b"first", now);
        oracle.settle(&mut node, vec![], now);
        assert_eq!(oracle.received.pop().unwrap(), b"first");
        converse(&mut node, &mut oracle, now);
        assert!(node.interface.current(oracle.public, now).unwrap().initiator());
    }
}

#[test]
fn boringtun_begins() {
    for preshared in [[0; 32], [5; 32]] {
        let mut node = Node::new(1);
        let mut oracle = Oracle::beside(&mut node, preshared);
        let now = Nanos::from_secs(1);
        let datagrams = oracle.send(b"first");
        oracle.settle(&mut node, datagrams, now);
        assert_eq!(node.received.pop().unwrap(), b"first");
        converse(&mut node, &mut oracle, now);
        assert!(!node.interface.current(oracle.public, now).unwrap().initiator());
    }
}

#[test]
fn another_preshared_key_is_refused_by_both() {
    let mut node = Node::new(1);
    let mut oracle = Oracle::beside(&mut node, [5; 32]);
    node.knows(oracle.public, Some(ADDRESS.into()), [6; 32]);
    let now = Nanos::from_secs(1);
    // The initiation does not depend on it, the response does.
    let initiation = oracle.send(b"first").remove(0);
    assert!(node.deliver(&initiation, ADDRESS.into(), now));
    let (_, response) = node.out.pop_front().unwrap();
    let mut room = vec![0; 2_048];
    let result = oracle.tunn.decapsulate(Some(node.address.ip()), &response, &mut room);
    assert!(matches!(result, TunnResult::Err(_)), "{result:?}");
}

#[test]
fn its_cookie_is_heeded() {
    let mut node = Node::new(1);
    let mut oracle = Oracle::that_bears(&mut node, [0; 32], 0);
    let now = Nanos::from_secs(1);
    node.send(oracle.public, b"first", now);
    let (_, initiation) = node.out.pop_front().unwrap();
    let answers = oracle.deliver(&initiation, node.address);
    assert_eq!((answers.len(), answers[0][0]), (1, 3), "a cookie");
    assert!(node.deliver(&answers[0], ADDRESS.into(), now));
    assert!(node.out.is_empty());
    let later = now.plus(REKEY_TIMEOUT).plus(JITTER);
    node.poll(later);
    oracle.settle(&mut node, vec![], later);
    assert_eq!(oracle.received.pop().unwrap(), b"first");
}

#[test]
fn our_cookie_is_heeded() {
    let mut node = Node::new(1);
    let mut oracle = Oracle::beside(&mut node, [0; 32]);
    let now = Nanos::from_secs(1);
    let initiation = oracle.send(b"first").remove(0);
    // Load, from elsewhere.
    for _ in 0..1_100 {
        node.deliver(&initiation, ([198, 51, 100, 7], 9).into(), now);
    }
    node.out.clear();
    assert!(!node.deliver(&initiation, ADDRESS.into(), now));
    let (_, cookie) = node.out.pop_front().unwrap();
    assert_eq!(cookie[0], 3);
    assert!(oracle.deliver(&cookie, node.address).is_empty());
    let mut room = vec![0; 2_048];
    let TunnResult::WriteToNetwork(again) = oracle.tunn.format_handshake_initiation(&mut room, true) else {
        panic!("a second try");
    };
    assert!(again[132..].iter().any(|byte| *byte != 0), "with the second code");
    let later = now.plus(Nanos::from_millis(100));
    assert!(node.deliver(again, ADDRESS.into(), later), "from where the cookie was sent");
    assert_eq!(node.out.pop_front().unwrap().1[0], 2, "the response");
}
