//! What became of a packet that was watched, from what was seen of it: for people, in words.

use super::denials::describe;
use super::explain::explain;
use super::state::State;
use crate::fib::Fib;
use crate::net::{FlowKey, IfId, Nanos, Proto};
use crate::nodes::{DROPPED, ENTERS, SEALED, SENT, Sighting, is_end};
use crate::packet::PacketFlags;
use crate::policy::{Direction, EndpointIdx};
use crate::wire::l4;
use margay_api::dataplane::v1 as pb;

/// Everything that was seen of one packet, in order.
#[derive(Debug, Default)]
pub struct Story(Vec<Sighting>);

/// From a worker's ticks to the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// A moment in ticks,
    pub ticks: u64,
    /// and in nanoseconds since 1970.
    pub unix_nanos: u64,
    /// Ticks a second.
    pub hz: f64,
}

impl Clock {
    fn nanos(&self, ticks: u64) -> u64 {
        (ticks as f64 * 1e9 / self.hz.max(1.0)) as u64
    }

    /// Of something that was at `ticks`.
    fn unix(&self, ticks: u64) -> u64 {
        match self.ticks.checked_sub(ticks) {
            Some(ago) => self.unix_nanos.saturating_sub(self.nanos(ago)),
            None => self.unix_nanos.saturating_add(self.nanos(ticks - self.ticks)),
        }
    }
}

impl Story {
    /// One more thing was seen.
    pub fn add(&mut self, sighting: Sighting) {
        // Each worker tells in order; what two tell is put in order by the clock they share.
        let at = self.0.partition_point(|earlier| earlier.step.ticks <= sighting.step.ticks);
        self.0.insert(at, sighting);
    }

    /// It has ended.
    pub fn is_over(&self) -> bool {
        self.0.iter().any(|sighting| is_end(sighting.step.node))
    }

    /// It has ended by being dropped.
    pub fn is_drop(&self) -> bool {
        self.drop().is_some()
    }

    fn drop(&self) -> Option<&Sighting> {
        self.0.iter().find(|sighting| sighting.step.node == DROPPED)
    }

    /// What became of it. What is sent of one that was dropped is the answer to its sender.
    fn end(&self) -> Option<&Sighting> {
        self.drop().or_else(|| self.0.iter().rev().find(|sighting| is_end(sighting.step.node)))
    }

    /// As the API has it.
    pub fn tell(
        &self,
        state: &State,
        clock: Clock,
        now: Nanos,
        wanted: &pb::WatchRequest,
    ) -> pb::WatchedPacket {
        let Some(first) = self.0.first() else { return pb::WatchedPacket::default() };
        let last = self.end();
        let steps = match wanted.steps {
            true => (0..self.0.len()).map(|at| self.step(state, clock, now, at)).collect(),
            false => vec![],
        };
        let captured = |at: &&Sighting| match at.step.node {
            ENTERS => wanted.rx,
            SENT => wanted.tx,
            DROPPED => wanted.drop,
            _ => false,
        };
        pb::WatchedPacket {
            number: first.packet.into(),
            interface: interface(state, first.meta.rx_if),
            flow: flow(first),
            length: first.meta.len,
            unix_nanos: clock.unix(first.step.ticks),
            outcome: last.map_or("under way", |last| last.step.node).into(),
            verdict: last.map(|last| self.verdict(state, now, last)).unwrap_or_default(),
            steps,
            frames: self.0.iter().filter(captured).map(|at| frame(state, clock, at)).collect(),
        }
    }

    fn step(&self, state: &State, clock: Clock, now: Nanos, at: usize) -> pb::WatchStep {
        let (is, begin) = (&self.0[at], self.0[0].step.ticks);
        let mut facts = Facts::default();
        match at.checked_sub(1).map(|before| &self.0[before]) {
            None => self.introduce(is, &mut facts),
            Some(before) => differences(state, before, is, &mut facts),
        }
        if is.step.node == "policy" {
            facts.extend(self.judged(state, now, is));
        }
        if is.step.node == DROPPED {
            facts.extend(dropped(state, is));
        }
        if is.step.node == SENT {
            facts.add("out", interface(state, is.meta.tx_if));
        }
        pb::WatchStep {
            node: is.step.node.into(),
            next: is.step.arc.into(),
            worker: is.worker.0.into(),
            nanoseconds: clock.nanos(is.step.ticks.saturating_sub(begin)),
            cycles: is.step.cycles / u64::from(is.step.packets.max(1)),
            vector: is.step.packets.into(),
            facts: facts.0,
        }
    }

