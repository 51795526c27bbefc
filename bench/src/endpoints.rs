//! A workload that comes to a node with many: what that costs the control thread.

use crate::measure::{Sample, Spread, short, table};
use crate::rig;
use crate::rules::Rules;
use crate::{Output, record};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::control::{Purpose, State};
use margay_dataplane::net::{Mac, Nanos};
use margay_dataplane::snapshot::{Publisher, Snapshot};
use serde::Serialize;

const NOW: Nanos = Nanos::from_secs(1);
/// Rules of all policies, each of ten.
const RULES: usize = 1000;
/// Policies of one workload.
const POLICIES: usize = 3;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Workloads that are there
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "100,1000,10000", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    endpoints: Vec<u32>,
    /// Workloads that come, and go again
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(5..=1000))]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

/// Milliseconds of the control thread.
#[derive(Serialize)]
struct Figures {
    endpoints: u32,
    /// From the message to the published policy, interfaces and routes.
    added: Spread,
    /// Its interface is there.
    attached: Spread,
    removed: Spread,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let measured = options.endpoints.iter().map(|count| measure(*count, options.rounds));
    let figures: Vec<Figures> = measured.collect::<Result<_>>()?;
    if !options.output.json {
        let row = |f: &Figures| {
            let text = |spread: &Spread| format!("{:.2}", spread.median);
            vec![short(f.endpoints.into()), text(&f.added), text(&f.attached), text(&f.removed)]
        };
        let heads = ["endpoints", "one more, ms", "its interface, ms", "one gone, ms"];
        table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    }
    record::finish(&options.output, &figures)
}

fn measure(count: u32, rounds: u32) -> Result<Figures> {
    let rules = Rules::new(RULES, false);
    let mut state = State::new(Publisher::new(Snapshot::empty(1)), u16::MAX);
    let uplink = state.want("eth0", Purpose::Uplink { vlan: None }).context("the interface is new")?;
    state.attached(uplink, rig::facts(rig::UPLINK_MAC, &[]), NOW);
    let mut node = Node { state, generation: 0 };
    let all = (0..count).flat_map(|number| workload(number, &rules.ids));
    node.commit(&rules.changes.iter().cloned().chain(all).collect::<Vec<_>>())?;
    for number in 0..count {
        node.attach(number)?;
    }
    node.state.publish();
    let (mut added, mut attached, mut removed) = (vec![], vec![], vec![]);
    for round in 0..rounds {
        let number = count + round;
        added.push(millis(|| node.commit(&workload(number, &rules.ids)))?);
        attached.push(millis(|| {
            node.attach(number)?;
            node.state.publish();
            Ok(())
        })?);
        removed.push(millis(|| node.commit(&gone(number)))?);
        ensure!(node.state.desired().endpoints.len() == count as usize, "as many as before");
    }
    let of = |millis| Spread::exact(millis);
    Ok(Figures { endpoints: count, added: of(added), attached: of(attached), removed: of(removed) })
}

/// What is told to the state of a node.
struct Node {
    state: State,
    generation: u64,
}

impl Node {
    fn commit(&mut self, changes: &[pb::Change]) -> Result<()> {
        self.generation += 1;
        let commit = pb::Commit { generation: self.generation, in_sync: true };
        let refused = |errors: Vec<_>| anyhow::anyhow!("the changes were refused: {errors:?}");
        self.state.commit(changes, &commit, NOW).map_err(refused)
    }

    fn attach(&mut self, number: u32) -> Result<()> {
        let interface = self.state.id(&interface(number)).context("its interface is wanted")?;
        self.state.attached(interface, rig::facts(mac(number), &[]), NOW);
        Ok(())
    }
}

/// The thread's own.
fn millis(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let mut outcome = Ok(());
    let sample = Sample::of(|| {
        outcome = work();
        1
    });
    outcome.map(|()| sample.busy as f64 / 1e6)
}

fn interface(number: u32) -> String {
    format!("cali{number}")
}

fn mac(number: u32) -> Mac {
    let [_, b, c, d] = number.to_be_bytes();
    Mac([2, 0, 1, b, c, d])
}

fn id(number: u32) -> pb::WorkloadEndpointId {
    pb::WorkloadEndpointId {
        orchestrator: "k8s".into(),
        workload: format!("default/w{number}"),
        endpoint: "eth0".into(),
    }
}

fn prefix(number: u32) -> pb::Prefix {
    pb::Prefix { address: (0x0a00_0000 + number).to_be_bytes().into(), length: 32 }
}

/// A workload, judged by some of the policies as others are, and the route to it.
fn workload(number: u32, policies: &[pb::PolicyId]) -> Vec<pb::Change> {
    let first = number as usize * POLICIES % (policies.len() - POLICIES);
    let tier = pb::TierBinding {
        name: "default".into(),
        ingress_policies: policies[first..first + POLICIES].to_vec(),
        egress_policies: vec![],
        default_action: pb::Action::Deny.into(),
    };
    let endpoint = pb::WorkloadEndpoint {
        id: Some(id(number)),
        display_name: format!("default/w{number}"),
        interface_name: interface(number),
        active: true,
        mac: mac(number).0.to_vec(),
        nets: vec![prefix(number)],
        tiers: vec![tier],
        ..Default::default()
    };
    let route = pb::Route {
        destination: Some(prefix(number)),
        target: Some(pb::route::Target::Workload(id(number))),
        ..Default::default()
    };
    [Change::WorkloadEndpoint(endpoint), Change::Route(route)]
        .map(|change| pb::Change { change: Some(change) })
        .into()
}

fn gone(number: u32) -> Vec<pb::Change> {
    [Change::RouteRemove(prefix(number)), Change::WorkloadEndpointRemove(id(number))]
        .map(|change| pb::Change { change: Some(change) })
        .into()
}
