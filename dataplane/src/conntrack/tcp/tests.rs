//! What passes, what is refused, and what moves the state. Numbers are relative to the ends'
//! first ones, which are chosen so that both wrap on the way.

use super::Direction::{Original as O, Reply as R};
use super::TcpState::*;
use super::*;

const SYN: TcpFlags = TcpFlags::SYN;
const RST: TcpFlags = TcpFlags::RST;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(0x12);
const FIN_ACK: TcpFlags = TcpFlags(0x11);
const RST_ACK: TcpFlags = TcpFlags(0x14);

/// First numbers of opener and peer.
const FIRST: [u32; 2] = [u32::MAX - 700, u32::MAX];
const WINDOW: u16 = 2_000;

/// A connection and its tracker.
#[derive(Clone, Copy)]
struct Tracked {
    state: TcpState,
    track: TcpTrack,
}

/// A segment, its numbers relative.
fn segment(sender: Direction, flags: TcpFlags, seq: u32, ack: u32, payload: u32) -> TcpSegment {
    TcpSegment {
        seq: FIRST[sender as usize].wrapping_add(seq),
        ack: FIRST[sender.opposite() as usize].wrapping_add(ack),
        payload,
        window: WINDOW,
        flags,
        scale: None,
    }
}

impl Tracked {
    fn open(first: TcpSegment) -> Self {
        let state = TcpState::open(first.flags, true).unwrap();
        Self { state, track: TcpTrack::open(&first) }
    }

    fn syn() -> Self {
        Self::open(segment(O, SYN, 0, 0, 0))
    }

    /// With the windows of `WINDOW`, scaled by what each SYN offers.
    fn established(scales: [Option<u8>; 2]) -> Self {
        let [original, reply] = scales;
        let mut it = Self::open(TcpSegment { scale: original, ..segment(O, SYN, 0, 0, 0) });
        it.passes_as(R, TcpSegment { scale: reply, ..segment(R, SYN_ACK, 0, 1, 0) }, SynRecv);
        it.passes(O, ACK, 1, 1, 0, Established);
        it
    }

    fn sees(&mut self, sender: Direction, segment: TcpSegment) -> Step<TcpState> {
        let before = self.track;
        let step = self.state.step(&mut self.track, sender, &segment);
        match step {
            Step::Next(state) => self.state = state,
            _ => assert_eq!(self.track, before, "{segment:?} is refused, and moves nothing"),
        }
        step
    }

    #[track_caller]
    fn passes_as(&mut self, sender: Direction, segment: TcpSegment, want: TcpState) {
        let before = self.state;
        assert_eq!(self.sees(sender, segment), Step::Next(want), "{sender:?} {segment:?} in {before:?}");
    }

    #[track_caller]
    fn passes(
        &mut self,
        sender: Direction,
        flags: TcpFlags,
        seq: u32,
        ack: u32,
        payload: u32,
        want: TcpState,
    ) {
        self.passes_as(sender, segment(sender, flags, seq, ack, payload), want);
    }

    /// Passes, and neither state nor numbers move.
    #[track_caller]
    fn lets_by(&mut self, sender: Direction, flags: TcpFlags, seq: u32, ack: u32) {
        let (state, before) = (self.state, self.track);
        self.passes(sender, flags, seq, ack, 0, state);
        assert_eq!(self.track, before);
    }

    #[track_caller]
    fn refuses(&mut self, sender: Direction, flags: TcpFlags, seq: u32, ack: u32, payload: u32) {
        assert_eq!(self.sees(sender, segment(sender, flags, seq, ack, payload)), Step::OutOfWindow);
    }
}

#[test]
fn open_talk_close() {
    let mut it = Tracked::syn();
    it.passes(O, SYN, 0, 0, 0, SynSent);
    it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
    it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
    it.passes(O, SYN, 0, 0, 0, SynRecv);
    it.passes(O, ACK, 1, 1, 0, Established);
    it.passes(R, SYN_ACK, 0, 1, 0, Established);
    it.passes(O, ACK, 1, 1, 0, Established);
    it.passes(O, ACK, 1, 1, 500, Established);
    it.passes(R, ACK, 1, 501, 700, Established);
    it.passes(O, FIN_ACK, 501, 701, 0, FinWait(O));
    it.passes(R, ACK, 701, 502, 100, FinWait(O));
    it.passes(O, FIN_ACK, 501, 701, 0, FinWait(O));
    it.passes(O, ACK, 502, 801, 0, FinWait(O));
    it.passes(R, FIN_ACK, 801, 502, 0, Closing);
    it.passes(R, ACK, 801, 502, 0, Closing);
    it.passes(O, ACK, 502, 802, 0, TimeWait);
    it.passes(R, FIN_ACK, 801, 502, 0, TimeWait);
    it.passes(O, ACK, 502, 802, 0, TimeWait);
}

