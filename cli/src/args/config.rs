//! `config`: the settings of the node.

use clap::{Args, Subcommand, ValueEnum};
use margay_api::log::Filter;

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

    /// Change a setting of running processes, until they end.
    #[command(after_help = "\
Examples:
  margayctl config set log debug
  margayctl config set log info,margay_agent::sync=debug --of agent
  margayctl config set log warn,margay_dataplane::control=debug --of dataplane

The levels are off, error, warn, info, debug and trace: of all targets, or of a module and those in it, TARGET=LEVEL. What neither
is said of is not logged. Nothing is stored: a process that starts again has what its flags, environment or file say.
Needs the role admin. Exits with 7 if only one of the two processes could be told.")]
    Set(ConfigSet),

    /// Give a setting of running processes the value back that they were started with.
    #[command(after_help = "\
Example:
  margayctl config unset log")]
    Unset(ConfigUnset),
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

/// `config set`.
#[derive(Args, Debug)]
pub struct ConfigSet {
    /// The setting: log.
    #[arg(value_name = "SETTING", value_parser = changeable)]
    pub name: String,

    /// Its value.
    #[arg(value_name = "VALUE", value_parser = filter)]
    pub value: String,

    /// Whose [default: of both].
    #[arg(long, value_name = "PROCESS")]
    pub of: Option<Process>,
}

/// `config unset`.
#[derive(Args, Debug)]
pub struct ConfigUnset {
    /// The setting: log.
    #[arg(value_name = "SETTING", value_parser = changeable)]
    pub name: String,

    /// Whose [default: of both].
    #[arg(long, value_name = "PROCESS")]
    pub of: Option<Process>,
}

/// One of the two of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Process {
    /// margay-agent.
    Agent,
    /// margay-dataplane.
    Dataplane,
}

fn changeable(name: &str) -> Result<String, String> {
    if name == "log" {
        return Ok(name.to_owned());
    }
    Err("only log can be changed while a process runs; for others change its flags, environment or file and start it again, \
         and FelixConfigurations with `margayctl apply`"
        .to_owned())
}

fn filter(text: &str) -> Result<String, String> {
    text.parse::<Filter>().map(|filter| filter.to_string())
}
