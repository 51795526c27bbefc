//! `ipam`: who has which address.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};

use crate::output::Format;

/// `ipam`.
#[derive(Debug, Subcommand)]
pub enum Ipam {
    /// Show how full pools are, or who has an address.
    #[command(after_help = "\
Examples:
  margayctl ipam show
  margayctl ipam show --show-blocks
  margayctl ipam show --ip 10.65.0.7
  margayctl ipam show --show-borrowed -o json

BORROWED is used on another node than the one that has the block.")]
    Show(IpamShow),

    /// Look for what does not add up.
    #[command(after_help = "\
Examples:
  margayctl ipam check
  margayctl ipam check -o json > report.json && margayctl ipam release --from-report report.json

All of it is looked at as it was at one revision of the store. Nothing is locked, pods come and go meanwhile.
Exits with 6 if something does not add up.")]
    Check(IpamCheck),

    /// Take addresses back.
    #[command(after_help = "\
Examples:
  margayctl ipam release --ip 10.65.0.7
  margayctl ipam release --handle k8s-pod-network.0c3f...
  margayctl ipam release --from-report report.json

A workload that still uses the address loses nothing, and another one may get it: the two are then in
each other's way. Of a report only what is leaked is released, and only if it is still the same assignment.")]
    Release(IpamRelease),

    /// Change how addresses are given out.
    #[command(after_help = "\
Examples:
  margayctl ipam configure --strictaffinity=true --max-blocks-per-host=4
  margayctl ipam configure --cooldown-seconds=60

What is not named stays as it is. Exits with 4 if somebody else changed it in between.")]
    Configure(IpamConfigure),

    /// Put smaller pools in the place of one.
    #[command(after_help = "\
Example:
  margayctl ipam split 4 --cidr 10.65.0.0/16

All at once: there is no moment without the old pool or the new ones. Blocks and addresses stay as they are.")]
    Split(IpamSplit),
}

/// `ipam show`.
#[derive(Args, Debug)]
pub struct IpamShow {
    /// Who has this address.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["show_blocks", "show_borrowed", "show_configuration"])]
    pub ip: Option<IpAddr>,

    /// Every block, too.
    #[arg(long)]
    pub show_blocks: bool,

    /// Every address that is used on another node than the one that has its block.
    #[arg(long, conflicts_with_all = ["show_blocks", "show_configuration"])]
    pub show_borrowed: bool,

    /// How addresses are given out.
    #[arg(long, conflicts_with = "show_blocks")]
    pub show_configuration: bool,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// `ipam check`.
#[derive(Args, Debug)]
pub struct IpamCheck {
    /// How to print it; -o json is the report that `release --from-report` reads.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// `ipam release`.
#[derive(Args, Debug)]
#[group(id = "what", required = true, multiple = false)]
pub struct IpamRelease {
    /// These addresses, whoever has them.
    #[arg(long, value_name = "ADDRESS", group = "what", num_args = 1..)]
    pub ip: Vec<IpAddr>,

    /// All that a handle has.
    #[arg(long, value_name = "HANDLE", group = "what")]
    pub handle: Option<String>,

    /// What a report of `ipam check -o json` says is leaked.
    #[arg(long, value_name = "FILE", group = "what")]
    pub from_report: Option<PathBuf>,
}

/// `ipam configure`.
#[derive(Args, Debug)]
#[group(id = "settings", required = true, multiple = true)]
pub struct IpamConfigure {
    /// Nodes take from their own blocks only.
    #[arg(long, value_name = "BOOL", group = "settings")]
    pub strictaffinity: Option<bool>,

    /// Blocks that a node may have; 0: as many as usual (20).
    #[arg(long, value_name = "COUNT", group = "settings")]
    pub max_blocks_per_host: Option<u32>,

    /// Nodes claim blocks by themselves.
    #[arg(long, value_name = "BOOL", group = "settings")]
    pub auto_allocate_blocks: Option<bool>,

    /// How long an address rests before it is given again.
    #[arg(long, value_name = "SECONDS", group = "settings")]
    pub cooldown_seconds: Option<u32>,
}

/// `ipam split`.
#[derive(Args, Debug)]
pub struct IpamSplit {
    /// How many new pools: a power of two.
    pub parts: u32,

    /// The prefix of the pool.
    #[arg(long, value_name = "CIDR", required_unless_present = "name", conflicts_with = "name")]
    pub cidr: Option<String>,

    /// The name of the pool.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}