#[test]
fn simultaneous_open_and_close() {
    let mut it = Tracked::syn();
    it.passes(R, SYN, 0, 0, 0, SynCrossed);
    it.passes(O, SYN, 0, 0, 0, SynCrossed);
    it.passes(R, SYN_ACK, 0, 1, 0, SynCrossed);
    it.passes(R, SYN_ACK, 0, 1, 0, SynCrossed);
    it.passes(O, SYN_ACK, 0, 1, 0, Established);
    it.passes(R, SYN_ACK, 0, 1, 0, Established);
    it.passes(O, FIN_ACK, 1, 1, 0, FinWait(O));
    it.passes(R, FIN_ACK, 1, 1, 0, Closing);
    it.passes(O, ACK, 2, 2, 0, Closing);
    it.passes(R, ACK, 2, 2, 0, TimeWait);
}

#[test]
fn the_handshake_may_end_in_data_or_fin() {
    let mut it = Tracked::syn();
    it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
    let mut other = it;
    it.passes(O, ACK, 1, 1, 100, Established);
    other.passes(O, FIN_ACK, 1, 1, 0, FinWait(O));
    other.passes(R, FIN_ACK, 1, 2, 0, Closing);
}

#[test]
fn data_may_come_with_the_syn() {
    // RFC 7413. The peer takes the data and answers it before the handshake is over.
    let mut it = Tracked::open(segment(O, SYN, 0, 0, 300));
    it.passes(O, SYN, 0, 0, 0, SynSent);
    it.passes(R, SYN_ACK, 0, 301, 0, SynRecv);
    it.passes(R, ACK, 1, 301, 900, SynRecv);
    it.passes(R, FIN_ACK, 901, 301, 0, SynRecv);
    it.passes(O, ACK, 301, 902, 0, FinWait(R));
    // It does not take the data.
    let mut it = Tracked::open(segment(O, SYN, 0, 0, 300));
    it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
    it.passes_as(O, segment(O, SYN, 0, 0, 300), SynRecv);
    it.passes(O, ACK, 1, 1, 300, Established);
}

#[test]
fn nobody_completes_a_handshake_blindly() {
    let mut it = Tracked::syn();
    for ack in [0, 2, 1_000, u32::MAX] {
        it.refuses(R, SYN_ACK, 0, ack, 0);
    }
    it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
    for ack in [0, 2, 1_000, u32::MAX] {
        it.refuses(O, ACK, 1, ack, 0);
        it.refuses(O, FIN_ACK, 1, ack, 0);
    }
    let mut it = Tracked::syn();
    it.passes(R, SYN, 0, 0, 0, SynCrossed);
    for sender in [O, R] {
        it.refuses(sender, ACK, 1, 0, 0);
        it.refuses(sender, SYN_ACK, 0, 2, 0);
    }
}

#[test]
fn each_equation_has_its_edge() {
    let reach = u32::from(WINDOW);
    let mut it = Tracked::established([None; 2]);
    it.passes(O, ACK, 1, 1, 1_000, Established);
    it.passes(R, ACK, 1, 1_001, 2_000, Established);
    let base = it;
    // (I): what the peer has acknowledged and one window.
    it.refuses(O, ACK, 1_001 + reach + 1, 2_001, 1);
    it.passes(O, ACK, 1_001 + reach, 2_001, 1, Established);
    // (II): what was sent less one window.
    it = base;
    let oldest = 1_001_u32.wrapping_sub(reach + SLACK);
    it.refuses(O, ACK, oldest.wrapping_sub(1), 2_001, 0);
    it.lets_by(O, ACK, oldest, 1);
    // (III): what was sent.
    it = base;
    it.refuses(O, ACK, 1_001, 2_002, 0);
    it.passes(O, ACK, 1_001, 2_001, 0, Established);
    // (IV): what was sent less one window.
    it = base;
    let oldest = 2_001_u32.wrapping_sub(reach + SLACK);
    it.refuses(O, ACK, 1_001, oldest.wrapping_sub(1), 0);
    it.lets_by(O, ACK, 1_001, oldest);
}

const SLACK: u32 = 66_000;

