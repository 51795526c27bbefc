//! Entries cut into boxes: what the lanes of leaves hold.
//!
//! An entry with port lists or several address blocks is a union of boxes, each of which is as
//! good as a rule to a tree: easier to part, and tried four at a time. Where there would be too
//! many, the longest lists stay whole, as the span of all their intervals.

use super::lower::{Dim, Entries, Interval};
use super::point::{Cube, Layout};

/// Boxes an entry is cut into at most.
pub(super) const MAX_PIECES: usize = 128;
/// Boxes from which on an entry is cut no more, beyond two for each entry: a bound on memory.
const MANY: usize = 1 << 20;

/// A box of an entry: of each number an interval, or the span of all where there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) entry: u32,
    /// By number: which of the entry's intervals, or [`Piece::SPAN`].
    pub(super) pick: [u8; 6],
}

impl Piece {
    /// From the first to the last of the entry's intervals.
    pub(super) const SPAN: u8 = u8::MAX;

    /// The box's interval of `dim`.
    pub(super) fn interval(&self, entries: &Entries, dim: Dim) -> Interval {
        match (entries.intervals(self.entry, dim), self.pick[dim as usize]) {
            (None, _) => dim.whole(),
            (Some(all), Self::SPAN) => Interval { first: all[0].first, last: all[all.len() - 1].last },
            (Some(all), pick) => all[usize::from(pick)],
        }
    }

    /// The leading bits that all values of the box share.
    pub(super) fn cube(&self, entries: &Entries, layout: Layout) -> Cube {
        let mut cube = Cube::default();
        for (dim, all) in entries.fields(self.entry) {
            let interval = match self.pick[dim as usize] {
                Self::SPAN => Interval { first: all[0].first, last: all[all.len() - 1].last },
                pick => all[usize::from(pick)],
            };
            cube.narrow(layout, dim, interval);
        }
        cube
    }
}

/// All entries' pieces, in the order of the entries; of each at most `most`.
pub(super) fn pieces(entries: &Entries, most: usize) -> Vec<Piece> {
    let mut all = Vec::with_capacity(entries.len());
    for entry in 0..entries.len() as u32 {
        let mut counts = [1usize; 6];
        for (dim, intervals) in entries.fields(entry) {
            counts[dim as usize] = intervals.len();
        }
        let mut pick = [0u8; 6];
        let most = if all.len() < 2 * entries.len() + MANY { most } else { 1 };
        while counts.iter().fold(1usize, |product, n| product.saturating_mul(*n)) > most {
            let longest = (0..6).max_by_key(|dim| counts[*dim]).unwrap_or(0);
            (counts[longest], pick[longest]) = (1, Piece::SPAN);
        }
        loop {
            all.push(Piece { entry, pick });
            // Counts up, the last number fastest.
            let next = |dim: &usize| pick[*dim] != Piece::SPAN && usize::from(pick[*dim]) + 1 < counts[*dim];
            let Some(dim) = (0..6).rev().find(next) else { break };
            pick[dim] += 1;
            pick[dim + 1..].iter_mut().filter(|pick| **pick != Piece::SPAN).for_each(|pick| *pick = 0);
        }
    }
    all
}
