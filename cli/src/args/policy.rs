//! `policy`: questions about policy.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use margay_agent::model::Protocol;

use super::{Look, Source};
use crate::output::Format;

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
  margayctl policy show node-a-eth0
  margayctl policy show shop/web --resources examples/eval/

Hits are those of all endpoints that have the same rules: they share one tree. Of a large tree --dot draws the
upper part, and says what it left out.")]
    Show(PolicyShow),

    /// Show who may talk to whom, of one namespace or of all.
    #[command(after_help = "\
Examples:
  margayctl policy matrix
  margayctl policy matrix -n shop
  margayctl policy matrix -n shop --port tcp/80 --port icmp
  margayctl policy matrix -n shop --resources examples/eval/ -o wide

Endpoints that no rule tells apart are one row. Each cell is what policy allows, judged by the trees that
forward: all, none, or protocols and ports. More than eight columns, and -o wide, become a list. Without -n it is
of all namespaces, each a row where there are many.")]
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
    /// The endpoint: NAMESPACE/WORKLOAD, or the name of a host endpoint.
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
    /// Who may talk to this namespace, and it to whom; of all if not given.
    #[arg(short, long, conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,

    /// Of all namespaces, each a row where there are many.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

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
