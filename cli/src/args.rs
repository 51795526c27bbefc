//! The command line: what may be typed, and the help that says so.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use margay_agent::model::{Kind, Protocol, Selector, UnknownKind};

use crate::{
    exit,
    output::{ColorWhen, Format},
};

/// Margay's command line: resources, status, runtime, and why a packet passes or not.
#[derive(Debug, Parser)]
#[command(name = "margayctl", version, propagate_version = true, after_help = exit::HELP)]
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

Exits with 6 if a component is not healthy.")]
    Status(Show),

    /// Look into the dataplane.
    #[command(subcommand, arg_required_else_help = true)]
    Dp(Dp),

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

    /// Print the version.
    #[command(after_help = "\
Example:
  margayctl version -o json")]
    Version(Show),
}

/// `dp`.
#[derive(Debug, Subcommand)]
pub enum Dp {
    /// Show what each node of the packet graph costs, by worker.
    #[command(after_help = "\
Examples:
  margayctl dp runtime
  margayctl dp runtime --watch=5s

Counts are since the start of the dataplane; with --watch, each after the first is of the interval alone.
Nodes that saw no packet are shown with -o wide.")]
    Runtime(Look),

    /// Show interfaces and what went through them.
    #[command(after_help = "\
Examples:
  margayctl dp interfaces
  margayctl dp interfaces -o wide

DROPS is what the kernel lost before us and what it did not take from us; -o wide tells them apart, by queue.")]
    Interfaces(Look),

    /// Show why packets were dropped, and by which rules.
    #[command(after_help = "\
Examples:
  margayctl dp drops
  margayctl dp drops -o json | jq '.drops[].rules[]'")]
    Drops(Look),
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Tell whether a packet would pass, and which rule says so.
    #[command(after_help = "\
Examples:
  margayctl policy explain --from shop/client --to shop/web --proto tcp --port 80
  margayctl policy explain --from 10.0.0.1 --to shop/web --proto icmp --icmp-type 8
  margayctl policy explain --from test/client --to shop/db --proto tcp --port sql --resources examples/eval/

The dataplane judges by the very tree that forwards, and says which sessions a packet would belong to. With
--resources the cluster is read from files, and judged by the same code, without a server.

Then comes one change that would turn the verdict, of a label, a port, the protocol or a peer; it was tried, so
it is true. Exits with 0 whatever the verdict.")]
    Explain(Explain),

    /// Show what applies to an endpoint, how often each rule decided, and how it was compiled.
    #[command(after_help = "\
Examples:
  margayctl policy show shop/web
  margayctl policy show shop/web --direction ingress --compiled
  margayctl policy show shop/web --direction ingress --dot | dot -Tsvg > web.svg
  margayctl policy show shop/web --resources examples/eval/

Hits are those of all endpoints that have the same rules: they share one tree. Of a large tree --dot draws the
upper part, and says what it left out.")]
    Show(PolicyShow),

    /// Show who may talk to whom in a namespace.
    #[command(after_help = "\
Examples:
  margayctl policy matrix -n shop
  margayctl policy matrix -n shop --port tcp/80 --port icmp
  margayctl policy matrix -n shop --resources examples/eval/ -o wide

Endpoints that no rule tells apart are one row. Each cell is what policy allows, judged by the trees that
forward: all, none, or protocols and ports. More than eight columns, and -o wide, become a list.")]
    Matrix(PolicyMatrix),

    /// Show whose traffic would fare otherwise if the objects of a file were applied.
    #[command(after_help = "\
Examples:
  margayctl policy diff -f new.yaml
  margayctl policy diff -f new.yaml --resources examples/eval/ -o json

All traffic of endpoints is judged before and after, cut where any rule makes a difference. Exits with 0 if no
verdict changes, with 6 if one does.")]
    Diff(PolicyDiff),

