//! `dp runtime`: how busy workers are, and what each node of the packet graph costs them.

use std::{
    fmt,
    io::{self, Write as _},
};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::{Counted, grown, one_of};
use crate::{
    exit::Outcome,
    output::{Cell, Output, Table, View},
    readable::{percent, ratio, rounded},
};

/// Every worker's cost.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    tsc_hz: f64,
    /// Of the workers shown.
    total: Total,
    workers: Vec<Worker>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    workers: usize,
    /// The part of all cycles spent in polls that found packets, 0 to 1.
    busy: f64,
    polls: u64,
    empty_polls: u64,
    #[serde(flatten)]
    load: Load,
}

/// How much a worker moves.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    rx_packets: u64,
    tx_packets: u64,
    /// Million packets a second.
    mpps_in: f64,
    mpps_out: f64,
    /// How many more it would take, if each cost as many cycles as those of now. Absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    headroom_mpps: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    worker: u32,
    /// The part of all cycles spent in polls that found packets, 0 to 1.
    busy: f64,
    polls: u64,
    empty_polls: u64,
    sleeps: u64,
    cycles: u64,
    busy_cycles: u64,
    #[serde(flatten)]
    load: Load,
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    name: String,
    vectors: u64,
    packets: u64,
    cycles: u64,
    packets_per_vector: f64,
    cycles_per_packet: f64,
    /// The part of the cycles of all nodes, 0 to 1.
    share: f64,
}

impl Counted for Runtime {
    const WHAT: &'static str = "runtime";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let runtime = dataplane.get_runtime(api::GetRuntimeRequest {}).await?.into_inner();
        Ok(Self::new(&runtime))
    }

    fn since(&self, earlier: &Self) -> Self {
        let workers = self.workers.iter().map(|worker| {
            match earlier.workers.iter().find(|before| before.worker == worker.worker) {
                Some(before) => worker.counts_since(before),
                None => worker.counts(),
            }
        });
        Self::new(&api::Runtime { tsc_hz: self.tsc_hz, workers: workers.collect() })
    }
}

impl Runtime {
    fn new(runtime: &api::Runtime) -> Self {
        let hz = runtime.tsc_hz;
        Self::of(hz, runtime.workers.iter().map(|worker| Worker::new(worker, hz)).collect())
    }

    fn of(tsc_hz: f64, workers: Vec<Worker>) -> Self {
        let sum = |of: fn(&Worker) -> u64| workers.iter().map(of).fold(0, u64::saturating_add);
        let total = Total {
            workers: workers.len(),
            busy: rounded(ratio(sum(|worker| worker.busy_cycles), sum(|worker| worker.cycles))),
            polls: sum(|worker| worker.polls),
            empty_polls: sum(|worker| worker.empty_polls),
            load: workers.iter().map(|worker| worker.load).fold(Load::default(), Load::and),
        };
        Self { tsc_hz, total, workers }
    }

    /// Of one worker alone, where one is asked for.
    pub fn only(self, worker: Option<u32>) -> Outcome<Self> {
        Ok(Self::of(self.tsc_hz, one_of(self.workers, |worker| worker.worker, worker)?))
    }
}

impl Load {
    fn new(worker: &api::WorkerRuntime, hz: f64) -> Self {
        let mpps = |packets: u64, cycles: u64| ratio(packets, cycles) * hz / 1e6;
        // Packets a second are known to some parts in a million.
        let shown = |mpps: f64| (mpps * 1e6).round() / 1e6;
        let (rx, tx) = (worker.rx_packets, worker.tx_packets);
        let most = (rx > 0 && worker.busy_cycles > 0).then(|| mpps(rx, worker.busy_cycles));
        let now = mpps(rx, worker.cycles);
        Self {
            rx_packets: rx,
            tx_packets: tx,
            mpps_in: shown(now),
            mpps_out: shown(mpps(tx, worker.cycles)),
            headroom_mpps: most.map(|most| shown((most - now).max(0.0))),
        }
    }

    fn and(self, other: Self) -> Self {
        let headroom = [self.headroom_mpps, other.headroom_mpps].into_iter().flatten();
        Self {
            rx_packets: self.rx_packets + other.rx_packets,
            tx_packets: self.tx_packets + other.tx_packets,
            mpps_in: self.mpps_in + other.mpps_in,
            mpps_out: self.mpps_out + other.mpps_out,
            headroom_mpps: headroom.reduce(|a, b| a + b),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} Mpps in, {:.3} Mpps out", self.mpps_in, self.mpps_out)?;
        match self.headroom_mpps {
            Some(headroom) => write!(f, ", headroom {headroom:.3} Mpps"),
            None => f.write_str(", headroom unknown"),
        }
    }
}

impl Worker {
    fn new(worker: &api::WorkerRuntime, hz: f64) -> Self {
        let in_nodes = worker.nodes.iter().map(|node| node.cycles).fold(0, u64::saturating_add);
        let node = |node: &api::NodeRuntime| Node {
            name: node.name.clone(),
            vectors: node.vectors,
            packets: node.packets,
            cycles: node.cycles,
            packets_per_vector: rounded(ratio(node.packets, node.vectors)),
            cycles_per_packet: rounded(ratio(node.cycles, node.packets)),
            share: rounded(ratio(node.cycles, in_nodes)),
        };
        Self {
            worker: worker.worker,
            busy: rounded(ratio(worker.busy_cycles, worker.cycles)),
            polls: worker.polls,
            empty_polls: worker.empty_polls,
            sleeps: worker.sleeps,
            cycles: worker.cycles,
            busy_cycles: worker.busy_cycles,
            load: Load::new(worker, hz),
            nodes: worker.nodes.iter().map(node).collect(),
        }
    }

