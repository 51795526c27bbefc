//! An hour of flows, put together: counts of each conversation in windows of 15 seconds, as Calico's Goldmane keeps
//! them. Memory is bounded: what finds no room is counted.

use super::filter::{self, Filter};
use margay_api::{
    control::v1::{FlowParty, FlowSummary, ObservedFlow, summarize_flows_request::By},
    dataplane::v1::{Direction, FlowRecord, flow_record::Event},
};
use std::collections::{HashMap, VecDeque};

/// Length of a window.
const WINDOW: u64 = 15_000_000_000;
/// Windows that are kept: an hour.
const WINDOWS: u64 = 240;
/// Conversations that are kept.
const CONVERSATIONS: usize = 1 << 14;
/// Windows of all conversations together: some 20 MB.
const COUNTS: usize = 1 << 17;

/// What was seen in the last hour.
pub struct History {
    conversations: HashMap<Key, Conversation>,
    most: (usize, usize),
    /// Windows of all.
    counts: usize,
    /// The newest window.
    now: u64,
    beyond: u64,
}

/// What flows have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: String,
    destination: String,
    protocol: u32,
    port: u32,
    verdict: String,
    reason: String,
    policy: String,
}

struct Conversation {
    /// To ask filters about.
    like: ObservedFlow,
    windows: VecDeque<(u64, Counts)>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    began: u64,
    ended: u64,
    refused: u64,
    packets: u64,
    bytes: u64,
    reply_packets: u64,
    reply_bytes: u64,
    staged_differs: u64,
}

impl Default for History {
    fn default() -> Self {
        Self::of_at_most(CONVERSATIONS, COUNTS)
    }
}

impl History {
    fn of_at_most(conversations: usize, counts: usize) -> Self {
        Self { conversations: HashMap::new(), most: (conversations, counts), counts: 0, now: 0, beyond: 0 }
    }

    /// Takes a record.
    pub fn add(&mut self, flow: &ObservedFlow) {
        let Some(record) = &flow.record else { return };
        let window = (record.last_unix_nanos / WINDOW).max((self.now + 1).saturating_sub(WINDOWS));
        if window > self.now {
            self.now = window;
            self.forget();
        }
        let key = Key::of(flow, record);
        let room = self.counts < self.most.1;
        let place = self.conversations.len() < self.most.0;
        let conversation = match self.conversations.get_mut(&key) {
            Some(conversation) => conversation,
            None if place && room => self
                .conversations
                .entry(key)
                .or_insert_with(|| Conversation { like: flow.clone(), windows: VecDeque::new() }),
            None => return self.beyond += 1,
        };
        // Records come nearly in order.
        let at = conversation.windows.iter().rposition(|(of, _)| *of <= window);
        let counts = match at {
            Some(at) if conversation.windows[at].0 == window => &mut conversation.windows[at].1,
            _ if !room => return self.beyond += 1,
            at => {
                self.counts += 1;
                let place = at.map_or(0, |at| at + 1);
                conversation.windows.insert(place, (window, Counts::default()));
                &mut conversation.windows[place].1
            }
        };
        counts.add(&Counts::of(record));
    }

    /// Records that are in no window, as there were too many different ones.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// When the oldest window begins that may be kept.
    pub fn since(&self) -> u64 {
        (self.now + 1).saturating_sub(WINDOWS) * WINDOW
    }

    /// What is like the filter since then, put together and the largest first; 0: as many as there are.
    pub fn summary(&self, filter: &Filter, since: u64, by: By, limit: usize) -> Vec<FlowSummary> {
        let first = since / WINDOW;
        let mut groups: HashMap<Key, Counts> = HashMap::new();
        for (key, conversation) in &self.conversations {
            if !filter.matches(&conversation.like) {
                continue;
            }
            let windows = conversation.windows.iter().filter(|(window, _)| *window >= first);
            let mut windows = windows.peekable();
            if windows.peek().is_some() {
                let group = groups.entry(key.by(by)).or_default();
                windows.for_each(|(_, counts)| group.add(counts));
            }
        }
        let mut groups: Vec<_> = groups.into_iter().map(|(key, counts)| key.summary(counts)).collect();
        groups.sort_by(|a, b| {
            let size = |of: &FlowSummary| (of.bytes + of.reply_bytes, of.refused, of.began);
            let name = |of: &FlowSummary| {
                (
                    of.source.clone(),
                    of.destination.clone(),
                    of.port,
                    of.protocol,
                    of.policy.clone(),
                    of.reason.clone(),
                )
            };
            size(b).cmp(&size(a)).then_with(|| name(a).cmp(&name(b)))
        });
        if limit > 0 {
            groups.truncate(limit);
        }
        groups
    }

