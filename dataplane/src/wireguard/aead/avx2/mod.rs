//! Eight blocks and four packets at once, with AVX2: for processors without AVX-512.
//!
//! ChaCha20 has a lane of 32 bits for each block, of whichever packet; Poly1305 a lane of 64 bits for
//! each packet. There are no masked loads of bytes. But behind a text stand the sixteen bytes of its
//! tag, so sixteen bytes may be read from wherever the text is, and written back as they were.

mod chacha;
mod poly;

use super::kernel::compare;
use super::lane::Lane;
use super::scattered::Block;
use super::{GROUP, TAG};
use chacha::Scattered;

/// Whether this processor has what is used here.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx2")
}

/// Seals 1 to [`GROUP`] packets.
#[target_feature(enable = "avx2")]
pub(super) fn seal(lanes: &[Lane<'_>]) {
    let mut secrets = [Block::ZERO; GROUP];
    let mut scattered = Scattered::new(lanes);
    for (lane, secret) in lanes.iter().zip(&mut secrets) {
        scattered.secret(lane, secret);
    }
    for lane in lanes {
        scattered.apply(lane);
    }
    scattered.finish();
    for (lane, tag) in lanes.iter().zip(tags(lanes, &secrets)) {
        lane.set_tag(tag);
    }
}

/// Opens 1 to [`GROUP`] packets, and says which are genuine.
#[target_feature(enable = "avx2")]
pub(super) fn open(lanes: &[Lane<'_>]) -> [bool; GROUP] {
    let mut secrets = [Block::ZERO; GROUP];
    let mut scattered = Scattered::new(lanes);
    for (lane, secret) in lanes.iter().zip(&mut secrets) {
        scattered.secret(lane, secret);
    }
    scattered.finish();
    let genuine = compare(lanes, &tags(lanes, &secrets));
    let mut scattered = Scattered::new(lanes);
    for (lane, _) in lanes.iter().zip(genuine).filter(|(_, genuine)| *genuine) {
        scattered.apply(lane);
    }
    scattered.finish();
    genuine
}

/// The tags of encrypted texts.
#[target_feature(enable = "avx2")]
#[inline]
fn tags(lanes: &[Lane<'_>], secrets: &[Block; GROUP]) -> [[u8; TAG]; GROUP] {
    let mut tags = [[0; TAG]; GROUP];
    let fours = lanes.chunks(poly::FOUR).zip(secrets.as_chunks().0).zip(tags.as_chunks_mut().0);
    for ((lanes, secrets), tags) in fours {
        // Lanes without a packet do the first one's work again: what they say is not looked at.
        let lane = |at: usize| lanes.get(at).unwrap_or(&lanes[0]);
        *tags = poly::tags([lane(0), lane(1), lane(2), lane(3)], secrets);
    }
    tags
}
