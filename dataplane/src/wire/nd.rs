//! IPv6 neighbour discovery (RFC 4861): solicitations and advertisements.

use super::{Malformed, checksum::Sum, ip6, read};
use crate::net::{Addr, Icmp, Mac, Proto};

/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;

/// A solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// [`SOLICITATION`] or [`ADVERTISEMENT`].
    pub kind: u8,
    /// Address asked for, or told about.
    pub target: Addr,
    /// The sender's link address in a solicitation, the target's in an advertisement.
    pub link: Option<Mac>,
    /// Of an advertisement: it answers.
    pub solicited: bool,
    /// Of an advertisement: it counts more than what is known.
    pub overrides: bool,
}

/// Neighbour discovery: types 133 to 137.
#[inline]
pub const fn is_neighbour_discovery(icmp: Icmp) -> bool {
    matches!(icmp.kind, 133..=137)
}

impl Neighbour {
    /// Reads the ICMPv6 message and makes the checks of RFC 4861 §7.1.1 and §7.1.2, the checksum
    /// among them.
    pub fn parse(src: Addr, dst: Addr, hop_limit: u8, message: &[u8]) -> Result<Self, Malformed> {
        let [kind, code, _, _, flags, ..]: [u8; 8] = read(message, 0)?;
        let target = Addr::v6(read(message, 8)?);
        if hop_limit != 255
            || code != 0
            || target.is_multicast()
            || !matches!(kind, SOLICITATION | ADVERTISEMENT)
        {
            return Err(Malformed::Value);
        }
        let sum = Sum::default().pseudo_header(src, dst, Proto::ICMP6, message.len() as u32);
        if sum.bytes(message).folded() != 0xffff {
            return Err(Malformed::Checksum);
        }
        // An advertisement's option is the target's address, a solicitation's the source's.
        let wanted = if kind == SOLICITATION { 1 } else { 2 };
        let mut link = None;
        let mut options = &message[24..];
        while let [option, units, ..] = options {
            let len = usize::from(*units) * 8;
            if len == 0 || len > options.len() {
                return Err(Malformed::Length);
            }
            if *option == wanted && len == 8 {
                link = Some(Mac(read(options, 2)?));
            }
            options = &options[len..];
        }
        let told = kind == ADVERTISEMENT;
        let solicited = told && flags & SOLICITED != 0;
        // A station has an address of its own, and what is told to all answers nobody (RFC 4861 §7.1.2).
        if link.is_some_and(Mac::is_group) || solicited && dst.is_multicast() {
            return Err(Malformed::Value);
        }
        // Duplicate address detection must not say where it comes from.
        if kind == SOLICITATION && src.is_unspecified() && link.is_some() {
            return Err(Malformed::Value);
        }
        Ok(Self { kind, target, link, solicited, overrides: told && flags & OVERRIDE != 0 })
    }
}

/// Flags of an advertisement: we are a router,
const ROUTER: u8 = 0x80;
/// this answers,
const SOLICITED: u8 = 0x40;
/// believe it.
const OVERRIDE: u8 = 0x20;

/// Bytes of the IP packets made here.
pub const PACKET_LEN: usize = ip6::HEADER_LEN + 32;

/// The IP packet that tells `dst` that `target` is at `mac`, in answer to a solicitation.
pub fn advertisement(target: Addr, mac: Mac, dst: Addr) -> [u8; PACKET_LEN] {
    emit(ADVERTISEMENT, ROUTER | SOLICITED | OVERRIDE, target, (target, mac), dst, 2)
}

/// The IP packet that tells all on the link, unasked, that `target` is at `mac`, and the station to send it to.
pub fn announcement(target: Addr, mac: Mac) -> ([u8; PACKET_LEN], Mac) {
    let all = Addr::from_bits(0xff02 << 112 | 1);
    let packet = emit(ADVERTISEMENT, ROUTER | OVERRIDE, target, (target, mac), all, 2);
    (packet, Mac::for_ipv6_multicast(all.octets()))
}

