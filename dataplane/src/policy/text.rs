//! What a rule asks, in words.

use super::{IcmpMatch, IpVersion, Rule, SetId, SetTable};
use crate::net::{PortRange, Prefix};

/// Entries of a list that are named one by one.
const NAMED: usize = 8;

impl Rule {
    /// `tcp from set s:abc to port 80`; `any packet` where it asks nothing.
    pub fn describe(&self, sets: &SetTable) -> String {
        let icmp = |icmp: IcmpMatch| match icmp.code {
            Some(code) => format!("icmp type {} code {code}", icmp.kind),
            None => format!("icmp type {}", icmp.kind),
        };
        let version = |version: IpVersion| if version == IpVersion::V4 { "ipv4" } else { "ipv6" };
        let source = Side {
            nets: &self.src_nets,
            not_nets: &self.not_src_nets,
            sets: &self.src_ip_sets,
            not_sets: &self.not_src_ip_sets,
            ports: &self.src_ports,
            not_ports: &self.not_src_ports,
            named: &self.src_named_ports,
            not_named: &self.not_src_named_ports,
            services: &[],
        };
        let destination = Side {
            nets: &self.dst_nets,
            not_nets: &self.not_dst_nets,
            sets: &self.dst_ip_sets,
            not_sets: &self.not_dst_ip_sets,
            ports: &self.dst_ports,
            not_ports: &self.not_dst_ports,
            named: &self.dst_named_ports,
            not_named: &self.not_dst_named_ports,
            services: &self.dst_ip_port_sets,
        };
        let words = [
            self.ip_version.map(|v| version(v).to_owned()),
            self.protocol.map(|proto| proto.to_string()),
            self.not_protocol.map(|proto| format!("not {proto}")),
            self.icmp.map(icmp),
            self.not_icmp.map(|m| format!("not {}", icmp(m))),
            source.describe(sets).map(|side| format!("from {side}")),
            destination.describe(sets).map(|side| format!("to {side}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        if words.is_empty() { "any packet".to_owned() } else { words.join(" ") }
    }
}

struct Side<'r> {
    nets: &'r [Prefix],
    not_nets: &'r [Prefix],
    sets: &'r [SetId],
    not_sets: &'r [SetId],
    ports: &'r [PortRange],
    not_ports: &'r [PortRange],
    named: &'r [SetId],
    not_named: &'r [SetId],
    services: &'r [SetId],
}

impl Side<'_> {
    fn describe(&self, table: &SetTable) -> Option<String> {
        let named = |ids: &[SetId]| some(ids.iter().map(|id| table.name(*id)));
        let mut asked = Vec::new();
        let mut ask =
            |what: &str, list: Option<String>| asked.extend(list.map(|list| format!("{what}{list}")));
        ask("", some(self.nets.iter().map(Prefix::to_string)));
        ask("not ", some(self.not_nets.iter().map(Prefix::to_string)));
        // All must hold the address.
        self.sets.iter().for_each(|id| ask("set ", Some(table.name(*id))));
        ask("not set ", named(self.not_sets));
        match (some(self.ports.iter().map(range)), named(self.named)) {
            (Some(ports), Some(names)) => ask("port ", Some(format!("{ports} or named {names}"))),
            (ports, names) => {
                ask("port ", ports);
                ask("named port ", names);
            }
        }
        ask("not port ", some(self.not_ports.iter().map(range)));
        ask("not named port ", named(self.not_named));
        self.services.iter().for_each(|id| ask("service ", Some(table.name(*id))));
        (!asked.is_empty()).then(|| asked.join(" and "))
    }
}

fn range(range: &PortRange) -> String {
    match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    }
}

/// The first of a list, and how many more there are.
fn some(list: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let more = list.len().saturating_sub(NAMED);
    let named: Vec<String> = list.take(NAMED).collect();
    if named.is_empty() {
        return None;
    }
    let named = named.join(",");
    Some(if more == 0 { named } else { format!("{named} and {more} more") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Proto;
    use crate::policy::{Action, IpSet, SetMembers};
    use std::sync::Arc;

    #[test]
    fn rules_in_words() {
        let set = |name: &str| IpSet { name: name.into(), members: SetMembers::Net(vec![].into()) };
        let sets = SetTable::new(vec![Some(Arc::new(set("s:a"))), Some(Arc::new(set("s:b")))]).unwrap();
        let any = Rule::any(Action::Allow);
        assert_eq!(any.describe(&sets), "any packet");
        let rule = Rule {
            protocol: Some(Proto::TCP),
            src_ip_sets: vec![SetId(0), SetId(1)],
            not_src_nets: vec!["10.0.0.0/8".parse().unwrap()],
            dst_ports: vec![PortRange::one(80), PortRange { first: 8080, last: 8090 }],
            dst_named_ports: vec![SetId(1)],
            ..any.clone()
        };
        assert_eq!(
            rule.describe(&sets),
            "tcp from not 10.0.0.0/8 and set s:a and set s:b to port 80,8080-8090 or named s:b"
        );
        let rule = Rule {
            ip_version: Some(IpVersion::V6),
            not_protocol: Some(Proto::UDP),
            icmp: Some(IcmpMatch { kind: 128, code: Some(0) }),
            dst_ports: (0..10).map(PortRange::one).collect(),
            ..any
        };
        assert_eq!(
            rule.describe(&sets),
            "ipv6 not udp icmp type 128 code 0 to port 0,1,2,3,4,5,6,7 and 2 more"
        );
    }
}
