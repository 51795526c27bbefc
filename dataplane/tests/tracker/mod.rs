//! A slow second opinion about TCP segments seen between two ends, and random connections about which it and the
//! flow table must agree.
//!
//! It shares nothing with the table but the shape of a segment. Numbers are unwrapped to 64 bits, so that the
//! equations of van Rooij's paper ("Real Stateful TCP Packet Filtering in IP Filter", 2001, §4) stand there as
//! they do in print; the flow table compares numbers that wrap.
#![allow(dead_code)]

use margay_dataplane::conntrack::{
    Admit, FlowHasher, FlowRef, NewSession, Observed, Segment, Settings, State, Table, TcpFlags, TcpSegment,
};
use margay_dataplane::net::{FlowKey, Generation, Nanos, Proto};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
/// The paper's 66,000: a maximal segment more than the window is tolerated behind it.
const MAXACKWINDOW: i64 = 66_000;
/// Half of the numbers within which those of a connection that was picked up may be: the largest window
/// (RFC 7323 §2.3).
const ANY_WINDOW: i64 = 1 << 30;

/// What is to become of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// It opens the next connection between these ends.
    Anew,
    /// Not said: what an end answers to is in doubt. Nothing that follows is comparable.
    Unsaid,
}

/// One end, as what it has sent and was sent shows it.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// Behind the last byte it has sent.
    end: i64,
    /// Up to where the other has acknowledged: at first its own first number.
    acked: i64,
    /// The largest window it has advertised, as it stands in headers, and the shift.
    window: i64,
    shift: Option<u8>,
    /// Its SYN was acknowledged, or never seen.
    synchronised: bool,
    finished: bool,
    heard: bool,
}

