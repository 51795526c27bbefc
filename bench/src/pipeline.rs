//! The whole worker in memory: everything between receiving and sending, on generated packets.

use crate::measure::{Sample, Spread, fill, short, table};
use crate::rig::{Bare, GATEWAY_MAC, PEER_MAC, Rig, Setup, UPLINK_MAC, WORKLOAD_MAC, WORKLOAD_V4};
use crate::rules::Rules;
use crate::traffic::{self, Wanted};
use crate::tunnel::{self, Tunnel};
use crate::wire::Stream;
use crate::{Common, random::Random, record};
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use margay_dataplane::graph::{COUNTED, NodeCount};
use margay_dataplane::net::FlowKey;
use margay_dataplane::packet::VECTOR;
use margay_dataplane::worker::ticks;
use serde::Serialize;
use std::time::Duration;

/// Flows that begin in one lap, before all are forgotten: enough that no cache holds them.
const LAP: usize = 1 << 18;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Established, Kind::New, Kind::Denied])]
    case: Vec<Kind>,
    /// Flows that are established, in turn and each in random order
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1,10000,1000000", value_parser = clap::value_parser!(u32).range(1..=8_000_000))]
    flows: Vec<u32>,
    /// Rules of the workload's policy, for new and denied flows
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "1,100,1000,10000", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rules: Vec<u32>,
    /// Bytes of a frame, its check sequence included; IPv6 needs at least 68
    #[arg(long, default_value_t = 64, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(64..=1518))]
    size: u16,
    /// IPv6 packets
    #[arg(long)]
    ipv6: bool,
    /// New and denied flows by a list that has a patch: one rule changed since its trees were grown
    #[arg(long)]
    patched: bool,
    /// New and denied flows of a workload with staged policies: each is judged by both lists
    #[arg(long)]
    staged: bool,
    /// Packets of established flows come by a tunnel from another node
    #[arg(long, value_enum, conflicts_with = "ipv6")]
    from_tunnel: Option<Tunnel>,
    /// Packets of established flows come from the workload, and leave by a tunnel to another node
    #[arg(long, value_enum, conflicts_with_all = ["ipv6", "from_tunnel"])]
    into_tunnel: Option<Tunnel>,
    /// The worker tells of flows, as while an agent keeps a record of them
    #[arg(long)]
    told: bool,
    /// Packets received at once
    #[arg(long, default_value_t = VECTOR as u16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=VECTOR as i64))]
    batch: u16,
    /// Read no clock, time nothing: only run this many packets of the first case, to be counted by valgrind
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..=LAP as u64))]
    untimed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// What happens to the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Every packet is of a flow that is known
    Established,
    /// Every packet begins a flow, and policy allows it
    New,
    /// Every packet would begin a flow, and policy denies it
    Denied,
}

/// Figures of one case. Cycles are of the time-stamp counter.
#[derive(Serialize)]
struct Figures {
    case: String,
    size: usize,
    batch: u16,
    /// Cycles a packet of everything, the device in memory included.
    total_cycles: Spread,
    /// Cycles a packet of that device alone.
    device_cycles: Spread,
    /// The difference, round by round: what the worker costs.
    worker_cycles: Spread,
    worker_nanos: Spread,
    worker_mpps: f64,
    nodes: Vec<NodeFigures>,
}

#[derive(Serialize)]
struct NodeFigures {
    node: &'static str,
    /// A packet that enters the worker.
    cycles: Spread,
    /// That enter the node at once.
    vector: f64,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    if let Some(packets) = options.untimed {
        let (kind, size) = (options.case[0], options.flows[0]);
        let of = if kind == Kind::Established { size } else { options.rules[0] };
        let mut case = Case::new(kind, of, options, || 0)?;
        case.run(packets)?;
        return Ok(());
    }
    let mut cases = vec![];
    for &kind in &options.case {
        let sizes = if kind == Kind::Established { &options.flows } else { &options.rules };
        for &size in sizes {
            cases.push(Case::new(kind, size, options, ticks)?);
        }
    }
    let span = Duration::from_secs_f64(options.common.seconds / f64::from(options.common.rounds));
    for _ in 0..options.common.rounds {
        for case in &mut cases {
            case.round(span)?;
        }
    }
    let figures: Vec<Figures> = cases.iter().map(|case| case.figures(options)).collect();
    if !options.common.output.json {
        print(&figures);
    }
    record::finish(&options.common.output, &figures)
}