    /// Judge packets by policy in files, without a server, one JSON object a line.
    #[command(after_help = "\
Examples:
  margayctl policy eval --resources examples/eval/ --packets examples/eval/packets.jsonl
  echo '{\"from\":\"shop/web\",\"to\":\"10.0.0.9\",\"proto\":\"tcp\",\"dport\":443}' |
    margayctl policy eval --resources cluster.yaml
  margayctl policy eval --raw cases.jsonl

With --resources, each line is a packet between pods (NAMESPACE/NAME) or addresses, with proto, sport, dport (a
number or a name), icmpType and icmpCode; the answer is {\"verdict\":...,\"egress\":{...},\"ingress\":{...}}.

With --raw, each line is rules with IP sets and packets, as a dataplane gets them; the answer is
{\"verdicts\":[\"allow\",\"deny\",...]}, a word a packet.

Each packet is judged by the very tree that forwards, and once more rule by rule: exits with 1 should the two
disagree. A line that is no question is answered by {\"error\":...}, and the exit code is 2 in the end.")]
    Eval(Eval),

    /// Show what staged policies would change, were they in force.
    #[command(after_help = "\
Examples:
  margayctl policy staged
  margayctl policy staged shop/web-next
  margayctl policy staged --watch=5s

Staged policies are never enforced. Of the packets that policy judges (those that begin a flow, and those that are
denied) the dataplane counts what would be decided otherwise: WOULD-ALLOW are denied now, WOULD-DENY allowed. Counts
are of this node, since an endpoint's policy or one of its staged ones last changed. -o wide shows every rule.
Exits with 3 if the named policy is not there.")]
    Staged(StagedPolicies),
}

/// `selector`.
#[derive(Debug, Subcommand)]
pub enum SelectorCommand {
    /// Evaluate selectors against labels, one JSON object a line.
    #[command(after_help = "\
Example:
  echo '{\"selector\":\"role == \\\"web\\\"\",\"labels\":{\"role\":\"web\"}}' | margayctl selector eval -

Answers each line with {\"valid\":true,\"match\":...,\"canonical\":...,\"uid\":...} or {\"valid\":false,\"error\":...}.")]
    Eval {
        /// A file, or - for standard input.
        file: PathBuf,
    },
}

/// `apply`, `create` and `replace`.
#[derive(Args, Debug)]
pub struct Store {
    #[command(flatten)]
    pub source: Source,

    /// Only check: here (client), or against the server's state (server).
    #[arg(long, value_name = "WHERE", default_value = "none", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "client")]
    pub dry_run: DryRun,

    #[command(flatten)]
    pub adoption: Adoption,

    /// How to print what was done.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ObjectFormat,
}

/// Where objects are read from.
#[derive(Args, Debug)]
pub struct Source {
    /// A file, a directory of .yaml, .yml and .json files, or - for standard input.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// The namespace of objects that name none.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// Whether to wait for the dataplane.
#[derive(Args, Debug)]
pub struct Adoption {
    /// Return only when the dataplane judges packets by the change.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub wait: bool,
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Store the objects.
    None,
    /// Validate here, without a server.
    Client,
    /// Validate against the server's state.
    Server,
}

/// `delete`.
#[derive(Args, Debug)]
pub struct Delete {
    /// The kind, in any spelling: networkpolicy, networkpolicies, netpol...
    #[arg(required_unless_present = "files", conflicts_with = "files", requires = "names")]
    #[arg(value_parser = Kind::parse)]
    pub kind: Option<Kind>,

    /// The names.
    pub names: Vec<String>,

    /// Delete what these files list.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The namespace; "default" if not given.
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// Take an object that is not there for deleted.
    #[arg(long)]
    pub ignore_not_found: bool,

    #[command(flatten)]
    pub adoption: Adoption,

    /// How to print what was done.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ObjectFormat,
}

/// `get`.
#[derive(Args, Debug)]
pub struct Get {
    /// One kind or several, in any spelling: tiers,globalnetworkpolicies.
    #[arg(value_name = "KIND[,KIND]", value_parser = kinds)]
    pub kinds: Kinds,

    /// Only these.
    pub names: Vec<String>,

    /// The namespace; "default" if not given.
    #[arg(short, long, conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,

    /// Of all namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Only those whose labels match, as in 'role == "web"'.
    #[arg(short = 'l', long, conflicts_with = "names", value_parser = Selector::parse)]
    pub selector: Option<Selector>,

