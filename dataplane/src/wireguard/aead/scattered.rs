//! What kernels have in common: blocks of the key stream, and lanes that take any block of any packet.

/// A block of the key stream.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Block(pub [u8; 64]);

impl Block {
    pub const ZERO: Self = Self([0; 64]);
}

/// Makes `Scattered`, with so many lanes, for a kernel with these instructions; which gives it a `run` that joins what the lanes
/// point at with their blocks. A macro, as functions with instructions of their own cannot be generic over them.
macro_rules! scattered {
    ($lanes:expr, $instructions:literal) => {
        /// Any blocks of any packets: each takes the next lane.
        pub struct Scattered<'a> {
            keys: [&'a [u32; 8]; $lanes],
            nonces: [[u32; 3]; $lanes],
            numbers: [u32; $lanes],
            /// What the lane's block is joined with: bytes from here on, so many. Behind them stands the tag.
            targets: [(*mut u8, usize); $lanes],
            filled: usize,
        }

        impl<'a> Scattered<'a> {
            /// Without a block yet.
            pub fn new(lanes: &[Lane<'a>]) -> Self {
                // Idle lanes point at bytes that are there.
                Self {
                    keys: [lanes[0].key; $lanes],
                    nonces: [[0; 3]; $lanes],
                    numbers: [0; $lanes],
                    targets: [(lanes[0].text, 0); $lanes],
                    filled: 0,
                }
            }

            /// Block 0 of a packet, into `secret`, which is zero. It is there after [`Self::finish`].
            #[target_feature(enable = $instructions)]
            #[inline]
            pub fn secret(
                &mut self,
                lane: &Lane<'a>,
                secret: &'a mut $crate::wireguard::aead::scattered::Block,
            ) {
                self.push(lane, 0, secret.0.as_mut_ptr(), 64);
            }

            /// Encrypts or decrypts a text, complete after [`Self::finish`].
            #[target_feature(enable = $instructions)]
            #[inline]
            pub fn apply(&mut self, lane: &Lane<'a>) {
                for block in 0..lane.len.div_ceil(64) {
                    // SAFETY: the block begins within the text.
                    let target = unsafe { lane.text.add(64 * block) };
                    self.push(lane, block as u32 + 1, target, lane.left(block));
                }
            }

            /// Does what is left.
            #[target_feature(enable = $instructions)]
            #[inline]
            pub fn finish(mut self) {
                if self.filled > 0 {
                    for (_, len) in &mut self.targets[self.filled..] {
                        *len = 0;
                    }
                    self.run();
                }
            }

            #[target_feature(enable = $instructions)]
            #[inline]
            fn push(&mut self, lane: &Lane<'a>, number: u32, target: *mut u8, len: usize) {
                let at = self.filled % $lanes;
                self.keys[at] = lane.key;
                self.nonces[at] = lane.nonce;
                self.numbers[at] = number;
                self.targets[at] = (target, len);
                self.filled = at + 1;
                if self.filled == $lanes {
                    self.run();
                    self.filled = 0;
                }
            }
        }
    };
}

pub(super) use scattered;
