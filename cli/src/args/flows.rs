//! `flows`: what became of flows.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use margay_dataplane::net::Proto;

use super::{Look, duration};

/// `flows`.
#[derive(Debug, Subcommand)]
pub enum Flows {
    /// Tell what became of flows, and of attempts that were refused.
    #[command(after_help = "\
Examples:
  margayctl flows observe
  margayctl flows observe -f --verdict deny
  margayctl flows observe --from shop/web --to shop/ --since 10m -o wide
  margayctl flows observe -f --policy shop/db -o json | jq .reply
  margayctl flows observe --proto udp --port 53 --verdict deny

A flow is told of as it begins, twice a minute while packets pass, and as it ends, with what has passed since. What is
refused is told of once a second: attempts from any source port together. The agent keeps the last 16,384 records.")]
    Observe(FlowsObserve),

    /// Show who talks most to whom, and who is refused most, in the last hour.
    #[command(after_help = "\
Examples:
  margayctl flows top
  margayctl flows top --by policy --verdict deny
  margayctl flows top --since 5m --from shop/ --watch=5s

Counts are kept for an hour, in windows of 15 seconds.")]
    Top(FlowsTop),
}

/// `flows observe`.
#[derive(Args, Debug)]
pub struct FlowsObserve {
    #[command(flatten)]
    pub like: FlowLike,

    /// Go on as more comes.
    #[arg(short, long)]
    pub follow: bool,

    /// Only the last so many of what is kept.
    #[arg(long, value_name = "COUNT", default_value = "0", hide_default_value = true)]
    pub last: u64,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    pub output: ObserveFormat,
}

/// `flows top`.
#[derive(Args, Debug)]
pub struct FlowsTop {
    #[command(flatten)]
    pub like: FlowLike,

    /// What to put together.
    #[arg(long, value_name = "WHAT", default_value = "conversation")]
    pub by: TopBy,

    /// The largest so many; 0: all.
    #[arg(long, value_name = "COUNT", default_value = "20")]
    pub limit: u32,

    #[command(flatten)]
    pub look: Look,
}

/// Which flows.
#[derive(Args, Debug)]
pub struct FlowLike {
    /// Not older than this, as in 30s, 10m, 1h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub since: Option<Duration>,

    /// Allowed, denied by policy, or dropped for another reason.
    #[arg(long, value_name = "VERDICT")]
    pub verdict: Option<Outcome>,

    /// Who opens them: NAMESPACE/NAME, NAMESPACE/, a name, an address or a prefix.
    #[arg(long, value_name = "WHO")]
    pub from: Option<String>,

    /// To whom, after translation: the same.
    #[arg(long, value_name = "WHO")]
    pub to: Option<String>,

    /// A policy that decided, in force or staged: NAMESPACE/NAME, or a name.
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<String>,

    /// Why packets were dropped, as margayctl dp drops names it.
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,

    /// tcp, udp, icmp, icmpv6, sctp, udplite, or a number.
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    pub proto: Option<Proto>,

    /// The port that they open to, before or after translation.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

fn protocol(text: &str) -> Result<Proto, String> {
    text.parse().map_err(|error: <Proto as std::str::FromStr>::Err| error.to_string())
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Outcome {
    /// It passes.
    Allow,
    /// Policy refuses it.
    Deny,
    /// Something else does.
    Drop,
}

/// How `flows observe` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObserveFormat {
    /// A line each.
    Compact,
    /// A line each with all there is.
    Wide,
    /// A line of JSON each; fields may be added, none is taken away.
    Json,
}

/// What `flows top` puts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopBy {
    /// Who, to whom, at which port, with which outcome.
    Conversation,
    /// Who opens.
    Source,
    /// Who is opened to.
    Destination,
    /// Protocol and port.
    Port,
    /// What decided.
    Policy,
    /// Why it was dropped.
    Reason,
}
