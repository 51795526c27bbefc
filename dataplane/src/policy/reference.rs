//! The linear evaluator: policy as its documentation tells it, one rule after the other.
//!
//! Slow and obviously right. It shares nothing with the compiler but the model: it asks the
//! members of a set, not the classes. The compiler's check and the tests argue against it.

use super::{
    Action, Decider, IcmpMatch, IpVersion, Otherwise, Place, Query, Rule, RuleList, Rules, SetId, SetMembers,
    SetTable, TierDefault,
};
use crate::net::{Addr, Icmp, PortRange, Prefix, Proto};

/// What the rules say about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Let the packet on.
    pub allow: bool,
    /// In order: each log rule the packet met, and what each tier said. The last one decided.
    pub walk: Vec<Decider>,
}

impl Judgement {
    /// What decided.
    pub fn decider(&self) -> &Decider {
        self.walk.last().expect("a judgement ends with what decided")
    }
}

/// Judges `q` by `list`.
pub fn judge(list: &RuleList, sets: &SetTable, q: &Query) -> Judgement {
    let mut walk = Vec::new();
    for tier in &list.tiers {
        let policies = tier.policies.iter().map(|policy| {
            let place = Place::Policy { tier: tier.name.clone(), policy: policy.id.clone() };
            (place, &policy.rules)
        });
        let end = match tier.default {
            TierDefault::Deny => Action::Deny,
            TierDefault::Pass => Action::Pass,
        };
        match first_match(policies, sets, q, &mut walk).unwrap_or_else(|| {
            walk.push(Decider { place: Place::TierEnd { tier: tier.name.clone() }, rule: -1, action: end });
            end
        }) {
            Action::Allow => return Judgement { allow: true, walk },
            Action::Deny => return Judgement { allow: false, walk },
            Action::Pass | Action::Log => {}
        }
    }
    let profiles = list.profiles.iter().map(|p| (Place::Profile { name: p.name.clone() }, &p.rules));
    if let Some(action) = first_match(profiles, sets, q, &mut walk) {
        return Judgement { allow: action == Action::Allow, walk };
    }
    let (action, allow) = match list.otherwise {
        Otherwise::Deny => (Action::Deny, false),
        Otherwise::GoOn => (Action::Pass, true),
    };
    walk.push(Decider { place: Place::End, rule: -1, action });
    Judgement { allow, walk }
}

fn first_match<'a>(
    groups: impl Iterator<Item = (Place, &'a Rules)>,
    sets: &SetTable,
    q: &Query,
    walk: &mut Vec<Decider>,
) -> Option<Action> {
    for (place, rules) in groups {
        for (index, rule) in rules.iter().enumerate() {
            if matches(rule, sets, q) {
                walk.push(Decider { place: place.clone(), rule: index as i32, action: rule.action });
                if rule.action != Action::Log {
                    return Some(rule.action);
                }
            }
        }
    }
    None
}

/// Every field of the rule matches. Nothing matches a packet that mixes IP versions.
pub fn matches(rule: &Rule, sets: &SetTable, q: &Query) -> bool {
    let key = &q.key;
    let version = IpVersion::of(key.src);
    let has_ports = key.proto.has_ports();
    let sport = has_ports.then_some(key.sport);
    let dport = has_ports.then_some(key.dport);
    let icmp = key.proto.is_icmp().then_some(q.icmp);
    let source = |id| has_ports && holds_port(sets, id, key.src, key.proto, key.sport);
    let destination = |id| has_ports && holds_port(sets, id, key.dst, key.proto, key.dport);

    version == IpVersion::of(key.dst)
        && exists(rule, version)
        && protocol(rule, key.proto)
        && nets(&rule.src_nets, &rule.not_src_nets, key.src)
        && nets(&rule.dst_nets, &rule.not_dst_nets, key.dst)
        && (rule.src_ports.is_empty() && rule.src_named_ports.is_empty()
            || in_ports(&rule.src_ports, sport)
            || rule.src_named_ports.iter().any(|id| source(*id)))
        && (rule.dst_ports.is_empty() && rule.dst_named_ports.is_empty()
            || in_ports(&rule.dst_ports, dport)
            || rule.dst_named_ports.iter().any(|id| destination(*id)))
        && !in_ports(&rule.not_src_ports, sport)
        && !in_ports(&rule.not_dst_ports, dport)
        && !rule.not_src_named_ports.iter().any(|id| source(*id))
        && !rule.not_dst_named_ports.iter().any(|id| destination(*id))
        && rule.dst_ip_port_sets.iter().all(|id| destination(*id))
        && rule.src_ip_sets.iter().all(|id| holds(sets, *id, key.src))
        && rule.dst_ip_sets.iter().all(|id| holds(sets, *id, key.dst))
        && !rule.not_src_ip_sets.iter().any(|id| holds(sets, *id, key.src))
        && !rule.not_dst_ip_sets.iter().any(|id| holds(sets, *id, key.dst))
        && icmp_type(rule, icmp)
}

/// The rule exists for packets of `version`.
pub fn exists(rule: &Rule, version: IpVersion) -> bool {
    let of_version = |net: &&Prefix| net.is_v4() == (version == IpVersion::V4);
    let emptied = |list: &[Prefix]| !list.is_empty() && list.iter().filter(of_version).count() == 0;
    let all = |list: &[Prefix]| list.iter().filter(of_version).any(|net| net.is_default());
    rule.ip_version.is_none_or(|v| v == version)
        && ![&rule.src_nets, &rule.dst_nets, &rule.not_src_nets, &rule.not_dst_nets]
            .iter()
            .any(|l| emptied(l))
        && !all(&rule.not_src_nets)
        && !all(&rule.not_dst_nets)
}

/// The protocol fields match.
pub fn protocol(rule: &Rule, proto: Proto) -> bool {
    rule.protocol.is_none_or(|p| p == proto) && rule.not_protocol != Some(proto)
}

/// The prefix lists of one side match.
pub fn nets(nets: &[Prefix], not_nets: &[Prefix], addr: Addr) -> bool {
    (nets.is_empty() || nets.iter().any(|net| net.contains(addr)))
        && !not_nets.iter().any(|net| net.contains(addr))
}

/// One of `ranges` holds the port; no range holds "no port".
pub fn in_ports(ranges: &[PortRange], port: Option<u16>) -> bool {
    port.is_some_and(|port| ranges.iter().any(|range| range.contains(port)))
}

/// The ICMP fields match; `None` is a packet that is not ICMP.
pub fn icmp_type(rule: &Rule, icmp: Option<Icmp>) -> bool {
    let is =
        |m: IcmpMatch| icmp.is_some_and(|i| i.kind == m.kind && m.code.is_none_or(|code| code == i.code));
    rule.icmp.is_none_or(is) && !rule.not_icmp.is_some_and(is)
}

/// `addr` is a member of the set of addresses `id`.
pub fn holds(sets: &SetTable, id: SetId, addr: Addr) -> bool {
    match sets.get(id).map(|set| &set.members) {
        Some(SetMembers::Ip(members)) => members.contains(&addr),
        Some(SetMembers::Net(members)) => members.iter().any(|net| net.contains(addr)),
        Some(SetMembers::IpPort(_)) | None => false,
    }
}

fn holds_port(sets: &SetTable, id: SetId, addr: Addr, proto: Proto, port: u16) -> bool {
    match sets.get(id).map(|set| &set.members) {
        Some(SetMembers::IpPort(members)) => {
            members.iter().any(|m| m.addr == addr && m.proto == proto && m.port == port)
        }
        _ => false,
    }
}
