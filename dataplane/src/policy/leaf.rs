//! Leaves: boxes in blocks of one cache line, each tried at once.
//!
//! A block holds two boxes for IPv4, one for IPv6. Of every number a box has a lower bound and the
//! inverse of an upper one, so that all bounds are compared with the packet's numbers in one way; only IPv6
//! addresses are a value, and how many of its bits do not matter. Behind them stands the rank of the box's rule.

use super::lower::{Dim, Interval, NONE};
use super::point::{LAST_CODES, Layout, code};
use super::tree::NONE_FOUND;
use crate::net::Proto;
use std::hint::select_unpredictable;

/// Boxes in a block for IPv4.
pub(super) const LANES: usize = 2;

/// A cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u64; 8]);

/// A box as a leaf holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// Packets within may match, others do not.
    pub(super) within: [Interval; 6],
    /// Of its rule.
    pub(super) rank: u32,
    /// All packets within that reach the leaf match. Else the rule's entries must be asked.
    pub(super) exact: bool,
}

/// The IPv4 addresses.
const ALL_V4: Interval = Interval { first: 0xffff_0000_0000, last: 0xffff_ffff_ffff };
const ALL_PORTS: Interval = Interval { first: 0, last: NONE - 1 };

// A box for IPv4 is four words: the first addresses and the inverse of the last ones, and two that IPv6's has,
// too: the first ports and the inverse of the last ones; the first and the inverse of the last code of the
// protocol, and the rank with flags. A box for IPv6 has four words of addresses before these two, and one
// behind them: for each word of addresses how many of its lowest bits do not matter.
const V4_REST: usize = 2;
const V6_REST: usize = 4;
const SHIFTS: usize = 6;
/// Of a rank: the box does not say all, the rule's entries must be asked.
const HARD: u32 = 1 << 31;
/// Of the rank in the last lane of a block: the leaf ends here.
const LAST: u32 = 1 << 30;
/// Of a lane not in use: no rule has that rank, for rules are bounded by what compiles.
const UNUSED: u32 = u32::MAX;
/// Bounds that no packet keeps: a port and its inverse are not both the highest.
const CLOSED: [u64; 2] = [u64::MAX; 2];

/// Appends `lanes`, and says at which block they begin.
pub(super) fn append(lines: &mut Vec<Line>, layout: Layout, lanes: &[Lane]) -> u32 {
    let block = lines.len();
    let of_block = layout.lanes();
    for (index, lanes_of) in lanes.chunks(of_block).enumerate() {
        let last = (index + 1) * of_block >= lanes.len();
        let mut line = Line([0; 8]);
        for number in 0..of_block {
            let (at, rest) = places(layout, number);
            line.0[rest..rest + 2].copy_from_slice(&CLOSED);
            let Some(lane) = lanes_of.get(number) else { continue };
            let [src, dst] = [Dim::Src, Dim::Dst].map(|dim| lane.within[dim as usize]);
            match layout {
                Layout::V4 => {
                    let ([s0, s1], [d0, d1]) = (v4_bounds(src), v4_bounds(dst));
                    line.0[at..rest].copy_from_slice(&[s0 << 32 | d0, s1 << 32 | d1]);
                }
                Layout::V6 => {
                    let ([s0, s1], s) = v6_bits(src);
                    let ([d0, d1], d) = v6_bits(dst);
                    line.0[at..rest].copy_from_slice(&[s0, s1, d0, d1]);
                    line.0[SHIFTS] = u64::from(u32::from_le_bytes([s[0], s[1], d[0], d[1]]));
                }
            }
            let [s0, s1, d0, d1, p0, p1] = bounds(lane).map(u64::from);
            let ends = last && number + 1 == of_block;
            let note = lane.rank | if lane.exact { 0 } else { HARD } | if ends { LAST } else { 0 };
            line.0[rest] = s0 | d0 << 16 | s1 << 32 | d1 << 48;
            line.0[rest + 1] = p0 | p1 << 16 | u64::from(note) << 32;
        }
        lines.push(line);
    }
    block as u32
}

impl Layout {
    /// Boxes in a block.
    #[inline(always)]
    pub(super) const fn lanes(self) -> usize {
        match self {
            Self::V4 => LANES,
            Self::V6 => 1,
        }
    }
}

/// Where lane `number` begins in its line, and where its bounds of 16 bits do.
#[inline(always)]
const fn places(layout: Layout, number: usize) -> (usize, usize) {
    match layout {
        Layout::V4 => (4 * number, 4 * number + V4_REST),
        Layout::V6 => (0, V6_REST),
    }
}

