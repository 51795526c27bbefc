//! What passes, what is refused, and what moves the state.

use super::Direction::{Original as O, Reply as R};
use super::SctpState::*;
use super::chunk::*;
use super::*;

/// What packets of the opener and of its peer carry.
const TAGS: [u32; 2] = [0xbbbb_0001, 0xaaaa_0001];
const SACK: u8 = 3;

fn packet(tag: u32, kinds: &[u8]) -> Header {
    Header { tag, chunks: kinds.iter().map(|kind| 1 << kind).sum(), ..Header::default() }
}

fn init(initiate: u32) -> Header {
    Header { initiate, ..packet(0, &[INIT]) }
}

fn init_ack(tag: u32, initiate: u32) -> Header {
    Header { initiate, ..packet(tag, &[INIT_ACK]) }
}

fn reflected(tag: u32, kind: u8) -> Header {
    Header { reflected: true, ..packet(tag, &[kind]) }
}

#[derive(Clone, Copy)]
struct Tracked {
    state: SctpState,
    track: SctpTrack,
}

impl Tracked {
    fn open(first: Header) -> Self {
        Self { state: SctpState::open(&first, true).unwrap(), track: SctpTrack::open(&first) }
    }

    fn established() -> Self {
        let mut it = Self::open(init(TAGS[1]));
        it.passes(R, init_ack(TAGS[1], TAGS[0]), CookieWait);
        it.passes(O, packet(TAGS[0], &[COOKIE_ECHO, DATA]), CookieEchoed);
        it.passes(R, packet(TAGS[1], &[COOKIE_ACK, SACK]), Established);
        it
    }

    fn sees(&mut self, sender: Direction, packet: Header) -> Step<SctpState> {
        let before = self.track;
        let kept = SctpTrack::of_words(before.words());
        assert_eq!(kept, before);
        let step = self.state.step(&mut self.track, sender, &packet);
        match step {
            Step::Next(state) => self.state = state,
            _ => assert_eq!(self.track, before, "{packet:?} is refused, and moves nothing"),
        }
        step
    }

    #[track_caller]
    fn passes(&mut self, sender: Direction, packet: Header, want: SctpState) {
        let before = self.state;
        assert_eq!(self.sees(sender, packet), Step::Next(want), "{sender:?} {packet:?} in {before:?}");
    }

    #[track_caller]
    fn refuses(&mut self, sender: Direction, packet: Header) {
        let before = self.state;
        assert_eq!(self.sees(sender, packet), Step::WrongTag, "{sender:?} {packet:?} in {before:?}");
    }
}

#[test]
fn open_talk_and_shut_down() {
    for closer in [O, R] {
        let mut it = Tracked::established();
        let (of, back) = (TAGS[closer as usize], TAGS[closer.opposite() as usize]);
        it.passes(O, packet(TAGS[0], &[DATA]), Established);
        it.passes(R, packet(TAGS[1], &[SACK, DATA]), Established);
        it.passes(closer, packet(of, &[SHUTDOWN]), ShutdownSent(closer));
        it.passes(closer.opposite(), packet(back, &[DATA]), ShutdownSent(closer));
        it.passes(closer, packet(of, &[SHUTDOWN, SACK]), ShutdownSent(closer));
        it.passes(closer.opposite(), packet(back, &[SHUTDOWN_ACK]), ShutdownAckSent);
        it.passes(closer, packet(of, &[SHUTDOWN_COMPLETE]), Closed);
        it.passes(closer.opposite(), packet(back, &[SHUTDOWN_ACK]), Closed);
        it.passes(closer, reflected(back, SHUTDOWN_COMPLETE), Closed);
        assert_eq!(it.sees(O, init(7)), Step::Reopen);
    }
}

