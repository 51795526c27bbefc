//! ClassBench's files: filter sets and packet traces (Taylor and Turner, ToN 2007).

use crate::packed;
use anyhow::{Context, Result, bail};
use margay_dataplane::net::{Addr, FlowKey, Icmp, PortRange, Prefix, Proto};
use margay_dataplane::policy::{
    Action, ListedPolicy, PolicyId, Query, Rule, RuleList, TierDefault, TierList,
};
use std::path::Path;

/// A filter. TCP flags are left out, as by everybody who measures with these sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    pub src: (u32, u8),
    pub dst: (u32, u8),
    pub sport: PortRange,
    pub dport: PortRange,
    pub proto: Option<u8>,
}

/// A packet of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub src: u32,
    pub dst: u32,
    pub sport: u16,
    pub dport: u16,
    pub proto: u8,
}

/// A filter set with its trace.
pub struct Set {
    pub name: String,
    pub filters: Vec<Filter>,
    pub packets: Vec<Packet>,
    /// The filters as they stand in their file.
    pub text: String,
}

impl Set {
    /// The names of the sets in a folder, by size, then by name.
    pub fn names(folder: &Path) -> Result<Vec<String>> {
        let list = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut names = vec![];
        for file in list {
            let name = file?.file_name().to_string_lossy().into_owned();
            let name = name.strip_suffix(".xz").unwrap_or(&name);
            names.extend(name.strip_suffix("_trace").map(str::to_owned));
        }
        let size = |name: &str| name.rsplit_once('_').map_or(0, |(_, size)| size.len());
        names.sort_by(|a, b| size(a).cmp(&size(b)).then(a.cmp(b)));
        names.dedup();
        Ok(names)
    }

    /// Reads `NAME` and `NAME_trace`, or the same with `.xz` behind.
    pub fn read(folder: &Path, name: &str) -> Result<Self> {
        let lines = text(&folder.join(name))?;
        let packets = text(&folder.join(format!("{name}_trace")))?;
        let line = |number: usize| format!("{name}: line {}", number + 1);
        let filters: Result<Vec<Filter>> =
            lines.lines().enumerate().map(|(n, l)| filter(l).with_context(|| line(n))).collect();
        let packets: Result<Vec<Packet>> =
            packets.lines().enumerate().map(|(n, l)| packet(l).with_context(|| line(n))).collect();
        Ok(Self { name: name.to_owned(), filters: filters?, packets: packets?, text: lines })
    }

    /// The filters as rules of one policy, slot by slot.
    pub fn rules(&self, v6: bool) -> RuleList {
        let id = PolicyId { kind: "Filters".into(), namespace: "".into(), name: self.name.as_str().into() };
        let rules = self.filters.iter().map(|filter| filter.rule(v6)).collect();
        let policies = vec![ListedPolicy { id, rules }];
        let tiers = vec![TierList { name: "default".into(), default: TierDefault::Deny, policies }];
        RuleList { tiers, ..RuleList::default() }
    }
}

impl Filter {
    fn rule(&self, v6: bool) -> Rule {
        let mut rule = Rule::any(Action::Allow);
        rule.protocol = self.proto.map(Proto);
        let nets = |(addr, len)| if len == 0 { vec![] } else { vec![prefix(addr, len, v6)] };
        let ports = |ports| if ports == ALL { vec![] } else { vec![ports] };
        (rule.src_nets, rule.dst_nets) = (nets(self.src), nets(self.dst));
        (rule.src_ports, rule.dst_ports) = (ports(self.sport), ports(self.dport));
        rule
    }
}

impl Packet {
    pub fn query(&self, v6: bool) -> Query {
        let (src, dst) = (address(self.src, v6), address(self.dst, v6));
        let key = FlowKey { src, dst, sport: self.sport, dport: self.dport, proto: Proto(self.proto) };
        Query { key, icmp: Icmp::default() }
    }

    /// As in a trace.
    pub fn line(&self) -> String {
        format!("{}\t{}\t{}\t{}\t{}\n", self.src, self.dst, self.sport, self.dport, self.proto)
    }
}

const ALL: PortRange = PortRange { first: 0, last: u16::MAX };

/// The IPv6 form of a set: its addresses number the subnets of 2001:db8::/32, each with one host.
fn address(addr: u32, v6: bool) -> Addr {
    match v6 {
        true => Addr::from_bits(0x2001_0db8 << 96 | u128::from(addr) << 64 | 1),
        false => Addr::v4(addr.to_be_bytes()),
    }
}

fn prefix(addr: u32, len: u8, v6: bool) -> Prefix {
    let len = match (v6, len) {
        (true, 32) => 128,
        (true, len) => 32 + len,
        (false, len) => len,
    };
    Prefix::truncate(address(addr, v6), len)
}

/// As it is, or else the same with `.xz` behind.
fn text(path: &Path) -> Result<String> {
    if path.exists() { packed::text(path) } else { packed::text(&path.with_added_extension("xz")) }
}

fn filter(line: &str) -> Result<Filter> {
    let mut columns = line.trim_start_matches('@').split('\t');
    let mut column = || columns.next().context("too few columns");
    let net = |text: &str| -> Result<(u32, u8)> {
        let prefix: Prefix = text.trim().parse()?;
        Ok((prefix.addr().v4_bits(), prefix.len()))
    };
    let ports = |text: &str| -> Result<PortRange> {
        let (first, last) = text.split_once(':').context("no port range")?;
        Ok(PortRange { first: first.trim().parse()?, last: last.trim().parse()? })
    };
    let (src, dst) = (net(column()?)?, net(column()?)?);
    let (sport, dport) = (ports(column()?)?, ports(column()?)?);
    let (proto, mask) = column()?.trim().split_once('/').context("no protocol")?;
    let number = |text: &str| u8::from_str_radix(text.trim_start_matches("0x"), 16);
    let proto = match number(mask)? {
        0 => None,
        0xff => Some(number(proto)?),
        _ => bail!("a protocol is masked in part"),
    };
    Ok(Filter { src, dst, sport, dport, proto })
}

fn packet(line: &str) -> Result<Packet> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().context("too few columns");
    Ok(Packet {
        src: word()?.parse()?,
        dst: word()?.parse()?,
        sport: word()?.parse()?,
        dport: word()?.parse()?,
        proto: word()?.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_and_a_packet_are_read() {
        let line = "@180.84.116.0/23\t0.0.0.0/0\t0 : 65535\t1712 : 1720\t0x06/0xFF\t0x0000/0x0200\t";
        let read = filter(line).unwrap();
        assert_eq!(read.src, (0xb454_7400, 23));
        assert_eq!((read.dst.1, read.dport, read.proto), (0, PortRange { first: 1712, last: 1720 }, Some(6)));
        let rule = read.rule(true);
        assert_eq!(rule.src_nets[0].to_string(), "2001:db8:b454:7400::/55");
        assert!(rule.dst_nets.is_empty() && rule.src_ports.is_empty());
        let packet = packet("3025433707 660963994 0 6889 6 4294967295 103").unwrap();
        assert_eq!(packet.line(), "3025433707\t660963994\t0\t6889\t6\n");
        let in_net = |addr| rule.src_nets[0].contains(addr);
        assert!(in_net(Packet { src: 0xb454_7501, ..packet }.query(true).key.src));
        assert!(!in_net(packet.query(true).key.dst));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for line in ["", "@1.2.3.4/32", "@1.2.3.4/32\t1.2.3.4/33\t0 : 1\t0 : 1\t0x06/0xFF"] {
            assert!(filter(line).is_err(), "{line}");
        }
        assert!(packet("1 2 3").is_err());
    }
}
