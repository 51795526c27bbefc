//! The same, of one packet and one block after the other, as RFC 8439 says it: the twin that the
//! kernels must agree with. Slow: real packets go to a kernel or to the library.

use super::lane::words;
use super::{Packet, TAG};

/// "expand 32-byte k" (§2.3).
pub const SIGMA: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Seals in place (§2.8).
pub fn seal(packet: &mut Packet<'_>) {
    let stream = Stream::of(packet);
    let (text, tag) = packet.parts();
    stream.apply(text);
    *tag = stream.tag(text);
}

/// Opens in place; false, and the text as it came, where it is forged.
pub fn open(packet: &mut Packet<'_>) -> bool {
    let stream = Stream::of(packet);
    let (text, tag) = packet.parts();
    let genuine = super::lane::same(*tag, stream.tag(text));
    if genuine {
        stream.apply(text);
    }
    genuine
}

/// The permutation of §2.3, before its input is added: also what HChaCha20 is made of
/// (draft-irtf-cfrg-xchacha-03 §2.2).
pub fn permute(mut x: [u32; 16]) -> [u32; 16] {
    for _ in 0..10 {
        for [a, b, c, d] in [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]] {
            quarter_round(&mut x, a, b, c, d);
        }
        for [a, b, c, d] in [[0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]] {
            quarter_round(&mut x, a, b, c, d);
        }
    }
    x
}

/// §2.1.
fn quarter_round(x: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    for (a, b, d, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        x[a] = x[a].wrapping_add(x[b]);
        x[d] = (x[d] ^ x[a]).rotate_left(by);
    }
}

/// The key stream of one packet.
struct Stream {
    key: [u32; 8],
    nonce: [u32; 3],
}

impl Stream {
    fn of(packet: &Packet<'_>) -> Self {
        Self { key: *packet.key().words(), nonce: words(&packet.nonce()) }
    }

    /// Block `number` (§2.3).
    fn block(&self, number: u32) -> [u8; 64] {
        let mut state = [0; 16];
        state[..4].copy_from_slice(&SIGMA);
        state[4..12].copy_from_slice(&self.key);
        state[12] = number;
        state[13..].copy_from_slice(&self.nonce);
        let mut block = [0; 64];
        for ((bytes, a), b) in block.as_chunks_mut().0.iter_mut().zip(permute(state)).zip(state) {
            *bytes = a.wrapping_add(b).to_le_bytes();
        }
        block
    }

    /// Encrypts or decrypts (§2.4).
    fn apply(&self, text: &mut [u8]) {
        for (number, bytes) in (1..).zip(text.chunks_mut(64)) {
            for (byte, stream) in bytes.iter_mut().zip(self.block(number)) {
                *byte ^= stream;
            }
        }
    }

    /// Of an encrypted text, without associated data (§2.5, §2.6, §2.8).
    fn tag(&self, text: &[u8]) -> [u8; TAG] {
        let [r, s, ..] = *self.block(0).as_chunks().0 else { unreachable!("64 bytes are four times 16") };
        let r = u128::from_le_bytes(r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let lengths = (text.len() as u128) << 64;
        let mut sum = Number::default();
        for block in text.chunks(TAG) {
            let mut padded = [0; TAG];
            padded[..block.len()].copy_from_slice(block);
            sum = sum.plus(Number::block(u128::from_le_bytes(padded))).times(Number::from(r));
        }
        sum = sum.plus(Number::block(lengths)).times(Number::from(r));
        sum.modulo_2_128().wrapping_add(u128::from_le_bytes(s)).to_le_bytes()
    }
}

const LOW_44: u64 = (1 << 44) - 1;
const LOW_42: u64 = (1 << 42) - 1;

/// A number modulo 2^130 - 5: limbs of 44, 44 and 42 bits, each of which may run over a little.
#[derive(Clone, Copy, Default)]
struct Number([u64; 3]);

impl From<u128> for Number {
    fn from(n: u128) -> Self {
        Self([n as u64 & LOW_44, (n >> 44) as u64 & LOW_44, (n >> 88) as u64])
    }
}

impl Number {
    /// Sixteen bytes of a message, and the bit above them.
    fn block(n: u128) -> Self {
        let Self([a, b, c]) = Self::from(n);
        Self([a, b, c | 1 << 40])
    }

    const fn plus(self, other: Self) -> Self {
        let (Self([a, b, c]), Self([x, y, z])) = (self, other);
        Self([a + x, b + y, c + z])
    }

    /// What passes 2^130 comes back five times, and limbs of 44 bits make that twenty times for 2^132.
    fn times(self, other: Self) -> Self {
        let [a, b, c] = self.0.map(u128::from);
        let [x, y, z] = other.0.map(u128::from);
        let low = a * x + 20 * (b * z + c * y);
        let middle = a * y + b * x + 20 * c * z + (low >> 44);
        let high = a * z + b * y + c * x + (middle >> 44);
        let first = (low as u64 & LOW_44) + 5 * (high >> 42) as u64;
        Self([first & LOW_44, (middle as u64 & LOW_44) + (first >> 44), high as u64 & LOW_42])
    }

    /// The one number below 2^130 - 5 that is meant, without what is above 2^128.
    fn modulo_2_128(self) -> u128 {
        let Self([mut a, mut b, mut c]) = self;
        for _ in 0..2 {
            b += a >> 44;
            c += b >> 44;
            a = (a & LOW_44) + 5 * (c >> 42);
            (b, c) = (b & LOW_44, c & LOW_42);
        }
        let whole = |a: u64, b: u64, c: u64| {
            u128::from(a).wrapping_add(u128::from(b) << 44).wrapping_add(u128::from(c) << 88)
        };
        // Five more, and it passes 2^130?
        let over = (a + 5) >> 44;
        let over = (b + over) >> 44;
        let over = (c + over) >> 42;
        whole(a, b, c).wrapping_add(5 * u128::from(over))
    }
}
