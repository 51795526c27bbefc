//! The handshake: Noise_IKpsk2 over Curve25519, ChaCha20-Poly1305 and BLAKE2s (WireGuard's paper, §5.4).
//!
//! One round trip. Both ends know each other's public keys beforehand, or at least the initiator does;
//! what both add for this handshake alone makes past traffic safe when a key is lost later.

use super::crypto::{self, KeyPair, PublicKey, Random, Secret};
use crate::wire::wireguard::{Initiation, MAC, Response};
use zeroize::Zeroizing;

/// §5.4, the first hash.
const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// §5.4, mixed into it.
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// When an initiation was made, as TAI64N: bytes whose order is that of time.
pub type Timestamp = [u8; 12];

/// What a handshake with one peer needs besides our own keys.
pub struct PeerKeys {
    pub public: PublicKey,
    /// DH of both long-lived keys, always the same.
    both: Secret,
    /// Zero where there is none.
    pub preshared: Secret,
}

impl PeerKeys {
    /// Nothing where the public key is one of the few that agree upon zero.
    pub fn new(ours: &KeyPair, public: PublicKey, preshared: Secret) -> Option<Self> {
        ours.agree(&public).map(|both| Self { public, both, preshared })
    }
}

/// What a handshake agreed upon.
pub struct TransportKeys {
    pub send: Secret,
    pub receive: Secret,
}

/// An initiation that we sent, and that may be answered.
pub struct Initiated {
    transcript: Transcript,
    ephemeral: KeyPair,
}

impl Initiated {
    /// Makes an initiation, its codes still to be added. `sender` is what we call the session.
    pub fn new(
        ours: &KeyPair,
        peer: &PeerKeys,
        sender: u32,
        timestamp: &Timestamp,
        random: &mut impl Random,
    ) -> Option<(Self, Initiation)> {
        let ephemeral = KeyPair::random(random);
        let mut transcript = Transcript::new(&peer.public);
        transcript.mix_ephemeral(&ephemeral.public());
        let key = transcript.mix_shared(&*ephemeral.agree(&peer.public)?);
        let mut message = Initiation {
            sender,
            ephemeral: ephemeral.public().0,
            key: [0; 48],
            timestamp: [0; 28],
            mac1: [0; MAC],
            mac2: [0; MAC],
        };
        transcript.seal(&key, &ours.public().0, &mut message.key);
        let key = transcript.mix_shared(&peer.both);
        transcript.seal(&key, timestamp, &mut message.timestamp);
        Some((Self { transcript, ephemeral }, message))
    }

    /// The keys, if the response is genuine. If not, another may be.
    pub fn finish(&self, ours: &KeyPair, peer: &PeerKeys, response: &Response) -> Option<TransportKeys> {
        let theirs = PublicKey(response.ephemeral);
        let mut transcript = self.transcript.clone();
        transcript.mix_ephemeral(&theirs);
        transcript.mix_shared(&*self.ephemeral.agree(&theirs)?);
        transcript.mix_shared(&*ours.agree(&theirs)?);
        let key = transcript.mix_preshared(&peer.preshared);
        transcript.open(&key, &response.nothing, &mut [])?;
        let [send, receive] = transcript.split();
        Some(TransportKeys { send, receive })
    }
}

/// An initiation that we received, and whom it says it is from.
pub struct Claimed {
    transcript: Transcript,
    message: Initiation,
    pub from: PublicKey,
}

impl Claimed {
    /// Reads as far as the sender's public key. Genuine only when [`Self::proven`].
    pub fn read(ours: &KeyPair, message: &Initiation) -> Option<Self> {
        let theirs = PublicKey(message.ephemeral);
        let mut transcript = Transcript::new(&ours.public());
        transcript.mix_ephemeral(&theirs);
        let key = transcript.mix_shared(&*ours.agree(&theirs)?);
        let mut from = PublicKey([0; 32]);
        transcript.open(&key, &message.key, &mut from.0)?;
        Some(Self { transcript, message: *message, from })
    }

    /// Whether the sender has the private key: then when it says that it made this.
    pub fn proven(mut self, peer: &PeerKeys) -> Option<(Proven, Timestamp)> {
        let key = self.transcript.mix_shared(&peer.both);
        let mut timestamp = Timestamp::default();
        self.transcript.open(&key, &self.message.timestamp, &mut timestamp)?;
        Some((Proven { transcript: self.transcript, message: self.message }, timestamp))
    }
}

/// A genuine initiation, to be answered.
pub struct Proven {
    transcript: Transcript,
    message: Initiation,
}

impl Proven {
    /// Makes the response, its codes still to be added, and the keys. `sender` is what we call the session.
    pub fn respond(
        mut self,
        peer: &PeerKeys,
        sender: u32,
        random: &mut impl Random,
    ) -> Option<(Response, TransportKeys)> {
        let ephemeral = KeyPair::random(random);
        self.transcript.mix_ephemeral(&ephemeral.public());
        self.transcript.mix_shared(&*ephemeral.agree(&PublicKey(self.message.ephemeral))?);
        self.transcript.mix_shared(&*ephemeral.agree(&peer.public)?);
        let key = self.transcript.mix_preshared(&peer.preshared);
        let mut message = Response {
            sender,
            receiver: self.message.sender,
            ephemeral: ephemeral.public().0,
            nothing: [0; 16],
            mac1: [0; MAC],
            mac2: [0; MAC],
        };
        self.transcript.seal(&key, &[], &mut message.nothing);
        let [receive, send] = self.transcript.split();
        Some((message, TransportKeys { send, receive }))
    }
}

/// All that both ends have said and found so far: the chaining key and the hash.
#[derive(Clone)]
struct Transcript {
    chain: Secret,
    hash: [u8; 32],
}

impl Transcript {
    fn new(responder: &PublicKey) -> Self {
        let chain = crypto::hash(CONSTRUCTION, &[]);
        let hash = crypto::hash(&crypto::hash(&chain, IDENTIFIER), &responder.0);
        Self { chain: Zeroizing::new(chain), hash }
    }

    fn mix_hash(&mut self, said: &[u8]) {
        self.hash = crypto::hash(&self.hash, said);
    }

    fn mix_ephemeral(&mut self, key: &PublicKey) {
        [self.chain] = crypto::kdf(&*self.chain, &key.0);
        self.mix_hash(&key.0);
    }

    /// Returns the key for what is encrypted next.
    fn mix_shared(&mut self, shared: &[u8; 32]) -> Secret {
        let [chain, key] = crypto::kdf(&*self.chain, shared);
        self.chain = chain;
        key
    }

    fn mix_preshared(&mut self, preshared: &Secret) -> Secret {
        let [chain, said, key] = crypto::kdf(&*self.chain, &**preshared);
        self.chain = chain;
        self.mix_hash(&*said);
        key
    }

    fn seal(&mut self, key: &Secret, text: &[u8], out: &mut [u8]) {
        crypto::seal(key, &self.hash, text, out);
        self.mix_hash(out);
    }

    fn open(&mut self, key: &Secret, sealed: &[u8], out: &mut [u8]) -> Option<()> {
        if !crypto::open(key, &self.hash, sealed, out) {
            return None;
        }
        self.mix_hash(sealed);
        Some(())
    }

    /// The initiator's key to send with, and the responder's.
    fn split(self) -> [Secret; 2] {
        crypto::kdf(&*self.chain, &[])
    }
}
