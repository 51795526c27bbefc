//! A packet in the terms of entries, and as words whose bits trees pick.

use super::lower::{Dim, Interval, Space};
use super::{Class, IpVersion, Query, SetId, SetTable};
use crate::net::{Addr, FlowKey, Proto};

/// Words of a point.
pub(super) const WORDS: usize = 5;

/// Where the numbers of a point stand in its words.
///
/// The first word holds the ports, the protocol and the ICMP type, and for ports and type a bit each that
/// stands for "none". IPv4 addresses share one word; IPv6 addresses take two words each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Of trees for IPv4, and of those that ask for no address.
    V4,
    /// Of trees for IPv6.
    V6,
}

/// Bits of one number in one word: `width` bits of the number, from its bit `low` on, stand in
/// `word` from bit `shift` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) word: usize,
    pub(super) shift: u32,
    pub(super) width: u32,
    pub(super) low: u32,
}

impl Layout {
    /// The words that numbers stand in.
    pub(super) const fn words(self) -> &'static [usize] {
        match self {
            Self::V4 => &[0, V4_ADDRESSES],
            Self::V6 => &[0, 1, 2, 3, 4],
        }
    }

    /// Where `dim` stands.
    pub(super) const fn places(self, dim: Dim) -> &'static [Place] {
        match (self, dim) {
            (_, Dim::Sport) => const { &[place(0, 0, 16, 0), place(0, NO_PORTS, 1, 16)] },
            (_, Dim::Dport) => const { &[place(0, 16, 16, 0), place(0, NO_PORTS + 1, 1, 16)] },
            (_, Dim::Proto) => const { &[place(0, PROTO, 8, 0)] },
            (_, Dim::Icmp) => const { &[place(0, ICMP, 16, 0), place(0, NO_ICMP, 1, 16)] },
            (Self::V4, Dim::Src) => const { &[place(V4_ADDRESSES, 32, 32, 0)] },
            (Self::V4, Dim::Dst) => const { &[place(V4_ADDRESSES, 0, 32, 0)] },
            (Self::V6, Dim::Src) => const { &[place(1, 0, 64, 64), place(2, 0, 64, 0)] },
            (Self::V6, Dim::Dst) => const { &[place(3, 0, 64, 64), place(4, 0, 64, 0)] },
        }
    }
}

// Shifts in the first word.
const PROTO: u32 = 32;
const ICMP: u32 = 40;
const NO_PORTS: u32 = 56;
const NO_ICMP: u32 = 58;
/// Before what leaves compare.
const V4_ADDRESSES: usize = 3;

const fn place(word: usize, shift: u32, width: u32, low: u32) -> Place {
    Place { word, shift, width, low }
}

/// Bits that must be as in `value` where `mask` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cube {
    pub(super) value: [u64; WORDS],
    pub(super) mask: [u64; WORDS],
}

impl Cube {
    /// Demands of `dim` the leading bits that all values of `interval` share.
    pub(super) fn narrow(&mut self, layout: Layout, dim: Dim, interval: Interval) {
        if interval == dim.whole() {
            return;
        }
        let differ = interval.first ^ interval.last;
        let shared = differ.checked_ilog2().map_or(u128::MAX, |bit| !(u128::MAX >> (127 - bit)));
        for place in layout.places(dim) {
            let ones = u64::MAX >> (64 - place.width);
            let mask = (shared >> place.low) as u64 & ones;
            self.mask[place.word] |= mask << place.shift;
            self.value[place.word] |= ((interval.first >> place.low) as u64 & mask) << place.shift;
        }
    }
}

/// The words of a point, and behind them what leaves compare with bounds: a cache line.
///
/// Words 3 and 4 of IPv4 are both addresses and the inverse of that. Of both versions, word 5 is both ports and
/// the inverse of that; word 6 the [`code`] of the protocol and its inverse, 16 bits each, and ones: so that "at
/// least the first" and "at most the last" are one comparison. What is not named is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Words(pub(super) [u64; 8]);

impl Words {
    /// None of a packet.
    pub(super) const ZERO: Self = Self([0; 8]);

    #[inline(always)]
    pub(super) fn of(q: &Query) -> Self {
        let mut words = Self::ZERO;
        words.set(q);
        words
    }

