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

    /// Bytes of each packet buffer, as the dataplane is to be told.
    #[arg(long, value_name = "BYTES", default_value = "2048", value_parser = frame_size)]
    pub frame_size: u32,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

fn frame_size(text: &str) -> Result<u32, String> {
    match text {
        "2048" => Ok(2048),
        "4096" => Ok(4096),
        _ => Err("write 2048 or 4096".to_owned()),
    }
}