#[test]
fn a_wrong_tag_is_refused_in_every_state() {
    let mut shut = Tracked::established();
    shut.passes(O, packet(TAGS[0], &[SHUTDOWN]), ShutdownSent(O));
    let mut acked = shut;
    acked.passes(R, packet(TAGS[1], &[SHUTDOWN_ACK]), ShutdownAckSent);
    let mut closed = Tracked::established();
    closed.passes(O, packet(TAGS[0], &[ABORT]), Closed);
    for mut it in [Tracked::established(), shut, acked, closed] {
        for sender in [O, R] {
            let (own, other) = (TAGS[sender as usize], TAGS[sender.opposite() as usize]);
            for wrong in [0, 1, other, own ^ 1] {
                for kind in [DATA, SACK, HEARTBEAT, SHUTDOWN, SHUTDOWN_ACK, COOKIE_ECHO, COOKIE_ACK, ABORT] {
                    it.refuses(sender, packet(wrong, &[kind]));
                }
                it.refuses(sender, init_ack(wrong, 9));
            }
            // Reflected, the own one is the wrong one.
            it.refuses(sender, reflected(own, ABORT));
        }
    }
}

#[test]
fn nobody_completes_a_handshake_blindly() {
    let mut it = Tracked::open(init(TAGS[1]));
    for wrong in [0, 1, TAGS[0]] {
        it.refuses(R, init_ack(wrong, 5));
        it.refuses(R, packet(wrong, &[ABORT]));
        it.refuses(R, packet(wrong, &[COOKIE_ACK]));
    }
    it.passes(R, init_ack(TAGS[1], TAGS[0]), CookieWait);
    it.refuses(O, packet(TAGS[0] ^ 1, &[COOKIE_ECHO]));
    assert_eq!(it.sees(R, packet(TAGS[1], &[COOKIE_ACK])), Step::Invalid, "to no cookie");
    it.passes(O, packet(TAGS[0], &[COOKIE_ECHO]), CookieEchoed);
    it.refuses(R, packet(TAGS[1] ^ 1, &[COOKIE_ACK]));
    it.passes(R, packet(TAGS[1], &[DATA]), CookieEchoed);
    it.passes(R, packet(TAGS[1], &[COOKIE_ACK]), Established);
}

#[test]
fn an_abort_ends_it_whoever_sends_it_and_whenever() {
    let mut waiting = Tracked::open(init(TAGS[1]));
    let mut refused = waiting;
    refused.passes(R, packet(TAGS[1], &[ABORT]), Closed);
    waiting.passes(R, init_ack(TAGS[1], TAGS[0]), CookieWait);
    for it in [waiting, Tracked::established()] {
        for sender in [O, R] {
            let (mut a, mut b) = (it, it);
            a.passes(sender, packet(TAGS[sender as usize], &[ABORT]), Closed);
            b.passes(sender, reflected(TAGS[sender.opposite() as usize], ABORT), Closed);
        }
    }
}

#[test]
fn handshakes_that_cross_and_packets_sent_again_pass() {
    // Both ends open (§5.2.1).
    let mut it = Tracked::open(init(TAGS[1]));
    it.passes(O, init(TAGS[1]), CookieWait);
    it.passes(R, init(TAGS[0]), CookieWait);
    it.passes(R, init_ack(TAGS[1], TAGS[0]), CookieWait);
    it.passes(O, init_ack(TAGS[0], TAGS[1]), CookieWait);
    it.passes(O, packet(TAGS[0], &[COOKIE_ECHO]), CookieEchoed);
    it.passes(R, packet(TAGS[1], &[COOKIE_ECHO]), CookieEchoed);
    it.passes(R, packet(TAGS[1], &[COOKIE_ACK]), Established);
    it.passes(O, packet(TAGS[0], &[COOKIE_ACK]), Established);
    it.passes(O, packet(TAGS[0], &[COOKIE_ECHO]), Established);
    // A server without memory answers each INIT with another tag; the opener takes one of them.
    for taken in [50, 60] {
        let mut it = Tracked::open(init(TAGS[1]));
        it.passes(R, init_ack(TAGS[1], 50), CookieWait);
        it.passes(O, init(TAGS[1]), CookieWait);
        it.passes(R, init_ack(TAGS[1], 60), CookieWait);
        it.passes(O, packet(taken, &[COOKIE_ECHO]), CookieEchoed);
        it.passes(R, packet(TAGS[1], &[COOKIE_ACK]), Established);
        it.passes(O, packet(taken, &[DATA]), Established);
        it.refuses(O, packet(110 - taken, &[DATA]));
    }
    // The opener's next attempt is another association.
    let mut it = Tracked::open(init(TAGS[1]));
    it.passes(O, init(77), CookieWait);
    it.refuses(R, init_ack(TAGS[1], TAGS[0]));
    it.passes(R, init_ack(77, TAGS[0]), CookieWait);
}