    /// Makes them those of `q`.
    #[inline(always)]
    pub(super) fn set(&mut self, q: &Query) {
        let key = &q.key;
        let [mut first, code] = PROTOCOLS[key.proto.0 as usize];
        let ports = u64::from(key.sport) | u64::from(key.dport) << 16;
        // The highest bit marks protocols with ports, the next one ICMP: no tree picks these.
        let mask = ((first as i64) >> 63) as u64;
        if first & IS_ICMP != 0 {
            first |= (u64::from(q.icmp.kind) << 8 | u64::from(q.icmp.code)) << ICMP;
        }
        self.0[0] = first | ports & mask;
        match IpVersion::of(key.src) {
            IpVersion::V4 => {
                let both = u64::from(key.src.v4_bits()) << 32 | u64::from(key.dst.v4_bits());
                (self.0[V4_ADDRESSES], self.0[V4_ADDRESSES + 1]) = (both, !both);
            }
            IpVersion::V6 => {
                let [src, dst] = [key.src, key.dst].map(Addr::bits);
                self.0[1..WORDS].copy_from_slice(&[
                    (src >> 64) as u64,
                    src as u64,
                    (dst >> 64) as u64,
                    dst as u64,
                ]);
            }
        }
        (self.0[5], self.0[6]) = (ports | !ports << 32, code);
    }
}

const HAS_PORTS: u64 = 1 << 63;
const IS_ICMP: u64 = 1 << 62;

/// By protocol: the first word of a packet that has nothing but it, with marks; and its [`code`] as leaves
/// compare it. Comparing protocols would be guesswork for the processor.
static PROTOCOLS: [[u64; 2]; 256] = {
    let mut known = [[0; 2]; 256];
    let mut number = 0;
    while number < 256 {
        let proto = Proto(number as u8);
        let ports = if proto.has_ports() { HAS_PORTS } else { 0b11 << NO_PORTS };
        let icmp = if proto.is_icmp() { IS_ICMP } else { 1 << NO_ICMP };
        let code = code(proto);
        let compared = code as u64 | (!code as u64) << 16 | (u32::MAX as u64) << 32;
        known[number] = [(number as u64) << PROTO | ports | icmp, compared];
        number += 1;
    }
    known
};

/// The protocol's number, with a ninth bit for those without ports.
pub(super) const fn code(proto: Proto) -> u16 {
    proto.0 as u16 | (!proto.has_ports() as u16) << 8
}

/// The highest [`code`] of a protocol with ports, and of any.
pub(super) const LAST_CODES: [u16; 2] = [0xff, 0x1ff];

/// A packet in the terms of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point<'a> {
    pub(super) words: Words,
    key: &'a FlowKey,
    members: [&'a [SetId]; 4],
}

impl<'a> Point<'a> {
    /// `used` says for which spaces memberships are looked up; the others stay empty.
    #[inline(always)]
    pub(super) fn new(q: &'a Query, sets: &'a SetTable, used: [bool; 4]) -> Self {
        let ids = |space| if used[space as usize] { sets.ids(class(&q.key, sets, used, space)) } else { &[] };
        // Written out: arrays of closures' results are not always made in place.
        let [src, dst, src_port, dst_port] = Space::ALL;
        Self::with(q, [ids(src), ids(dst), ids(src_port), ids(dst_port)])
    }

    /// With what is known of its memberships.
    #[inline(always)]
    pub(super) fn with(q: &'a Query, members: [&'a [SetId]; 4]) -> Self {
        Self { words: Words::of(q), key: &q.key, members }
    }

    /// Of words that are `key`'s.
    #[inline(always)]
    pub(super) const fn of(words: Words, key: &'a FlowKey, members: [&'a [SetId]; 4]) -> Self {
        Self { words, key, members }
    }

    #[inline]
    pub(super) fn at(&self, dim: Dim) -> u128 {
        at(&self.words, self.key, dim)
    }

    /// The sets the packet is in, ascending.
    #[inline]
    pub(super) const fn members(&self, space: Space) -> &'a [SetId] {
        self.members[space as usize]
    }

    #[inline]
    pub(super) fn is_in(&self, space: Space, set: SetId) -> bool {
        self.members(space).binary_search(&set).is_ok()
    }
}