#[test]
fn a_window_grows_and_is_never_taken_back() {
    let mut it = Tracked::established([None; 2]);
    it.refuses(R, ACK, 2_100, 1, 1);
    it.passes_as(O, TcpSegment { window: 9_000, ..segment(O, ACK, 1, 1, 0) }, Established);
    it.passes(R, ACK, 2_100, 1, 1, Established);
    // A closed window is probed, by one byte or by none that is new.
    it.passes_as(O, TcpSegment { window: 0, ..segment(O, ACK, 1, 2_101, 0) }, Established);
    it.passes(R, ACK, 2_101, 1, 1, Established);
    it.passes(R, ACK, 2_100, 1, 0, Established);
    it.passes_as(O, TcpSegment { window: 0, ..segment(O, ACK, 1, 2_102, 0) }, Established);
}

#[test]
fn a_segment_too_long_for_the_window_is_sent_again_in_parts() {
    let mut it = Tracked::established([None; 2]);
    it.passes(O, ACK, 1, 1, 2_000, Established);
    it.passes(O, ACK, 2_001, 1, 65_000, Established);
    // The receiver took the first only.
    it.passes(R, ACK, 1, 2_001, 0, Established);
    it.passes(O, ACK, 2_001, 1, 1_000, Established);
    it.passes(R, ACK, 1, 3_001, 0, Established);
}

#[test]
fn windows_are_scaled_if_both_ends_offer_it() {
    let mut it = Tracked::established([Some(3), Some(0)]);
    it.passes(R, ACK, 1 + (2_000 << 3), 1, 1, Established);
    it.refuses(O, ACK, 1 + 2_001, 1, 1);
    for scales in [[Some(3), None], [None, Some(3)], [None, None]] {
        let mut it = Tracked::established(scales);
        it.refuses(R, ACK, 1 + 2_001, 1, 1);
        it.refuses(O, ACK, 1 + 2_001, 1, 1);
        it.passes(R, ACK, 1 + 2_000, 1, 1, Established);
        it.passes(O, ACK, 1 + 2_000, 1, 1, Established);
    }
    // More than the protocol allows counts as the most it does.
    let mut it = Tracked::established([Some(200), Some(14)]);
    it.refuses(R, ACK, 2 + (2_000 << 14), 1, 1);
    it.passes(R, ACK, 1 + (2_000 << 14), 1, 1, Established);
}

#[test]
fn a_syns_window_is_not_scaled() {
    let mut it = Tracked::open(TcpSegment { scale: Some(7), ..segment(O, SYN, 0, 0, 0) });
    it.passes_as(R, TcpSegment { scale: Some(7), ..segment(R, SYN_ACK, 0, 1, 0) }, SynRecv);
    it.refuses(R, ACK, 1 + 2_000 + 128, 1, 1);
    it.passes(R, ACK, 1 + 2_000, 1, 1, SynRecv);
}

#[test]
fn keepalives_and_retransmissions_pass() {
    let mut it = Tracked::established([None; 2]);
    it.passes(O, ACK, 1, 1, 1_000, Established);
    it.lets_by(O, ACK, 1_000, 1);
    it.passes(O, ACK, 1_000, 1, 1, Established);
    it.passes(O, ACK, 501, 1, 500, Established);
    it.passes(R, ACK, 1, 501, 0, Established);
    it.passes(R, ACK, 1, 1_001, 0, Established);
    it.passes(R, ACK, 1, 501, 0, Established);
}

#[test]
fn a_reset_must_be_exact_to_close() {
    let mut it = Tracked::established([None; 2]);
    it.passes(O, ACK, 1, 1, 600, Established);
    it.passes(O, ACK, 601, 1, 600, Established);
    it.passes(R, ACK, 1, 601, 0, Established);
    let base = it;
    for seq in [0, 600, 601 + 2_001, 1 << 30, u32::MAX] {
        it.refuses(O, RST, seq, 0, 0);
    }
    // In the window: the receiver challenges it.
    for seq in [602, 1_200, 1_202, 601 + 2_000] {
        it.lets_by(O, RST, seq, 0);
        it.lets_by(R, ACK, 1, 601);
    }
    // What the receiver has taken, or all that was sent.
    for seq in [601, 1_201] {
        it = base;
        it.passes(O, RST, seq, 0, 0, Closed);
        it.passes(R, ACK, 1, 601, 0, Closed);
        it.passes(O, RST, 601, 0, 0, Closed);
        assert_eq!(it.sees(O, segment(O, SYN, 9_000, 0, 0)), Step::Reopen);
    }
    for state in [FinWait(O), FinWait(R), Closing, TimeWait] {
        it = Tracked { state, ..base };
        it.refuses(R, RST_ACK, 0, 1, 0);
        it.lets_by(R, RST_ACK, 2, 1);
        it.passes(R, RST_ACK, 1, 1, 0, Closed);
    }
}

