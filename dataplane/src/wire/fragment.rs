//! What fragments say of themselves, of either IP version (RFC 791 §3.2, RFC 8200 §4.5).

use super::Malformed;

/// A piece of a packet that was cut for the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Chosen by the sender, the same for every piece; IPv4's has 16 bits.
    pub id: u32,
    /// First byte of the piece within what was cut.
    pub start: u16,
    /// The byte behind its last one.
    pub end: u16,
    /// It is the last piece.
    pub last: bool,
}

impl Fragment {
    /// `start` and `last` as the header's field of 13 or 16 bits says, `len` bytes of data, and
    /// `whole_header` bytes that the packet will have in front of them when it is put together.
    /// Refused: an empty piece, one that does not end on eight bytes though more follow, and one
    /// that makes the packet longer than a packet can be.
    pub(super) fn new(
        id: u32,
        start: u16,
        last: bool,
        len: usize,
        whole_header: usize,
    ) -> Result<Self, Malformed> {
        let end = usize::from(start) + len;
        if len == 0 || (!last && !len.is_multiple_of(8)) || end + whole_header > usize::from(u16::MAX) {
            return Err(Malformed::Length);
        }
        Ok(Self { id, start, end: end as u16, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_impossible() {
        assert!(Fragment::new(1, 0, false, 8, 20).is_ok());
        assert!(Fragment::new(1, 8, true, 1, 20).is_ok());
        assert_eq!(Fragment::new(1, 8, true, 0, 20), Err(Malformed::Length), "nothing in it");
        assert_eq!(Fragment::new(1, 0, false, 9, 20), Err(Malformed::Length), "the next has no place");
        assert!(Fragment::new(1, 65_512, true, 3, 20).is_ok());
        assert_eq!(Fragment::new(1, 65_512, true, 4, 20), Err(Malformed::Length), "too long");
    }
}
