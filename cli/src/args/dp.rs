//! `dp`: looks into the dataplane.

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    Look,
    watch::{DpCapture, DpTrace},
};
use crate::output::Format;

/// `dp`.
#[derive(Debug, Subcommand)]
pub enum Dp {
    /// Show how busy workers are, and what each node of the packet graph costs them.
    #[command(after_help = "\
Examples:
  margayctl dp runtime
  margayctl dp runtime --watch=5s --worker 1
  margayctl dp runtime -o json | jq .total.headroomMpps

Counts and rates are since the start of the dataplane; with --watch, each after the first is of the interval alone.
Headroom is how many packets more a second would fit, each at the cycles that one costs now. Fuller vectors make them
cheaper, so there is rather more room than less. Nodes that saw no packet are shown with -o wide.")]
    Runtime(DpRuntime),

    /// Draw how the sizes and costs of vectors are spread.
    #[command(after_help = "\
Examples:
  margayctl dp hist latency
  margayctl dp hist cycles --worker 0 --watch=5s
  margayctl dp hist vector -o json | jq .total.p99

Of packets that workers receive themselves, since the start of the dataplane; with --watch, each after the first is of
the interval alone. Packets that another worker handed over, or that waited for a neighbour, are not among them. A
vector's time begins when its worker turns to its devices, and ends when those have all that became of it: the kernel's
queues, and rings that nobody has looked at yet, are not in it. -o wide shows each bucket, of sixteen for each power
of two; what is read from them is at most a sixteenth too high. The largest value is exact, but for an interval's.")]
    Hist(DpHist),

    /// Show interfaces and what went through them.
    #[command(after_help = "\
Examples:
  margayctl dp interfaces
  margayctl dp interfaces -o wide

DROPS is what the kernel lost before us and what it did not take from us; -o wide tells them apart, by queue.")]
    Interfaces(Look),

    /// Tell one packet's story, node by node.
    #[command(after_help = "\
Examples:
  margayctl dp trace
  margayctl dp trace --dropped-only tcp and dst port 443
  margayctl dp trace --count 3 --filter 'endpoint shop/web and not port 53' -o json
  margayctl dp trace --inject 'tcp 10.65.0.1:4000 > 10.65.1.9:80'

The filter is in the words of tcpdump, as that of `conntrack list`, but for state and nat; it is asked of packets as
they come in, so what is translated is followed. --inject has the dataplane take a packet that nobody sent, from the
workload that has its source address, else by the uplink: it is judged, and sent, like any other.")]
    Trace(DpTrace),

    /// Capture packets into a pcapng file, each with what became of it.
    #[command(after_help = "\
Examples:
  margayctl dp capture -w web.pcapng --filter 'endpoint shop/web and tcp port 80' --count 1000
  margayctl dp capture --dir drop -w - | tshark -r - -T fields -e frame.comment
  margayctl dp capture --dir rx,tx -w - udp port 53 | wireshark -k -i -

A packet is kept as it came in (rx), as it left (tx), as it was dropped (drop), or all of that. Its comment has the
verdict, the rule, the reason, the flow and the generation. It is written when its way has ended.")]
    Capture(DpCapture),

    /// Show which worker serves which queue, and what the kernel dropped before it.
    #[command(after_help = "\
Examples:
  margayctl dp queues
  margayctl dp queues --watch=1s

DROPPED, RING-FULL and FILL-EMPTY are the kernel's counts before the AF_XDP socket: the worker is too slow, or the
pool has no frames left. TX-FULL is what did not fit the ring to the device.")]
    Queues(Look),

    /// Show who has the packet buffers: the sum is the pool.
    #[command(after_help = "\
Examples:
  margayctl dp buffers
  margayctl dp buffers --watch=5s")]
    Buffers(Look),

    /// Show why packets were dropped, and by which rules.
    #[command(after_help = "\
Examples:
  margayctl dp drops
  margayctl dp drops -o json | jq '.drops[].rules[]'")]
    Drops(Look),

    /// Show services and their backends as the dataplane has them.
    #[command(after_help = "\
Examples:
  margayctl dp services
  margayctl dp services -o wide
  margayctl dp services -o json | jq '.services[] | select(.name == \"web\")'

-o wide lists the backends. A port of two IP versions is listed twice.")]
    Services(Look),

    /// Show tunnels to other nodes, and what they take.
    #[command(after_help = "\
Examples:
  margayctl dp tunnels
  margayctl dp tunnels -o wide
  margayctl dp tunnels -o json | jq '.tunnels[] | select(.up | not)'

A tunnel without routes is idle: no pool asks for it yet. PATH-MTU is what a router on the way said
that it takes; it counts for ten minutes.")]
    Tunnels(Look),

    /// Look into the table of routes.
    #[command(subcommand)]
    Fib(Fib),

    /// Show the next hops that packets leave to.
    #[command(after_help = "\
Examples:
  margayctl dp adjacencies
  margayctl dp adjacencies -o wide

-o wide has the header that is put before each packet.")]
    Adjacencies(Look),

    /// Show who is at which address, and how well that is known.
    #[command(after_help = "\
Examples:
  margayctl dp neighbours
  margayctl dp neighbours -o jsonl | jq 'select(.state == \"failed\")'")]
    Neighbours(Look),
}

/// `dp runtime`.
#[derive(Args, Debug)]
pub struct DpRuntime {
    /// Only of this worker.
    #[arg(long, value_name = "N")]
    pub worker: Option<u32>,

    #[command(flatten)]
    pub look: Look,
}

/// `dp hist`.
#[derive(Args, Debug)]
pub struct DpHist {
    /// Of what.
    pub of: Spread,

    /// Only of this worker.
    #[arg(long, value_name = "N")]
    pub worker: Option<u32>,

    #[command(flatten)]
    pub look: Look,
}

/// What `dp hist` draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Spread {
    /// Cycles that a packet takes: its share of its vector's.
    Cycles,
    /// Packets that a vector has.
    Vector,
    /// Time that a packet spends in the worker: its vector's.
    Latency,
}

/// `dp fib`.
#[derive(Debug, Subcommand)]
pub enum Fib {
    /// Show where packets to an address go, and why.
    #[command(after_help = "\
Examples:
  margayctl dp fib lookup 10.65.1.7
  margayctl dp fib lookup 2001:db8::1 --from-workload -o json

Exits with 3 where there is no route.")]
    Lookup(FibLookup),

    /// List routes.
    #[command(after_help = "\
Examples:
  margayctl dp fib show
  margayctl dp fib show 10.65.0.0/16
  margayctl dp fib show --origin kernel --limit 0 -o jsonl

A route that is not in force has a more wanted one with the same prefix.")]
    Show(FibShow),
}

/// `dp fib lookup`.
#[derive(Args, Debug)]
pub struct FibLookup {
    /// The address.
    pub address: IpAddr,

    /// Of packets that workloads send; they may have routes of their own.
    #[arg(long)]
    pub from_workload: bool,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// `dp fib show`.
#[derive(Args, Debug)]
pub struct FibShow {
    /// Only destinations within this prefix, as in 10.0.0.0/8.
    pub within: Option<String>,

    /// Only of who wants them: own, agent, kernel or connected.
    #[arg(long, value_name = "WHO", value_parser = ["own", "agent", "kernel", "connected"])]
    pub origin: Option<String>,

    /// So many at most; 0: all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: u64,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}
