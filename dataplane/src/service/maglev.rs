//! Maglev hashing: a hash picks a member through a table that changes little when members do.
//!
//! Every member has a permutation of the table's places, which follows from its identity alone;
//! in turn each takes the first place of its permutation that is still free (Eisenbud et al.,
//! "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4). So the table
//! follows from the members alone, and is the same on every node. Shares are equal but for one
//! place, and a member that goes leaves most of the others' places alone.
//!
//! A member of less weight than the heaviest passes some of its turns, in proportion.

/// Places of a table: primes, the largest below each fourth power of two, so that a change of
/// size, which moves every member, is rare.
const SIZES: [u32; 8] = [1021, 4093, 16_381, 65_521, 262_139, 1_048_573, 4_194_301, 16_777_213];

/// Places of a member at least, but in the largest table: shares differ by one place, 1.6 %.
const PLACES: u64 = 64;

/// Who shares a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The same on every node.
    pub identity: u64,
    /// Of the hashes, in proportion to the others'; above zero.
    pub weight: u32,
}

/// A table.
#[derive(Debug)]
pub struct Table(Places);

/// The member of each place, by its number.
#[derive(Debug)]
enum Places {
    Few(Box<[u8]>),
    Many(Box<[u16]>),
}

impl Table {
    /// Members of a table at most.
    pub const MAX_MEMBERS: usize = 1 << 16;

    /// The table of `members`, of whom the first [`Table::MAX_MEMBERS`] count. `None` where there
    /// is nothing to choose between: fewer than two.
    pub fn new(members: &[Member]) -> Option<Self> {
        let members = &members[..members.len().min(Self::MAX_MEMBERS)];
        if members.len() < 2 {
            return None;
        }
        Some(Self(if members.len() <= 1 << 8 {
            Places::Few(fill(members, |number| number as u8))
        } else {
            Places::Many(fill(members, |number| number as u16))
        }))
    }

    /// The places that a table of `members` has: what it costs to build one.
    pub fn size(members: &[Member]) -> u32 {
        let lightest = members.iter().map(|member| u64::from(member.weight)).min().unwrap_or(1).max(1);
        let all: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let wanted = all.div_ceil(lightest) * PLACES;
        let fits = SIZES.iter().find(|size| u64::from(**size) >= wanted);
        *fits.unwrap_or(&SIZES[SIZES.len() - 1])
    }

    /// The member that `hash` falls to.
    #[inline]
    pub fn pick(&self, hash: u64) -> usize {
        match &self.0 {
            Places::Few(places) => usize::from(places[place(hash, places.len())]),
            Places::Many(places) => usize::from(places[place(hash, places.len())]),
        }
    }

    /// Memory of its places.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Places::Few(places) => size_of_val(&**places),
            Places::Many(places) => size_of_val(&**places),
        }
    }
}

/// Multiply and shift: the high bits pick, without a division.
#[inline]
pub(super) fn place(hash: u64, len: usize) -> usize {
    ((u128::from(hash) * len as u128) >> 64) as usize
}

/// A member's permutation: `offset`, `offset + skip`, ... modulo the size, which is prime.
fn permutation(identity: u64, size: u32) -> (u32, u32) {
    let offset = (identity & u64::from(u32::MAX)) % u64::from(size);
    let skip = (identity >> 32) % u64::from(size - 1) + 1;
    (offset as u32, skip as u32)
}

fn fill<T: Copy + Default>(members: &[Member], number: impl Fn(usize) -> T) -> Box<[T]> {
    struct Turn {
        next: u32,
        skip: u32,
        credit: u64,
    }
    let size = Table::size(members);
    let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or(1).max(1);
    let mut turns: Vec<Turn> = members
        .iter()
        .map(|member| {
            let (next, skip) = permutation(member.identity, size);
            Turn { next, skip, credit: 0 }
        })
        .collect();
    let mut places = vec![T::default(); size as usize].into_boxed_slice();
    let mut taken = vec![0u64; size.div_ceil(64) as usize];
    let mut free = size;
    loop {
        for (at, (turn, member)) in turns.iter_mut().zip(members).enumerate() {
            turn.credit += u64::from(member.weight);
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            while taken[turn.next as usize / 64] >> (turn.next % 64) & 1 == 1 {
                turn.next = after(turn.next, turn.skip, size);
            }
            taken[turn.next as usize / 64] |= 1 << (turn.next % 64);
            places[turn.next as usize] = number(at);
            turn.next = after(turn.next, turn.skip, size);
            free -= 1;
            if free == 0 {
                return places;
            }
        }
    }
}