    /// Drops windows that are over.
    fn forget(&mut self) {
        let first = (self.now + 1).saturating_sub(WINDOWS);
        let counts = &mut self.counts;
        self.conversations.retain(|_, conversation| {
            while conversation.windows.front().is_some_and(|(window, _)| *window < first) {
                conversation.windows.pop_front();
                *counts -= 1;
            }
            !conversation.windows.is_empty()
        });
    }
}

impl Key {
    fn of(flow: &ObservedFlow, record: &FlowRecord) -> Self {
        let (source, destination) = filter::addresses(record);
        let name = |party: Option<&FlowParty>, addr: Option<std::net::IpAddr>| match party {
            Some(party) if !party.name.is_empty() => title(party),
            _ => addr.map(|addr| addr.to_string()).unwrap_or_default(),
        };
        Self {
            source: name(flow.source.as_ref(), source),
            destination: name(flow.destination.as_ref(), destination),
            protocol: record.protocol,
            port: record.original.as_ref().map_or(0, |original| original.destination_port),
            verdict: record.verdict.clone(),
            reason: record.reason.clone(),
            policy: policies(record),
        }
    }

    /// What of it counts.
    fn by(&self, by: By) -> Self {
        let nothing = || Self { protocol: 0, port: 0, ..Self::empty() };
        match by {
            By::Conversation => self.clone(),
            By::Source => Self { source: self.source.clone(), ..nothing() },
            By::Destination => Self { destination: self.destination.clone(), ..nothing() },
            By::Port => Self { protocol: self.protocol, port: self.port, ..nothing() },
            By::Policy => Self { verdict: self.verdict.clone(), policy: self.policy.clone(), ..nothing() },
            By::Reason => Self { verdict: self.verdict.clone(), reason: self.reason.clone(), ..nothing() },
        }
    }

    const fn empty() -> Self {
        Self {
            source: String::new(),
            destination: String::new(),
            protocol: 0,
            port: 0,
            verdict: String::new(),
            reason: String::new(),
            policy: String::new(),
        }
    }

    fn summary(self, counts: Counts) -> FlowSummary {
        let Self { source, destination, protocol, port, verdict, reason, policy } = self;
        let Counts { began, ended, refused, packets, bytes, reply_packets, reply_bytes, staged_differs } =
            counts;
        FlowSummary {
            source,
            destination,
            protocol,
            port,
            verdict,
            reason,
            policy,
            began,
            ended,
            refused,
            packets,
            bytes,
            reply_packets,
            reply_bytes,
            staged_differs,
        }
    }
}

impl Counts {
    fn of(record: &FlowRecord) -> Self {
        let staged = [&record.egress, &record.ingress]
            .into_iter()
            .flatten()
            .any(|of| of.staged.as_ref().is_some_and(|staged| staged.verdict != of.verdict));
        let refused = record.event() == Event::Refused;
        let passed = |count: u64| if refused { 0 } else { count };
        Self {
            began: u64::from(record.event() == Event::Began),
            ended: u64::from(record.event() == Event::Ended),
            refused: if refused { record.packets } else { 0 },
            packets: passed(record.packets),
            bytes: passed(record.bytes),
            reply_packets: record.reply_packets,
            reply_bytes: record.reply_bytes,
            staged_differs: u64::from(staged && record.event() == Event::Began),
        }
    }

    fn add(&mut self, more: &Self) {
        self.began += more.began;
        self.ended += more.ended;
        self.refused += more.refused;
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.reply_packets += more.reply_packets;
        self.reply_bytes += more.reply_bytes;
        self.staged_differs += more.staged_differs;
    }
}