impl End {
    fn of_syn(syn: &TcpSegment, near: i64) -> Self {
        let first = unwrap(syn.seq, near);
        Self {
            end: first + length(syn),
            acked: first,
            window: i64::from(syn.window),
            shift: syn.scale.map(|shift| shift.min(14)),
            heard: true,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    SynSent,
    SynReceived,
    PickedUp,
    Open,
    Reset,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Reference {
    phase: Phase,
    ends: [End; 2],
    picked_up: bool,
    scales: bool,
    /// A SYN's window is not scaled: in bytes, the largest of those seen of each end.
    syn_windows: [i64; 2],
    /// Behind the SYN that opened it, or the last one of the opener that may open another.
    opening: u32,
    foreign: bool,
    /// Both ends have sent their FIN and acknowledged the other's.
    over: bool,
}

/// The number nearest to `near` that stands in a header as `number`.
fn unwrap(number: u32, near: i64) -> i64 {
    near + i64::from(number.wrapping_sub(near as u32).cast_signed())
}

/// Numbers half of all apart do not compare (RFC 1982 §3.2).
fn ordered(low: i64, high: i64) -> bool {
    (0..1 << 31).contains(&(high - low))
}

fn length(segment: &TcpSegment) -> i64 {
    let TcpFlags(flags) = segment.flags;
    i64::from(segment.payload) + i64::from(flags & SYN != 0) + i64::from(flags & FIN != 0)
}

impl Reference {
    /// `None`: the segment opens nothing.
    pub fn open(first: &TcpSegment) -> Option<Self> {
        let picked_up = match first.flags.0 & (FIN | SYN | RST | ACK) {
            SYN => false,
            flags if flags & !FIN == ACK => true,
            _ => return None,
        };
        // Far from zero, that nothing becomes negative.
        let near = 1 << 40;
        let mut it = Self {
            phase: if picked_up { Phase::PickedUp } else { Phase::SynSent },
            ends: [End::of_syn(first, near), End::default()],
            picked_up,
            scales: false,
            syn_windows: [0; 2],
            opening: first.seq.wrapping_add(1),
            foreign: false,
            over: false,
        };
        if picked_up {
            let (seq, ack) = (unwrap(first.seq, near), unwrap(first.ack, near));
            let seen = End { synchronised: true, heard: true, ..End::default() };
            it.ends = [End { end: seq, acked: seq, ..seen }, End { end: ack, acked: ack, ..seen }];
            it.opening = 0;
            it.account(0, first);
        } else {
            it.ends[0].window = 0;
            it.syn_windows[0] = first.window.into();
        }
        Some(it)
    }

    /// The name of its state, as people read it.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::SynSent => "syn-sent",
            Phase::SynReceived => "syn-received",
            Phase::PickedUp => "picked-up",
            Phase::Reset => "closed",
            Phase::Open => match [self.ends[0].finished, self.ends[1].finished] {
                _ if self.over => "time-wait",
                [true, true] => "closing",
                [false, false] => "established",
                _ => "fin-wait",
            },
        }
    }

    /// Judges a segment of the opener (0) or of its peer (1), and moves on.
    pub fn judge(&mut self, s: usize, segment: &TcpSegment) -> Verdict {
        match segment.flags.0 & (FIN | SYN | RST | ACK) {
            ACK => self.data(s, segment),
            flags if flags == FIN | ACK => self.data(s, segment),
            SYN => self.syn(s, segment),
            flags if flags == SYN | ACK => self.syn_ack(s, segment),
            flags if flags & !ACK == RST => self.reset(s, segment),
            _ => Verdict::Drop,
        }
    }

    /// How much may be sent to an end at a time.
    fn window(&self, end: usize) -> i64 {
        if self.picked_up {
            return ANY_WINDOW;
        }
        let shift = if self.scales { self.ends[end].shift.unwrap_or(0) } else { 0 };
        (self.ends[end].window << shift).max(self.syn_windows[end])
    }

    /// Equations (I) to (IV).
    fn fits(&self, s: usize, segment: &TcpSegment) -> bool {
        let (sender, receiver) = (&self.ends[s], &self.ends[1 - s]);
        let seq = unwrap(segment.seq, sender.end);
        let ack = unwrap(segment.ack, receiver.end);
        let unseen = if self.picked_up { ANY_WINDOW } else { 0 };
        let (room, own) = (self.window(1 - s), self.window(s));
        ordered(seq, sender.acked + room)
            && ordered(sender.end - room - MAXACKWINDOW, seq + length(segment))
            && ordered(ack, receiver.end + unseen)
            && ordered(receiver.end - own - MAXACKWINDOW, ack)
    }

    fn account(&mut self, s: usize, segment: &TcpSegment) {
        let end = unwrap(segment.seq, self.ends[s].end) + length(segment);
        let ack = unwrap(segment.ack, self.ends[1 - s].acked);
        let sender = &mut self.ends[s];
        sender.end = sender.end.max(end);
        if segment.flags.0 & SYN == 0 {
            sender.window = sender.window.max(segment.window.into());
        }
        sender.finished |= segment.flags.0 & FIN != 0;
        let receiver = &mut self.ends[1 - s];
        if ack > receiver.acked {
            receiver.acked = ack;
            receiver.synchronised = true;
            receiver.end = receiver.end.max(ack);
        }
        self.over = self.phase == Phase::Open && self.over
            || self.ends.iter().all(|end| end.finished && end.acked == end.end);
    }

    fn data(&mut self, s: usize, segment: &TcpSegment) -> Verdict {
        let finishes = segment.flags.0 & FIN != 0;
        match (self.phase, s) {
            // The peer's old connection, of which the opener knows nothing any more.
            (Phase::SynSent, 1) if !finishes => return Verdict::Pass,
            (Phase::SynSent, _) => return Verdict::Drop,
            (Phase::Reset, _) if !self.ends[1].heard => return Verdict::Drop,
            (Phase::SynReceived, 0) if !self.ends[1].synchronised => {
                let peer = &self.ends[1];
                let ack = unwrap(segment.ack, peer.end);
                if ack <= peer.acked || ack > peer.end {
                    return Verdict::Drop;
                }
            }
            _ => {}
        }
        if !self.fits(s, segment) {
            return Verdict::Drop;
        }
        self.account(s, segment);
        let synchronised = self.ends.iter().all(|end| end.synchronised);
        match (self.phase, s) {
            (Phase::PickedUp, 0) | (Phase::Reset, _) => {}
            _ if synchronised => self.phase = Phase::Open,
            _ => {}
        }
        Verdict::Pass
    }

    fn syn(&mut self, s: usize, segment: &TcpSegment) -> Verdict {
        match (self.phase, s) {
            (Phase::SynSent, 0) => {
                let (first, end) = (self.ends[0].acked, self.ends[0].end);
                let again = unwrap(segment.seq, first) == first;
                let mut anew = Self::open(segment).expect("a SYN opens a connection");
                if again {
                    anew.ends[0].end = anew.ends[0].end.max(anew.ends[0].acked + end - first);
                }
                *self = anew;
                Verdict::Pass
            }
            (Phase::SynSent, _) => Verdict::Unsaid,
            (Phase::Reset, _) => Verdict::Anew,
            (Phase::Open, _)
                if self.ends.iter().all(|end| end.finished)
                    && unwrap(segment.seq, self.ends[s].end) >= self.ends[s].end =>
            {
                Verdict::Anew
            }
            // The one that opened it, sent again; else for the other end to challenge (RFC 5961 §4).
            _ => {
                let behind = segment.seq.wrapping_add(1);
                if s == 0 && !self.foreign && behind == self.opening {
                    return Verdict::Pass;
                }
                if segment.payload > 0 {
                    return Verdict::Drop;
                }
                if s == 0 {
                    (self.opening, self.foreign) = (behind, true);
                }
                Verdict::Pass
            }
        }
    }

    fn syn_ack(&mut self, s: usize, segment: &TcpSegment) -> Verdict {
        match (self.phase, s) {
            (Phase::SynSent, 1) => {
                let opener = self.ends[0];
                let ack = unwrap(segment.ack, opener.end);
                if ack <= opener.acked || ack > opener.end {
                    return Verdict::Drop;
                }
                self.ends[1] = End::of_syn(segment, 1 << 41);
                self.ends[1].window = 0;
                self.syn_windows[1] = segment.window.into();
                self.scales = self.ends.iter().all(|end| end.shift.is_some());
                (self.ends[0].acked, self.ends[0].synchronised) = (ack, true);
                self.phase = Phase::SynReceived;
                return Verdict::Pass;
            }
            (Phase::SynSent | Phase::SynReceived, 0) | (Phase::Reset, _) => return Verdict::Drop,
            (Phase::SynReceived, _) if !self.foreign => {
                let (opening, ack) = (unwrap(self.opening, self.ends[0].end), self.ends[0].end);
                if (opening..=ack).contains(&unwrap(segment.ack, self.ends[0].end)) {
                    let first = self.ends[1].acked;
                    // Of two servers, or of one that answers each SYN with another number.
                    let same = unwrap(segment.seq, first) == first;
                    return if same { Verdict::Pass } else { Verdict::Unsaid };
                }
            }
            _ => {}
        }
        if self.fits(s, segment) {
            return Verdict::Pass;
        }
        // The peer answers the opener's other SYN: it does not have this connection any more.
        if s == 1 && self.foreign && segment.ack == self.opening {
            self.phase = Phase::Reset;
        }
        Verdict::Drop
    }

    /// RFC 5961 §3.2.
    fn reset(&mut self, s: usize, segment: &TcpSegment) -> Verdict {
        let sender = self.ends[s];
        let acknowledges = segment.flags.0 & ACK != 0;
        let seq = unwrap(segment.seq, sender.acked);
        match (self.phase, s) {
            (Phase::SynSent, 0) => {
                if seq == sender.end {
                    self.phase = Phase::Reset;
                }
                return Verdict::Pass;
            }
            (Phase::SynSent, _) => {
                let opener = self.ends[0];
                let ack = unwrap(segment.ack, opener.end);
                if !acknowledges || ack <= opener.acked || ack > opener.end {
                    return Verdict::Drop;
                }
                self.phase = Phase::Reset;
                return Verdict::Pass;
            }
            (Phase::Reset, _) if !self.ends[1].heard => return Verdict::Unsaid,
            _ => {}
        }
        let forgotten = s == 1 && self.foreign && acknowledges && segment.ack == self.opening;
        if seq == sender.acked || unwrap(segment.seq, sender.end) == sender.end || forgotten {
            self.phase = Phase::Reset;
            return Verdict::Pass;
        }
        let from = sender.acked - if self.picked_up { ANY_WINDOW } else { 0 };
        if ordered(from, seq) && ordered(seq, sender.acked + self.window(1 - s)) {
            Verdict::Pass
        } else {
            Verdict::Drop
        }
    }

    /// A segment near what matters: `dice(n)` is one of the numbers below n.
    fn next(&self, dice: &mut impl FnMut(u32) -> u32) -> (usize, TcpSegment) {
        let s = dice(2) as usize;
        let (own, other) = (&self.ends[s], &self.ends[1 - s]);
        let flags =
            [ACK, ACK, ACK, ACK, ACK, ACK | FIN, RST, RST | ACK, SYN, SYN | ACK, ACK | 0x08, 0, SYN | FIN];
        let expected = match self.phase {
            Phase::SynSent if s == 1 => SYN | ACK,
            Phase::SynSent => SYN,
            _ => ACK,
        };
        let flags = if dice(3) == 0 { expected } else { flags[dice(13) as usize] };
        let payload = [0, 0, 0, 1, 100, 1_460, 16_384, 65_000][dice(8) as usize];
        let reach = self.window(1 - s);
        let seq = match dice(12) {
            0..5 => own.end,
            5 => own.acked,
            6 => own.acked + reach,
            7 => own.end - reach - MAXACKWINDOW - i64::from(payload),
            8 => i64::from(self.opening) - 1,
            9 => own.acked - ANY_WINDOW,
            10 => own.end - i64::from(payload),
            _ => i64::from(dice(u32::MAX)),
        };
        let ack = match dice(10) {
            0..5 => other.end,
            5 => other.acked,
            6 => other.end - self.window(s) - MAXACKWINDOW,
            7 => i64::from(self.opening),
            8 => other.end + ANY_WINDOW,
            _ => i64::from(dice(u32::MAX)),
        };
        let near = |dice: &mut dyn FnMut(u32) -> u32, of: i64| of + [0, 0, 0, 0, 1, -1][dice(6) as usize];
        let window = match flags & SYN {
            // Whole multiples of every shift, so that nothing is rounded.
            SYN => [0, 16_384, 49_152][dice(3) as usize],
            _ => [0, 1, 500, 5_000, 65_535][dice(5) as usize],
        };
        let scale = [None, Some(0), Some(3), Some(14), Some(200)][dice(5) as usize];
        let segment = TcpSegment {
            seq: near(dice, seq) as u32,
            ack: near(dice, ack) as u32,
            payload,
            window,
            flags: TcpFlags(flags),
            scale: scale.filter(|_| flags & SYN != 0),
        };
        (s, segment)
    }
}

const NOW: Nanos = Nanos::from_secs(1_000);

/// A connection of at most `most` segments, chosen by `dice`, before a flow table and the reference. Returns how many
/// segments they agreed about.
///
/// # Panics
/// When they do not.
pub fn agree(table: &mut Table, most: usize, dice: &mut impl FnMut(u32) -> u32) -> usize {
    let mut history = vec![];
    let first = TcpSegment {
        // Both ends' numbers may wrap on the way.
        seq: [0, 0xffff_fff0, dice(u32::MAX)][dice(3) as usize],
        ack: [0, 0xffff_ff00, dice(u32::MAX)][dice(3) as usize],
        payload: [0, 0, 100][dice(3) as usize],
        window: 16_384 * (1 + dice(3) as u16),
        flags: TcpFlags([SYN, SYN, ACK, ACK | FIN, RST, SYN | ACK][dice(6) as usize]),
        scale: [None, Some(0), Some(7)][dice(3) as usize],
    };
    let first = if first.flags.0 & SYN == 0 { TcpSegment { scale: None, ..first } } else { first };
    let admitted = table.admit(Proto::TCP, Segment::Tcp(first));
    let Some(mut reference) = Reference::open(&first) else {
        assert_eq!(admitted, Admit::Invalid, "{first:?}");
        return 1;
    };
    let Admit::New(state) = admitted else { panic!("{first:?} opens no session") };
    let flow = insert(table, state, first);
    history.push((0, first));
    for _ in 0..most {
        let (s, segment) = reference.next(dice);
        history.push((s, segment));
        let want = reference.judge(s, &segment);
        if want == Verdict::Unsaid {
            break;
        }
        let direction = if s == 0 { flow } else { flow.opposite() };
        let got = match table.observe(direction, Segment::Tcp(segment), NOW) {
            Observed::Ok => Verdict::Pass,
            Observed::Invalid | Observed::OutOfWindow | Observed::WrongTag => Verdict::Drop,
            Observed::Reopen => Verdict::Anew,
        };
        assert_eq!(got, want, "the last of {history:#?}\n{reference:#?}");
        if want == Verdict::Anew {
            break;
        }
        let state = table.state(flow).map(State::name);
        assert_eq!(state, Some(reference.state()), "after {history:#?}\n{reference:#?}");
    }
    assert!(table.remove(flow));
    history.len()
}

/// A table for one connection.
pub fn table() -> Table {
    Table::new(Settings { sessions: 1, ..Settings::default() }, FlowHasher::new([1, 2, 3, 4]))
        .expect("one fits")
}

fn insert(table: &mut Table, state: State, first: TcpSegment) -> FlowRef {
    let key = FlowKey {
        src: "10.0.0.1".parse().expect("an address"),
        dst: "10.0.0.2".parse().expect("an address"),
        sport: 4_000,
        dport: 80,
        proto: Proto::TCP,
    };
    let (reply_key, one) = (key.reversed(), Generation(1));
    let (hash, reply_hash) = (table.hash(&key), table.hash(&reply_key));
    let segment = Segment::Tcp(first);
    let new =
        NewSession { key, hash, reply_key, reply_hash, state, segment, judged: one, way: 0, bound: one };
    table.insert(new, NOW).expect("the table is empty")
}
