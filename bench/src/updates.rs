//! Policy that changes: one rule of many is another one, again and again, and each time the worker
//! has to judge by it before the next. Patched lists are compiled whole on another thread meanwhile,
//! as in the dataplane's process.

use crate::measure::{Sample, Tail, short, table};
use crate::random::Random;
use crate::rig::{Rig, Setup};
use crate::rules::Rules;
use crate::traffic::{self, Wanted};
use crate::{Output, record};
use anyhow::{Context, Result, ensure};
use clap::Args;
use margay_api::dataplane::v1::{self as pb, change::Change};
use margay_dataplane::policy::{CompileError, Consolidated, Consolidation};
use margay_dataplane::worker::ticks;
use serde::Serialize;
use std::thread::{self, JoinHandle};

/// Packets that the reference judges too, after all changes.
const CHECKED: usize = 500;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Rules
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1000,10000,100000", value_parser = clap::value_parser!(u32).range(10..=200_000))]
    rules: Vec<u32>,
    /// Changes of each list
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(300..=100_000))]
    changes: u32,
    #[command(flatten)]
    output: Output,
}

/// What changes of one list took.
#[derive(Serialize)]
struct Figures {
    case: String,
    changes: usize,
    /// Milliseconds from the agent's message to the worker's adoption, by the clock.
    adopted: Tail,
    /// The same, counting only time in which the thread had its core.
    on_core: Tail,
    /// Lists that took over from their patches meanwhile.
    take_overs: usize,
    /// What that took, from the finished list to adoption, by the clock.
    take_over: Option<Tail>,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let mut figures = vec![];
    for &count in &options.rules {
        for single in [false, true] {
            let shape = if single { "one policy" } else { "policies of 10 rules" };
            let case = format!("{} rules, {shape}", short(count.into()));
            figures.push(measure(case, count, single, options.changes)?);
        }
    }
    if !options.output.json {
        let row = |f: &Figures| {
            let take_over = f.take_over.map_or_else(String::new, |spread| spread.text());
            vec![f.case.clone(), f.adopted.text(), f.on_core.text(), f.take_overs.to_string(), take_over]
        };
        let heads =
            ["one rule changed; ms p50 / p99 / max", "adopted", "on core", "compiled whole", "taken over"];
        table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    }
    record::finish(&options.output, &figures)
}

fn measure(case: String, count: u32, single: bool, changes: u32) -> Result<Figures> {
    let mut rules = Rules::new(count as usize, false);
    if single {
        rules.unite();
    }
    let mut rig = Rig::new(Setup { batch: 1, sessions: 1024, ticks }, &rules)?;
    let mut policies = rules.policies();
    let mut random = Random::new(0x7570_6461);
    let mut compiling: Option<JoinHandle<Result<Consolidated, CompileError>>> = None;
    let (mut adoptions, mut take_overs) = (vec![], vec![]);
    for number in 0..changes {
        let policy = random.below(policies.len() as u64) as usize;
        let policy = &mut policies[policy];
        let rule = random.below(policy.inbound_rules.len() as u64) as usize;
        let port = 20_000 + number % 40_000;
        policy.inbound_rules[rule].dst_ports = vec![pb::PortRange { first: port, last: port }];
        let message = vec![pb::Change { change: Some(Change::Policy(policy.clone())) }];
        let mut outcome = Ok(());
        adoptions.push(Sample::of(|| {
            outcome = rig.change(&message);
            1
        }));
        outcome?;
        if compiling.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(done) = compiling.take()
        {
            let done = done.join().ok().context("the compiler panicked")??;
            take_overs.push(Sample::of(|| {
                rig.take_over(&done);
                1
            }));
        }
        if compiling.is_none() {
            compiling = rig.consolidation().map(|work: Consolidation| thread::spawn(move || work.run()));
        }
    }
    // The figures are worth something only if the verdicts are right.
    traffic::flows(&rules, &rig.policy(), CHECKED, Wanted::Any, false)?;
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let wall = |samples: &[Sample]| Tail::of(samples.iter().map(|sample| millis(sample.nanos)));
    let on_core = Tail::of(adoptions.iter().map(|sample| millis(sample.busy)));
    ensure!(!adoptions.is_empty(), "something changed");
    Ok(Figures {
        case,
        changes: adoptions.len(),
        adopted: wall(&adoptions).context("something changed")?,
        on_core: on_core.context("something changed")?,
        take_overs: take_overs.len(),
        take_over: wall(&take_overs),
    })
}
