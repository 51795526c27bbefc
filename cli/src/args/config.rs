//! `config`: the settings of the node.

use clap::{Args, Subcommand};

use crate::output::Format;

/// `config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Show the settings that are in force on the node.
    #[command(after_help = "\
Examples:
  margayctl config show
  margayctl config show --origin
  margayctl config show -o json | jq '.settings[] | select(.origin != \"default\")'

Of a process, flags go before the environment, that before its file (--config), and that before what is built in. Of the store,
FelixConfiguration node.NAME goes before FelixConfiguration default; what neither says is as docs/schema says of it.

Exits with 6 if the dataplane cannot be asked for its own.")]
    Show(ConfigShow),
}

/// `config show`.
#[derive(Args, Debug)]
pub struct ConfigShow {
    /// With where each is from.
    #[arg(long)]
    pub origin: bool,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}
