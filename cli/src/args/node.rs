//! `node`: the machine that a node is.

use clap::{Args, Subcommand};

use crate::output::Format;

/// `node`.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Check that this machine has what the dataplane needs.
    #[command(after_help = "\
Examples:
  margayctl node check --uplink eth0
  margayctl node check --uplink eth0 --cores 2,3
  margayctl node check --uplink eth0 --frame-size 4096 -o json

Reads /proc and /sys, and changes nothing. Exits with 6 if anything failed; what is to mind (WARN) works, and not as
it could.")]
    Check(NodeCheck),
}

/// `node check`.
#[derive(Args, Debug)]
pub struct NodeCheck {
    /// An interface to the other nodes, as the dataplane is to be told; may be given several times.
    #[arg(long = "uplink", value_name = "IFACE")]
    pub uplinks: Vec<String>,

    /// The workers' cores, as the dataplane is to be told: whether cards and their interrupts suit them.
    #[arg(long, value_name = "LIST", value_parser = cores)]
    pub cores: Option<Cores>,

    /// Bytes of each packet buffer, as the dataplane is to be told.
    #[arg(long, value_name = "BYTES", default_value = "2048", value_parser = frame_size)]
    pub frame_size: u32,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Cores, as in `2,3` or `4-7`.
#[derive(Clone, Debug, Default)]
pub struct Cores(pub Vec<u32>);

fn cores(text: &str) -> Result<Cores, String> {
    let wrong = || "write them as in 2,3 or 4-7".to_owned();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
        (first <= last).then(|| u32::from(first)..=u32::from(last))
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    Ok(Cores(ranges.ok_or_else(wrong)?.into_iter().flatten().collect()))
}

fn frame_size(text: &str) -> Result<u32, String> {
    match text {
        "2048" => Ok(2048),
        "4096" => Ok(4096),
        _ => Err("write 2048 or 4096".to_owned()),
    }
}
