//! What nodes do as time passes, and when others misbehave.

use super::*;
use crate::wireguard::session::REKEY_AFTER_MESSAGES;
use crate::wireguard::timers::{JITTER, KEEPALIVE_TIMEOUT, REKEY_AFTER_TIME, REKEY_TIMEOUT, WIPE_AFTER};

const START: Nanos = Nanos::from_secs(10);

/// Two with a session, which the first began.
fn connected() -> [Node; 2] {
    let mut nodes = Node::pair();
    let other = nodes[1].interface.public();
    nodes[0].send(other, b"hello", START);
    settle(&mut nodes, START);
    assert_eq!(nodes[1].received.pop().unwrap(), b"hello");
    nodes
}

fn publics(nodes: &[Node; 2]) -> [PublicKey; 2] {
    [nodes[0].interface.public(), nodes[1].interface.public()]
}

#[test]
fn a_packet_waits_for_the_handshake_and_answers_follow() {
    let mut nodes = connected();
    let [first, _] = publics(&nodes);
    assert_eq!(nodes[1].interface.endpoint(first), Some(nodes[0].address), "learned");
    nodes[1].send(first, b"and you", START);
    assert_eq!(nodes[1].out.len(), 1, "at once: the first packet confirmed the session");
    settle(&mut nodes, START);
    assert_eq!(nodes[0].received.pop().unwrap(), b"and you");
    assert_eq!((nodes[0].alive(), nodes[1].alive()), (1, 1));
}

#[test]
fn both_begin_at_once() {
    let mut nodes = Node::pair();
    let [first, second] = publics(&nodes);
    let address = nodes[0].address;
    nodes[1].knows(first, Some(address), [7; 32]);
    nodes[0].send(second, b"one", START);
    nodes[1].send(first, b"two", START);
    settle(&mut nodes, START);
    assert_eq!(nodes[1].received, [b"one"]);
    assert_eq!(nodes[0].received, [b"two"]);
}

#[test]
fn the_initiator_renews_a_session_that_it_uses() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    let old = nodes[0].interface.current(second, START).unwrap().local();
    let before = START.plus(REKEY_AFTER_TIME).since(Nanos(1));
    nodes[0].send(second, b"before", before);
    settle(&mut nodes, before);
    assert_eq!(nodes[0].interface.current(second, before).unwrap().local(), old);
    let after = START.plus(REKEY_AFTER_TIME);
    nodes[0].send(second, b"after", after);
    settle(&mut nodes, after);
    assert_ne!(nodes[0].interface.current(second, after).unwrap().local(), old);
    assert!(nodes[0].interface.session(old).is_some(), "for packets under way");
    assert_eq!(nodes[1].received, [&b"before"[..], b"after"]);
}

#[test]
fn the_initiator_renews_a_session_that_it_only_hears() {
    let mut nodes = connected();
    let [first, second] = publics(&nodes);
    let old = nodes[0].interface.current(second, START).unwrap().local();
    let late = START.plus(Nanos::from_secs(166));
    nodes[1].send(first, b"late", late);
    settle(&mut nodes, late);
    assert_ne!(nodes[0].interface.current(second, late).unwrap().local(), old);
}

#[test]
fn a_session_ends_with_its_time_and_its_counters() {
    let mut nodes = connected();
    let [first, second] = publics(&nodes);
    let session = nodes[0].interface.current(second, START).unwrap().clone();
    // Sealed in time, but come too late.
    nodes[1].send(first, b"slow", START);
    let (_, slow) = nodes[1].out.pop_back().unwrap();
    let over = START.plus(REJECT_AFTER_TIME);
    assert!(nodes[0].interface.current(second, over).is_none());
    let from = nodes[1].address;
    assert!(!nodes[0].deliver(&slow, from, over));

    assert!(session.reserve(0, 2 * REKEY_AFTER_MESSAGES).is_none(), "some are used");
    let left = 2 * REKEY_AFTER_MESSAGES - session.sent();
    assert!(session.reserve(0, left).is_some());
    assert!(session.reserve(0, 1).is_none());
    assert!(nodes[0].interface.current(second, START).is_none());
    nodes[0].send(second, b"next", START.plus(REKEY_TIMEOUT));
    settle(&mut nodes, START.plus(REKEY_TIMEOUT));
    assert_eq!(nodes[1].received, [b"next"], "under a new one");
}

#[test]
fn a_session_is_renewed_before_its_counters_end() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    let session = nodes[0].interface.current(second, START).unwrap().clone();
    session.reserve(0, REKEY_AFTER_MESSAGES).unwrap();
    let later = START.plus(REKEY_TIMEOUT);
    nodes[0].send(second, b"one more", later);
    settle(&mut nodes, later);
    assert_ne!(nodes[0].interface.current(second, later).unwrap().local(), session.local());
    assert_eq!(nodes[1].received, [b"one more"], "under the old one: nothing waits");
}

