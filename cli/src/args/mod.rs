//! The command line: what may be typed, and the help that says so. One file a noun.

mod bgp;
mod config;
mod conntrack;
mod datastore;
mod diagnosis;
mod dp;
mod flows;
mod ipam;
mod node;
mod policy;
mod resource;
mod selector;
mod watch;
mod wg;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use self::{
    bgp::Bgp,
    config::{Config, ConfigShow, Process},
    conntrack::{
        Conntrack, ConntrackCount, ConntrackFlush, ConntrackGet, ConntrackList, ConntrackTop, CountBy,
        FlowEnd, FlowFilter, FlowFormat,
    },
    datastore::{Confirm, Datastore},
    diagnosis::{Connectivity, ConnectivityCommand, Diag, DiagCollect, Pair},
    dp::{Dp, Fib, FibLookup, FibShow, Spread},
    flows::{FlowLike, Flows, FlowsObserve, FlowsTop, ObserveFormat, Outcome as FlowOutcome, TopBy},
    ipam::{Ipam, IpamCheck, IpamConfigure, IpamRelease, IpamShow, IpamSplit},
    node::{Node, NodeCheck},
    policy::{
        Eval, Explain, Policy, PolicyDiff, PolicyMatrix, PolicyShow, PortAsked, StagedPolicies, Toward,
    },
    resource::{Delete, DryRun, Get, Label, LabelChange, ObjectFormat, Source, Store, Validate},
    selector::SelectorCommand,
    watch::{DpCapture, DpTrace, TraceFormat, Way},
    wg::{Wg, WgShow},
};
use crate::{
    exit,
    output::{ColorWhen, Format},
};

/// Of this program; with the commit, where hack/programs built it.
pub const VERSION: &str = match option_env!("MARGAY_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Margay's command line: resources, status, runtime, and why a packet passes or not.
#[derive(Debug, Parser)]
#[command(name = "margayctl", version = VERSION, propagate_version = true, after_help = exit::HELP)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Where and how, the same for all commands.
    #[command(flatten)]
    pub global: Global,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The agent's socket.
    #[arg(long, global = true, value_name = "SOCKET", env = "MARGAY_AGENT", hide_env_values = true)]
    #[arg(default_value = "/run/margay/agent.sock")]
    pub agent: PathBuf,

    /// Talk to the agent at this address instead, as in https://node-a:9093.
    #[arg(long, global = true, value_name = "URL", env = "MARGAY_SERVER", hide_env_values = true)]
    pub server: Option<String>,

    /// Your certificate for --server (PEM), which says who you are and what you may.
    #[arg(long, global = true, value_name = "FILE", env = "MARGAY_CERT", hide_env_values = true)]
    pub cert: Option<PathBuf>,

    /// The key of --cert (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "MARGAY_KEY", hide_env_values = true)]
    pub key: Option<PathBuf>,

    /// Certificates of those who may have signed the agent's (PEM).
    #[arg(long, global = true, value_name = "FILE", env = "MARGAY_CA", hide_env_values = true)]
    pub ca: Option<PathBuf>,

    /// The dataplane's socket.
    #[arg(long, global = true, value_name = "SOCKET", env = "MARGAY_DATAPLANE", hide_env_values = true)]
    #[arg(default_value = "/run/margay/dataplane.sock")]
    pub dataplane: PathBuf,

    /// Give up when there is no answer in this time, as in 500ms, 30s, 2m.
    // Longer than the agent waits for the dataplane: what it then says is worth more than our silence.
    #[arg(long, global = true, value_name = "TIME", default_value = "40s", value_parser = duration)]
    pub timeout: Duration,

    /// When to use colour.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create resources, or change them to what a file says.
    #[command(after_help = "\
Examples:
  margayctl apply -f policy.yaml
  margayctl apply -f manifests/ --dry-run=server
  cat policy.yaml | margayctl apply -f -

All objects are stored, or none.")]
    Apply(Store),

    /// Create resources that are not there yet.
    #[command(after_help = "\
Example:
  margayctl create -f tier.yaml

Exits with 4, and stores nothing, if one of them is there already.")]
    Create(Store),

    /// Replace resources that are there.
    #[command(after_help = "\
Example:
  margayctl get globalnetworkpolicy web -o yaml > web.yaml
  margayctl replace -f web.yaml

Exits with 3 if one of them is not there, with 4 if it changed since it was read; then stores nothing.")]
    Replace(Store),

    /// Delete resources, by name or as a file lists them.
    #[command(after_help = "\
Examples:
  margayctl delete networkpolicy web -n shop
  margayctl delete -f policy.yaml

A file's objects are deleted in reverse order. Exits with 7 if only some could be deleted.")]
    Delete(Delete),

    /// Show resources.
    #[command(after_help = "\
Examples:
  margayctl get networkpolicies -A
  margayctl get tiers,globalnetworkpolicies
  margayctl get workloadendpoints -n shop -l 'role == \"web\"' -o wide
  margayctl get netpol web -n shop -o yaml
  margayctl get networkpolicies -A --watch

Exits with 3 if a named object is not there, with 7 if only some of them are.")]
    Get(Get),

    /// Check files without a server.
    #[command(after_help = "\
Example:
  margayctl validate -f policy.yaml

Exits with 2 after naming each wrong field, its value, and what to write instead.")]
    Validate(Validate),

    /// Set or remove labels of a resource.
    #[command(after_help = "\
Examples:
  margayctl label workloadendpoint web-1 -n shop role=web
  margayctl label node node-a zone-

Exits with 4 if somebody else changed the object in between.")]
    Label(Label),

    /// Tell whether the node is healthy.
    #[command(after_help = "\
Examples:
  margayctl status
  margayctl status -o json | jq .healthy
  margayctl status --wait --timeout 2m

Exits with 6 if a component is not healthy.")]
    Status(StatusAsked),

    /// Look at routing between nodes and routers.
    #[command(subcommand, arg_required_else_help = true)]
    Bgp(Bgp),

    /// Look at the settings of the node, and change what it logs.
    #[command(subcommand, arg_required_else_help = true)]
    Config(Config),

    /// Look into connection tracking: live sessions.
    #[command(subcommand, arg_required_else_help = true)]
    Conntrack(Conntrack),

    /// See what became of flows: who talks to whom, and who is refused.
    #[command(subcommand, arg_required_else_help = true)]
    Flows(Flows),

    /// Test connections between endpoints.
    #[command(subcommand, arg_required_else_help = true)]
    Connectivity(ConnectivityCommand),

    /// Collect what helps to find out what is wrong.
    #[command(subcommand, arg_required_else_help = true)]
    Diag(Diag),

    /// Look at the machine.
    #[command(subcommand)]
    Node(Node),

    /// Look into the dataplane.
    #[command(subcommand, arg_required_else_help = true)]
    Dp(Dp),

    /// Look after where objects live.
    #[command(subcommand, arg_required_else_help = true)]
    Datastore(Datastore),

    /// Look into encryption between nodes.
    #[command(subcommand, arg_required_else_help = true)]
    Wg(Wg),

    /// Look into addresses, and change who has them.
    #[command(subcommand, arg_required_else_help = true)]
    Ipam(Ipam),

    /// Ask questions about policy.
    #[command(subcommand, arg_required_else_help = true)]
    Policy(Policy),

    /// Ask questions about selectors.
    #[command(subcommand, arg_required_else_help = true)]
    Selector(SelectorCommand),

    /// Print a completion script.
    #[command(after_help = "\
Examples:
  margayctl completion bash > /etc/bash_completion.d/margayctl
  margayctl completion zsh > \"${fpath[1]}/_margayctl\"")]
    Completion {
        /// The shell to write it for.
        shell: Shell,
    },

    /// Write the manual pages, one for each command.
    #[command(after_help = "\
