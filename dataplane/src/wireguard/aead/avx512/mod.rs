//! Sixteen packets at once, with AVX-512 and its multiplications of 52 bits (IFMA).
//!
//! ChaCha20 has a lane of 32 bits for each block that it makes. Where sixteen packets have the same
//! number of blocks, a packet keeps its lane, and keys and nonces are laid out once; else any block
//! of any packet takes the next free lane. Block 0 of each packet, the key of its tag, is made in the
//! same way, sixteen at once. Poly1305 has a lane of 64 bits for each packet, so eight in a register.
//!
//! What is measured: a load whose mask is zero costs some 470 cycles where the address is not
//! mapped. So lanes with nothing to do point at other lanes' bytes.

mod chacha;
mod poly;

use super::kernel::compare;
use super::lane::Lane;
use super::scattered::Block;
use super::{GROUP, TAG};
use arrayvec::ArrayVec;
use chacha::{Columns, Scattered};
use poly::EIGHT;

/// Whether this processor has all that is used here.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512vbmi2")
}

/// Seals 1 to [`GROUP`] packets.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
pub(super) fn seal(lanes: &[Lane<'_>]) {
    let mut secrets = [Block::ZERO; GROUP];
    if let Some(columns) = Columns::new(lanes) {
        columns.secrets(&mut secrets);
        columns.apply();
    } else {
        let mut scattered = Scattered::new(lanes);
        for (lane, secret) in lanes.iter().zip(&mut secrets) {
            scattered.secret(lane, secret);
        }
        for lane in lanes {
            scattered.apply(lane);
        }
        scattered.finish();
    }
    for (lane, tag) in lanes.iter().zip(tags(lanes, &secrets)) {
        lane.set_tag(tag);
    }
}

/// Opens 1 to [`GROUP`] packets, and says which are genuine.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
pub(super) fn open(lanes: &[Lane<'_>]) -> [bool; GROUP] {
    let mut secrets = [Block::ZERO; GROUP];
    let columns = Columns::new(lanes);
    if let Some(columns) = &columns {
        columns.secrets(&mut secrets);
    } else {
        let mut scattered = Scattered::new(lanes);
        for (lane, secret) in lanes.iter().zip(&mut secrets) {
            scattered.secret(lane, secret);
        }
        scattered.finish();
    }
    let genuine = compare(lanes, &tags(lanes, &secrets));
    match columns {
        Some(columns) if genuine == [true; GROUP] => columns.apply(),
        _ => {
            let mut scattered = Scattered::new(lanes);
            for (lane, _) in lanes.iter().zip(genuine).filter(|(_, genuine)| *genuine) {
                scattered.apply(lane);
            }
            scattered.finish();
        }
    }
    genuine
}

/// The tags of encrypted texts.
#[target_feature(enable = "avx512bw,avx512ifma,avx512vbmi2")]
#[inline]
fn tags(lanes: &[Lane<'_>], secrets: &[Block; GROUP]) -> [[u8; TAG]; GROUP] {
    let mut tags = [[0; TAG]; GROUP];
    let eights = lanes.chunks(EIGHT).zip(secrets.as_chunks().0).zip(tags.as_chunks_mut().0);
    for ((lanes, secrets), tags) in eights {
        // Lanes without a packet do the first one's work again: what they say is not looked at.
        let mut eight: ArrayVec<_, EIGHT> = lanes.iter().copied().collect();
        while !eight.is_full() {
            eight.push(lanes[0]);
        }
        if let Ok(eight) = eight.into_inner() {
            *tags = poly::tags(&eight, secrets);
        }
    }
    tags
}
