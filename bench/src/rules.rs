//! Policy of the shape Calico's users write: selectors that became IP sets, address blocks,
//! service ports, a few exceptions and denials.

use crate::random::Random;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::net::{Addr, PortRange};

/// Hosts that packets come from are numbered with this many bits.
pub const HOST_BITS: u32 = 24;
/// Rules in one policy.
const RULES_A_POLICY: usize = 10;
/// Rules that share one selector, on average.
const RULES_A_SET: usize = 3;
/// Ports that services listen on: real clusters have few.
const SERVICE_PORTS: u64 = 200;

/// The address of host `number` in either family: 10.0.0.0/8, fd10::/104.
pub fn host(number: u32, v6: bool) -> Addr {
    if v6 {
        Addr::from_bits(0xfd10 << 112 | u128::from(number))
    } else {
        Addr::v4((10 << HOST_BITS | number).to_be_bytes())
    }
}

/// A policy for one endpoint, as an agent would send it.
pub struct Rules {
    /// Sets and policies.
    pub changes: Vec<pb::Change>,
    /// The policies in order.
    pub ids: Vec<pb::PolicyId>,
    /// A source and a port that each rule was made for; an earlier rule may decide it yet.
    pub aims: Vec<(u32, u16)>,
}

impl Rules {
    /// `count` rules, at least one; the same for the same `count`.
    pub fn new(count: usize, v6: bool) -> Self {
        let mut random = Random::new(0x6361_6c69 + count as u64);
        let sets = Sets::new(count.div_ceil(RULES_A_SET), &mut random);
        let ports: Vec<u16> = (0..SERVICE_PORTS).map(|_| random.below(60_000) as u16 + 1).collect();
        let mut made = Self { changes: sets.changes(v6), ids: vec![], aims: vec![] };
        let mut rules = Vec::with_capacity(count);
        for number in 0..count {
            let (rule, aim) = if number == 0 { dns() } else { rule(&sets, &ports, v6, &mut random) };
            rules.push(rule);
            made.aims.push(aim);
        }
        for (number, rules) in rules.chunks(RULES_A_POLICY).enumerate() {
            let id = pb::PolicyId {
                kind: "NetworkPolicy".into(),
                namespace: "default".into(),
                name: format!("p{number}"),
            };
            made.ids.push(id.clone());
            let policy = pb::Policy {
                id: Some(id),
                tier: "default".into(),
                inbound_rules: rules.to_vec(),
                ..Default::default()
            };
            made.changes.push(pb::Change { change: Some(Change::Policy(policy)) });
        }
        made
    }

    /// The policies.
    pub fn policies(&self) -> Vec<pb::Policy> {
        let policy = |change: &pb::Change| match &change.change {
            Some(Change::Policy(policy)) => Some(policy.clone()),
            _ => None,
        };
        self.changes.iter().filter_map(policy).collect()
    }

    /// Makes all policies one.
    pub fn unite(&mut self) {
        let mut policies = self.policies().into_iter();
        let Some(mut whole) = policies.next() else { return };
        whole.inbound_rules.extend(policies.flat_map(|policy| policy.inbound_rules));
        self.changes.retain(|change| !matches!(change.change, Some(Change::Policy(_))));
        self.changes.push(pb::Change { change: Some(Change::Policy(whole)) });
        self.ids.truncate(1);
    }
}

/// Pods by selector: hosts from anywhere in the cluster.
struct Sets(Vec<Vec<u32>>);

impl Sets {
    fn new(count: usize, random: &mut Random) -> Self {
        let member = |random: &mut Random| random.below(1 << HOST_BITS) as u32;
        let set = |random: &mut Random| {
            let size = 2 << random.below(6);
            (0..size).map(|_| member(random)).collect()
        };
        Self((0..count).map(|_| set(random)).collect())
    }

    fn changes(&self, v6: bool) -> Vec<pb::Change> {
        let packed = |hosts: &[u32]| {
            let (mut ipv4, mut ipv6) = (vec![], vec![]);
            for number in hosts {
                let addr = host(*number, v6);
                if v6 { ipv6.extend(addr.octets()) } else { ipv4.extend(addr.v4_octets()) }
            }
            pb::Members { ipv4, ipv6 }
        };
        let change = |(number, hosts): (usize, &Vec<u32>)| pb::Change {
            change: Some(Change::IpSet(pb::IpSet {
                id: format!("s{number}"),
                r#type: pb::ip_set::Type::Ip.into(),
                members: Some(packed(hosts)),
            })),
        };
        self.0.iter().enumerate().map(change).collect()
    }
}

/// The rule that is there even when there is only one: name service for everybody.
fn dns() -> (pb::Rule, (u32, u16)) {
    let rule = pb::Rule {
        action: pb::Action::Allow.into(),
        protocol: Some(17),
        dst_ports: vec![range(PortRange::one(53))],
        ..Default::default()
    };
    (rule, (1, 53))
}

/// A rule and what it was made for.
fn rule(sets: &Sets, ports: &[u16], v6: bool, random: &mut Random) -> (pb::Rule, (u32, u16)) {
    let protocol = if random.chance(60) { 6 } else { 17 };
    let mut rule =
        pb::Rule { action: pb::Action::Allow.into(), protocol: Some(protocol), ..Default::default() };
    let port = *random.pick(ports);
    let block = |len: u32, random: &mut Random| {
        let kept = len - (32 - HOST_BITS);
        let first = (random.below(1 << kept) as u32) << (HOST_BITS - kept);
        (first, pb::Prefix { address: bytes(host(first, v6)), length: if v6 { len + 96 } else { len } })
    };
    let source = match random.below(100) {
        0..60 => {
            let set = random.below(sets.0.len() as u64) as usize;
            rule.src_ip_set_ids = vec![format!("s{set}")];
            *random.pick(&sets.0[set])
        }
        60..90 => {
            let blocks: Vec<_> =
                (0..=random.below(4)).map(|_| block(12 + random.below(17) as u32, random)).collect();
            rule.src_nets = blocks.iter().map(|(_, block)| block.clone()).collect();
            blocks[0].0
        }
        90..95 => {
            rule.not_src_nets = vec![block(16, random).1];
            random.below(1 << HOST_BITS) as u32
        }
        _ => {
            rule.action = pb::Action::Deny.into();
            let (first, block) = block(24, random);
            rule.src_nets = vec![block];
            first
        }
    };
    // What is open to nearly everybody is open on a port of its own.
    let port = if rule.not_src_nets.is_empty() { port } else { 60_001 + random.below(5_000) as u16 };
    rule.dst_ports = vec![range(PortRange::one(port))];
    if random.chance(20) {
        rule.dst_ports.push(range(PortRange { first: port.max(30_000), last: port.max(30_000) + 15 }));
    }
    (rule, (source, port))
}

/// As a message has it.
pub fn bytes(addr: Addr) -> Vec<u8> {
    if addr.is_v4() { addr.v4_octets().to_vec() } else { addr.octets().to_vec() }
}

fn range(ports: PortRange) -> pb::PortRange {
    pb::PortRange { first: ports.first.into(), last: ports.last.into() }
}
