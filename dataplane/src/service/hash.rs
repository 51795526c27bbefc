//! Hashes that are the same on every node, so that nodes choose the same backend for the same
//! packet: a router that moves a client's packets to another node moves them to the same backend.
//! They are not keyed, and nothing here that could be filled up is found by them.

use crate::net::{Addr, FlowKey};

/// Folds the 128-bit product of two words, each made odd in its own way.
#[inline]
pub(super) const fn mix(a: u64, b: u64) -> u64 {
    let product = ((a ^ 0x9e37_79b9_7f4a_7c15) as u128) * ((b ^ 0xd1b5_4a32_d192_ed03) as u128);
    let folded = (product >> 64) as u64 ^ product as u64;
    // A factor that is 0 makes the product 0, whatever the other one was.
    folded ^ a.rotate_left(32) ^ b
}

/// Of an address.
#[inline]
pub(super) const fn of_addr(addr: Addr, salt: u64) -> u64 {
    let bits = addr.bits();
    mix(mix((bits >> 64) as u64, bits as u64), salt)
}

/// Of the client's end of a flow.
#[inline]
pub(super) fn of_flow(key: &FlowKey, salt: u64) -> u64 {
    mix(of_addr(key.src, salt), u64::from(key.sport) << 8 | u64::from(key.proto.0))
}

/// Of a name.
pub(super) fn of_text(text: &str) -> u64 {
    text.bytes().fold(text.len() as u64, |hash, byte| mix(hash, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Proto;

    #[test]
    fn every_bit_of_the_client_counts() {
        let key = FlowKey {
            src: "10.0.0.1".parse().unwrap(),
            sport: 4000,
            proto: Proto::TCP,
            ..FlowKey::default()
        };
        let hash = of_flow(&key, 1);
        for other in [
            FlowKey { src: "10.0.0.2".parse().unwrap(), ..key },
            FlowKey { src: "2001:db8::1".parse().unwrap(), ..key },
            FlowKey { sport: 4001, ..key },
            FlowKey { proto: Proto::UDP, ..key },
        ] {
            assert_ne!(of_flow(&other, 1), hash, "{other}");
        }
        assert_ne!(of_flow(&key, 2), hash);
        assert_ne!(of_text("ab"), of_text("ba"));
    }

    #[test]
    fn high_bits_of_near_inputs_are_spread() {
        let mut buckets = [0u32; 64];
        for host in 0..4096u64 {
            let src = Addr::from_bits((0xffff << 32 | 0x0a41_0000 | host).into());
            buckets[(of_addr(src, 3) >> 58) as usize] += 1;
        }
        assert!(buckets.iter().all(|n| (30..110).contains(n)), "{buckets:?}");
    }
}