Example:
  margayctl man /usr/local/share/man/man1")]
    Man(Man),

    /// Print the version.
    #[command(after_help = "\
Example:
  margayctl version -o json")]
    Version(Show),
}

/// `man`.
#[derive(Args, Debug)]
pub struct Man {
    /// The directory to write them into; made if need be.
    pub directory: PathBuf,
}

/// What only shows.
#[derive(Args, Debug)]
pub struct Show {
    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// `status`.
#[derive(Args, Debug)]
pub struct StatusAsked {
    /// Wait until every component is healthy, for as long as --timeout says.
    #[arg(long)]
    pub wait: bool,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// What shows, and can go on showing.
#[derive(Args, Debug)]
pub struct Look {
    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    /// Look again and again, at this interval.
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "1s", value_parser = duration)]
    pub watch: Option<Duration>,
}

fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = UNITS.iter().find_map(|(unit, millis)| {
        let count = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        count.checked_mul(*millis).filter(|millis| *millis > 0).map(Duration::from_millis)
    });
    parsed.ok_or_else(|| "write a whole number above 0 and its unit, as in 500ms, 30s, 2m, 1h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};
    use margay_agent::model::Kind;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check(command: &clap::Command) {
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.starts_with("Example"), "{} shows no example", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn get_takes_kinds_names_and_a_watch() {
        let Ok(Command::Get(get)) = parse("margayctl get tier,gnp a b -w -o name") else { panic!() };
        assert_eq!(get.kinds.0, [Kind::Tier, Kind::GlobalNetworkPolicy]);
        assert_eq!(get.names, ["a", "b"]);
        assert!(get.watch && get.output == ObjectFormat::Name);
    }

    #[test]
    fn wait_and_dry_run_have_defaults_and_short_forms() {
        let store = |line| match parse(line) {
            Ok(Command::Apply(store)) => (store.adoption.wait, store.dry_run),
            other => panic!("{other:?}"),
        };
        assert_eq!(store("margayctl apply -f x"), (true, DryRun::None));
        assert_eq!(store("margayctl apply -f x --wait=false --dry-run"), (false, DryRun::Client));
        assert_eq!(store("margayctl apply -f x --wait --dry-run=server"), (true, DryRun::Server));
    }

    #[test]
    fn watch_has_an_interval() {
        let watch = |line| match parse(line) {
            Ok(Command::Dp(Dp::Drops(look))) => look.watch,
            other => panic!("{other:?}"),
        };
        assert_eq!(watch("margayctl dp drops"), None);
        assert_eq!(watch("margayctl dp drops --watch"), Some(Duration::from_secs(1)));
        assert_eq!(watch("margayctl dp drops --watch=250ms"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = [
            ("margayctl get tier a -l all()", ErrorKind::ArgumentConflict),
            ("margayctl get tier -A -n x", ErrorKind::ArgumentConflict),
            ("margayctl get spells", ErrorKind::ValueValidation),
            ("margayctl get tiers,", ErrorKind::ValueValidation),
            ("margayctl get tiers -l a==", ErrorKind::ValueValidation),
            ("margayctl delete tier", ErrorKind::MissingRequiredArgument),
            ("margayctl delete tier a -f x", ErrorKind::ArgumentConflict),
            ("margayctl delete", ErrorKind::MissingRequiredArgument),
            ("margayctl apply", ErrorKind::MissingRequiredArgument),
            ("margayctl label tier a b", ErrorKind::ValueValidation),
            ("margayctl status -o name", ErrorKind::InvalidValue),
            ("margayctl policy explain --from a --to b --proto tcp", ErrorKind::MissingRequiredArgument),
            ("margayctl policy explain --from a --to b --proto icmp", ErrorKind::MissingRequiredArgument),
            ("margayctl policy eval", ErrorKind::MissingRequiredArgument),
            ("margayctl policy eval --raw a --resources b", ErrorKind::ArgumentConflict),
            ("margayctl policy eval --raw a --packets b", ErrorKind::ArgumentConflict),
            ("margayctl ipam show --ip 10.0.0.1 --show-blocks", ErrorKind::ArgumentConflict),
            ("margayctl ipam release", ErrorKind::MissingRequiredArgument),
            ("margayctl ipam release --ip 10.0.0.1 --handle h", ErrorKind::ArgumentConflict),
            ("margayctl ipam configure", ErrorKind::MissingRequiredArgument),
            ("margayctl ipam split 4", ErrorKind::MissingRequiredArgument),
            ("margayctl dp drops --watch=0s", ErrorKind::ValueValidation),
            ("margayctl policy show", ErrorKind::MissingRequiredArgument),
            ("margayctl policy show a/b --dot -o json", ErrorKind::ArgumentConflict),
            ("margayctl policy matrix --port tcp/http", ErrorKind::ValueValidation),
            ("margayctl policy matrix --port icmp/8", ErrorKind::ValueValidation),
            ("margayctl policy diff", ErrorKind::MissingRequiredArgument),
            ("margayctl conntrack flush", ErrorKind::MissingRequiredArgument),
            ("margayctl conntrack flush tcp --all", ErrorKind::ArgumentConflict),
            ("margayctl conntrack list tcp --filter udp", ErrorKind::ArgumentConflict),
            ("margayctl conntrack list --limit 0", ErrorKind::ValueValidation),
            ("margayctl conntrack get tcp 10.0.0.1", ErrorKind::MissingRequiredArgument),
            ("margayctl conntrack get tcp web 10.0.0.1", ErrorKind::ValueValidation),
            ("margayctl conntrack get tpc 10.0.0.1 10.0.0.2", ErrorKind::ValueValidation),
            ("margayctl connectivity test --from a --to b --proto tcp", ErrorKind::MissingRequiredArgument),
            ("margayctl connectivity test --from a", ErrorKind::MissingRequiredArgument),
            ("margayctl connectivity test --port 80", ErrorKind::MissingRequiredArgument),
            ("margayctl node check --cores two", ErrorKind::ValueValidation),
            ("margayctl node check --cores 3-2", ErrorKind::ValueValidation),
            ("margayctl flows observe --verdict perhaps", ErrorKind::InvalidValue),
            ("margayctl flows observe --since yesterday", ErrorKind::ValueValidation),
            ("margayctl flows observe --proto tpc", ErrorKind::ValueValidation),
            ("margayctl flows observe --port http", ErrorKind::ValueValidation),
            ("margayctl flows top --port 0", ErrorKind::ValueValidation),
            ("margayctl conntrack top --by colour", ErrorKind::InvalidValue),
        ];
        for (line, kind) in refused {
            assert_eq!(parse(line).map_err(|error| error.kind()).unwrap_err(), kind, "{line}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [("1ms", 1), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "s", "1", "0s", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