/// A rig with its traffic, and what was measured of it.
struct Case {
    kind: Kind,
    name: String,
    rig: Rig,
    bare: Bare,
    /// Different packets there are.
    distinct: u64,
    size: usize,
    rounds: Vec<Round>,
}

struct Round {
    total: Sample,
    device: Sample,
    nodes: Vec<NodeCount>,
}

impl Case {
    fn new(kind: Kind, of: u32, options: &Options, ticks: fn() -> u64) -> Result<Self> {
        let (rules, count, name) = match kind {
            Kind::Established => (100, of as usize, format!("established, {} flows", short(of.into()))),
            Kind::New => (of as usize, LAP, format!("new, {} rules", short(of.into()))),
            Kind::Denied => (of as usize, LAP, format!("denied, {} rules", short(of.into()))),
        };
        let sessions = match kind {
            Kind::Established => of + of / 8 + 1024,
            Kind::New => 2 * LAP as u32,
            Kind::Denied => 1024,
        };
        let (v6, batch) = (options.ipv6, usize::from(options.batch));
        let rules = Rules::new(rules, v6);
        let setup = Setup { batch, sessions, ticks };
        let mut rig = Rig::new(setup, &rules)?;
        if options.patched {
            rig.patch(&rules)?;
        }
        if options.staged {
            rig.stage(&rules)?;
        }
        if let Some(tunnel) = options.from_tunnel.or(options.into_tunnel) {
            ensure!(kind == Kind::Established, "tunnels are for --case established");
            rig.tunnel(tunnel, &rules)?;
        }
        if options.told {
            rig.tell();
        }
        let wanted = if kind == Kind::Denied { Wanted::Denied } else { Wanted::Allowed };
        let mut keys = match options.into_tunnel {
            None => traffic::flows(&rules, &rig.policy(), count, wanted, v6)?,
            Some(_) => tunnel::outgoing(WORKLOAD_V4, count),
        };
        let stream = |keys: &[FlowKey]| {
            let (from, to) = match (options.into_tunnel, options.from_tunnel) {
                (Some(_), _) => (WORKLOAD_MAC, GATEWAY_MAC),
                (None, Some(Tunnel::Vxlan)) => tunnel::INSIDE,
                (None, _) => (PEER_MAC, UPLINK_MAC),
            };
            let stream = Stream::new(from, to, keys, options.size.into());
            match options.from_tunnel {
                None => stream,
                Some(tunnel) => tunnel.carry(stream),
            }
        };
        let feed = |rig: &mut Rig, stream| match options.into_tunnel {
            None => rig.feed(stream),
            Some(_) => rig.feed_from_workload(stream),
        };
        let first = stream(&keys);
        let size = first.size();
        feed(&mut rig, first);
        if kind == Kind::Established {
            // Begun in one order and used in another, else memory would be read in order.
            rig.run(count as u64)?;
            Random::new(1).shuffle(&mut keys);
            feed(&mut rig, stream(&keys));
            ensure!(rig.flows() == count, "{} of {count} flows are established", rig.flows());
        }
        let bare = Bare::new(stream(&keys), batch)?;
        Ok(Self { kind, name, rig, bare, distinct: count as u64, size, rounds: vec![] })
    }

