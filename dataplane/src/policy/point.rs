//! A packet in the terms of entries, and as words whose bits trees pick.

use super::lower::{Dim, Interval, NONE, Space};
use super::{Class, IpVersion, Query, SetId, SetTable};
use crate::net::{FlowKey, Proto};

/// Words of a point.
pub(super) const WORDS: usize = 5;

/// Where the numbers of a point stand in its words.
///
/// The first word holds ICMP type, protocol, source port and destination port, 17, 8, 17 and 17
/// bits: the value for "none" has a bit of its own. IPv4 addresses share the second word; IPv6
/// addresses take two words each.
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
    /// Words that hold addresses.
    pub(super) const fn address_words(self) -> usize {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }

    /// Where `dim` stands.
    pub(super) const fn places(self, dim: Dim) -> &'static [Place] {
        match (self, dim) {
            (_, Dim::Dport) => const { &[place(0, 0, 17, 0)] },
            (_, Dim::Sport) => const { &[place(0, 17, 17, 0)] },
            (_, Dim::Proto) => const { &[place(0, 34, 8, 0)] },
            (_, Dim::Icmp) => const { &[place(0, ICMP_SHIFT, 17, 0)] },
            (Self::V4, Dim::Src) => const { &[place(1, 32, 32, 0)] },
            (Self::V4, Dim::Dst) => const { &[place(1, 0, 32, 0)] },
            (Self::V6, Dim::Src) => const { &[place(1, 0, 64, 64), place(2, 0, 64, 0)] },
            (Self::V6, Dim::Dst) => const { &[place(3, 0, 64, 64), place(4, 0, 64, 0)] },
        }
    }
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Words(pub(super) [u64; 8]);

/// Where [`Words::key`] stands.
const KEY: usize = WORDS;

impl Words {
    /// Source port, destination port, and [`code`] of the protocol, 16 bits each.
    #[inline(always)]
    pub(super) const fn key(&self) -> u64 {
        self.0[KEY]
    }

    /// Each of these, and its inverse: so that "at least the first" and "at most the last" are one
    /// comparison, at most.
    #[inline(always)]
    pub(super) fn keys(&self) -> [u16; 6] {
        let [sport, dport, code] = [0, 16, 32].map(|shift| (self.key() >> shift) as u16);
        [sport, !sport, dport, !dport, code, !code]
    }
}

/// The protocol's number, with a ninth bit for those without ports.
#[inline(always)]
pub(super) fn code(proto: Proto) -> u16 {
    CODES[proto.0 as usize]
}

/// By protocol: comparing with one after the other would be guesswork for the processor.
static CODES: [u16; 256] = {
    let mut codes = [0; 256];
    let mut proto = 0;
    while proto < 256 {
        codes[proto] = proto as u16 | (!Proto(proto as u8).has_ports() as u16) << 8;
        proto += 1;
    }
    codes
};

/// The highest [`code`] of a protocol with ports, and of any.
pub(super) const LAST_CODES: [u16; 2] = [0xff, 0x1ff];

/// A packet in the terms of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point<'a> {
    pub(super) words: Words,
    key: &'a FlowKey,
    members: [&'a [SetId]; 4],
}

const ICMP_SHIFT: u32 = 42;

impl<'a> Point<'a> {
    /// `used` says for which spaces memberships are looked up; the others stay empty.
    #[inline(always)]
    pub(super) fn new(q: &'a Query, sets: &'a SetTable, used: [bool; 4]) -> Self {
        let ids = |space| if used[space as usize] { sets.ids(class(&q.key, sets, used, space)) } else { &[] };
        Self::with(q, Space::ALL.map(ids))
    }

    /// With what is known of its memberships.
    #[inline(always)]
    pub(super) fn with(q: &'a Query, members: [&'a [SetId]; 4]) -> Self {
        let key = &q.key;
        let none = NONE as u64;
        let code = code(key.proto);
        // All ones for those without ports.
        let portless = u64::from(code > LAST_CODES[0]).wrapping_neg();
        let ports = u64::from(key.sport) << 17 | u64::from(key.dport);
        let ports = ports & !portless | (none << 17 | none) & portless;
        let icmp = match key.proto.is_icmp() {
            true => u64::from(q.icmp.kind) << 8 | u64::from(q.icmp.code),
            false => none,
        };
        let mut words = [icmp << ICMP_SHIFT | u64::from(key.proto.0) << 34 | ports, 0, 0, 0, 0, 0, 0, 0];
        words[KEY] = u64::from(key.sport) | u64::from(key.dport) << 16 | u64::from(code) << 32;
        match IpVersion::of(key.src) {
            IpVersion::V4 => words[1] = u64::from(key.src.v4_bits()) << 32 | u64::from(key.dst.v4_bits()),
            IpVersion::V6 => {
                let (src, dst) = (key.src.bits(), key.dst.bits());
                words[1..WORDS].copy_from_slice(&[
                    (src >> 64) as u64,
                    src as u64,
                    (dst >> 64) as u64,
                    dst as u64,
                ]);
            }
        }
        Self { words: Words(words), key, members }
    }

    #[inline]
    pub(super) fn at(&self, dim: Dim) -> u128 {
        let number = |shift: u32, width: u32| u128::from(self.words.0[0] >> shift & ((1 << width) - 1));
        match dim {
            Dim::Src => self.key.src.bits(),
            Dim::Dst => self.key.dst.bits(),
            Dim::Proto => number(34, 8),
            Dim::Sport => number(17, 17),
            Dim::Dport => number(0, 17),
            Dim::Icmp => number(ICMP_SHIFT, 17),
        }
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

/// Fetches what [`class`] reads first.
#[inline(always)]
pub(super) fn prefetch_class(key: &FlowKey, sets: &SetTable, used: [bool; 4], space: Space) {
    match space {
        _ if !used[space as usize] => {}
        Space::Src => sets.prefetch_address(key.src),
        Space::Dst => sets.prefetch_address(key.dst),
        Space::SrcPort => sets.prefetch_port(key.src, key.proto, key.sport),
        Space::DstPort => sets.prefetch_port(key.dst, key.proto, key.dport),
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
            let [sport, _, dport, _, code, _] = point.words.keys();
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