/// The first address, and the inverse of the last.
fn v4_bounds(interval: Interval) -> [u64; 2] {
    let first = interval.first.max(ALL_V4.first) as u32;
    let last = interval.last.min(ALL_V4.last) as u32;
    [first, !last].map(u64::from)
}

/// The bits that all of `interval` share, in two words, and how many of each word's lowest they do not.
fn v6_bits(interval: Interval) -> ([u64; 2], [u8; 2]) {
    let free = (interval.first ^ interval.last).checked_ilog2().map_or(0, |bit| bit + 1);
    let shared = interval.first & u128::MAX.checked_shl(free).unwrap_or(0);
    ([(shared >> 64) as u64, shared as u64], [free.saturating_sub(64) as u8, free.min(64) as u8])
}

/// Of the ports and the protocol, upper ones inverted.
fn bounds(lane: &Lane) -> [u16; 6] {
    let [sport, dport] = [lane.within[Dim::Sport as usize], lane.within[Dim::Dport as usize]];
    // A box that asks for a port holds no packet without ports, whichever port it asks for.
    let needs = sport.last < NONE || dport.last < NONE;
    let [(s0, s1), (d0, d1)] =
        [sport, dport].map(|i| if i.last < NONE { (i.first as u16, i.last as u16) } else { (0, u16::MAX) });
    let proto = lane.within[Dim::Proto as usize];
    let (p0, p1) = match proto.first == proto.last {
        // Of a protocol that has no ports, and of packets with ports: none, from above to below.
        true if needs => (code(Proto(proto.first as u8)), proto.first as u16),
        true => (code(Proto(proto.first as u8)), code(Proto(proto.first as u8))),
        false => (0, LAST_CODES[usize::from(!needs)]),
    };
    [s0, !s1, d0, !d1, p0, !p1]
}

/// A block, as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) line: &'a Line,
    layout: Layout,
}

impl<'a> Block<'a> {
    /// Block number `block`.
    #[inline(always)]
    pub(super) fn at(lines: &'a [Line], layout: Layout, block: usize) -> Self {
        Self { line: &lines[block], layout }
    }

    #[inline(always)]
    fn note(&self, lane: u32) -> u32 {
        let (_, rest) = places(self.layout, lane as usize % LANES);
        (self.line.0[rest + 1] >> 32) as u32
    }

    /// Of a lane in use.
    #[inline(always)]
    pub(super) fn rank(&self, lane: u32) -> u32 {
        self.note(lane) & !(HARD | LAST)
    }

    /// Of a lane in use: all packets within match.
    #[inline(always)]
    pub(super) fn is_exact(&self, lane: u32) -> bool {
        self.note(lane) & HARD == 0
    }

    /// The leaf goes on with the next block.
    #[inline(always)]
    pub(super) fn more(&self) -> bool {
        self.note(self.layout.lanes() as u32 - 1) & LAST == 0
    }

    /// The leaf goes on with the next block, where ranks may be lower than `best`. What is not found is a
    /// `best` as high as the mark of the last block.
    #[inline(always)]
    pub(super) fn goes_on(&self, best: u32) -> bool {
        const { assert!(NONE_FOUND == LAST) };
        self.note(self.layout.lanes() as u32 - 1) & !HARD < best
    }

    /// The rank of the first of `hits`, or [`NONE_FOUND`]; and whether the rule's entries must be asked. Which
    /// it is, is computed: a branch would be guesswork for the processor.
    #[inline(always)]
    pub(super) fn first(&self, hits: u32) -> (u32, bool) {
        let lane = if self.layout.lanes() > 1 { !hits & 1 } else { 0 };
        let note = select_unpredictable(hits != 0, self.note(lane) & !LAST, NONE_FOUND);
        (note & !HARD, note & HARD != 0)
    }

    /// The lane holds a box.
    pub(super) fn is_used(&self, lane: u32) -> bool {
        self.note(lane) != UNUSED
    }

    /// No packet is in the lane, whatever its numbers.
    pub(super) fn is_closed(&self, lane: u32) -> bool {
        let (at, rest) = places(self.layout, lane as usize);
        self.line.0[at..rest].iter().all(|word| *word == 0) && self.line.0[rest..rest + 2] == CLOSED
    }