    fn introduce(&self, is: &Sighting, facts: &mut Facts) {
        let meta = &is.meta;
        facts.add("packet", flow(is));
        facts.add("length", meta.len);
        if meta.proto == Proto::TCP {
            facts.add("tcp", tcp_flags(meta.tcp_flags));
        }
        if meta.gso_size > 0 {
            facts.add("segments of", meta.gso_size);
        }
        if meta.flags.has(PacketFlags::FRAGMENT) {
            facts.add(
                "fragment",
                if meta.flags.has(PacketFlags::LATER) { "a later one" } else { "the first" },
            );
        }
    }

    /// What the policy in force says of it; what it said then may be another's.
    fn judged(&self, state: &State, now: Nanos, is: &Sighting) -> Vec<pb::WatchFact> {
        let mut facts = Facts::default();
        if state.publisher().current().generation != is.meta.judged {
            facts.add("policy", "changed since");
            return facts.0;
        }
        // As it came: services are gone through once more.
        let Some(key) = self.0.iter().find_map(key) else { return facts.0 };
        let octets = |addr: crate::net::Addr| match addr.is_v4() {
            true => addr.v4_octets().to_vec(),
            false => addr.octets().to_vec(),
        };
        let request = pb::ExplainRequest {
            source: octets(key.src),
            destination: octets(key.dst),
            protocol: u32::from(key.proto.0),
            source_port: if key.proto.has_ports() { key.sport.into() } else { 0 },
            destination_port: if key.proto.has_ports() { key.dport.into() } else { 0 },
            icmp_type: u32::from(is.meta.icmp.kind),
            icmp_code: u32::from(is.meta.icmp.code),
        };
        let Ok(explained) = explain(state, &request, now) else { return facts.0 };
        for (name, said) in [("egress", explained.egress), ("ingress", explained.ingress)] {
            if let Some(said) = said {
                let (verdict, endpoint) = (&said.verdict, &said.endpoint);
                let rule = rule(&said.tier, &said.policy, said.rule);
                facts.add(name, format!("{verdict} of {endpoint}, {rule}"));
            }
        }
        for stage in explained.host {
            let said = stage.decision.unwrap_or_default();
            facts.add("host", format!("{} {}: {}", stage.stage, stage.direction, said.verdict));
        }
        facts.0
    }

    /// In a few words: what was decided, by which rule, for which flow.
    fn verdict(&self, state: &State, now: Nanos, last: &Sighting) -> Vec<pb::WatchFact> {
        let mut facts = Facts::default();
        let drops = last.step.node == DROPPED;
        facts.add("verdict", if drops { "drop" } else { "pass" });
        if drops {
            facts.extend(dropped(state, last));
        } else if last.meta.judged.0 > 0 {
            facts.extend(self.judged(state, now, last));
        }
        if last.meta.flags.has(PacketFlags::HIT) {
            facts.add("flow", format!("{} of worker {}", last.meta.flow, last.worker.0));
        }
        facts.add("generation", state.committed());
        facts.0
    }
}

#[derive(Default)]
struct Facts(Vec<pb::WatchFact>);

impl Facts {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push(pb::WatchFact { name: name.into(), value: value.to_string() });
    }

    fn extend(&mut self, facts: Vec<pb::WatchFact>) {
        self.0.extend(facts);
    }
}

/// What a node changed.
fn differences(state: &State, before: &Sighting, is: &Sighting, facts: &mut Facts) {
    let (was, meta) = (&before.meta, &is.meta);
    if is.step.node != SEALED
        && let (Some(old), Some(new)) = (headers(before), headers(is))
        && old != new
    {
        facts.add("becomes", new);
    }
    if before.worker != is.worker {
        facts.add("worker", is.worker.0);
    }
    let gained = |flag| meta.flags.has(flag) && !was.flags.has(flag);
    if gained(PacketFlags::HIT) {
        facts.add("flow", meta.flow);
    }
    for (flag, what) in [
        (PacketFlags::RELATED, "an error about a live flow"),
        (PacketFlags::UNTRACKED, "untracked policy allows it"),
        (PacketFlags::MASQUERADE, "leaves with an address of this node"),
        (PacketFlags::ORIGINATED, "an answer made here"),
    ] {
        if gained(flag) {
            facts.add("is", what);
        }
    }
    if was.rx_if != meta.rx_if {
        facts.add("in", interface(state, meta.rx_if));
    }
    if is.step.node == "route" || was.tx_if != meta.tx_if {
        facts.add("out", interface(state, meta.tx_if));
    }
    if was.adjacency != meta.adjacency {
        facts.add("way", way(state, meta.adjacency));
    }
    if meta.len != was.len {
        facts.add("length", meta.len);
    }
}

