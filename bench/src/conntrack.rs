//! The flow table alone: finding a flow, missing one, beginning and ending one.

use crate::measure::{Work, alternate, report, short};
use crate::random::Random;
use crate::{Common, hashes, traffic};
use anyhow::{Result, ensure};
use clap::Args;
use margay_dataplane::conntrack::{Admit, FlowHasher, NewSession, Segment, Settings, Table};
use margay_dataplane::net::{FlowKey, Generation, Nanos};
use std::cell::RefCell;
use std::hint::black_box;
use std::path::PathBuf;
use std::rc::Rc;

/// Keys hashed before the first of them is looked up, in the batched cases.
const BATCH: usize = 256;
/// Lookups in one turn.
const TURN: usize = 1 << 16;
const NOW: Nanos = Nanos::from_secs(1);

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Flows in the table
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1000,1000000", value_parser = clap::value_parser!(u32).range(512..=16_000_000))]
    flows: Vec<u32>,
    /// Only look up, in turns with this program over DPDK's rte_hash (see bench/peers/rte_hash)
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    /// Pad the peer's keys from 13 bytes to 16, which it compares faster
    #[arg(long, requires = "peer")]
    pad: bool,
    #[command(flatten)]
    common: Common,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    if let Some(program) = &options.peer {
        return hashes::run(program, options.pad, &options.flows, &options.common, filled);
    }
    let mut cases: Vec<(String, Work<'_>)> = vec![];
    for &flows in &options.flows {
        let count = flows as usize;
        // As many again that are not in the table.
        let mut keys = traffic::any(2 * count, false);
        let absent = keys.split_off(count);
        let table = filled(&keys)?;
        let found = keys.iter().all(|key| table.lookup(key, table.hash(key), NOW).is_some());
        ensure!(found, "a flow is missing");
        let missed = absent.iter().all(|key| table.lookup(key, table.hash(key), NOW).is_none());
        ensure!(missed, "a flow was found that nobody began");
        eprintln!(
            "{} flows: {} bytes a session",
            short(flows.into()),
            table.bytes() / table.capacity() as usize
        );
        let mut order = keys;
        Random::new(1).shuffle(&mut order);
        let table = Rc::new(RefCell::new(table));
        let name = |what: &str| format!("{what}, {} flows", short(flows.into()));
        cases.push((name("find"), find(&table, order.clone())));
        cases.push((name("find, hashed ahead"), find_hashed(&table, order)));
        cases.push((name("miss"), find(&table, absent.clone())));
        cases.push((name("begin and end"), turnover(&table, absent)));
    }
    report(&options.common, &alternate(&options.common, cases)?)
}

/// A table in which each key began a session.
fn filled(keys: &[FlowKey]) -> Result<Table> {
    let sessions = (keys.len() + keys.len() / 64 + 512) as u32;
    let settings = Settings { sessions, hugepages: true };
    let mut table = Table::new(settings, FlowHasher::new([1, 2, 3, 4]))?;
    for key in keys {
        begin(&mut table, key)?;
    }
    Ok(table)
}

fn begin(table: &mut Table, key: &FlowKey) -> Result<()> {
    let segment = Segment::Other;
    let Admit::New(state) = table.admit(key.proto, segment) else { anyhow::bail!("UDP may always begin") };
    let reply_key = key.reversed();
    let (hash, reply_hash) = (table.hash(key), table.hash(&reply_key));
    let judged = Generation(1);
    let new =
        NewSession { key: *key, hash, reply_key, reply_hash, state, segment, judged, way: 1, bound: judged };
    table.insert(new, NOW)?;
    Ok(())
}

/// Calls `visit` with the next keys of an endless ring.
fn turn(keys: &[FlowKey], next: &mut usize, size: usize, mut visit: impl FnMut(&[FlowKey])) -> u64 {
    let mut done = 0;
    while done < TURN {
        let end = (*next + size).min(keys.len());
        visit(&keys[*next..end]);
        done += end - *next;
        *next = if end == keys.len() { 0 } else { end };
    }
    done as u64
}

fn find<'a>(table: &Rc<RefCell<Table>>, keys: Vec<FlowKey>) -> Work<'a> {
    let (table, mut next) = (table.clone(), 0);
    Box::new(move || {
        let table = table.borrow();
        turn(&keys, &mut next, BATCH, |keys| {
            for key in keys {
                black_box(table.lookup(key, table.hash(key), NOW));
            }
        })
    })
}

fn find_hashed<'a>(table: &Rc<RefCell<Table>>, keys: Vec<FlowKey>) -> Work<'a> {
    let (table, mut next) = (table.clone(), 0);
    Box::new(move || {
        let (table, mut hashes) = (table.borrow(), [0; BATCH]);
        turn(&keys, &mut next, BATCH, |keys| {
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = table.hash(key);
            }
            for (hash, key) in hashes.iter().zip(keys) {
                black_box(table.lookup(key, *hash, NOW));
            }
        })
    })
}

/// Begins flows that are not there, as many as leave room, and ends them.
fn turnover<'a>(table: &Rc<RefCell<Table>>, keys: Vec<FlowKey>) -> Work<'a> {
    let (table, mut next) = (table.clone(), 0);
    Box::new(move || {
        let mut table = table.borrow_mut();
        turn(&keys, &mut next, BATCH, |keys| {
            for key in keys {
                black_box(begin(&mut table, key).is_ok());
            }
            for key in keys {
                let flow = table.lookup(key, table.hash(key), NOW);
                black_box(flow.is_some_and(|flow| table.remove(flow)));
            }
        })
    })
}
