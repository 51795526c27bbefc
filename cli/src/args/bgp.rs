//! `bgp`: looks at routing between nodes and routers.

use clap::Subcommand;

use super::Show;

/// `bgp`.
#[derive(Debug, Subcommand)]
pub enum Bgp {
    /// Show with whom this node speaks BGP, and how that goes.
    #[command(after_help = "\
Examples:
  margayctl bgp peers
  margayctl bgp peers -o wide
  margayctl bgp peers -o json | jq '.peers[] | select(.established | not)'

Exits with 6 if a session is not established, or BIRD does not answer.")]
    Peers(Show),
}
