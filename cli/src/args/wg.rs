//! `wg`: encrypted tunnels.

use clap::{Args, Subcommand};

use super::Look;

/// `wg`.
#[derive(Debug, Subcommand)]
pub enum Wg {
    /// Show encrypted tunnels: keys, peers, handshakes, transfer.
    #[command(after_help = "\
Examples:
  margayctl wg show
  margayctl wg show --dump
  margayctl wg show -o json | jq '.interfaces[].peers[] | select(.latestHandshake | not) | .node'

--dump prints a line for each interface and each peer, with the fields of `wg show all dump`; private keys never.")]
    Show(WgShow),

    /// Give this node another key pair, under traffic.
    #[command(after_help = "\
Examples:
  margayctl wg rotate
  margayctl --dataplane /run/margay/dataplane.sock wg rotate

The agent publishes the new public key on the Node within seconds. Other nodes take what is sealed under the old one for
three minutes more, so nothing is lost.")]
    Rotate,
}

/// `wg show`.
#[derive(Args, Debug)]
pub struct WgShow {
    /// How, and how often.
    #[command(flatten)]
    pub look: Look,

    /// Print fields with tabs between, for programs.
    #[arg(long, conflicts_with_all = ["output", "watch"])]
    pub dump: bool,
}