    fn counts(&self) -> api::WorkerRuntime {
        let node = |node: &Node| api::NodeRuntime {
            name: node.name.clone(),
            vectors: node.vectors,
            packets: node.packets,
            cycles: node.cycles,
        };
        api::WorkerRuntime {
            worker: self.worker,
            polls: self.polls,
            empty_polls: self.empty_polls,
            sleeps: self.sleeps,
            cycles: self.cycles,
            busy_cycles: self.busy_cycles,
            rx_packets: self.load.rx_packets,
            tx_packets: self.load.tx_packets,
            nodes: self.nodes.iter().map(node).collect(),
        }
    }

    fn counts_since(&self, earlier: &Self) -> api::WorkerRuntime {
        let mut counts = self.counts();
        counts.polls = grown(counts.polls, earlier.polls);
        counts.empty_polls = grown(counts.empty_polls, earlier.empty_polls);
        counts.sleeps = grown(counts.sleeps, earlier.sleeps);
        counts.cycles = grown(counts.cycles, earlier.cycles);
        counts.busy_cycles = grown(counts.busy_cycles, earlier.busy_cycles);
        counts.rx_packets = grown(counts.rx_packets, earlier.load.rx_packets);
        counts.tx_packets = grown(counts.tx_packets, earlier.load.tx_packets);
        for node in &mut counts.nodes {
            if let Some(before) = earlier.nodes.iter().find(|before| before.name == node.name) {
                node.vectors = grown(node.vectors, before.vectors);
                node.packets = grown(node.packets, before.packets);
                node.cycles = grown(node.cycles, before.cycles);
            }
        }
        counts
    }
}

impl View for Runtime {
    const RECORDS: Option<&'static str> = Some("workers");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        if self.workers.len() > 1 {
            let Total { workers, busy, polls, empty_polls, load } = &self.total;
            writeln!(
                out,
                "{workers} workers: busy {}, {polls} polls, {empty_polls} empty ({})\n{load}\n",
                percent(*busy),
                percent(ratio(*empty_polls, *polls)),
            )?;
        }
        for (index, worker) in self.workers.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            writeln!(
                out,
                "Worker {}: busy {}, {} polls, {} empty ({}), {} sleeps",
                worker.worker,
                percent(worker.busy),
                worker.polls,
                worker.empty_polls,
                percent(ratio(worker.empty_polls, worker.polls)),
                worker.sleeps,
            )?;
            writeln!(out, "{}", worker.load)?;
            self.table(worker, wide).print(out)?;
        }
        Ok(())
    }
}

impl Runtime {
    fn table(&self, worker: &Worker, wide: bool) -> Table {
        let mut titles = vec!["NODE", ">VECTORS", ">PACKETS", ">PACKETS/VECTOR", ">CYCLES/PACKET", ">SHARE"];
        if wide {
            titles.extend([">CYCLES", ">NS/PACKET"]);
        }
        let mut table = Table::new(titles);
        for node in worker.nodes.iter().filter(|node| wide || node.vectors > 0) {
            let mut row: Vec<Cell> = vec![
                (&node.name).into(),
                node.vectors.into(),
                node.packets.into(),
                format!("{:.1}", node.packets_per_vector).into(),
                format!("{:.1}", node.cycles_per_packet).into(),
                percent(node.share).into(),
            ];
            if wide {
                let nanos = if self.tsc_hz > 0.0 { node.cycles_per_packet * 1e9 / self.tsc_hz } else { 0.0 };
                row.extend([node.cycles.into(), format!("{nanos:.1}").into()]);
            }
            table.row(row);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(polls: u64, vectors: u64, packets: u64, cycles: u64) -> Runtime {
        let node = api::NodeRuntime { name: "parse".into(), vectors, packets, cycles };
        let worker = api::WorkerRuntime {
            worker: 0,
            polls,
            empty_polls: 0,
            sleeps: 0,
            cycles: cycles * 4,
            busy_cycles: cycles,
            rx_packets: packets,
            tx_packets: 0,
            nodes: vec![node],
        };
        Runtime::new(&api::Runtime { tsc_hz: 1e9, workers: vec![worker] })
    }

    #[test]
    fn an_interval_has_its_own_averages() {
        let interval = runtime(110, 11, 400, 7_000).since(&runtime(100, 10, 100, 1_000));
        let worker = &interval.workers[0];
        let node = &worker.nodes[0];
        assert_eq!((worker.polls, node.vectors, node.packets, node.cycles), (10, 1, 300, 6_000));
        assert_eq!((node.packets_per_vector, node.cycles_per_packet, worker.busy), (300.0, 20.0, 0.25));
        // 300 packets in 24 µs, of which 6 were busy.
        assert_eq!((worker.load.mpps_in, worker.load.headroom_mpps), (12.5, Some(37.5)));
    }

    #[test]
    fn a_worker_that_is_new_counts_whole() {
        let earlier = Runtime::of(1e9, Vec::new());
        assert_eq!(runtime(5, 1, 2, 3).since(&earlier).workers[0].polls, 5);
    }

    #[test]
    fn who_got_nothing_says_nothing_of_what_it_could_take() {
        assert_eq!(runtime(5, 0, 0, 0).workers[0].load.headroom_mpps, None);
    }
}