#[test]
fn a_refused_syn_is_acknowledged_by_the_reset() {
    let mut it = Tracked::syn();
    it.refuses(R, RST, 0, 1, 0);
    it.refuses(R, RST_ACK, 0, 0, 0);
    it.refuses(R, RST_ACK, 0, 2, 0);
    it.passes_as(R, TcpSegment { seq: 0, ..segment(R, RST_ACK, 0, 1, 0) }, Closed);
    assert_eq!(it.sees(R, segment(R, ACK, 1, 1, 0)), Step::Invalid);
    assert_eq!(it.sees(O, segment(O, SYN, 0, 0, 0)), Step::Reopen);
    // The opener thinks better of it.
    let mut it = Tracked::syn();
    it.passes(O, RST, 1, 0, 0, Closed);
}

#[test]
fn a_syn_into_a_connection_is_challenged() {
    for state in [PickedUp, Established, FinWait(O), FinWait(R)] {
        for sender in [O, R] {
            let mut it = Tracked { state, ..Tracked::established([None; 2]) };
            it.passes(sender, SYN, 77_000, 0, 0, state);
            it.refuses(sender, SYN, 78_000, 0, 10);
            // A live peer says where it is, and the sender of the SYN resets just that.
            let answer = if state == PickedUp && sender == O { Established } else { state };
            let answer = if matches!(state, FinWait(_)) { Established } else { answer };
            it.passes(sender.opposite(), ACK, 1, 1, 0, answer);
            it.passes(sender, RST, 1, 0, 0, Closed);
        }
    }
}

#[test]
fn a_peer_that_forgot_the_connection_shows_that_it_is_over() {
    for numbers in [9_000, 1 << 31, u32::MAX - 9_000] {
        let mut it = Tracked::established([None; 2]);
        it.passes(O, SYN, numbers, 0, 0, Established);
        it.refuses(R, SYN_ACK, 70_000, numbers, 0);
        assert_eq!(it.sees(R, segment(R, SYN_ACK, 70_000, numbers.wrapping_add(1), 0)), Step::Stale);
        let mut it = Tracked::established([None; 2]);
        it.passes(O, SYN, numbers, 0, 0, Established);
        it.passes(R, RST_ACK, 70_000, numbers.wrapping_add(1), 0, Closed);
    }
    // Late copies of the handshake show nothing.
    let mut it = Tracked::established([None; 2]);
    it.passes(O, ACK, 1, 1, 2_000, Established);
    it.passes(R, ACK, 1, 2_001, 0, Established);
    it.lets_by(O, SYN, 0, 0);
    it.lets_by(R, SYN_ACK, 0, 1);
    it.lets_by(O, RST, 2_002, 0);
}

#[test]
fn what_is_over_begins_anew_above_its_numbers() {
    let mut it = Tracked::established([None; 2]);
    it.passes(O, FIN_ACK, 1, 1, 0, FinWait(O));
    it.passes(R, FIN_ACK, 1, 2, 0, Closing);
    let closing = it;
    it.passes(O, ACK, 2, 2, 0, TimeWait);
    for it in [closing, it] {
        for sender in [O, R] {
            let mut it = it;
            it.passes(sender, SYN, 1, 0, 0, it.state);
            assert_eq!(it.sees(sender, segment(sender, SYN, 2, 0, 0)), Step::Reopen);
            assert_eq!(it.sees(sender, segment(sender, SYN, 1 << 30, 0, 0)), Step::Reopen);
        }
    }
}

#[test]
fn a_lost_opener_may_reset_the_peers_old_connection() {
    let mut it = Tracked::syn();
    it.lets_by(R, ACK, 50_000, 60_000);
    it.lets_by(O, RST, 60_000, 0);
    it.passes(O, SYN, 0, 0, 0, SynSent);
    it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
    // Its next attempt is another connection.
    let mut it = Tracked::syn();
    it.passes(O, SYN, 5_000, 0, 0, SynSent);
    it.refuses(R, SYN_ACK, 0, 1, 0);
    it.passes(R, SYN_ACK, 0, 5_001, 0, SynRecv);
}

