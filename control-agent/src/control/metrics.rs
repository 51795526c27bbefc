//! What a scrape by Prometheus sees of the agent.

use super::{Agent, Relaying};
use crate::health::Health;
use margay_api::metrics::{Families, Metrics};
use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// An agent that can be scraped. Shares it with its API.
pub struct Scraped(pub Arc<Agent>);

impl Metrics for Scraped {
    async fn families(&self) -> Result<Families, String> {
        Ok(families(&self.0))
    }

    async fn ready(&self) -> Result<(), String> {
        let states = self.0.parts().into_iter().map(|part| (part.name(), part.state()));
        let waits: Vec<_> = states
            .filter(|(_, state)| !state.healthy)
            .map(|(name, state)| format!("{name}: {}", state.reason))
            .collect();
        if waits.is_empty() { Ok(()) } else { Err(waits.join("\n")) }
    }
}

/// A relay that can be scraped. Shares it with its API.
pub struct ScrapedRelay(pub Arc<Relaying>);

impl Metrics for ScrapedRelay {
    async fn families(&self) -> Result<Families, String> {
        Ok(relay_families(&self.0))
    }

    async fn ready(&self) -> Result<(), String> {
        let state = self.0.relay.health().state();
        if state.healthy { Ok(()) } else { Err(format!("relay: {}", state.reason)) }
    }
}

fn relay_families(relaying: &Relaying) -> Families {
    let mut f = process("relay", relaying.started);
    let store = relaying.store.health().state().healthy;
    f.level("margay_store_connected", "1: the store answers, and its changes are followed.", store.into());
    f.level(
        "margay_store_lost_objects",
        "Gone from the store all at once; they stay in force here until `margayctl datastore confirm`.",
        relaying.store.lost().len() as u64,
    );
    let figures = relaying.relay.figures();
    f.level("margay_relay_objects", "Objects of the store.", figures.objects);
    f.level("margay_relay_selectors", "Selectors whose members some agent needs.", figures.selectors);
    f.level("margay_relay_clients", "Agents that are told what changes.", figures.readers.len() as u64);
    let behind = figures.readers.iter().map(|reading| reading.behind.as_secs_f64()).fold(0.0, f64::max);
    f.gauge(
        "margay_relay_behind_seconds",
        "How long the oldest change that an agent has yet to take has waited.",
    )
    .real([], behind);
    let began = f.counter(
        "margay_relay_streams",
        "Agents that came: told everything, or on from where they were; and those dropped, as they fell too far behind.",
    );
    began.sample([("outcome", "listed")], figures.listed);
    began.sample([("outcome", "resumed")], figures.resumed);
    began.sample([("outcome", "dropped")], figures.dropped);
    f.count("margay_relay_events", "Objects that agents were told of.", figures.events);
    f.count("margay_relay_bytes", "Bytes of all that agents were told.", figures.bytes);
    f
}

/// What a process says of itself.
fn process(component: &'static str, started: Instant) -> Families {
    let mut f = Families::default();
    f.gauge("margay_build_info", "The release that runs; always 1.")
        .sample([("component", component), ("version", env!("CARGO_PKG_VERSION"))], 1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let began = now.saturating_sub(started.elapsed());
    f.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.")
        .real([], began.as_secs_f64());
    f
}

fn families(agent: &Agent) -> Families {
    let mut f = process("agent", agent.started);
    health(&mut f, agent);
    calculation(&mut f, agent);
    dataplane(&mut f, agent);
    flows(&mut f, agent);
    f
}

fn health(f: &mut Families, agent: &Agent) {
    let store = agent.store.health().state().healthy;
    f.level("margay_store_connected", "1: the store answers, and its changes are followed.", store.into());
    f.level(
        "margay_store_lost_objects",
        "Gone from the store all at once; they stay in force here until `margayctl datastore confirm`.",
        agent.store.lost().len() as u64,
    );
    let parts = agent.parts();
    let healthy =
        f.gauge("margay_agent_component_healthy", "1: it does its work. See `margayctl status` for why not.");
    for part in &parts {
        healthy.sample([("component", part.name())], part.state().healthy.into());
    }
    let since = f.gauge("margay_agent_component_since_timestamp_seconds", "When that last changed.");
    for part in parts {
        since.real([("component", part.name())], seconds(part));
    }
}

fn seconds(part: &Health) -> f64 {
    part.state().since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn calculation(f: &mut Families, agent: &Agent) {
    f.histogram(
        "margay_agent_calculation_seconds",
        "To work out what this node needs from what the store holds.",
        agent.calculation.durations(),
    );
    let Some(calculated) = agent.calculation.latest().borrow().clone() else { return };
    f.level(
        "margay_store_revision",
        "Of the store: the last that this node's state was worked out from.",
        calculated.revision,
    );
    let desired = calculated.desired;
    f.level(
        "margay_agent_problems",
        "Objects that could not be followed as they are written; see `margayctl status`.",
        desired.problems.len() as u64,
    );
    let objects = f.gauge("margay_agent_objects", "What this node needs, by kind.");
    let counts = [
        ("workload_endpoint", desired.endpoints.len()),
        ("host_endpoint", desired.host_endpoints.len()),
        ("policy", desired.policies.len()),
        ("profile", desired.profiles.len()),
        ("ip_set", desired.ip_sets.len()),
        ("route", desired.routes.len()),
        ("service", desired.services.len()),
        ("tunnel", desired.tunnels.len()),
    ];
    for (kind, count) in counts {
        objects.sample([("kind", kind)], count as u64);
    }
}

fn dataplane(f: &mut Families, agent: &Agent) {
    let progress = agent.link.progress().borrow().clone();
    f.level(
        "margay_agent_dataplane_connected",
        "1: a stream to the dataplane is open.",
        progress.connected.into(),
    );
    f.level(
        "margay_agent_dataplane_refuses",
        "1: the dataplane refused the last transaction, and what was in force before stays so.",
        progress.refused.is_some().into(),
    );
    let generation = f.gauge(
        "margay_policy_generation",
        "Of transactions to the dataplane: the last that was sent, and the last that it is known to judge by.",
    );
    generation.sample([("stage", "sent")], progress.sent_generation);
    generation.sample([("stage", "adopted")], progress.adopted_generation);
    if let Some(revision) = progress.adopted_revision {
        f.level(
            "margay_store_adopted_revision",
            "Of the store: the last that the dataplane judges by.",
            revision,
        );
    }
    let endpoints = agent.endpoints(&progress);
    let states =
        f.gauge("margay_agent_endpoints", "Workloads of this node, by what the dataplane says of them.");
    for state in ["up", "down", "error"] {
        let count = endpoints.iter().filter(|endpoint| endpoint.state == state).count();
        states.sample([("state", state)], count as u64);
    }
}

fn flows(f: &mut Families, agent: &Agent) {
    let Some(flows) = &agent.flows else { return };
    f.count("margay_flows_events", "Records of flows, and of refused attempts, that came.", flows.taken());
    f.count(
        "margay_agent_flows_events_missed",
        "Records that the dataplane lost on their way here; it counts them itself, by cause.",
        flows.lost(),
    );
    let lost = f.counter(
        "margay_flows_events_lost",
        "Records that came and are not in the file of flows, or in none of the hour's groups.",
    );
    lost.sample([("cause", "file")], flows.unwritten());
    lost.sample([("cause", "groups")], flows.beyond());
}
