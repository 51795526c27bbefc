//! Benchmarks of the dataplane: the whole worker in memory, its tables alone, and packets on links.
//!
//! Cases that are compared run in turns, round after round, in one process: on a shared machine
//! only such ratios mean much. Every figure is a median with its lowest and highest round.
//! Before anything is timed, its answers are compared with the slow twin's, or its packets counted.

mod aead;
mod classbench;
mod conntrack;
mod endpoints;
mod forward;
mod hashes;
mod lpm;
mod measure;
mod packed;
mod peer;
mod pipeline;
mod plots;
mod policy;
mod random;
mod record;
mod rig;
mod routes;
mod rules;
mod services;
mod sets;
mod sockets;
mod stream;
mod swaps;
mod tester;
mod traffic;
mod tunnel;
mod updates;
mod wire;
mod wireguard;

use clap::{Args, Parser, Subcommand};

/// Measure the dataplane on this machine.
#[derive(Parser)]
#[command(name = "margay-bench", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The cipher of WireGuard alone, beside libraries
    Aead(aead::Options),
    /// Two AF_XDP ports with nothing between them: the ceiling of any packet path in user space
    Forward(forward::Options),
    /// Sends packets by AF_XDP: made ones or a file's, at a rate or as fast as they go
    Generate(tester::generate::Options),
    /// The whole worker on generated traffic: established flows, new flows, denied flows
    Pipeline(pipeline::Options),
    /// No benchmark: draws recorded figures, for docs/performance.md
    Plots(plots::Options),
    /// Policy alone: time to judge a packet, time to compile
    Policy(policy::Options),
    /// Policy that changes: time until a change of one rule is adopted
    Updates(updates::Options),
    /// Workloads that come and go on a node that has many
    Endpoints(endpoints::Options),
    /// Classification of ClassBench traces, in turns with a peer
    Classbench(classbench::Options),
    /// The flow table alone
    Conntrack(conntrack::Options),
    /// Longest-prefix match alone
    Lpm(lpm::Options),
    /// A node's routes: what an Internet table and its changes cost while packets are looked up
    Routes(routes::Options),
    /// Services: what their tables cost to make, and a change meanwhile
    Services(services::Options),
    /// Real TCP sockets, one side of them: see bench/sockets
    Sockets(sockets::Options),
    /// IP sets alone: what a change of members costs, and a lookup
    Sets(sets::Options),
    /// An agent's stream of changes of an IP set's members, over gRPC, while the worker forwards
    Stream(stream::Options),
    /// Verdicts while contradictory rule sets are swapped: a check, not a measurement
    Swaps(swaps::Options),
    /// Encrypted tunnels: the whole worker on packets that leave or come encrypted, and handshakes
    Wireguard(wireguard::Options),
    /// Packets by AF_XDP into a device under test and out of it: rates, loss, delays. See bench/wire
    Wire(tester::Options),
}

/// How long to measure, and what becomes of the figures.
#[derive(Args, Clone, Debug)]
struct Common {
    /// Rounds; each runs every case once, in turn
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(5..=1000))]
    rounds: u32,
    /// Time to measure each case, over all rounds
    #[arg(long, default_value_t = 1.0, value_name = "S", value_parser = seconds)]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

/// What becomes of the figures.
#[derive(Args, Clone, Debug)]
struct Output {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Also write the figures to a new file in bench/results, with commit, command and machine
    #[arg(long)]
    record: bool,
}

fn seconds(s: &str) -> Result<f64, String> {
    match s.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.01 to 3600".into()),
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Aead(options) => aead::run(&options),
        What::Forward(options) => forward::run(&options),
        What::Generate(options) => tester::generate::run(&options),
        What::Pipeline(options) => pipeline::run(&options),
        What::Plots(options) => plots::run(&options),
        What::Policy(options) => policy::run(&options),
        What::Updates(options) => updates::run(&options),
        What::Endpoints(options) => endpoints::run(&options),
        What::Classbench(options) => classbench::run(&options),
        What::Conntrack(options) => conntrack::run(&options),
        What::Lpm(options) => lpm::run(&options),
        What::Routes(options) => routes::run(&options),
        What::Services(options) => services::run(&options),
        What::Sockets(options) => sockets::run(options),
        What::Sets(options) => sets::run(&options),
        What::Stream(options) => stream::run(&options),
        What::Swaps(options) => swaps::run(&options),
        What::Wireguard(options) => wireguard::run(&options),
        What::Wire(options) => tester::run(&options),
    }
}