#[test]
fn of_two_answers_the_opener_says_which_it_took() {
    for (ack, seq) in [(1, 0), (80_001, 80_000)] {
        let mut it = Tracked::syn();
        it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
        it.passes(R, SYN_ACK, 80_000, 1, 0, SynRecv);
        it.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
        it.passes(R, SYN_ACK, 80_000, 1, 0, SynRecv);
        it.refuses(O, ACK, 1, 2, 0);
        it.refuses(O, ACK, 1, 40_000, 0);
        it.passes(O, ACK, 1, ack, 0, Established);
        it.passes(R, ACK, seq + 1, 1, 1_000, Established);
        it.passes(O, ACK, 1, seq + 1_001, 0, Established);
    }
}

#[test]
fn what_was_sent_before_a_pickup_may_be_acknowledged() {
    for flags in [ACK, TcpFlags(0x18), FIN_ACK] {
        assert_eq!(TcpState::open(flags, true), Some(PickedUp));
        assert_eq!(TcpState::open(flags, false), None);
    }
    for flags in [RST, RST_ACK, SYN_ACK] {
        assert_eq!(TcpState::open(flags, true), None);
    }
    // A retransmission is the first segment seen: megabytes are on their way in both directions.
    let mut it = Tracked::open(segment(O, ACK, 5_000_000, 5_000_000, 1_000));
    it.passes(O, ACK, 9_000_000, 8_000_000, 1_000, PickedUp);
    it.passes(R, ACK, 7_000_000, 9_001_000, 1_000, Established);
    it.passes(R, ACK, 20_000_000, 9_001_000, 1_000, Established);
    it.passes(O, ACK, 9_001_000, 20_001_000, 1_000, Established);
    // What cannot be, even so.
    it.refuses(O, ACK, 9_001_000 + (1 << 31), 20_001_000, 0);
    it.refuses(O, ACK, 9_001_000, 20_001_000 + (1 << 31), 0);
    it.lets_by(R, RST, 21_000_000, 0);
    it.refuses(R, RST, 21_000_000 + (1 << 31), 0, 0);
    it.passes(R, RST, 20_001_000, 0, 0, Closed);
}

#[test]
fn a_picked_up_connection_remembers_its_fins() {
    let mut it = Tracked::open(segment(O, FIN_ACK, 100, 100, 0));
    it.passes(O, FIN_ACK, 100, 100, 0, PickedUp);
    it.passes(R, ACK, 100, 101, 0, FinWait(O));
    it.passes(R, FIN_ACK, 100, 101, 0, Closing);
    it.passes(O, ACK, 101, 101, 0, TimeWait);
    // Nobody has such a connection.
    let mut it = Tracked::open(segment(O, ACK, 100, 100, 0));
    it.passes(R, RST, 100, 0, 0, Closed);
}

#[test]
fn impossible_segments_are_invalid() {
    let closed = Tracked { state: Closed, ..Tracked::established([None; 2]) };
    let mut answered = Tracked::syn();
    answered.passes(R, SYN_ACK, 0, 1, 0, SynRecv);
    for (mut it, sender, flags) in [
        (Tracked::syn(), O, ACK),
        (Tracked::syn(), O, SYN_ACK),
        (Tracked::syn(), R, FIN_ACK),
        (answered, O, SYN_ACK),
        (closed, R, SYN_ACK),
    ] {
        assert_eq!(
            it.sees(sender, segment(sender, flags, 0, 1, 0)),
            Step::Invalid,
            "{:?} {flags:?}",
            it.state
        );
    }
}

#[test]
fn impossible_flags_are_invalid_in_every_state() {
    let (fin, psh) = (TcpFlags::FIN, TcpFlags::PSH);
    for flags in [TcpFlags(0), psh, fin, SYN | fin, SYN | RST, SYN_ACK | fin, RST | fin, TcpFlags(0xff)] {
        assert_eq!(TcpState::open(flags, true), None, "{flags:?}");
        for state in
            [SynSent, SynCrossed, SynRecv, PickedUp, Established, FinWait(O), Closing, TimeWait, Closed]
        {
            let mut it = Tracked { state, ..Tracked::established([None; 2]) };
            for sender in [O, R] {
                assert_eq!(it.sees(sender, segment(sender, flags, 1, 1, 0)), Step::Invalid, "{state:?}");
            }
        }
    }
}

#[test]
fn ecn_and_urgent_do_not_matter() {
    assert_eq!(TcpState::open(SYN | TcpFlags::ECE | TcpFlags::CWR, false), Some(SynSent));
    let mut it = Tracked::established([None; 2]);
    it.passes(O, ACK | TcpFlags::PSH | TcpFlags::URG | TcpFlags::ECE, 1, 1, 10, Established);
}