/// What people call it.
pub fn title(party: &FlowParty) -> String {
    match party.namespace.is_empty() {
        true => party.name.clone(),
        false => format!("{}/{}", party.namespace, party.name),
    }
}

/// What decided, in a line: "egress TIER/POLICY, ingress TIER/POLICY".
pub fn policies(record: &FlowRecord) -> String {
    let ends = [("egress", &record.egress), ("ingress", &record.ingress)];
    let ends = ends.into_iter().filter_map(|(way, of)| of.as_ref().map(|of| format!("{way} {}", by(of))));
    let host = record.host.iter().filter_map(|stage| {
        let of = stage.decision.as_ref().filter(|of| of.verdict != "pass")?;
        Some(format!("host {} {}", stage.direction, by(of)))
    });
    ends.chain(host).collect::<Vec<_>>().join(", ")
}

fn by(of: &Direction) -> String {
    let Direction { tier, policy, .. } = of;
    match (tier.is_empty(), policy.is_empty()) {
        (true, true) => "no profile".to_owned(),
        (true, false) => policy.clone(),
        (false, true) => format!("{tier} default"),
        (false, false) => format!("{tier} {policy}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{allowed, denied};
    use super::*;

    fn at(flow: ObservedFlow, seconds: u64) -> ObservedFlow {
        let record = flow.record.clone().unwrap();
        ObservedFlow {
            record: Some(FlowRecord { last_unix_nanos: seconds * 1_000_000_000, ..record }),
            ..flow
        }
    }

    fn all(history: &History, by: By) -> Vec<FlowSummary> {
        history.summary(&Filter::default(), 0, by, 0)
    }

    #[test]
    fn conversations_are_counted_in_windows_and_forgotten_after_an_hour() {
        let mut history = History::default();
        for second in 0..60 {
            history.add(&at(allowed(), 10_000 + second));
            history.add(&at(denied(), 10_000 + second));
        }
        let groups = all(&history, By::Conversation);
        let [first, second] = &groups[..] else { panic!("{groups:#?}") };
        assert_eq!((&*first.source, &*first.destination, first.port), ("shop/web", "shop/db", 5432));
        assert_eq!((first.ended, first.bytes, first.reply_bytes), (60, 60_000, 120_000));
        assert_eq!(first.policy, "egress profile kns.shop, ingress default shop/db");
        assert_eq!((&*second.verdict, second.refused, second.bytes), ("deny", 240, 0));
        assert_eq!(second.destination, "world");
        assert_eq!(history.counts, 10, "five windows each");
        let late = history.summary(&Filter::default(), 10_050 * 1_000_000_000, By::Conversation, 1);
        assert_eq!((late.len(), late[0].ended), (1, 10), "from the window on that it is in");
        history.add(&at(allowed(), 10_000 + 3_620));
        let groups = all(&history, By::Conversation);
        assert_eq!((groups[0].ended, groups[1].refused), (26, 100), "{groups:#?}");
        history.add(&at(allowed(), 20_000));
        assert_eq!((all(&history, By::Conversation).len(), history.counts), (1, 1));
    }

    #[test]
    fn groups_are_put_together_by_what_is_asked() {
        let mut history = History::default();
        history.add(&at(allowed(), 10_000));
        history.add(&at(denied(), 10_001));
        let [source] = &all(&history, By::Source)[..] else { panic!("one source") };
        assert_eq!((&*source.source, source.ended, source.refused, source.port), ("shop/web", 1, 4, 0));
        assert_eq!(all(&history, By::Destination).len(), 2);
        assert_eq!(all(&history, By::Port).iter().map(|of| of.port).collect::<Vec<_>>(), [5432, 443]);
        assert_eq!(all(&history, By::Reason)[1].reason, "policy-denied");
        assert_eq!(all(&history, By::Policy)[1].policy, "egress default default");
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut history = History::of_at_most(2, 3);
        for (at_second, port) in [(0, 1), (0, 2), (0, 3), (20, 1), (40, 1), (40, 2)] {
            let mut flow = at(allowed(), 10_005 + at_second);
            flow.record.as_mut().unwrap().original.as_mut().unwrap().destination_port = port;
            history.add(&flow);
        }
        assert_eq!((history.conversations.len(), history.counts, history.beyond()), (2, 3, 3));
    }
}
