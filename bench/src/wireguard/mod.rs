//! The wired path: packets of a workload that leave encrypted, and encrypted ones that come for it, through the whole
//! worker in memory; beside boringtun, and beside the cipher alone.

mod flood;
mod handshakes;
mod node;
mod other;
mod wire;

use crate::aead::{self, IMIX};
use crate::measure::{Sample, Spread, fill, report, table};
use crate::{Common, record};
use anyhow::Result;
use clap::{Args, ValueEnum};
use margay_dataplane::graph::NodeCount;
use margay_dataplane::packet::VECTOR;
use margay_dataplane::wireguard::padded_len;
use margay_dataplane::worker::ticks;
use node::{MTU, Node};
use other::Boringtun;
use serde::Serialize;
use std::time::Duration;

/// Packets that go through the node between two looks at the clock.
const LAP: usize = 2_048;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// What to measure
    #[arg(long, value_enum, default_value_t = Kind::Packets)]
    case: Kind,
    /// Bytes of each packet, as the workload sends it; 0 for a mix of 64, 594 and 1,364
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "64,256,512,1024,1420,0", value_parser = clap::value_parser!(u32).range(0..=1_440))]
    bytes: Vec<u32>,
    /// Peers, which packets are for in turn
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=4_000))]
    peers: Vec<u32>,
    /// Packets received at once
    #[arg(long, default_value_t = VECTOR as u16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=VECTOR as i64))]
    batch: u16,
    /// Read no clock, time nothing: only seal this many packets of the first case, to be counted by valgrind
    #[arg(long, value_name = "PACKETS")]
    untimed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Packets of sessions that there are
    Packets,
    /// Handshakes, and floods of them
    Handshakes,
    /// Data beside a flood of 100,000 bogus initiations a second
    Flood,
}

/// Figures of one case. Cycles are of the time-stamp counter.
#[derive(Serialize)]
struct Figures {
    case: String,
    peers: u32,
    /// What the worker costs a packet: everything between receiving and sending.
    worker_cycles: Spread,
    worker_nanos: Spread,
    mpps: f64,
    /// Of the packets as the workload has them.
    gigabits: f64,
    /// Of that, the node that seals or opens.
    wireguard_cycles: Spread,
    /// The cipher alone, of texts as long as these are once padded.
    cipher_cycles: Spread,
    /// boringtun with as many peers, which only seals or opens.
    boringtun_cycles: Spread,
    /// How many times as fast as that the node is, and the whole worker, round by round.
    times_boringtun: Spread,
    worker_times_boringtun: Spread,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    if let Some(packets) = options.untimed {
        let mut node = Node::new(options.peers[0] as usize, options.batch.into(), || 0)?;
        let lap = node.packets(&lengths(options.bytes[0]), LAP);
        for _ in 0..packets.div_ceil(LAP as u64) {
            node.run(true, &lap)?;
        }
        return Ok(());
    }
    match options.case {
        Kind::Packets => {}
        Kind::Handshakes => return report(&options.common, &handshakes::run(&options.common)?),
        Kind::Flood => return flood::run(&options.common, &options.bytes),
    }
    let mut cases = vec![];
    for &peers in &options.peers {
        for &bytes in &options.bytes {
            cases.push(Case::new(bytes, peers, options.batch.into())?);
        }
    }
    let span = Duration::from_secs_f64(options.common.seconds / f64::from(options.common.rounds));
    for _ in 0..options.common.rounds {
        for case in &mut cases {
            case.round(span)?;
        }
    }
    let figures: Vec<Figures> =
        cases.iter().flat_map(|case| [false, true].map(|open| case.figures(open))).collect();
    if !options.common.output.json {
        print(&figures);
    }
    record::finish(&options.common.output, &figures)
}

/// The lengths that packets have in turn.
fn lengths(bytes: u32) -> Vec<usize> {
    // Below, there is no room for headers.
    if bytes == 0 { IMIX.to_vec() } else { vec![bytes.max(28) as usize] }
}

/// A node, its traffic, and what was measured of it.
struct Case {
    bytes: u32,
    peers: u32,
    lengths: Vec<usize>,
    node: Node,
    batch: usize,
    cipher: aead::Vector,
    ours: aead::Way,
    /// By direction: seal, open.
    rounds: [Vec<Round>; 2],
}

struct Round {
    total: Sample,
    device: Sample,
    wireguard: f64,
    cipher: Sample,
    boringtun: Sample,
}

