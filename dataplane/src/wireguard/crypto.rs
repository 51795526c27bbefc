//! The primitives of the handshake, under the names that WireGuard's paper gives them (§5.4).

use super::aead::reference::{SIGMA, permute};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Thirty-two bytes that nobody else may know: wiped when dropped, and never shown.
pub type Secret = Zeroizing<[u8; 32]>;

/// Where random bytes come from. Keys are made of them: in a process, that is the kernel.
pub trait Random {
    /// Fills all of `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<R: Random + ?Sized> Random for Box<R> {
    fn fill(&mut self, bytes: &mut [u8]) {
        (**self).fill(bytes);
    }
}

/// A public key, by which a peer is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("...")
    }
}

/// A key pair of Curve25519.
pub struct KeyPair {
    /// In memory of the library, which wipes it.
    private: PrivateKey,
    public: PublicKey,
}

impl KeyPair {
    /// From the private key's bytes, which need not be clamped.
    pub fn new(private: &[u8; 32]) -> Self {
        let private = PrivateKey::from_private_key(&X25519, private).expect("any 32 bytes are a key");
        let public = private.compute_public_key().expect("each private key has a public one");
        let mut bytes = [0; 32];
        bytes.copy_from_slice(public.as_ref());
        Self { private, public: PublicKey(bytes) }
    }

    /// A new one.
    pub fn random(random: &mut impl Random) -> Self {
        let mut private = Secret::default();
        random.fill(&mut *private);
        Self::new(&private)
    }

    /// The key to give away.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// DH(): nothing where the other's key is one of the few that would make it zero (RFC 7748 §6.1).
    pub(super) fn agree(&self, other: &PublicKey) -> Option<Secret> {
        agree(&self.private, UnparsedPublicKey::new(&X25519, &other.0), (), |shared| {
            let mut secret = Secret::default();
            secret.copy_from_slice(shared);
            Ok(secret)
        })
        .ok()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.public)
    }
}

/// HASH(a || b).
pub fn hash(a: &[u8], b: &[u8]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    Update::update(&mut hash, a);
    Update::update(&mut hash, b);
    hash.finalize().into()
}

/// MAC(key, input).
pub fn mac(key: &[u8], input: &[u8]) -> [u8; 16] {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("no key here is above 32 bytes");
    mac.update(input);
    mac.finalize_fixed().into()
}

/// KDFn(key, input): the first `N` keys (RFC 5869 with HMAC of BLAKE2s).
pub fn kdf<const N: usize>(key: &[u8], input: &[u8]) -> [Secret; N] {
    let root = hmac(key, &[input]);
    let mut last = Secret::default();
    std::array::from_fn(|at| {
        let before: &[u8] = if at == 0 { &[] } else { &last[..] };
        last = hmac(&root[..], &[before, &[at as u8 + 1]]);
        last.clone()
    })
}

/// HMAC (RFC 2104).
fn hmac(key: &[u8], input: &[&[u8]]) -> Secret {
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    let mut keyed = |pad: u8, input: &[&[u8]]| {
        let mut hash = Blake2s256::new();
        block.iter_mut().for_each(|byte| *byte ^= pad);
        Update::update(&mut hash, &block[..]);
        block.iter_mut().for_each(|byte| *byte ^= pad);
        input.iter().for_each(|input| Update::update(&mut hash, input));
        let mut out = Secret::default();
        FixedOutput::finalize_into(hash, (&mut *out).into());
        out
    };
    let inner = keyed(0x36, input);
    keyed(0x5c, &[&inner[..]])
}

/// AEAD(key, 0, text, associated), with the tag behind the text.
pub fn seal(key: &[u8; 32], associated: &[u8], text: &[u8], out: &mut [u8]) {
    seal_with(key, [0; 12], associated, text, out);
}

/// What [`seal`] made: false, and `out` means nothing, where it is forged.
pub fn open(key: &[u8; 32], associated: &[u8], sealed: &[u8], out: &mut [u8]) -> bool {
    open_with(key, [0; 12], associated, sealed, out)
}

/// XAEAD(key, nonce, text, associated): XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03 §2.3).
pub fn xseal(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], text: &[u8], out: &mut [u8]) {
    let (key, nonce) = extended(key, nonce);
    seal_with(&key, nonce, associated, text, out);
}

/// What [`xseal`] made: false, and `out` means nothing, where it is forged.
pub fn xopen(key: &[u8; 32], nonce: &[u8; 24], associated: &[u8], sealed: &[u8], out: &mut [u8]) -> bool {
    let (key, nonce) = extended(key, nonce);
    open_with(&key, nonce, associated, sealed, out)
}

fn seal_with(key: &[u8; 32], nonce: [u8; 12], associated: &[u8], text: &[u8], out: &mut [u8]) {
    let (sealed, tag) = out.split_at_mut(text.len());
    sealed.copy_from_slice(text);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let made = cipher(key).seal_in_place_separate_tag(nonce, Aad::from(associated), sealed);
    tag.copy_from_slice(made.expect("the cipher takes far longer texts").as_ref());
}

fn open_with(key: &[u8; 32], nonce: [u8; 12], associated: &[u8], sealed: &[u8], out: &mut [u8]) -> bool {
    let (text, tag) = sealed.split_at(out.len());
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher(key).open_separate_gather(nonce, Aad::from(associated), text, tag, out).is_ok()
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of this cipher has 32 bytes"))
}

/// HChaCha20, and the nonce that is left.
fn extended(key: &[u8; 32], nonce: &[u8; 24]) -> (Secret, [u8; 12]) {
    let mut state = Zeroizing::new([0; 16]);
    state[..4].copy_from_slice(&SIGMA);
    for (word, bytes) in state[4..].iter_mut().zip(key.as_chunks().0.iter().chain(nonce.as_chunks().0)) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut mixed = permute(*state);
    let mut key = Secret::default();
    let words = mixed[..4].iter().chain(&mixed[12..]);
    for (bytes, word) in key.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    mixed.zeroize();
    let mut short = [0; 12];
    short[4..].copy_from_slice(&nonce[16..]);
    (key, short)
}
