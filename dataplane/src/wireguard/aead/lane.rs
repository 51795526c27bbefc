//! A packet to seal or open, and what a kernel sees of it.

use super::{Key, TAG};
use std::marker::PhantomData;

/// Bytes of text at most: an IP packet of any length, padded.
pub const MAX_TEXT: usize = 1 << 16;

/// A packet to seal or to open, in place.
#[derive(Debug)]
pub struct Packet<'a> {
    key: &'a Key,
    nonce: [u8; 12],
    bytes: &'a mut [u8],
}

/// Bytes that are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes: give a text of up to {MAX_TEXT}, and {TAG} more for its tag")]
pub struct PacketError(pub(in crate::wireguard) usize);

impl<'a> Packet<'a> {
    /// Of `bytes`: the text, and behind it [`TAG`] bytes for the tag. No two packets sealed under one
    /// key may have one counter.
    pub fn new(key: &'a Key, counter: u64, bytes: &'a mut [u8]) -> Result<Self, PacketError> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        Self::with_nonce(key, nonce, bytes)
    }

    /// The same with any nonce, as other protocols choose theirs.
    pub fn with_nonce(key: &'a Key, nonce: [u8; 12], bytes: &'a mut [u8]) -> Result<Self, PacketError> {
        match bytes.len() {
            TAG.. if bytes.len() <= MAX_TEXT + TAG => Ok(Self { key, nonce, bytes }),
            wrong => Err(PacketError(wrong)),
        }
    }

    /// Text and tag.
    pub const fn bytes(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// The same, apart.
    pub(super) fn parts(&mut self) -> (&mut [u8], &mut [u8; TAG]) {
        self.bytes.split_last_chunk_mut().expect("a packet has room for its tag")
    }

    pub(super) const fn key(&self) -> &'a Key {
        self.key
    }

    pub(super) const fn nonce(&self) -> [u8; 12] {
        self.nonce
    }

    /// Bytes of the text.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len() - TAG
    }
}

/// A packet as a kernel sees it: while a lane lives, nobody else reads or writes `len` and [`TAG`]
/// bytes from `text` on. Copies are for one and the same kernel.
#[derive(Clone, Copy)]
pub(super) struct Lane<'a> {
    pub key: &'a [u32; 8],
    pub nonce: [u32; 3],
    pub text: *mut u8,
    pub len: usize,
    packet: PhantomData<&'a mut [u8]>,
}

impl<'a> Lane<'a> {
    /// Of a packet, which is the lane's until it goes.
    pub fn new(packet: &'a mut Packet<'_>) -> Self {
        let len = packet.len();
        Self {
            key: packet.key.words(),
            nonce: words(&packet.nonce),
            text: packet.bytes.as_mut_ptr(),
            len,
            packet: PhantomData,
        }
    }

    /// Writes the tag.
    #[inline]
    pub fn set_tag(&self, tag: [u8; TAG]) {
        // SAFETY: the tag stands behind the text, and both are this lane's.
        unsafe { self.text.add(self.len).cast::<[u8; TAG]>().write_unaligned(tag) }
    }

    /// Whether the packet's tag is this one, in a time that says nothing of either.
    #[inline]
    pub fn has_tag(&self, tag: [u8; TAG]) -> bool {
        // SAFETY: as above.
        let read = unsafe { self.text.add(self.len).cast::<[u8; TAG]>().read_unaligned() };
        same(read, tag)
    }

    /// Bytes of block `block` of the text: 64 but in the last.
    #[inline]
    pub const fn left(&self, block: usize) -> usize {
        let left = self.len.saturating_sub(64 * block);
        if left < 64 { left } else { 64 }
    }
}

/// Little-endian words.
pub(super) fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// Compares all bits, whichever differ.
#[inline]
pub(super) fn same(a: [u8; TAG], b: [u8; TAG]) -> bool {
    let differing = u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b);
    // The compiler is not to learn that only zero matters before both halves are folded.
    std::hint::black_box((differing >> 64) as u64 | differing as u64) == 0
}