#[test]
fn an_end_that_has_lost_the_association_begins_anew_and_a_forger_does_no_harm() {
    for opener in [O, R] {
        let mut it = Tracked::established();
        let peer = opener.opposite();
        it.passes(opener, init(500), Established);
        // Until the handshake is complete all goes on as before.
        it.passes(O, packet(TAGS[0], &[DATA]), Established);
        it.passes(R, packet(TAGS[1], &[DATA]), Established);
        it.refuses(opener, packet(600, &[DATA]));
        let forged = it;
        it.refuses(peer, init_ack(499, 600));
        it.passes(peer, init_ack(500, 600), Established);
        it.passes(opener, packet(600, &[COOKIE_ECHO]), Established);
        it.passes(peer, packet(500, &[COOKIE_ACK]), Established);
        it.passes(opener, packet(600, &[DATA]), Established);
        it.passes(peer, packet(500, &[DATA]), Established);
        it.refuses(opener, packet(TAGS[opener as usize], &[DATA]));
        // The peer has it still, and knows nothing of a restart: an ABORT of the INIT ends nothing.
        it = forged;
        it.passes(peer, packet(500, &[ABORT]), Established);
        it.passes(peer, packet(TAGS[peer as usize], &[DATA]), Established);
    }
    // About to end, the peer says so, and is told that it is over (§9.2, §8.5.1).
    let mut it = Tracked::open(init(TAGS[1]));
    it.passes(R, packet(9, &[SHUTDOWN_ACK]), CookieWait);
    it.passes(O, reflected(9, SHUTDOWN_COMPLETE), CookieWait);
    it.refuses(R, packet(9, &[DATA]));
}

#[test]
fn associations_are_picked_up_as_a_setting_and_by_a_heartbeat_always() {
    for kinds in [&[DATA][..], &[SACK, DATA], &[SHUTDOWN], &[HEARTBEAT]] {
        let first = packet(TAGS[0], kinds);
        assert_eq!(SctpState::open(&first, true), Some(PickedUp), "{kinds:?}");
        assert_eq!(SctpState::open(&first, false).is_some(), kinds == [HEARTBEAT], "{kinds:?}");
        assert_eq!(SctpState::open(&packet(0, kinds), true), None, "no tag");
    }
    for kind in [INIT_ACK, ABORT, SHUTDOWN_ACK, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_COMPLETE] {
        assert_eq!(SctpState::open(&packet(TAGS[0], &[kind, DATA]), true), None, "{kind}");
    }
    let mut it = Tracked::open(packet(TAGS[0], &[HEARTBEAT]));
    it.passes(O, packet(TAGS[0], &[HEARTBEAT]), PickedUp);
    it.refuses(O, packet(TAGS[0] ^ 1, &[DATA]));
    let mut aborted = it;
    aborted.passes(R, packet(4, &[ABORT]), PickedUp);
    aborted.passes(R, reflected(TAGS[0], ABORT), Closed);
    it.passes(R, packet(TAGS[1], &[5]), Established);
    it.refuses(R, packet(TAGS[1] ^ 1, &[DATA]));
    it.passes(O, packet(TAGS[0], &[DATA]), Established);
}

#[test]
fn what_no_end_sends_is_invalid() {
    assert_eq!(SctpState::open(&Header::default(), true), None);
    for wrong in [
        init(0),
        Header { tag: 1, ..init(5) },
        Header { initiate: 5, ..packet(0, &[INIT, DATA]) },
        Header { initiate: 5, ..packet(TAGS[0], &[INIT_ACK, DATA]) },
        init_ack(TAGS[0], 0),
        packet(TAGS[0], &[SHUTDOWN_COMPLETE, DATA]),
        packet(TAGS[0], &[SHUTDOWN_COMPLETE]),
        packet(TAGS[0], &[]),
    ] {
        assert_eq!(SctpState::open(&wrong, true), None, "{wrong:?}");
        assert_eq!(Tracked::established().sees(O, wrong), Step::Invalid, "{wrong:?}");
    }
}