    /// How to print them; json and yaml can be fed back into apply.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ObjectFormat,

    /// Then print every change, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
}

/// The kinds that `get` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(pub Vec<Kind>);

/// The formats of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectFormat {
    /// For people; may change from version to version.
    Table,
    /// The table with more columns.
    Wide,
    /// For programs.
    Json,
    /// The same as YAML.
    Yaml,
    /// One object a line.
    Jsonl,
    /// kind/name, one a line.
    Name,
}

/// `validate`.
#[derive(Args, Debug)]
pub struct Validate {
    #[command(flatten)]
    pub source: Source,
}

/// `label`.
#[derive(Args, Debug)]
pub struct Label {
    /// The kind, in any spelling.
    #[arg(value_parser = Kind::parse)]
    pub kind: Kind,

    /// The name.
    pub name: String,

    /// KEY=VALUE sets a label, KEY- removes it.
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label_change)]
    pub changes: Vec<LabelChange>,

    /// The namespace; "default" if not given.
    #[arg(short, long)]
    pub namespace: Option<String>,

    /// Change labels that have another value already.
    #[arg(long)]
    pub overwrite: bool,

    #[command(flatten)]
    pub adoption: Adoption,
}

/// One change of `label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// The label.
    pub key: String,
    /// Its new value; none: removed.
    pub value: Option<String>,
}

/// What only shows.
#[derive(Args, Debug)]
pub struct Show {
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

/// `policy staged`.
#[derive(Args, Debug)]
pub struct StagedPolicies {
    /// Only this one: NAMESPACE/NAME, or the name alone.
    pub name: Option<String>,

    #[command(flatten)]
    pub look: Look,
}

/// `policy explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// The source: NAMESPACE/WORKLOAD, or an address.
    #[arg(long, value_name = "ENDPOINT")]
    pub from: String,

    /// The destination: NAMESPACE/WORKLOAD, or an address.
    #[arg(long, value_name = "ENDPOINT")]
    pub to: String,

    /// The protocol: tcp, udp, icmp, icmpv6, sctp... or a number.
    #[arg(long, value_name = "PROTOCOL", ignore_case = true)]
    pub proto: String,

    /// The destination port: a number, or a name the destination gives it.
    #[arg(long, required_if_eq_any([("proto", "tcp"), ("proto", "udp"), ("proto", "sctp")]))]
    pub port: Option<String>,

    /// The source port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub sport: u16,

    /// The ICMP type.
    #[arg(long, value_name = "TYPE", required_if_eq_any([("proto", "icmp"), ("proto", "icmpv6")]))]
    #[arg(conflicts_with = "port")]
    pub icmp_type: Option<u8>,

    /// The ICMP code.
    #[arg(long, value_name = "CODE", requires = "icmp_type", default_value_t = 0)]
    pub icmp_code: u8,

    /// Judge by these files: a file, or a directory of .yaml, .yml and .json files.
    #[arg(long, value_name = "PATH")]
    pub resources: Option<PathBuf>,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// `policy show`.
#[derive(Args, Debug)]
pub struct PolicyShow {
    /// The endpoint: NAMESPACE/WORKLOAD.
    pub endpoint: String,

    /// Only this direction.
    #[arg(long, value_name = "DIRECTION")]
    pub direction: Option<Toward>,

    /// Show the form of the trees, too.
    #[arg(long)]
    pub compiled: bool,

    /// Draw the trees, in the language of Graphviz.
    #[arg(long, conflicts_with_all = ["compiled", "output"])]
    pub dot: bool,

    /// Show what these files say: a file, or a directory of .yaml, .yml and .json files.
    #[arg(long, value_name = "PATH")]
    pub resources: Option<PathBuf>,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// As an endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Toward {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

/// `policy matrix`.
#[derive(Args, Debug)]
pub struct PolicyMatrix {
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,

    /// Ask about this port alone, as in tcp/80, or protocol, as in icmp. May be repeated.
    #[arg(long = "port", value_name = "PROTOCOL[/PORT]", value_parser = port_asked)]
    pub ports: Vec<PortAsked>,

