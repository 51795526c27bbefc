//! Sends, and says what left: beside other tools that receive, and to put a load on a machine.

use super::frame::{Frame, Maker};
use super::packets::Packets;
use super::recording::Recording;
use super::trial::{Outcome, Tester};
use super::{Flows, Place, mac, same_family};
use crate::{Output, measure, record};
use anyhow::{Result, bail, ensure};
use clap::Args;
use margay_dataplane::net::{Addr, Mac};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Where packets are sent from
    #[arg(long, value_name = "[NETNS:]IFACE")]
    from: Place,
    /// Where they come out, if they do: what of them, and how late
    #[arg(long, value_name = "[NETNS:]IFACE", conflicts_with = "replay")]
    to: Option<Place>,
    /// Ethernet address of whoever is next
    #[arg(long, value_name = "MAC", value_parser = mac)]
    gateway: Mac,
    /// IP addresses, both of a family
    #[arg(long, value_name = "IP", required_unless_present = "replay")]
    source: Option<Addr>,
    /// Where packets are for
    #[arg(long, value_name = "IP", required_unless_present = "replay")]
    destination: Option<Addr>,
    #[command(flatten)]
    flows: Flows,
    /// Send the packets of a file of pcap or pcapng, again and again, to the gateway
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "destination", "port", "flows", "zipf", "size"])]
    replay: Option<PathBuf>,
    /// Packets a second; without it as many as the port takes
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..=200_000_000))]
    rate: Option<u64>,
    /// For so long
    #[arg(long, default_value_t = 1.0, value_name = "S", value_parser = crate::seconds)]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

/// The result.
#[derive(Serialize)]
struct Figures {
    /// Packets a second that were to be sent; 0: as many as went.
    wanted_pps: u64,
    #[serde(flatten)]
    outcome: Outcome,
    /// Packets that left by the interface's own counter, others' among them.
    interface_sent: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let packets = match (&options.replay, options.source, options.destination) {
        (Some(file), ..) => Packets::Recorded(Recording::open(file, options.gateway)?),
        (None, Some(source), Some(destination)) => {
            same_family(source, destination)?;
            Packets::Made(Maker::new(&Frame {
                gateway: options.gateway,
                source,
                destination,
                flows: options.flows.clone(),
            }))
        }
        (None, ..) => bail!("give --source and --destination, or --replay"),
    };
    let mut tester = Tester::open(&options.from, options.to.as_ref(), packets)?;
    let before = options.from.sent()?;
    let outcome = tester.trial(options.rate.unwrap_or(0), Duration::from_secs_f64(options.seconds))?;
    // What is still in the kernel's hands leaves now.
    drop(tester);
    let interface_sent = options.from.sent()? - before;
    let figures = Figures { wanted_pps: options.rate.unwrap_or(0), outcome, interface_sent };
    if !options.output.json {
        print(&figures);
    }
    let (sent, counted) = (figures.outcome.sent, figures.interface_sent);
    record::finish(&options.output, &[figures])?;
    ensure!(
        counted >= sent,
        "{sent} packets were sent, and the interface's own counter says {counted}: the rest was dropped between the two, \
         so the rate above is not what left"
    );
    Ok(())
}

fn print(figures: &Figures) {
    let Figures { outcome, interface_sent, .. } = figures;
    let mut row = vec![
        outcome.sent.to_string(),
        interface_sent.to_string(),
        outcome.sent_pps.to_string(),
        outcome.skipped.to_string(),
    ];
    match &outcome.delays {
        Some(delays) => {
            row.extend([outcome.received, outcome.lost].map(|count| count.to_string()));
            row.extend([delays.p50_us, delays.p99_us, delays.max_us].map(|us| format!("{us:.1}")));
        }
        None => row.extend(std::iter::repeat_n("-".to_owned(), 5)),
    }
    let header = ["sent", "by interface", "sent/s", "skipped", "received", "lost", "p50 us", "p99", "max"];
    measure::table(&header, &[row]);
}