    /// Lets `packets` through and checks what became of them. No more than there are distinct
    /// ones where each is to begin a flow.
    fn run(&mut self, packets: u64) -> Result<u64> {
        let (tx, denied) = (self.rig.counters().tx.get(), self.rig.denied());
        let done = self.rig.run(packets)?;
        let (tx, denied) = (self.rig.counters().tx.get() - tx, self.rig.denied() - denied);
        let right = if self.kind == Kind::Denied { (0, done) } else { (done, 0) };
        // Compiled out, they say nothing (`bench/instructions --counting`).
        ensure!(
            !COUNTED || (tx, denied) == right,
            "{}: of {done} packets {tx} were sent and {denied} denied",
            self.name
        );
        Ok(done)
    }

    fn round(&mut self, span: Duration) -> Result<()> {
        let before = self.rig.nodes();
        let total = fill(span, || {
            let packets = if self.kind == Kind::Established { 1 << 16 } else { self.distinct };
            let mut done = Ok(0);
            let sample = Sample::of(|| {
                done = self.run(packets);
                *done.as_ref().unwrap_or(&0)
            });
            done?;
            self.after();
            Ok(sample)
        })?;
        let after = self.rig.nodes();
        let nodes = before.iter().zip(&after).map(|(before, after)| NodeCount {
            name: after.name,
            vectors: after.vectors - before.vectors,
            packets: after.packets - before.packets,
            cycles: after.cycles.wrapping_sub(before.cycles),
        });
        let device = fill(span / 4, || Ok(Sample::of(|| self.bare.run(1 << 16))))?;
        self.rounds.push(Round { total, device, nodes: nodes.collect() });
        Ok(())
    }

    /// What is not timed: flows that began are forgotten.
    fn after(&mut self) {
        if self.kind == Kind::New {
            self.rig.forget();
        }
        self.rig.listen();
        self.rig.check();
    }

    fn figures(&self, options: &Options) -> Figures {
        let spread = |of: &dyn Fn(&Round) -> f64| Spread::of(self.rounds.iter().map(of));
        let worker_nanos = spread(&|round| round.total.nanos_each() - round.device.nanos_each());
        let nodes = (0..self.rounds[0].nodes.len()).filter(|&at| self.rounds[0].nodes[at].packets > 0);
        let nodes = nodes.map(|at| NodeFigures {
            node: self.rounds[0].nodes[at].name,
            cycles: spread(&|round| {
                round.nodes[at].cycles as f64 * round.total.share() / round.total.operations as f64
            }),
            vector: spread(&|round| round.nodes[at].packets as f64 / round.nodes[at].vectors as f64).median,
        });
        Figures {
            case: self.name.clone(),
            size: self.size,
            batch: options.batch,
            total_cycles: spread(&|round| round.total.cycles_each()),
            device_cycles: spread(&|round| round.device.cycles_each()),
            worker_cycles: spread(&|round| round.total.cycles_each() - round.device.cycles_each()),
            worker_mpps: (1e5 / worker_nanos.median).round() / 100.0,
            worker_nanos,
            nodes: nodes.collect(),
        }
    }
}

fn print(figures: &[Figures]) {
    let heads = ["case", "frame", "worker cycles (min to max)", "ns", "Mpps", "device cycles"];
    let row = |f: &Figures| {
        vec![
            f.case.clone(),
            f.size.to_string(),
            f.worker_cycles.text(),
            format!("{:.1}", f.worker_nanos.median),
            format!("{:.1}", f.worker_mpps),
            f.device_cycles.text(),
        ]
    };
    table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    println!("\nCycles of each node, for each packet that enters the worker [packets a vector].");
    println!("Rough where others use the core: who is interrupted seems slow.");
    for f in figures {
        let nodes = f.nodes.iter().map(|n| format!("{} {:.1} [{:.0}]", n.node, n.cycles.median, n.vector));
        println!("  {}: {}", f.case, nodes.collect::<Vec<_>>().join(", "));
    }
}