/// One step of a permutation; both are below the size, which is below 2^31.
const fn after(place: u32, skip: u32, size: u32) -> u32 {
    let next = place + skip;
    if next >= size { next - size } else { next }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::hash::mix;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    fn members(numbers: impl IntoIterator<Item = u64>) -> Vec<Member> {
        numbers.into_iter().map(|n| Member { identity: mix(n, 7), weight: 1 }).collect()
    }

    fn places(table: &Table) -> Vec<usize> {
        match &table.0 {
            Places::Few(places) => places.iter().map(|n| usize::from(*n)).collect(),
            Places::Many(places) => places.iter().map(|n| usize::from(*n)).collect(),
        }
    }

    fn shares(table: &Table, members: usize) -> Vec<usize> {
        let mut shares = vec![0; members];
        places(table).into_iter().for_each(|member| shares[member] += 1);
        shares
    }

    /// The paper's figure, word for word: permutations written out, then places given in turn.
    fn twin(members: &[Member]) -> Vec<usize> {
        let size = u64::from(Table::size(members));
        let permutations: Vec<Vec<usize>> = members
            .iter()
            .map(|member| {
                let offset = (member.identity % (1 << 32)) % size;
                let skip = (member.identity / (1 << 32)) % (size - 1) + 1;
                (0..size).map(|j| ((offset + j * skip) % size) as usize).collect()
            })
            .collect();
        let heaviest = members.iter().map(|member| member.weight).max().unwrap();
        let mut next = vec![0; members.len()];
        let mut entry: Vec<Option<usize>> = vec![None; size as usize];
        let mut n = 0;
        for round in 1.. {
            for i in 0..members.len() {
                let turns = |round: u64| round * u64::from(members[i].weight) / u64::from(heaviest);
                if turns(round) == turns(round - 1) {
                    continue;
                }
                let mut c = permutations[i][next[i]];
                while entry[c].is_some() {
                    next[i] += 1;
                    c = permutations[i][next[i]];
                }
                entry[c] = Some(i);
                next[i] += 1;
                n += 1;
                if n == size {
                    return entry.into_iter().map(Option::unwrap).collect();
                }
            }
        }
        unreachable!("the table fills")
    }

    #[test]
    fn sizes_are_prime_and_grow() {
        for size in SIZES {
            assert!((2..).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
        }
        assert!(SIZES.is_sorted());
        let of = |n: u64| Table::size(&members(0..n));
        assert_eq!((of(2), of(15), of(16), of(63), of(1000)), (1021, 1021, 4093, 4093, 65_521));
    }

    #[test]
    fn one_member_needs_no_table() {
        assert!(Table::new(&[]).is_none());
        assert!(Table::new(&members([1])).is_none());
    }

    #[test]
    fn hashes_fall_evenly_and_the_whole_range_is_used() {
        let table = Table::new(&members(0..10)).unwrap();
        let mut picked = [0; 10];
        (0..100_000u64).for_each(|n| picked[table.pick(mix(n, 1))] += 1);
        assert!(picked.iter().all(|n| (9_500..10_500).contains(n)), "{picked:?}");
        assert_eq!(table.pick(0), places(&table)[0]);
        assert_eq!(table.pick(u64::MAX), *places(&table).last().unwrap());
    }

    #[test]
    fn a_thousand_members_have_equal_shares() {
        let many = members(0..1000);
        let table = Table::new(&many).unwrap();
        let shares = shares(&table, many.len());
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 1, "{least} to {most}");
    }

    proptest! {
        #[test]
        fn as_the_papers(weights in vec(1u32..6, 2..40), salt: u64) {
            let members: Vec<Member> = (0..).zip(&weights)
                .map(|(n, weight)| Member { identity: mix(n, salt), weight: *weight })
                .collect();
            prop_assert_eq!(places(&Table::new(&members).unwrap()), twin(&members));
        }

        #[test]
        fn shares_are_in_proportion_to_weights(weights in vec(1u32..20, 2..40), salt: u64) {
            let members: Vec<Member> = (0..).zip(&weights)
                .map(|(n, weight)| Member { identity: mix(n, salt), weight: *weight })
                .collect();
            let table = Table::new(&members).unwrap();
            let all: u32 = weights.iter().sum();
            for (share, weight) in shares(&table, members.len()).iter().zip(&weights) {
                let fair = f64::from(Table::size(&members)) * f64::from(*weight) / f64::from(all);
                // Turns are whole: what light ones still lack of theirs when the table is full, others
                // have in proportion.
                let others = weights.len() as f64 * f64::from(*weight) / f64::from(all);
                let off = *share as f64 - fair;
                prop_assert!((-2.0..=1.0 + others).contains(&off), "{} of {}", share, fair);
            }
        }

        #[test]
        fn who_stays_keeps_nearly_all_places(
            numbers in btree_set(0u64..1 << 40, 3..60), gone: prop::sample::Index,
        ) {
            let before: Vec<u64> = numbers.into_iter().collect();
            let gone = gone.index(before.len());
            let after: Vec<u64> =
                before.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, n)| *n).collect();
            // Only tables of one size can be compared.
            prop_assume!(Table::size(&members(before.clone())) == Table::size(&members(after.clone())));
            let old = places(&Table::new(&members(before.clone())).unwrap());
            let new = places(&Table::new(&members(after.clone())).unwrap());
            let moved = old.iter().zip(&new)
                .filter(|(old, new)| **old != gone && before[**old] != after[**new]).count();
            prop_assert!(moved * 6 <= old.len(), "{} of {} places moved", moved, old.len());
        }
    }
}
