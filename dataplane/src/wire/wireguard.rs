//! WireGuard's four messages (Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", §5.4).
//! What is encrypted in them is bytes here.

use super::{Malformed, read};

/// Bytes of an initiation.
pub const INITIATION: usize = 148;
/// Bytes of a response.
pub const RESPONSE: usize = 92;
/// Bytes of a cookie reply.
pub const COOKIE_REPLY: usize = 64;
/// Bytes in front of a transport message's encrypted packet.
pub const TRANSPORT_HEADER: usize = 16;
/// Bytes of each of the two codes at the end of an initiation and of a response.
pub const MAC: usize = 16;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first of a handshake.
    Initiation(Initiation),
    /// The answer to it.
    Response(Response),
    /// "Prove that you are where you say": the answer under load.
    CookieReply(CookieReply),
    /// A packet of a session.
    Transport(Transport<'a>),
}

/// The first message of a handshake (§5.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// What the initiator calls the session.
    pub sender: u32,
    /// Its public key for this handshake alone.
    pub ephemeral: [u8; 32],
    /// Its public key, encrypted.
    pub key: [u8; 48],
    /// When it was made, encrypted.
    pub timestamp: [u8; 28],
    /// Proof of knowing whom it is for.
    pub mac1: [u8; MAC],
    /// Proof of a cookie; else zero.
    pub mac2: [u8; MAC],
}

/// The second message of a handshake (§5.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// What the responder calls the session.
    pub sender: u32,
    /// What the initiator calls it.
    pub receiver: u32,
    /// The responder's public key for this handshake alone.
    pub ephemeral: [u8; 32],
    /// Nothing, encrypted.
    pub nothing: [u8; 16],
    /// Proof of knowing whom it is for.
    pub mac1: [u8; MAC],
    /// Proof of a cookie; else zero.
    pub mac2: [u8; MAC],
}

/// A cookie, for whoever sent a handshake's message while there is load (§5.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The sender of the message that it answers.
    pub receiver: u32,
    /// Random.
    pub nonce: [u8; 24],
    /// The cookie, encrypted.
    pub cookie: [u8; 32],
}

/// A packet of a session (§5.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport<'a> {
    /// What whom it is for calls the session.
    pub receiver: u32,
    /// No two of a session have the same.
    pub counter: u64,
    /// The packet, encrypted, and its tag.
    pub packet: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a datagram. Its length must be that of its kind.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let length = |length: usize| if bytes.len() == length { Ok(()) } else { Err(Malformed::Length) };
        match read(bytes, 0)? {
            [1, 0, 0, 0] => {
                length(INITIATION)?;
                Ok(Self::Initiation(Initiation {
                    sender: read_u32(bytes, 4)?,
                    ephemeral: read(bytes, 8)?,
                    key: read(bytes, 40)?,
                    timestamp: read(bytes, 88)?,
                    mac1: read(bytes, 116)?,
                    mac2: read(bytes, 132)?,
                }))
            }
            [2, 0, 0, 0] => {
                length(RESPONSE)?;
                Ok(Self::Response(Response {
                    sender: read_u32(bytes, 4)?,
                    receiver: read_u32(bytes, 8)?,
                    ephemeral: read(bytes, 12)?,
                    nothing: read(bytes, 44)?,
                    mac1: read(bytes, 60)?,
                    mac2: read(bytes, 76)?,
                }))
            }
            [3, 0, 0, 0] => {
                length(COOKIE_REPLY)?;
                Ok(Self::CookieReply(CookieReply {
                    receiver: read_u32(bytes, 4)?,
                    nonce: read(bytes, 8)?,
                    cookie: read(bytes, 32)?,
                }))
            }
            [4, 0, 0, 0] => Transport::parse(bytes).map(Self::Transport),
            _ => Err(Malformed::Value),
        }
    }
}