/// The number that a packet with these words and this key has.
#[inline]
pub(super) fn at(words: &Words, key: &FlowKey, dim: Dim) -> u128 {
    let number = |shift: u32, none: u32| {
        u128::from(words.0[0] >> shift & 0xffff) | u128::from(words.0[0] >> none & 1) << 16
    };
    match dim {
        Dim::Src => key.src.bits(),
        Dim::Dst => key.dst.bits(),
        Dim::Proto => u128::from(words.0[0] >> PROTO & 0xff),
        Dim::Sport => number(0, NO_PORTS),
        Dim::Dport => number(16, NO_PORTS + 1),
        Dim::Icmp => number(ICMP, NO_ICMP),
    }
}

/// The class that `space` asks about, if it is asked.
#[inline(always)]
pub(super) fn class(key: &FlowKey, sets: &SetTable, used: [bool; 4], space: Space) -> Class {
    match space {
        _ if !used[space as usize] => Class::NONE,
        Space::Src => sets.class_of_address(key.src),
        Space::Dst => sets.class_of_address(key.dst),
        Space::SrcPort => sets.class_of_port(key.src, key.proto, key.sport),
        Space::DstPort => sets.class_of_port(key.dst, key.proto, key.dport),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::generate::{query, seeded};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(seeded(512))]

        /// Numbers read from the words are those the words' places say.
        #[test]
        fn words_hold_the_numbers_where_the_layout_says(q in query()) {
            let sets = SetTable::default();
            let point = Point::new(&q, &sets, [false; 4]);
            let version = IpVersion::of(q.key.src);
            prop_assume!(version == IpVersion::of(q.key.dst));
            let layout = if version == IpVersion::V4 { Layout::V4 } else { Layout::V6 };
            for dim in Dim::ALL {
                let read = layout.places(dim).iter().fold(0u128, |read, place| {
                    let bits = point.words.0[place.word] >> place.shift & (u64::MAX >> (64 - place.width));
                    read | u128::from(bits) << place.low
                });
                let is_v4_address = layout == Layout::V4 && matches!(dim, Dim::Src | Dim::Dst);
                let expected = if is_v4_address { point.at(dim) & 0xffff_ffff } else { point.at(dim) };
                prop_assert_eq!(read, expected, "{:?}", dim);
            }
            let half = |at: usize| (point.words.0[5 + at / 4] >> (16 * (at % 4))) as u16;
            let [sport, dport, code] = [(0, 2), (1, 3), (4, 5)].map(|(at, inverse)| {
                assert_eq!(half(at), !half(inverse));
                half(at)
            });
            prop_assert_eq!((sport, dport, code as u8), (q.key.sport, q.key.dport, q.key.proto.0));
            prop_assert_eq!(code <= LAST_CODES[0], q.key.proto.has_ports());
            prop_assert!(code <= LAST_CODES[1]);
        }

        /// A cube holds every value of the intervals it was narrowed to.
        #[test]
        fn cubes_hold_what_they_were_narrowed_to(q in query(), below in 0u128..300, above in 0u128..300) {
            let sets = SetTable::default();
            let point = Point::new(&q, &sets, [false; 4]);
            prop_assume!(IpVersion::of(q.key.src) == IpVersion::of(q.key.dst));
            let v4 = IpVersion::of(q.key.src) == IpVersion::V4;
            let layout = if v4 { Layout::V4 } else { Layout::V6 };
            let mut cube = Cube::default();
            for dim in Dim::ALL {
                let (lowest, highest) = match dim {
                    Dim::Src | Dim::Dst if v4 => (0xffff_0000_0000, 0xffff_ffff_ffff),
                    _ => (0, dim.whole().last),
                };
                let at = point.at(dim);
                let first = at.saturating_sub(below).max(lowest);
                cube.narrow(layout, dim, Interval { first, last: at.saturating_add(above).min(highest) });
            }
            for word in 0..WORDS {
                prop_assert_eq!(point.words.0[word] & cube.mask[word], cube.value[word]);
            }
        }
    }
}
