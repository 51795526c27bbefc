//! The flow table beside DPDK's rte_hash: the same keys, the same orders, in turns.

use crate::measure::{Sample, Spread, fill, short, table as print_table};
use crate::peer::Peer;
use crate::random::{Random, Zipf};
use crate::{Common, record, traffic};
use anyhow::{Context, Result, ensure};
use margay_dataplane::conntrack::{FlowRef, Table};
use margay_dataplane::net::{FlowKey, Key4, Nanos};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Keys looked up in a turn before it begins again.
const ORDER: usize = 1 << 20;
/// Keys looked up at once.
const BATCH: usize = 256;
const NOW: Nanos = Nanos::from_secs(1);

/// Figures of one order over one number of flows.
#[derive(Serialize)]
struct Figures {
    case: String,
    /// Nanoseconds a lookup, the hash included.
    nanos: Spread,
    /// The same for rte_hash, 64 at a time.
    peer_nanos: Spread,
    /// How many times as fast, round by round.
    ratio: Spread,
    bytes_a_flow: f64,
    peer_bytes_a_flow: f64,
}

/// A table and a peer that hold the same flows, and orders to look them up in.
struct Pair {
    flows: u32,
    table: Table,
    peer: Peer,
    built: Built,
    orders: [(&'static str, Vec<Key4>); 2],
}

/// Measures, prints, records. `pad`: the peer gets keys of 16 bytes, which it compares faster than
/// those of 13.
pub fn run(
    program: &Path,
    pad: bool,
    sizes: &[u32],
    common: &Common,
    make: impl Fn(&[FlowKey]) -> Result<Table>,
) -> Result<()> {
    let mut pairs = vec![];
    for &flows in sizes {
        pairs.push(Pair::new(program, pad, flows, &make)?);
    }
    let span = Duration::from_secs_f64(common.seconds / f64::from(common.rounds));
    let mut rounds: Vec<Vec<[f64; 2]>> = vec![vec![]; 2 * pairs.len()];
    for _ in 0..common.rounds {
        let mut rounds = rounds.iter_mut();
        for pair in &mut pairs {
            for order in 0..2 {
                let ours = fill(span, || Ok(Sample::of(|| pair.look_up(order))))?.nanos_each();
                let theirs = pair.peer.turn(format_args!("run {order} {}", span.as_millis().max(1)))?;
                rounds.next().context("there are rounds for each order")?.push([ours, theirs]);
            }
        }
    }
    let mut rounds = rounds.iter();
    let mut figures = vec![];
    for pair in &pairs {
        for (name, _) in &pair.orders {
            let rounds = rounds.next().context("there are rounds for each order")?;
            figures.push(Figures {
                case: format!("{} flows, {name}", short(pair.flows.into())),
                nanos: Spread::of(rounds.iter().map(|[ours, _]| *ours)),
                peer_nanos: Spread::of(rounds.iter().map(|[_, theirs]| *theirs)),
                ratio: Spread::of(rounds.iter().map(|[ours, theirs]| theirs / ours)),
                bytes_a_flow: pair.table.bytes() as f64 / f64::from(pair.flows),
                peer_bytes_a_flow: pair.built.bytes as f64 / f64::from(pair.flows),
            });
        }
    }
    if !common.output.json {
        let row = |f: &Figures| {
            vec![
                f.case.clone(),
                f.nanos.text(),
                f.peer_nanos.text(),
                format!("{:.2} ({:.2} to {:.2})", f.ratio.median, f.ratio.min, f.ratio.max),
                format!("{:.0}", f.bytes_a_flow),
                format!("{:.0}", f.peer_bytes_a_flow),
            ]
        };
        let heads =
            ["lookups", "ns (min to max)", "rte_hash ns", "times as fast", "bytes a flow", "rte_hash"];
        print_table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    }
    record::finish(&common.output, &figures)
}

impl Pair {
    /// `flows` directions of half as many sessions: all are looked up.
    fn new(
        program: &Path,
        pad: bool,
        flows: u32,
        make: impl Fn(&[FlowKey]) -> Result<Table>,
    ) -> Result<Self> {
        let sessions = traffic::any(flows as usize / 2, false);
        let table = make(&sessions)?;
        let keys: Vec<FlowKey> = sessions.iter().flat_map(|key| [*key, key.reversed()]).collect();
        let mut random = Random::new(7);
        let uniform: Vec<u32> = (0..ORDER).map(|_| random.below(keys.len() as u64) as u32).collect();
        let zipf = zipf(keys.len(), &mut random);

        let folder = tempfile::tempdir()?;
        let write = |name: &str, bytes: Vec<u8>| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).map(|()| path).context("cannot write the peer's files")
        };
        let numbers = |order: &[u32]| order.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let files = [
            write("keys", keys.iter().flat_map(padded).collect())?,
            write("uniform", numbers(&uniform))?,
            write("zipf", numbers(&zipf))?,
        ];
        let bytes = if pad { "16" } else { "13" };
        let (peer, built) = Peer::start::<Built>(Command::new(program).arg(bytes).args(&files))?;
        ensure!(built.keys == flows, "the peer has {} of {flows} keys", built.keys);

        let short: Vec<Key4> = keys.iter().filter_map(Key4::of).collect();
        let queries = |order: &[u32]| order.iter().map(|number| short[*number as usize]).collect();
        let orders = [("uniform", queries(&uniform)), ("Zipf", queries(&zipf))];
        let pair = Self { flows, table, peer, built, orders };
        for (_, keys) in &pair.orders {
            let mut found = vec![None; keys.len()];
            pair.table.lookup_many(keys, NOW, &mut found);
            let is = |(key, flow): (&Key4, Option<FlowRef>)| {
                flow.is_some_and(|flow| pair.table.key(flow) == key.key())
            };
            let right = keys.iter().zip(found).all(is);
            ensure!(right, "a lookup among {flows} flows went wrong");
        }
        Ok(pair)
    }

    fn look_up(&self, order: usize) -> u64 {
        let (keys, mut found) = (&self.orders[order].1, [None; BATCH]);
        for keys in keys.chunks(BATCH) {
            self.table.lookup_many(keys, NOW, &mut found);
            black_box(&found);
        }
        keys.len() as u64
    }
}

/// Numbers below `count`, the n-th most frequent as often as 1/n; which is frequent is left to chance.
fn zipf(count: usize, random: &mut Random) -> Vec<u32> {
    let law = Zipf::new(count);
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    random.shuffle(&mut numbers);
    (0..ORDER).map(|_| numbers[law.draw(random)]).collect()
}

/// As the peer keeps keys.
fn padded(key: &FlowKey) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&key.src.v4_octets());
    bytes[4..8].copy_from_slice(&key.dst.v4_octets());
    bytes[8..10].copy_from_slice(&key.sport.to_be_bytes());
    bytes[10..12].copy_from_slice(&key.dport.to_be_bytes());
    bytes[12] = key.proto.0;
    bytes
}

/// What filling its table took the peer.
#[derive(Clone, Copy, Deserialize)]
struct Built {
    keys: u32,
    bytes: u64,
}
