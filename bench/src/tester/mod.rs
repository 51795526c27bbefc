//! A tester as RFC 2544 means it: one port sends into the device under test, another receives what
//! comes out of it, both by AF_XDP, each in its network namespace. `bench/wire` builds the devices.

mod frame;
pub mod generate;
mod packets;
mod port;
mod recording;
mod search;
mod trial;

use crate::{Output, measure, record};
use anyhow::{Result, ensure};
use clap::{ArgGroup, Args};
use frame::{Frame, Maker, Sizes};
use margay_dataplane::net::{Addr, Mac};
use packets::Packets;
use search::{Goal, Search};
use serde::Serialize;
use std::time::Duration;
use trial::{Outcome, Tester};

pub use port::{Place, open};

/// At which shares of the partial drop rate delays are measured.
const SHARES: [u64; 3] = [10, 50, 90];

/// Command line.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct Options {
    /// Where packets are sent from
    #[arg(long, value_name = "[NETNS:]IFACE")]
    from: Place,
    /// Where they come out; without it nothing is received, and loss is not known
    #[arg(long, value_name = "[NETNS:]IFACE")]
    to: Option<Place>,
    /// Ethernet address of the device under test, or of whoever is next
    #[arg(long, value_name = "MAC", value_parser = mac)]
    gateway: Mac,
    /// IP addresses, both of a family
    #[arg(long, value_name = "IP")]
    source: Addr,
    /// Where packets are for
    #[arg(long, value_name = "IP")]
    destination: Addr,
    #[command(flatten)]
    flows: Flows,
    /// Find the rates without loss (NDR) and with half a percent of it (PDR), then delays below
    #[arg(long, group = "what")]
    search: bool,
    /// Send so many packets a second
    #[arg(long, group = "what", value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..=200_000_000))]
    rate: Option<u64>,
    /// As fast as the port takes them
    #[arg(long, group = "what")]
    flat_out: bool,
    /// Length of a trial
    #[arg(long, default_value_t = 1.0, value_name = "S", value_parser = crate::seconds)]
    seconds: f64,
    /// Trials at a rate, of which most decide
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    trials: u32,
    /// The highest rate of a search, in packets a second
    #[arg(long, default_value_t = 1_500_000, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1000..=200_000_000))]
    most: u64,
    /// What is measured, for the record
    #[arg(long, default_value = "", value_name = "TEXT")]
    name: String,
    #[command(flatten)]
    output: Output,
}

/// Which packets.
#[derive(Args, Clone, Debug)]
pub struct Flows {
    /// UDP port at the destination; flows differ in their source ports, then in this one
    #[arg(long, default_value_t = 9, value_name = "PORT")]
    port: u16,
    /// So many flows, one packet of each in turn
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    flows: u32,
    /// Packets of flows drawn by Zipf's law, the n-th as often as 1/n, in the place of turns
    #[arg(long)]
    zipf: bool,
    /// Bytes of a frame with its check sequence, or imix (7 of 64, 4 of 594, 1 of 1518)
    #[arg(long, default_value = "64", value_name = "BYTES|imix")]
    size: Sizes,
}

/// A line of the result.
#[derive(Serialize)]
struct Figures {
    name: String,
    what: String,
    flows: u32,
    size: String,
    /// Packets a second that were to be sent; 0: as many as went.
    wanted_pps: u64,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    same_family(options.source, options.destination)?;
    let frame = Frame {
        gateway: options.gateway,
        source: options.source,
        destination: options.destination,
        flows: options.flows.clone(),
    };
    ensure!(!options.search || options.to.is_some(), "--search needs --to: where packets come out");
    let mut tester = Tester::open(&options.from, options.to.as_ref(), Packets::Made(Maker::new(&frame)))?;
    let length = Duration::from_secs_f64(options.seconds);
    let mut figures = Report { options, lines: vec![] };
    if options.search {
        search(&mut tester, options, length, &mut figures)?;
    } else {
        let rate = options.rate.unwrap_or(0);
        let what = if options.flat_out { "flat-out" } else { "rate" };
        figures.add(what, rate, tester.trial(rate, length)?);
    }
    figures.finish()
}

/// RFC 2544's throughput and its gentler sister, then delays at shares of the latter.
fn search(tester: &mut Tester, options: &Options, length: Duration, figures: &mut Report<'_>) -> Result<()> {
    // The first packet of a flow may wait for an address to be resolved, a table to be mapped.
    tester.trial(options.most / 100, length / 4)?;
    let ceiling = tester.trial(0, length)?;
    let most = ceiling.sent_pps.min(options.most);
    figures.add("flat-out", 0, ceiling);
    let goals = vec![
        Goal { loss: 0.005, trials: options.trials, width: 0.01 },
        Goal { loss: 0.0, trials: options.trials, width: 0.01 },
    ];
    let mut search = Search::new(most, goals);
    while let Some(load) = search.next() {
        let outcome = tester.trial(load, length)?;
        search.note(load, &outcome);
    }
    for (goal, name) in ["pdr", "ndr"].into_iter().enumerate() {
        match search.found(goal) {
            Some(load) => figures.add(name, load, tester.trial(load, length)?),
            None => figures.none(name),
        }
    }
    let Some(pdr) = search.found(0) else { return Ok(()) };
    for share in SHARES {
        let load = pdr * share / 100;
        figures.add(&format!("delay-{share}"), load, tester.trial(load, length)?);
    }
    Ok(())
}

struct Report<'a> {
    options: &'a Options,
    lines: Vec<Figures>,
}

impl Report<'_> {
    fn add(&mut self, what: &str, wanted_pps: u64, outcome: Outcome) {
        self.lines.push(Figures {
            name: self.options.name.clone(),
            what: what.into(),
            flows: self.options.flows.flows,
            size: self.options.flows.size.to_string(),
            wanted_pps,
            outcome,
        });
    }

    fn none(&self, what: &str) {
        eprintln!("{what}: none: even the lowest rate loses more than that");
    }

    fn finish(&self) -> Result<()> {
        if !self.options.output.json {
            let row = |line: &Figures| {
                let outcome = &line.outcome;
                let mut row = vec![line.what.clone(), outcome.sent_pps.to_string()];
                match &outcome.delays {
                    Some(delays) => {
                        row.push(outcome.received_pps.to_string());
                        row.push(outcome.lost.to_string());
                        row.extend(
                            [delays.p50_us, delays.p99_us, delays.p999_us, delays.max_us]
                                .map(|us| format!("{us:.1}")),
                        );
                    }
                    None => row.extend(std::iter::repeat_n("-".to_owned(), 6)),
                }
                row
            };
            let header = ["what", "sent/s", "received/s", "lost", "p50 us", "p99", "p99.9", "max"];
            measure::table(&header, &self.lines.iter().map(row).collect::<Vec<_>>());
        }
        record::finish(&self.options.output, &self.lines)
    }
}

fn same_family(source: Addr, destination: Addr) -> Result<()> {
    ensure!(
        source.is_v4() == destination.is_v4(),
        "--source {source} and --destination {destination} are of different IP versions"
    );
    Ok(())
}

/// Reads an Ethernet address.
pub fn mac(text: &str) -> Result<Mac, String> {
    let wrong = || format!("{text:?} is not an Ethernet address, as in 02:00:00:00:00:01");
    let bytes: Result<Vec<u8>, _> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    let bytes: [u8; 6] = bytes.map_err(|_| wrong())?.try_into().map_err(|_| wrong())?;
    Ok(Mac(bytes))
}