#[test]
fn what_is_heard_is_answered_and_silence_is_noticed() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    // The second has nothing to say, and keeps alive.
    assert_eq!(nodes[1].interface.next(), Some(START.plus(KEEPALIVE_TIMEOUT)));
    nodes[1].poll(START.plus(KEEPALIVE_TIMEOUT));
    assert_eq!(nodes[1].out.len(), 1);
    assert_eq!(nodes[1].out[0].1.len(), sealed_len(0));
    // It is lost: after five seconds more, the first begins anew.
    nodes[1].out.clear();
    let silence = START.plus(KEEPALIVE_TIMEOUT).plus(REKEY_TIMEOUT);
    nodes[0].poll(silence.since(Nanos(1)));
    assert!(nodes[0].out.is_empty());
    nodes[0].poll(silence.plus(JITTER));
    assert_eq!(nodes[0].out.len(), 1);
    assert_eq!(nodes[0].out[0].1[0], 1, "an initiation");
    assert!(nodes[0].interface.current(second, silence).is_some(), "the old one is good still");
}

#[test]
fn persistent_keepalives() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    let keepalive = Some(Nanos::from_secs(25));
    let settings =
        PeerSettings { public: second, preshared: Secret::new([7; 32]), endpoint: None, keepalive };
    nodes[0].interface.set_peer(&settings, START).unwrap();
    let sent = |nodes: &[Node; 2]| nodes[0].counters.len();
    let before = sent(&nodes);
    pass(&mut nodes, 10, 111);
    assert!((4..=6).contains(&(sent(&nodes) - before)), "{}", sent(&nodes) - before);
    assert!(nodes[0].interface.current(second, Nanos::from_secs(111)).is_some());
}

#[test]
fn an_initiation_is_repeated_then_given_up_and_all_keys_are_wiped() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    let mut initiations = vec![];
    for second_of_time in 10..10 + WIPE_AFTER.0 / 1_000_000_000 + 110 {
        let now = Nanos::from_secs(second_of_time);
        if second_of_time == 200 {
            nodes[0].send(second, b"anyone?", now);
        }
        nodes[0].poll(now);
        // Nothing arrives from here on.
        for (_, datagram) in nodes[0].out.drain(..) {
            if second_of_time >= 200 && datagram[0] == 1 {
                initiations.push(second_of_time);
            }
        }
        if now < START.plus(WIPE_AFTER) {
            assert_eq!(nodes[0].alive(), 1);
        }
    }
    assert!((18..=20).contains(&initiations.len()), "{initiations:?}");
    assert!(initiations.is_sorted_by(|a, b| b - a >= 5), "{initiations:?}");
    assert_eq!(nodes[0].unreachable, 2, "once more before: its first packet was not answered either");
    assert!(nodes[0].waiting.is_empty());
    assert_eq!(nodes[0].alive(), 0, "no key is left");
    assert!(nodes[0].windows.is_empty());
}

#[test]
fn replayed_and_forged_packets_are_dropped_and_reordered_ones_are_not() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    let from = nodes[0].address;
    let mut datagrams = vec![];
    for number in 0..50u8 {
        nodes[0].send(second, &[number], START);
        datagrams.push(nodes[0].out.pop_back().unwrap().1);
    }
    for datagram in datagrams.iter().rev() {
        let mut forged = datagram.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert!(!nodes[1].deliver(&forged, from, START));
        assert!(nodes[1].deliver(datagram, from, START));
        assert!(!nodes[1].deliver(datagram, from, START));
    }
    assert_eq!(nodes[1].received.len(), 50);
}

#[test]
fn a_replayed_initiation_is_not_answered() {
    let mut nodes = Node::pair();
    let [_, second] = publics(&nodes);
    nodes[0].send(second, b"hello", START);
    let (_, initiation) = nodes[0].out.pop_front().unwrap();
    let from = nodes[0].address;
    assert!(nodes[1].deliver(&initiation, from, START));
    let later = START.plus(Nanos::from_secs(1));
    let refused = nodes[1].interface.receive(&initiation, from, at(later), &mut Seeded(0));
    assert_eq!(refused, Err(Refused::Replayed));
    // Nor after the peer was configured anew.
    let [first, _] = publics(&nodes);
    nodes[1].knows(first, None, [8; 32]);
    let refused = nodes[1].interface.receive(&initiation, from, at(later), &mut Seeded(0));
    assert_eq!(refused, Err(Refused::Replayed));
}

