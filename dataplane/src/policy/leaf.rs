//! Leaves: blocks of four boxes, tried at once.
//!
//! A block is cache lines. The first ones hold a value and a mask for each of four boxes, a line
//! for each word of addresses: one line for IPv4, four for IPv6. The last line holds the rest: ports,
//! protocol, which piece of which entry the box is, and what the box does not say. Most blocks a packet
//! meets are of other addresses, and cost it one line.

use super::lower::{Dim, Interval, NONE};
use super::point::{Layout, Point};

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

// The last line of a block: words 0 to 3 hold the first and last source port, the first and last
// destination port of each box, word 4 protocols and their masks, words 5 and 6 the pieces, word 7 flags.
const EXACT: u32 = 0;
const NEEDS_PORTS: u32 = 4;
const MORE: u64 = 1 << 8;

/// Appends `lanes`, and says at which block they begin. `None`: no room.
pub(super) fn append(lines: &mut Vec<Line>, layout: Layout, lanes: &[Lane]) -> u32 {
    let words = layout.address_words();
    let block = lines.len() / (words + 1);
    for (index, four) in lanes.chunks(LANES).enumerate() {
        let mut filters = [Line([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0, 0, 0, 0]); 4];
        let mut rest = [0u64; 8];
        rest[7] = if (index + 1) * LANES < lanes.len() { MORE } else { 0 };
        rest[5..7].fill(u64::MAX);
        for (k, lane) in four.iter().enumerate() {
            for dim in [Dim::Src, Dim::Dst] {
                fill_addresses(&mut filters, layout, k, dim, lane.within[dim as usize]);
            }
            let [sport, dport] = [lane.within[Dim::Sport as usize], lane.within[Dim::Dport as usize]];
            // A box that asks for a port holds no packet without ports, whichever port it asks for.
            let needs = sport.last < NONE || dport.last < NONE;
            for (at, i) in [(0, sport), (2, dport)] {
                let (first, last) = if i.last < NONE { (i.first, i.last) } else { (0, NONE - 1) };
                rest[at] |= (first as u64) << (16 * k);
                rest[at + 1] |= (last as u64) << (16 * k);
            }
            let proto = lane.within[Dim::Proto as usize];
            if proto.first == proto.last {
                rest[4] |= (proto.first as u64 | 0xff << 32) << (8 * k);
            }
            let at = 5 + k / 2;
            rest[at] &= !(0xffff_ffff << (32 * (k % 2)));
            rest[at] |= u64::from(lane.piece) << (32 * (k % 2));
            rest[7] |=
                u64::from(lane.exact) << (EXACT + k as u32) | u64::from(needs) << (NEEDS_PORTS + k as u32);
        }
        lines.extend_from_slice(&filters[..words]);
        lines.push(Line(rest));
    }
    block as u32
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

/// A block, as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    filters: &'a [Line],
    rest: &'a [u64; 8],
}

impl<'a> Block<'a> {
    /// Block number `block`.
    #[inline(always)]
    pub(super) fn at(lines: &'a [Line], words: usize, block: usize) -> Self {
        let first = block * (words + 1);
        let lines = &lines[first..=first + words];
        Self { filters: &lines[..words], rest: &lines[words].0 }
    }

    /// The lanes whose box holds the point, a bit each.
    #[inline(always)]
    pub(super) fn hits(&self, point: &Point<'_>) -> u32 {
        let mut hits = of_line(&self.filters[0], point.words[1]);
        for (line, word) in self.filters.iter().zip(&point.words[1..]).skip(1) {
            hits &= of_line(line, *word);
        }
        if hits == 0 { 0 } else { hits & self.rest_hits(point) }
    }

    #[inline(always)]
    fn rest_hits(&self, point: &Point<'_>) -> u32 {
        let numbers = point.words[0];
        // Without ports these are 0, and the flag keeps boxes away that ask for one.
        let (dport, sport, proto) = (numbers as u16, (numbers >> 17) as u16, (numbers >> 34) as u8);
        let lanes =
            |word: usize| -> [u16; LANES] { std::array::from_fn(|k| (self.rest[word] >> (16 * k)) as u16) };
        let (s0, s1, d0, d1) = (lanes(0), lanes(1), lanes(2), lanes(3));
        let mut hits = 0;
        for k in 0..LANES {
            let wanted = (self.rest[4] >> (8 * k)) as u8;
            let mask = (self.rest[4] >> (32 + 8 * k)) as u8;
            let within = (s0[k] <= sport) & (sport <= s1[k]) & (d0[k] <= dport) & (dport <= d1[k]);
            hits |= u32::from(within & ((proto ^ wanted) & mask == 0)) << k;
        }
        if point.has_ports() { hits } else { hits & !((self.rest[7] >> NEEDS_PORTS) as u32) }
    }

    #[inline(always)]
    pub(super) fn piece(&self, lane: u32) -> u32 {
        (self.rest[5 + lane as usize / 2] >> (32 * (lane % 2))) as u32
    }

    #[inline(always)]
    pub(super) fn is_exact(&self, lane: u32) -> bool {
        self.rest[7] >> (EXACT + lane) & 1 != 0
    }

    /// The leaf goes on with the next block.
    #[inline(always)]
    pub(super) fn more(&self) -> bool {
        self.rest[7] & MORE != 0
    }

    /// The box, read back from the bits that decide: for the check and for explanations. `None`
    /// where they are no box.
    pub(super) fn lane(&self, layout: Layout, lane: u32) -> Option<Lane> {
        let mut within = Dim::ALL.map(Dim::whole);
        for dim in [Dim::Src, Dim::Dst] {
            within[dim as usize] = self.addresses(layout, lane as usize, dim)?;
        }
        let port = |word: usize| u128::from((self.rest[word] >> (16 * lane)) as u16);
        let needs = self.rest[7] >> (NEEDS_PORTS + lane) & 1 != 0;
        let mut sport = Interval { first: port(0), last: port(1) };
        let mut dport = Interval { first: port(2), last: port(3) };
        if !needs {
            if [sport, dport] != [ALL_PORTS; 2] {
                return None;
            }
            [sport, dport] = [Dim::Sport.whole(), Dim::Dport.whole()];
        } else if dport == ALL_PORTS {
            // The source port says that there are ports; the destination port says nothing.
            dport = Dim::Dport.whole();
        } else if sport == ALL_PORTS {
            sport = Dim::Sport.whole();
        }
        within[Dim::Sport as usize] = sport;
        within[Dim::Dport as usize] = dport;
        let proto = (self.rest[4] >> (8 * lane)) as u8;
        match (self.rest[4] >> (32 + 8 * lane)) as u8 {
            0 => {}
            0xff => within[Dim::Proto as usize] = Interval { first: proto.into(), last: proto.into() },
            _ => return None,
        }
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

/// The lanes of one word of addresses that hold `word`.
#[inline(always)]
fn of_line(line: &Line, word: u64) -> u32 {
    let mut hits = 0;
    for k in 0..LANES {
        hits |= u32::from(word & line.0[LANES + k] == line.0[k]) << k;
    }
    hits
}
