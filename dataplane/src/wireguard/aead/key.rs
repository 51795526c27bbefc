//! The key of one direction of a session.

use super::Packet;
use super::lane::words;
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::fmt;
use zeroize::Zeroize;

/// A key, in the form in which lanes read it and in the library's. Wiped when dropped.
pub struct Key {
    words: [u32; 8],
    /// Has memory of its own, which the library wipes.
    library: LessSafeKey,
}

impl Key {
    /// From the bytes that a handshake agreed upon. Allocates.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let library = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("a key of this cipher has 32 bytes");
        Self { words: words(bytes), library: LessSafeKey::new(library) }
    }

    /// As the cipher's state has it (RFC 8439 §2.3).
    pub(super) const fn words(&self) -> &[u32; 8] {
        &self.words
    }

    /// Seals one packet with the library.
    pub(super) fn seal(&self, packet: &mut Packet<'_>) {
        let nonce = Nonce::assume_unique_for_key(packet.nonce());
        let (text, tag) = packet.parts();
        let sealed = self.library.seal_in_place_separate_tag(nonce, Aad::empty(), text);
        tag.copy_from_slice(sealed.expect("the cipher takes far longer texts").as_ref());
    }

    /// Opens one packet with the library: false where it is forged, and then its text means nothing.
    pub(super) fn open(&self, packet: &mut Packet<'_>) -> bool {
        let nonce = Nonce::assume_unique_for_key(packet.nonce());
        self.library.open_in_place(nonce, Aad::empty(), packet.bytes()).is_ok()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.words.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
