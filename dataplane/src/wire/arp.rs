//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use super::{Malformed, read, read_u16};
use crate::net::{Addr, Mac};

/// Bytes of the packet behind the Ethernet header.
pub const LEN: usize = 28;

/// What the packet asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Who sent it.
    pub sender_mac: Mac,
    /// Whose address; 0.0.0.0 in a probe (RFC 5227 §2.1.1).
    pub sender: Addr,
    /// For whom; zero in a request.
    pub target_mac: Mac,
    /// Address asked for, or told to.
    pub target: Addr,
}

impl Arp {
    /// Reads the packet behind the Ethernet header.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let packet: [u8; LEN] = read(bytes, 0)?;
        if packet[..6] != [0, 1, 8, 0, 6, 4] {
            return Err(Malformed::Value);
        }
        let operation = match read_u16(&packet, 6)? {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Malformed::Value),
        };
        let sender_mac = Mac(read(&packet, 8)?);
        // A station has an address of its own: no group sends (RFC 1812 §3.3.2).
        if sender_mac.is_group() {
            return Err(Malformed::Value);
        }
        Ok(Self {
            operation,
            sender_mac,
            sender: Addr::v4(read(&packet, 14)?),
            target_mac: Mac(read(&packet, 18)?),
            target: Addr::v4(read(&packet, 24)?),
        })
    }

    /// The packet behind an Ethernet header.
    pub fn emit(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        out[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender.v4_octets());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..28].copy_from_slice(&self.target.v4_octets());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reverses_emit() {
        let arp = Arp {
            operation: Operation::Reply,
            sender_mac: Mac([2, 0, 0, 0, 0, 1]),
            sender: "10.0.0.1".parse().unwrap(),
            target_mac: Mac([2, 0, 0, 0, 0, 2]),
            target: "10.0.0.2".parse().unwrap(),
        };
        assert_eq!(Arp::parse(&arp.emit()), Ok(arp));
        assert_eq!(Arp::parse(&arp.emit()[..27]), Err(Malformed::Truncated));
        for at in [0, 2, 4, 7] {
            let mut bad = arp.emit();
            bad[at] ^= 0x40;
            assert_eq!(Arp::parse(&bad), Err(Malformed::Value), "byte {at}");
        }
    }
}