/// The IP packet that asks for `target`, from `src` at `mac`, and the station to send it to.
pub fn solicitation(target: Addr, src: Addr, mac: Mac) -> ([u8; PACKET_LEN], Mac) {
    // RFC 4291 §2.7.1: ff02::1:ff00:0/104 and the low 24 bits of the address.
    let group = Addr::from_bits(0xff02 << 112 | 0x1_ff00_0000 | target.bits() & 0xff_ffff);
    let packet = emit(SOLICITATION, 0, target, (src, mac), group, 1);
    (packet, Mac::for_ipv6_multicast(group.octets()))
}

fn emit(
    kind: u8,
    flags: u8,
    target: Addr,
    (src, src_mac): (Addr, Mac),
    dst: Addr,
    option: u8,
) -> [u8; PACKET_LEN] {
    let mut out = [0; PACKET_LEN];
    let (header, message) = out.split_at_mut(ip6::HEADER_LEN);
    header.copy_from_slice(&ip6::emit(src, dst, Proto::ICMP6, 255, 32));
    message[0] = kind;
    message[4] = flags;
    message[8..24].copy_from_slice(&target.octets());
    message[24..26].copy_from_slice(&[option, 1]);
    message[26..32].copy_from_slice(&src_mac.0);
    let sum = Sum::default().pseudo_header(src, dst, Proto::ICMP6, 32).bytes(message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reverses_both() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let (a, b): (Addr, Addr) = ("fe80::1".parse().unwrap(), "2001:db8::12:3456".parse().unwrap());
        let (ask, station) = solicitation(b, a, mac);
        assert_eq!(station, Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
        let header = ip6::Header::parse(&ask).unwrap();
        assert_eq!(header.dst.to_string(), "ff02::1:ff12:3456");
        let read = Neighbour::parse(header.src, header.dst, 255, &ask[40..]).unwrap();
        let asked =
            Neighbour { kind: SOLICITATION, target: b, link: Some(mac), solicited: false, overrides: false };
        assert_eq!(read, asked);

        let answer = advertisement(b, mac, a);
        let header = ip6::Header::parse(&answer).unwrap();
        let read = Neighbour::parse(header.src, header.dst, 255, &answer[40..]).unwrap();
        let told = Neighbour { kind: ADVERTISEMENT, solicited: true, overrides: true, ..asked };
        assert_eq!(read, told);

        let (news, station) = announcement(b, mac);
        assert_eq!(station, Mac([0x33, 0x33, 0, 0, 0, 1]));
        let header = ip6::Header::parse(&news).unwrap();
        assert_eq!((header.src, header.dst.to_string()), (b, "ff02::1".into()));
        let read = Neighbour::parse(header.src, header.dst, 255, &news[40..]).unwrap();
        assert_eq!(read, Neighbour { solicited: false, ..told });
    }

    #[test]
    fn refuses_what_rfc_4861_forbids() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let (a, b): (Addr, Addr) = ("fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
        let (ask, _) = solicitation(b, a, mac);
        let dst = ip6::Header::parse(&ask).unwrap().dst;
        let message = &ask[40..];
        assert_eq!(Neighbour::parse(a, dst, 254, message), Err(Malformed::Value));
        assert_eq!(Neighbour::parse(b, dst, 255, message), Err(Malformed::Checksum));
        assert_eq!(Neighbour::parse(a, dst, 255, &message[..23]), Err(Malformed::Truncated));
        let unspecified: Addr = "::".parse().unwrap();
        let (group, _) = solicitation(b, a, Mac::BROADCAST);
        assert_eq!(Neighbour::parse(a, dst, 255, &group[40..]), Err(Malformed::Value));
        let all: Addr = "ff02::1".parse().unwrap();
        let answer = advertisement(b, mac, all);
        assert_eq!(Neighbour::parse(b, all, 255, &answer[40..]), Err(Malformed::Value));
        let (dad, _) = solicitation(b, unspecified, mac);
        assert_eq!(Neighbour::parse(unspecified, dst, 255, &dad[40..]), Err(Malformed::Value));
    }
}