impl Case {
    fn new(bytes: u32, peers: u32, batch: usize) -> Result<Self> {
        let lengths = lengths(bytes);
        let mut node = Node::new(peers as usize, batch, ticks)?;
        node.check(&lengths)?;
        let padded = (0..batch).map(|at| padded_len(lengths[at % lengths.len()], MTU)).collect();
        let cipher = aead::Vector::of(padded, peers as usize);
        let ours = aead::Way::best();
        Ok(Self { bytes, peers, lengths, node, batch, cipher, ours, rounds: [vec![], vec![]] })
    }

    fn round(&mut self, span: Duration) -> Result<()> {
        // Sessions of boringtun's end with the time.
        let mut boringtun = Boringtun::new(self.peers as usize)?;
        let plain = Boringtun::packets(&self.lengths, LAP);
        let to_seal = self.node.packets(&self.lengths, LAP);
        let mut device = node::bare(self.batch)?;
        for open in [false, true] {
            let before = self.node.nodes();
            let mut lap = to_seal.clone();
            let total = fill(span, || {
                if open {
                    lap = self.node.messages(&self.lengths, LAP)?;
                }
                let mut done = Ok(0);
                let sample = Sample::of(|| {
                    done = self.node.run(!open, &lap);
                    *done.as_ref().unwrap_or(&0)
                });
                done?;
                self.node.listen();
                Ok(sample)
            })?;
            let wireguard =
                cycles(&before, &self.node.nodes(), if open { "wg-decrypt" } else { "wg-encrypt" });
            let device = fill(span / 4, || Ok(Sample::of(|| device(&lap))))?;
            let cipher = fill(span / 2, || self.cipher.turn(&mut self.ours, open))?;
            let boringtun = fill(span, || seal_or_open(&mut boringtun, &plain, open))?;
            let wireguard = wireguard * total.share() / total.operations as f64;
            self.rounds[usize::from(open)].push(Round { total, device, wireguard, cipher, boringtun });
        }
        Ok(())
    }

    fn figures(&self, open: bool) -> Figures {
        let rounds = &self.rounds[usize::from(open)];
        let spread = |of: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
        let worker_nanos = spread(&|round| round.total.nanos_each() - round.device.nanos_each());
        let worker = |round: &Round| round.total.cycles_each() - round.device.cycles_each();
        let size = if self.bytes == 0 { "IMIX".to_owned() } else { format!("{} B", self.bytes) };
        let average = self.lengths.iter().sum::<usize>() as f64 / self.lengths.len() as f64;
        Figures {
            case: format!("{}, {size}", if open { "decrypt" } else { "encrypt" }),
            peers: self.peers,
            worker_cycles: spread(&worker),
            mpps: (1e5 / worker_nanos.median).round() / 100.0,
            gigabits: (80.0 * average / worker_nanos.median).round() / 10.0,
            worker_nanos,
            wireguard_cycles: spread(&|round| round.wireguard),
            cipher_cycles: spread(&|round| round.cipher.cycles_each()),
            boringtun_cycles: spread(&|round| round.boringtun.cycles_each()),
            times_boringtun: spread(&|round| round.boringtun.cycles_each() / round.wireguard),
            worker_times_boringtun: spread(&|round| round.boringtun.cycles_each() / worker(round)),
        }
    }
}

/// What a node of the graph has cost between two looks.
fn cycles(before: &[NodeCount], after: &[NodeCount], name: &str) -> f64 {
    let of =
        |counts: &[NodeCount]| counts.iter().find(|count| count.name == name).map_or(0, |count| count.cycles);
    of(after).wrapping_sub(of(before)) as f64
}

fn seal_or_open(pair: &mut Boringtun, plain: &[Vec<u8>], open: bool) -> Result<Sample> {
    let mut sealed = vec![];
    if open {
        pair.seal(plain, |message| sealed.push(message.to_vec()))?;
    }
    let mut done = Ok(0);
    let sample = Sample::of(|| {
        done = if open {
            pair.open(&sealed)
        } else {
            pair.seal(plain, |message| {
                std::hint::black_box(message);
            })
        };
        plain.len() as u64
    });
    done.map(|_| sample)
}

fn print(figures: &[Figures]) {
    let heads = [
        "packets",
        "peers",
        "worker cycles (min to max)",
        "Mpps",
        "Gbit/s",
        "of that wg",
        "cipher alone",
        "boringtun",
        "times",
        "worker",
    ];
    let row = |f: &Figures| {
        vec![
            f.case.clone(),
            f.peers.to_string(),
            f.worker_cycles.text(),
            format!("{:.2}", f.mpps),
            format!("{:.1}", f.gigabits),
            format!("{:.0}", f.wireguard_cycles.median),
            format!("{:.0}", f.cipher_cycles.median),
            format!("{:.0}", f.boringtun_cycles.median),
            format!("{:.2}", f.times_boringtun.median),
            format!("{:.2}", f.worker_times_boringtun.median),
        ]
    };
    table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
}
