//! Leaves: blocks of four boxes, tried at once.
//!
//! A block is cache lines. The first ones hold a value and a mask for each of four boxes, a line
//! for each word of addresses: one line for IPv4, four for IPv6. The last line holds the rest: bounds of ports
//! and protocol, which piece the box is, and whether the box says all. Upper bounds are
//! inverted, so that all bounds of all boxes are compared with the packet's numbers in one way, at once.

use super::lower::{Dim, Interval, NONE};
use super::point::{LAST_CODES, Layout, code};
use crate::net::Proto;

/// Boxes in a block.
pub(super) const LANES: usize = 4;

/// A cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u64; 8]);

/// A box as a leaf holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// Packets within may match, others do not.
    pub(super) within: [Interval; 6],
    /// Of these boxes, in the order of rules.
    pub(super) piece: u32,
    /// All packets within that reach the leaf match. Else the entry must be asked.
    pub(super) exact: bool,
}

const ALL_PORTS: Interval = Interval { first: 0, last: NONE - 1 };

// The last line of a block: words 0 to 5 hold for each box the first source port, the inverse of the last,
// the same of the destination port and of the protocol's code; words 6 and 7 the pieces with flags.
const PIECES: usize = 6;
/// Of a piece: the box does not say all, its entry must be asked.
const HARD: u32 = 1 << 31;
/// Of the piece in the last lane: the leaf ends here.
const LAST: u32 = 1 << 30;
/// Of a lane not in use: no piece has that number, for entries are bounded by what compiles.
const UNUSED: u32 = u32::MAX;

/// Appends `lanes`, and says at which block they begin.
pub(super) fn append(lines: &mut Vec<Line>, layout: Layout, lanes: &[Lane]) -> u32 {
    let words = layout.address_words();
    let block = lines.len() / (words + 1);
    for (index, four) in lanes.chunks(LANES).enumerate() {
        // A lane not in use wants a bit that it masks: no packet has it.
        let mut filters = [Line([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0, 0, 0, 0]); 4];
        let mut rest = [0u64; 8];
        rest[PIECES..].fill(u64::MAX);
        let last = (index + 1) * LANES >= lanes.len();
        for (k, lane) in four.iter().enumerate() {
            for dim in [Dim::Src, Dim::Dst] {
                fill_addresses(&mut filters, layout, k, dim, lane.within[dim as usize]);
            }
            for (word, bounds) in rest.iter_mut().zip(bounds(lane)) {
                *word |= u64::from(bounds) << (16 * k);
            }
            let flags = if lane.exact { 0 } else { HARD } | if last { LAST } else { 0 };
            let (at, shift) = (PIECES + k / 2, 32 * (k % 2));
            rest[at] &= !(0xffff_ffff << shift);
            rest[at] |= u64::from(lane.piece | flags) << shift;
        }
        lines.extend_from_slice(&filters[..words]);
        lines.push(Line(rest));
    }
    block as u32
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

/// Writes the bits that all of `interval` share.
fn fill_addresses(filters: &mut [Line; 4], layout: Layout, lane: usize, dim: Dim, interval: Interval) {
    let mut cube = super::point::Cube::default();
    cube.narrow(layout, dim, interval);
    for place in layout.places(dim) {
        let line = &mut filters[place.word - 1].0;
        let ones = (u64::MAX >> (64 - place.width)) << place.shift;
        line[lane] = line[lane] & !ones | cube.value[place.word];
        line[LANES + lane] |= cube.mask[place.word];
    }
}

/// A block, as it lies in memory. `N` is the layout's number of address words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a, const N: usize> {
    pub(super) filters: &'a [Line; N],
    pub(super) rest: &'a Line,
}

impl<'a, const N: usize> Block<'a, N> {
    /// Block number `block`.
    #[inline(always)]
    pub(super) fn at(lines: &'a [Line], block: usize) -> Self {
        let first = block * (N + 1);
        let [filters @ .., rest] = &lines[first..first + N + 1] else { unreachable!("N + 1 lines") };
        Self { filters: filters.try_into().expect("N lines"), rest }
    }

    #[inline(always)]
    fn note(&self, lane: u32) -> u32 {
        (self.rest.0[PIECES + (lane as usize / 2) % 2] >> (32 * (lane % 2))) as u32
    }

    /// Of a lane in use.
    #[inline(always)]
    pub(super) fn piece(&self, lane: u32) -> u32 {
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
        self.note(LANES as u32 - 1) & LAST == 0
    }

    /// The lane holds a box.
    pub(super) fn is_used(&self, lane: u32) -> bool {
        self.note(lane) != UNUSED
    }

    /// No packet is in the lane, whatever its numbers.
    pub(super) fn is_closed(&self, lane: u32) -> bool {
        let line = &self.filters[0].0;
        line[lane as usize] & !line[LANES + lane as usize] != 0
    }

    /// The box, read back from the bits that decide: for the check and for explanations. `None`
    /// where they are no box, or said in another way than [`append`] says it.
    pub(super) fn lane(&self, layout: Layout, lane: u32) -> Option<Lane> {
        let mut within = Dim::ALL.map(Dim::whole);
        for dim in [Dim::Src, Dim::Dst] {
            within[dim as usize] = self.addresses(layout, lane as usize, dim)?;
        }
        let bound = |word: usize| (self.rest.0[word] >> (16 * lane)) as u16;
        let interval = |word: usize| Interval { first: bound(word).into(), last: (!bound(word + 1)).into() };
        let (mut sport, mut dport) = (interval(0), interval(2));
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
        normal(&mut within);
        Some(Lane { within, piece: self.piece(lane), exact: self.is_exact(lane) })
    }

    fn addresses(&self, layout: Layout, lane: usize, dim: Dim) -> Option<Interval> {
        let (mut value, mut mask) = (0u128, 0u128);
        for place in layout.places(dim) {
            let ones = u64::MAX >> (64 - place.width);
            let line = &self.filters[place.word - 1].0;
            value |= u128::from(line[lane] >> place.shift & ones) << place.low;
            mask |= u128::from(line[LANES + lane] >> place.shift & ones) << place.low;
        }
        let all: u128 = if layout == Layout::V4 { u32::MAX.into() } else { u128::MAX };
        let host = !mask & all;
        // The host bits are the lowest, and nothing is asked of them.
        if host & host.wrapping_add(1) != 0 || value & host != 0 {
            return None;
        }
        if mask == 0 {
            return Some(Dim::Src.whole());
        }
        let top = if layout == Layout::V4 { 0xffff << 32 } else { 0 };
        Some(Interval { first: top | value, last: top | value | host })
    }
}

/// The two port intervals of a box as lanes say them: where a protocol or one of them says that
/// there are ports, the other need not.
pub(super) fn normal(within: &mut [Interval; 6]) {
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
}
