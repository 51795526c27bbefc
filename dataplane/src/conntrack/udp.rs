//! UDP, and every other protocol whose packets say nothing about the session they belong to.

use super::flow::Direction;

/// Whether both ends have been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// Packets in the original direction only.
    Unreplied,
    /// Packets in both directions.
    Replied,
}

impl Exchange {
    /// The state after a packet.
    #[inline]
    pub const fn step(self, direction: Direction) -> Self {
        match direction {
            Direction::Original => self,
            Direction::Reply => Self::Replied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reply_is_enough() {
        use Direction::{Original, Reply};
        assert_eq!(Exchange::Unreplied.step(Original), Exchange::Unreplied);
        assert_eq!(Exchange::Unreplied.step(Reply), Exchange::Replied);
        assert_eq!(Exchange::Replied.step(Original), Exchange::Replied);
    }
}