#[test]
fn strangers_and_wrong_keys_are_refused() {
    let mut nodes = Node::pair();
    let [_, second] = publics(&nodes);
    let mut stranger = Node::new(3);
    stranger.knows(second, Some(nodes[1].address), [7; 32]);
    stranger.send(second, b"let me in", START);
    let (_, initiation) = stranger.out.pop_front().unwrap();
    let refused = |nodes: &mut [Node; 2], datagram: &[u8]| {
        nodes[1].interface.receive(datagram, stranger.address, at(START), &mut Seeded(0)).unwrap_err()
    };
    assert_eq!(refused(&mut nodes, &initiation), Refused::Stranger);
    // Each byte matters.
    nodes[0].send(second, b"hello", START);
    let (_, initiation) = nodes[0].out.pop_front().unwrap();
    for at in 4..initiation.len() - 16 {
        let mut wrong = initiation.clone();
        wrong[at] ^= 4;
        assert_eq!(refused(&mut nodes, &wrong), Refused::NotForUs, "byte {at}");
    }
    assert_eq!(nodes[1].alive(), 0);
}

#[test]
fn a_peer_may_move() {
    let mut nodes = connected();
    let [first, second] = publics(&nodes);
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 4_000));
    nodes[0].send(second, b"from here", START);
    let (_, datagram) = nodes[0].out.pop_back().unwrap();
    let mut forged = datagram.clone();
    forged[20] ^= 1;
    nodes[1].deliver(&forged, elsewhere, START);
    assert_eq!(nodes[1].interface.endpoint(first), Some(nodes[0].address), "whoever forges does not move it");
    nodes[1].deliver(&datagram, elsewhere, START);
    assert_eq!(nodes[1].interface.endpoint(first), Some(elsewhere));
    nodes[1].send(first, b"to there", START);
    assert_eq!(nodes[1].out.pop_back().unwrap().0, elsewhere);
}

#[test]
fn under_load_an_address_must_be_proven() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    let victim = nodes[1].address;
    // A flood of initiations that carry the right first code.
    let mut attacker = Node::new(3);
    attacker.knows(second, Some(victim), [7; 32]);
    attacker.send(second, b"flood", START);
    let (_, bogus) = attacker.out.pop_front().unwrap();
    for source in 0..3_000u32 {
        let from = SocketAddr::from((source.to_be_bytes(), 9));
        nodes[1].deliver(&bogus, from, START);
    }
    let replies = nodes[1].out.drain(..).filter(|(_, datagram)| datagram[0] == 3).count();
    assert!(replies >= 1_900, "{replies}");
    // Sessions are not harmed...
    nodes[0].send(second, b"still", START);
    settle(&mut nodes, START);
    assert_eq!(nodes[1].received, [b"still"]);
    // ...and others get through, by a cookie and a second try.
    let mut honest = Node::new(4);
    honest.knows(second, Some(victim), [7; 32]);
    nodes[1].knows(honest.interface.public(), None, [7; 32]);
    honest.send(second, b"first try", START);
    let (_, initiation) = honest.out.pop_front().unwrap();
    assert!(!nodes[1].deliver(&initiation, honest.address, START));
    let (_, cookie) = nodes[1].out.pop_front().unwrap();
    assert!(honest.deliver(&cookie, victim, START));
    assert!(!honest.deliver(&cookie, victim, START), "one answer to one message");
    let now = START.plus(REKEY_TIMEOUT).plus(JITTER);
    for source in 0..1_500u32 {
        nodes[1].deliver(&bogus, SocketAddr::from((source.to_be_bytes(), 9)), now);
    }
    nodes[1].out.clear();
    honest.poll(now);
    let (_, initiation) = honest.out.pop_front().unwrap();
    assert!(
        !nodes[1].deliver(&initiation, SocketAddr::from(([203, 0, 113, 1], 1)), now),
        "not from elsewhere"
    );
    nodes[1].out.clear();
    assert!(nodes[1].deliver(&initiation, honest.address, now));
}

#[test]
fn keys_that_cannot_be_peers() {
    let mut node = Node::new(1);
    let settings =
        |public| PeerSettings { public, preshared: Secret::default(), endpoint: None, keepalive: None };
    let ours = node.interface.public();
    assert_eq!(node.interface.set_peer(&settings(ours), START), Err(PeerError::Ourselves(ours)));
    let zero = PublicKey([0; 32]);
    assert_eq!(node.interface.set_peer(&settings(zero), START), Err(PeerError::Weak(zero)));
}

#[test]
fn a_removed_peer_is_forgotten() {
    let mut nodes = connected();
    let [_, second] = publics(&nodes);
    nodes[0].interface.remove_peer(second);
    nodes[0].flush(START);
    assert_eq!(nodes[0].alive(), 0);
    assert_eq!(nodes[0].interface.next(), None);
    nodes[1].send(nodes[0].interface.public(), b"gone?", START);
    let (_, datagram) = nodes[1].out.pop_back().unwrap();
    let from = nodes[1].address;
    assert!(!nodes[0].deliver(&datagram, from, START));
}