    /// Judge by these files: a file, or a directory of .yaml, .yml and .json files.
    #[arg(long, value_name = "PATH")]
    pub resources: Option<PathBuf>,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// `tcp/80`, or `icmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAsked {
    /// The protocol.
    pub protocol: Protocol,
    /// The port; none: all of the protocol.
    pub port: Option<u16>,
}

impl std::fmt::Display for PortAsked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.protocol.to_string().to_lowercase())?;
        self.port.map_or(Ok(()), |port| write!(f, "/{port}"))
    }
}

/// `policy diff`.
#[derive(Args, Debug)]
pub struct PolicyDiff {
    #[command(flatten)]
    pub source: Source,

    /// Compare with these files, not with what the agent has stored.
    #[arg(long, value_name = "PATH")]
    pub resources: Option<PathBuf>,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// `policy eval`.
#[derive(Args, Debug)]
pub struct Eval {
    /// The cluster: a file, or a directory of .yaml, .yml and .json files.
    #[arg(long, value_name = "PATH", required_unless_present = "raw", conflicts_with = "raw")]
    pub resources: Option<PathBuf>,

    /// Packets to judge in that cluster: a file, or - for standard input.
    #[arg(long, value_name = "FILE", default_value = "-", conflicts_with = "raw")]
    pub packets: PathBuf,

    /// Cases of rules and packets to judge: a file, or - for standard input.
    #[arg(long, value_name = "FILE")]
    pub raw: Option<PathBuf>,
}

fn kinds(text: &str) -> Result<Kinds, UnknownKind> {
    text.split(',').map(Kind::parse).collect::<Result<_, _>>().map(Kinds)
}

fn port_asked(text: &str) -> Result<PortAsked, String> {
    let (protocol, port) =
        text.split_once('/').map_or((text, None), |(protocol, port)| (protocol, Some(port)));
    let protocol: Protocol = protocol.parse().map_err(|error| format!("{error}"))?;
    let port = port
        .map(str::parse)
        .transpose()
        .map_err(|_| format!("{text:?}: the port is no number up to 65535"))?;
    if port.is_some() && !protocol.has_ports() {
        return Err(format!("{protocol} has no ports; write {protocol} alone"));
    }
    Ok(PortAsked { protocol, port })
}

fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let parsed = UNITS.iter().find_map(|(unit, millis)| {
        let count = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        count.checked_mul(*millis).filter(|millis| *millis > 0).map(Duration::from_millis)
    });
    parsed.ok_or_else(|| "write a whole number above 0 and its unit, as in 500ms, 30s, 2m, 1h".to_owned())
}

fn label_change(text: &str) -> Result<LabelChange, String> {
    let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => (key, Some(value.to_owned())),
        (None, Some(key)) => (key, None),
        (None, None) => return Err("write KEY=VALUE to set a label, KEY- to remove it".to_owned()),
    };
    if key.is_empty() {
        return Err("the label's name is missing".to_owned());
    }
    Ok(LabelChange { key: key.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

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
            ("margayctl dp drops --watch=0s", ErrorKind::ValueValidation),
            ("margayctl policy show", ErrorKind::MissingRequiredArgument),
            ("margayctl policy show a/b --dot -o json", ErrorKind::ArgumentConflict),
            ("margayctl policy matrix --port tcp/http", ErrorKind::ValueValidation),
            ("margayctl policy matrix --port icmp/8", ErrorKind::ValueValidation),
            ("margayctl policy diff", ErrorKind::MissingRequiredArgument),
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

    #[test]
    fn label_changes() {
        let change = |key: &str, value: Option<&str>| {
            Ok(LabelChange { key: key.to_owned(), value: value.map(str::to_owned) })
        };
        assert_eq!(label_change("role=web"), change("role", Some("web")));
        assert_eq!(label_change("role="), change("role", Some("")));
        assert_eq!(label_change("role-"), change("role", None));
        assert_eq!(label_change("a=b-"), change("a", Some("b-")));
        assert!(label_change("=x").is_err() && label_change("-").is_err() && label_change("x").is_err());
    }
}