    /// The box, read back from the bits that decide: for the check and for explanations. `None`
    /// where they are no box, or said in another way than [`append`] says it.
    pub(super) fn lane(&self, lane: u32) -> Option<Lane> {
        if lane as usize + 1 < self.layout.lanes() && self.note(lane) & LAST != 0 {
            return None;
        }
        let mut within = Dim::ALL.map(Dim::whole);
        for dim in [Dim::Src, Dim::Dst] {
            within[dim as usize] = self.addresses(lane as usize, dim)?;
        }
        let (_, rest) = places(self.layout, lane as usize);
        let bound = |at: usize| (self.line.0[rest + at / 4] >> (16 * (at % 4))) as u16;
        let interval = |at: usize| Interval { first: bound(at).into(), last: (!bound(at + 2)).into() };
        let (mut sport, mut dport) = (interval(0), interval(1));
        let (first, last) = (bound(4), !bound(5));
        let proto = Proto(first as u8);
        let needs = match (first, last) {
            (0, last) if last == LAST_CODES[1] => false,
            (0, last) if last == LAST_CODES[0] => true,
            _ if first != code(proto) => return None,
            (first, last) if first == last => proto.has_ports(),
            (_, last) if last == u16::from(proto.0) => true,
            _ => return None,
        };
        if first != 0 {
            within[Dim::Proto as usize] = Interval { first: proto.0.into(), last: proto.0.into() };
        }
        if !needs {
            if [sport, dport] != [ALL_PORTS; 2] {
                return None;
            }
            [sport, dport] = [Dim::Sport.whole(), Dim::Dport.whole()];
        }
        within[Dim::Sport as usize] = sport;
        within[Dim::Dport as usize] = dport;
        normal(&mut within, self.layout);
        Some(Lane { within, rank: self.rank(lane), exact: self.is_exact(lane) })
    }

    fn addresses(&self, lane: usize, dim: Dim) -> Option<Interval> {
        let (at, _) = places(self.layout, lane);
        match self.layout {
            Layout::V4 => {
                let shift = if dim == Dim::Src { 32 } else { 0 };
                let [first, last] = [self.line.0[at], !self.line.0[at + 1]];
                let [first, last] = [first, last].map(|word| u128::from((word >> shift) as u32));
                (first <= last).then_some(Interval { first: ALL_V4.first | first, last: ALL_V4.first | last })
            }
            Layout::V6 => {
                let number = usize::from(dim == Dim::Dst);
                let words = &self.line.0[at + 2 * number..][..2];
                let [high, low] = [0, 8].map(|shift| self.line.0[SHIFTS] >> (16 * number + shift) & 0xff);
                let nothing_else = self.line.0[SHIFTS] >> 32 == 0 && self.line.0[SHIFTS + 1] == 0;
                if !nothing_else || high > 64 || low > 64 || high > 0 && low < 64 {
                    return None;
                }
                let free = u128::MAX.checked_shl((high + low) as u32).map_or(u128::MAX, |shared| !shared);
                let first = u128::from(words[0]) << 64 | u128::from(words[1]);
                (first & free == 0).then_some(Interval { first, last: first | free })
            }
        }
    }
}

/// A box as lanes say it. Where a protocol or one of its ports says that there are ports, the other need
/// not. Only packets of IPv4 come to an IPv4 tree that asks for addresses.
pub(super) fn normal(within: &mut [Interval; 6], layout: Layout) {
    let [proto, sport, dport] = [Dim::Proto, Dim::Sport, Dim::Dport].map(|dim| within[dim as usize]);
    let said = proto.first == proto.last && Proto(proto.first as u8).has_ports();
    if said || sport.last < NONE || dport.last < NONE {
        let [mut sport, mut dport] = [sport, dport].map(|i| Interval { last: i.last.min(NONE - 1), ..i });
        if dport == ALL_PORTS {
            dport = Dim::Dport.whole();
        }
        if sport == ALL_PORTS && (said || dport != Dim::Dport.whole()) {
            sport = Dim::Sport.whole();
        }
        (within[Dim::Sport as usize], within[Dim::Dport as usize]) = (sport, dport);
    }
    if layout == Layout::V4 {
        for dim in [Dim::Src, Dim::Dst] {
            let Interval { first, last } = within[dim as usize];
            let own = Interval { first: first.max(ALL_V4.first), last: last.min(ALL_V4.last) };
            within[dim as usize] = if own == ALL_V4 { dim.whole() } else { own };
        }
    }
}
