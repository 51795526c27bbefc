//! The words a table is made of.

/// Where a lookup goes on: two bits of tag, 30 of value or number.
///
/// Narrow nodes have the tag 0, so that the commonest entry of a direct table needs no masking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

/// What a [`Slot`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node all of whose entries are answers of 16 bits.
    Narrow(u32),
    /// A node of slots.
    Wide(u32),
    /// A run of bits that all routes below share.
    Skip(u32),
    /// The answer.
    Leaf,
}

impl Slot {
    const TAG: u32 = 0b11 << 30;
    const LEAF: u32 = 0b01 << 30;
    const WIDE: u32 = 0b10 << 30;
    const SKIP: u32 = 0b11 << 30;
    /// Numbers and values lie below.
    pub const LIMIT: u32 = 1 << 30;
    /// No route holds the address.
    pub const NO_ROUTE: Self = Self(Self::LEAF | (Self::LIMIT - 1));
    /// The largest value of a route.
    pub const MAX_VALUE: u32 = Self::LIMIT - 2;
    /// "No route" in a narrow node.
    pub const NARROW_NO_ROUTE: u16 = u16::MAX;

    /// The tags by which [`tag`](Self::tag) tells kinds apart.
    pub const NARROW_TAG: usize = 0;
    pub const LEAF_TAG: usize = 1;
    pub const WIDE_TAG: usize = 2;
    pub const SKIP_TAG: usize = 3;

    pub const fn leaf(value: u32) -> Self {
        Self(Self::LEAF | value)
    }

    pub const fn narrow(number: u32) -> Self {
        Self(number)
    }

    pub const fn wide(number: u32) -> Self {
        Self(Self::WIDE | number)
    }

    pub const fn skip(number: u32) -> Self {
        Self(Self::SKIP | number)
    }

    #[inline]
    pub const fn kind(self) -> Kind {
        let number = self.0 & !Self::TAG;
        match self.0 & Self::TAG {
            0 => Kind::Narrow(number),
            Self::WIDE => Kind::Wide(number),
            Self::SKIP => Kind::Skip(number),
            _ => Kind::Leaf,
        }
    }

    /// Its kind as a number below 4.
    #[inline]
    pub const fn tag(self) -> usize {
        (self.0 >> 30) as usize
    }

    /// The number of the node that it leads to; of a leaf, its value.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0 & !Self::TAG
    }

    /// The number of a narrow node, if it is one.
    #[inline]
    pub const fn as_narrow(self) -> Option<u32> {
        if self.0 < Self::LIMIT { Some(self.0) } else { None }
    }

    /// What a leaf answers.
    #[inline]
    pub const fn value(self) -> Option<u32> {
        if self.0 == Self::NO_ROUTE.0 { None } else { Some(self.0 & !Self::TAG) }
    }

    /// The same answer in a narrow node, if it fits.
    pub const fn to_narrow(self) -> Option<u16> {
        match self.kind() {
            Kind::Leaf if self.0 == Self::NO_ROUTE.0 => Some(Self::NARROW_NO_ROUTE),
            Kind::Leaf if self.0 & !Self::TAG < Self::NARROW_NO_ROUTE as u32 => Some(self.0 as u16),
            _ => None,
        }
    }

    /// A narrow node's entry as a slot of its own.
    #[inline]
    pub const fn from_narrow(entry: u16) -> Self {
        if entry == Self::NARROW_NO_ROUTE { Self::NO_ROUTE } else { Self::leaf(entry as u32) }
    }
}