impl<'a> Transport<'a> {
    /// Reads a datagram of which the type is known.
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let packet = bytes.get(TRANSPORT_HEADER..).filter(|packet| packet.len() >= MAC);
        Ok(Self {
            receiver: read_u32(bytes, 4)?,
            counter: read(bytes, 8).map(u64::from_le_bytes)?,
            packet: packet.ok_or(Malformed::Truncated)?,
        })
    }

    /// What stands in front of the encrypted packet.
    pub fn header(receiver: u32, counter: u64) -> [u8; TRANSPORT_HEADER] {
        let mut header = [0; TRANSPORT_HEADER];
        header[0] = 4;
        header[4..8].copy_from_slice(&receiver.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        header
    }
}

impl Initiation {
    /// The datagram.
    pub fn emit(&self) -> [u8; INITIATION] {
        let mut out = [0; INITIATION];
        out[0] = 1;
        out[4..8].copy_from_slice(&self.sender.to_le_bytes());
        out[8..40].copy_from_slice(&self.ephemeral);
        out[40..88].copy_from_slice(&self.key);
        out[88..116].copy_from_slice(&self.timestamp);
        out[116..132].copy_from_slice(&self.mac1);
        out[132..].copy_from_slice(&self.mac2);
        out
    }
}

impl Response {
    /// The datagram.
    pub fn emit(&self) -> [u8; RESPONSE] {
        let mut out = [0; RESPONSE];
        out[0] = 2;
        out[4..8].copy_from_slice(&self.sender.to_le_bytes());
        out[8..12].copy_from_slice(&self.receiver.to_le_bytes());
        out[12..44].copy_from_slice(&self.ephemeral);
        out[44..60].copy_from_slice(&self.nothing);
        out[60..76].copy_from_slice(&self.mac1);
        out[76..].copy_from_slice(&self.mac2);
        out
    }
}

impl CookieReply {
    /// The datagram.
    pub fn emit(&self) -> [u8; COOKIE_REPLY] {
        let mut out = [0; COOKIE_REPLY];
        out[0] = 3;
        out[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        out[8..32].copy_from_slice(&self.nonce);
        out[32..].copy_from_slice(&self.cookie);
        out
    }
}

fn read_u32(bytes: &[u8], offset: usize) -> Result<u32, Malformed> {
    read(bytes, offset).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bytes different from their neighbours, so that a wrong offset shows.
    fn datagram(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len).map(|at| (at * 7 + 1) as u8).collect();
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        bytes
    }

    fn emitted(message: &Message<'_>) -> Vec<u8> {
        match message {
            Message::Initiation(initiation) => initiation.emit().to_vec(),
            Message::Response(response) => response.emit().to_vec(),
            Message::CookieReply(reply) => reply.emit().to_vec(),
            Message::Transport(transport) => {
                [&Transport::header(transport.receiver, transport.counter), transport.packet].concat()
            }
        }
    }

    #[test]
    fn emit_reverses_parse() {
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1_452)] {
            let bytes = datagram(kind, len);
            assert_eq!(emitted(&Message::parse(&bytes).unwrap()), bytes);
        }
    }

    #[test]
    fn other_lengths_and_types_are_refused() {
        for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
            assert_eq!(Message::parse(&datagram(kind, len - 1)), Err(Malformed::Length));
            assert_eq!(Message::parse(&datagram(kind, len + 1)), Err(Malformed::Length));
        }
        assert_eq!(Message::parse(&datagram(4, 31)), Err(Malformed::Truncated));
        assert_eq!(Message::parse(&[4, 0, 0]), Err(Malformed::Truncated));
        for wrong in [[0, 0, 0, 0], [5, 0, 0, 0], [1, 0, 0, 1], [4, 1, 0, 0]] {
            let mut bytes = datagram(1, 148);
            bytes[..4].copy_from_slice(&wrong);
            assert_eq!(Message::parse(&bytes), Err(Malformed::Value), "{wrong:?}");
        }
    }
}