fn way(state: &State, adjacency: u32) -> String {
    let fib = &state.publisher().current().fib;
    if adjacency >= Fib::TUNNELS
        && let Some(tunnel) = fib.tunnel(adjacency)
    {
        return format!("{} to {}", tunnel.tunnel.kind.name(), tunnel.tunnel.remote);
    }
    match fib.adjacency(adjacency).map(|adjacency| adjacency.header.as_slice().first_chunk::<6>()) {
        Some(Some(mac)) => format!("next hop {}", crate::net::Mac(*mac)),
        _ => "next hop not resolved, or none is needed".into(),
    }
}

/// Why it was dropped, and by which rule.
fn dropped(state: &State, is: &Sighting) -> Vec<pb::WatchFact> {
    let mut facts = Facts::default();
    let reason = is.meta.drop;
    facts.add("reason", reason.name());
    facts.add("sentence", reason.sentence());
    if reason.is_policy() && state.publisher().current().generation == is.meta.judged {
        let direction =
            if is.meta.flags.has(PacketFlags::INGRESS) { Direction::Ingress } else { Direction::Egress };
        let index = EndpointIdx(is.meta.endpoint);
        let tree = state.policy().tree(index, direction);
        if let Some(decider) = tree.and_then(|tree| tree.compiled().decider(is.meta.slot)) {
            let of = match state.host_list(index) {
                Some(list) => list.to_string(),
                None => state.endpoint_of(index).map(|of| of.name.to_string()).unwrap_or_default(),
            };
            facts.add(
                "rule",
                format!("{direction} of {of}, {}", rule(decider.tier(), &decider.policy(), decider.rule)),
            );
        }
    }
    facts.0
}

/// `tier default, policy shop/web, rule 2`.
fn rule(tier: &str, policy: &str, rule: i32) -> String {
    let mut words = vec![];
    if !tier.is_empty() {
        words.push(format!("tier {tier}"));
    }
    match (policy, rule) {
        ("", _) | (_, ..0) => words.push("by default".into()),
        (policy, rule) => words.push(format!("{policy} rule {rule}")),
    }
    words.join(", ")
}

fn frame(state: &State, clock: Clock, at: &Sighting) -> pb::WatchedFrame {
    let (direction, by) = match at.step.node {
        ENTERS => ("rx", at.meta.rx_if),
        SENT => ("tx", at.meta.tx_if),
        _ => ("drop", at.meta.rx_if),
    };
    pb::WatchedFrame {
        direction: direction.into(),
        interface: interface(state, by),
        unix_nanos: clock.unix(at.step.ticks),
        length: at.meta.len,
        data: at.bytes.clone(),
    }
}

fn interface(state: &State, id: IfId) -> String {
    state
        .publisher()
        .current()
        .interfaces
        .get(id)
        .map_or_else(|| format!("#{}", id.0), |is| is.name.to_string())
}

fn flow(is: &Sighting) -> String {
    describe(&key(is).unwrap_or_default(), is.meta.icmp)
}

/// The flow key it came with.
fn key(is: &Sighting) -> Option<FlowKey> {
    is.key.or_else(|| headers(is))
}

/// As its headers are by now.
fn headers(is: &Sighting) -> Option<FlowKey> {
    let meta = &is.meta;
    let [l3, l4] = [meta.l3, meta.l4].map(|at| at.checked_sub(meta.data).map(usize::from));
    let (l3, l4) = (is.bytes.get(l3?..)?, is.bytes.get(l4?..)?);
    (meta.l4 > meta.l3).then(|| l4::flow_key(l3, l4, meta.flags.has(PacketFlags::V6), meta.proto, meta.icmp))
}

/// As tcpdump writes them: `S`, `S.`, `FP.`.
fn tcp_flags(flags: u8) -> String {
    let names = [(1, 'F'), (2, 'S'), (4, 'R'), (8, 'P'), (0x10, '.'), (0x20, 'U'), (0x40, 'E'), (0x80, 'W')];
    names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect()
}
