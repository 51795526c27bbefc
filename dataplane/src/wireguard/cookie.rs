//! The two codes at the end of a handshake's messages, and cookies (WireGuard's paper, §5.3, §5.4.4, §5.4.7).
//!
//! The first proves to know whom the message is for: scanners get no answer, and rubbish costs one hash. The
//! second proves to receive at the address that it came from; it is asked for under load only, by a cookie.

use super::crypto::{self, PublicKey, Random, Secret};
use crate::net::Nanos;
use crate::wire::wireguard::{CookieReply, MAC};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::net::{IpAddr, SocketAddr};
use zeroize::Zeroizing;

/// How long a cookie is good (§6.1).
pub const COOKIE_SECRET_MAX_AGE: Nanos = Nanos::from_secs(120);
/// How much earlier whoever got it must think that it is not.
const COOKIE_SECRET_LATENCY: Nanos = Nanos::from_secs(5);

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// Checks the codes of messages for us, and gives cookies.
pub struct Macs {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    secret: Secret,
    /// When the secret was made, if it was.
    since: Option<Nanos>,
}

impl Macs {
    /// For messages to this key.
    pub fn new(ours: &PublicKey) -> Self {
        Self {
            mac1_key: crypto::hash(LABEL_MAC1, &ours.0),
            cookie_key: crypto::hash(LABEL_COOKIE, &ours.0),
            secret: Secret::default(),
            since: None,
        }
    }

    /// Whether the sender knows whom the message is for.
    pub fn is_for_us(&self, message: &[u8]) -> bool {
        let (said, mac1, _) = codes(message);
        verify_slices_are_equal(&crypto::mac(&self.mac1_key, said), mac1).is_ok()
    }

    /// Whether the sender receives what we send to that address.
    pub fn has_cookie(
        &mut self,
        message: &[u8],
        from: SocketAddr,
        now: Nanos,
        random: &mut impl Random,
    ) -> bool {
        let (_, _, mac2) = codes(message);
        let cookie = self.cookie(from, now, random);
        verify_slices_are_equal(&crypto::mac(&cookie, &message[..message.len() - MAC]), mac2).is_ok()
    }

    /// A cookie for the sender of a message, who calls it `receiver`.
    pub fn reply(
        &mut self,
        message: &[u8],
        receiver: u32,
        from: SocketAddr,
        now: Nanos,
        random: &mut impl Random,
    ) -> CookieReply {
        let (_, mac1, _) = codes(message);
        let mut nonce = [0; 24];
        random.fill(&mut nonce);
        let (cookie, mut sealed) = (self.cookie(from, now, random), [0; 32]);
        crypto::xseal(&self.cookie_key, &nonce, mac1, &cookie, &mut sealed);
        CookieReply { receiver, nonce, cookie: sealed }
    }

    fn cookie(&mut self, from: SocketAddr, now: Nanos, random: &mut impl Random) -> [u8; 16] {
        if self.since.is_none_or(|since| now.since(since) >= COOKIE_SECRET_MAX_AGE) {
            random.fill(&mut *self.secret);
            self.since = Some(now);
        }
        let mut address = [0; 18];
        let port = from.port().to_be_bytes();
        let len = match from.ip() {
            IpAddr::V4(ip) => {
                address[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                address[..16].copy_from_slice(&ip.octets());
                16
            }
        };
        address[len..len + 2].copy_from_slice(&port);
        crypto::mac(&*self.secret, &address[..len + 2])
    }
}

/// Writes the codes of messages for one peer, with the cookie that it gave us.
pub struct Signer {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    /// Of the message sent last, until it is answered by a cookie.
    mac1: Option<[u8; MAC]>,
    cookie: Option<(Zeroizing<[u8; 16]>, Nanos)>,
}

impl Signer {
    /// For messages to this key.
    pub fn new(theirs: &PublicKey) -> Self {
        Self {
            mac1_key: crypto::hash(LABEL_MAC1, &theirs.0),
            cookie_key: crypto::hash(LABEL_COOKIE, &theirs.0),
            mac1: None,
            cookie: None,
        }
    }

    /// Writes both codes.
    pub fn sign(&mut self, message: &mut [u8], now: Nanos) {
        let at = message.len() - 2 * MAC;
        let mac1 = crypto::mac(&self.mac1_key, &message[..at]);
        message[at..at + MAC].copy_from_slice(&mac1);
        self.mac1 = Some(mac1);
        let good_for = COOKIE_SECRET_MAX_AGE.since(COOKIE_SECRET_LATENCY);
        self.cookie = self.cookie.take().filter(|(_, since)| now.since(*since) < good_for);
        if let Some((cookie, _)) = &self.cookie {
            let mac2 = crypto::mac(&**cookie, &message[..at + MAC]);
            message[at + MAC..].copy_from_slice(&mac2);
        }
    }

    /// Takes a cookie, if it answers the message sent last.
    pub fn accept(&mut self, reply: &CookieReply, now: Nanos) -> bool {
        let Some(mac1) = self.mac1 else { return false };
        let mut cookie = Zeroizing::new([0; 16]);
        let genuine = crypto::xopen(&self.cookie_key, &reply.nonce, &mac1, &reply.cookie, &mut *cookie);
        if genuine {
            self.mac1 = None;
            self.cookie = Some((cookie, now));
        }
        genuine
    }
}

/// What the codes are of, and both codes. No message here is shorter than they.
fn codes(message: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (said, codes) = message.split_at(message.len() - 2 * MAC);
    let (mac1, mac2) = codes.split_at(MAC);
    (said, mac1, mac2)
}
