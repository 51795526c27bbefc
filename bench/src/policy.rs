//! Policy alone: judging packets by a compiled tree, and compiling it.

use crate::Common;
use crate::measure::{Work, alternate, report, short};
use crate::rig::{Rig, Setup};
use crate::rules::Rules;
use crate::traffic::{self, Wanted};
use anyhow::Result;
use clap::Args;
use margay_dataplane::policy::{Query, Room, Verdict, compile};
use margay_dataplane::worker::ticks;
use std::hint::black_box;
use std::rc::Rc;

/// Different packets that are judged in turn.
const QUERIES: usize = 1 << 16;

/// Packets judged at once, a divisor of [`QUERIES`].
const BATCH: usize = 64;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Rules
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1,100,1000,10000", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rules: Vec<u32>,
    /// IPv6 rules and packets
    #[arg(long)]
    ipv6: bool,
    #[command(flatten)]
    common: Common,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let mut cases: Vec<(String, Work<'_>)> = vec![];
    for &count in &options.rules {
        let rules = Rules::new(count as usize, options.ipv6);
        let table = Rig::new(Setup { batch: 1, sessions: 1024, ticks }, &rules)?.policy();
        let keys = traffic::flows(&rules, &table, QUERIES, Wanted::Any, options.ipv6)?;
        let queries: Rc<[Query]> = keys.iter().map(traffic::query).collect();
        let list = Rig::tree(&table)?.compiled().list().clone();
        let (vectors, batched) = (queries.clone(), table.clone());
        let judge_batch = move || {
            let Ok(tree) = Rig::tree(&batched) else { return 0 };
            let (mut verdicts, mut room) = ([Verdict { allow: false, slot: 0 }; BATCH], Room::default());
            for vector in vectors.chunks_exact(BATCH) {
                tree.compiled().judge_batch(batched.sets(), black_box(vector), &mut verdicts, &mut room);
                black_box(&verdicts);
            }
            vectors.len() as u64
        };
        let judge = move || {
            let Ok(tree) = Rig::tree(&table) else { return 0 };
            for query in queries.iter() {
                black_box(tree.compiled().judge(table.sets(), black_box(query)));
            }
            queries.len() as u64
        };
        cases.push((format!("judge, {} rules", short(count.into())), Box::new(judge)));
        cases.push((
            format!("judge in batches of {BATCH}, {} rules", short(count.into())),
            Box::new(judge_batch),
        ));
        let compile = move || black_box(compile(list.clone())).map_or(0, |_| 1);
        cases.push((format!("compile and prove, {} rules", short(count.into())), Box::new(compile)));
    }
    report(&options.common, &alternate(&options.common, cases)?)
}
