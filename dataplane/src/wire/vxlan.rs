//! VXLAN (RFC 7348).

use super::{Malformed, read};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Where it goes unless configured otherwise (RFC 7348 §8).
pub const PORT: u16 = 4789;
/// The flag that says there is a network identifier.
const VALID: u8 = 0x08;

/// The network that a packet belongs to, whose header `bytes` begin with. What is reserved is not
/// looked at (RFC 7348 §5).
pub fn network(bytes: &[u8]) -> Result<u32, Malformed> {
    let [flags, _, _, _, a, b, c, _]: [u8; HEADER_LEN] = read(bytes, 0)?;
    if flags & VALID == 0 {
        return Err(Malformed::Value);
    }
    Ok(u32::from_be_bytes([0, a, b, c]))
}

/// A header for a network, of whose number the low 24 bits count.
pub const fn emit(network: u32) -> [u8; HEADER_LEN] {
    let [_, a, b, c] = network.to_be_bytes();
    [VALID, 0, 0, 0, a, b, c, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_is_read() {
        for number in [0, 4096, 0xff_ffff] {
            assert_eq!(network(&emit(number)), Ok(number));
        }
        assert_eq!(emit(4096), [8, 0, 0, 0, 0, 0x10, 0, 0]);
        let reserved = [0xff, 1, 2, 3, 0, 0, 7, 9];
        assert_eq!(network(&reserved), Ok(7), "what is reserved is ignored");
        assert_eq!(network(&[0; 8]), Err(Malformed::Value));
        assert_eq!(network(&emit(1)[..7]), Err(Malformed::Truncated));
    }
}
