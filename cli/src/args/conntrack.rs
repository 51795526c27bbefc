//! `conntrack`: live sessions.

use std::{net::IpAddr, num::NonZeroU32};

use clap::{Args, Subcommand, ValueEnum};
use margay_dataplane::net::{Addr, Proto};

use super::{Look, Show};

/// `conntrack`.
#[derive(Debug, Subcommand)]
pub enum Conntrack {
    /// List live sessions.
    #[command(after_help = "\
Examples:
  margayctl conntrack list
  margayctl conntrack list tcp and dst port 443 and not src net 10.0.0.0/8
  margayctl conntrack list endpoint shop/web and state syn-sent -o wide
  margayctl conntrack list --filter 'udp and (port 53 or nat)' -o jsonl

Terms: host A, net P, port N, portrange N-M, endpoint NAMESPACE/NAME, each with src or dst in front if one likes;
tcp, udp, icmp, icmp6, sctp, proto N, ip, ip6, state NAME, nat. They are joined by and, or, not and parentheses, as
tcpdump does: and, or bind alike, from left to right. NAT shows how a session's packets leave, where that is not how
they came. Sessions come in no order, as workers find them between packets.")]
    List(ConntrackList),

    /// Show the session of a packet.
    #[command(after_help = "\
Examples:
  margayctl conntrack get tcp 10.0.0.1:4000 10.0.0.2:80
  margayctl conntrack get udp [fd00::1]:5353 [fd00::2]:53 -o json
  margayctl conntrack get icmp 10.0.0.1 10.0.0.2

The packet may go either way. Exits with 3 if no session has it.")]
    Get(ConntrackGet),

    /// Count live sessions.
    #[command(after_help = "\
Examples:
  margayctl conntrack count
  margayctl conntrack count dst port 443 --by state
  margayctl conntrack count state syn-sent --watch=5s")]
    Count(ConntrackCount),

    /// Show who has most live sessions.
    #[command(after_help = "\
Examples:
  margayctl conntrack top
  margayctl conntrack top --by source tcp and state syn-sent
  margayctl conntrack top --by port --watch

Sessions do not count their packets, so it is sessions that are counted. A session of two endpoints counts for both.")]
    Top(ConntrackTop),

    /// Forget live sessions.
    #[command(after_help = "\
Examples:
  margayctl conntrack flush dst endpoint shop/db and port 5432
  margayctl conntrack flush --filter 'src net 192.0.2.0/24'
  margayctl conntrack flush --all

The ends are not told. Their next packet is judged by policy as the first of a session; `conntrack count` with the
same filter says how many it would be.")]
    Flush(ConntrackFlush),
}

/// Which sessions.
#[derive(Args, Debug)]
pub struct FlowFilter {
    /// Only those of which this is true, in the words of tcpdump.
    #[arg(value_name = "FILTER")]
    words: Vec<String>,

    /// The same in one word.
    #[arg(long = "filter", value_name = "FILTER", conflicts_with = "words")]
    text: Option<String>,
}

impl FlowFilter {
    /// As it was written.
    pub fn text(&self) -> String {
        self.text.clone().unwrap_or_else(|| self.words.join(" "))
    }
}

/// `conntrack list`.
#[derive(Args, Debug)]
pub struct ConntrackList {
    #[command(flatten)]
    pub filter: FlowFilter,

    /// Stop after this many.
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<NonZeroU32>,

    /// How to print them.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: FlowFormat,
}

/// The formats of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlowFormat {
    /// For people; may change from version to version.
    Table,
    /// The table with replies and endpoints.
    Wide,
    /// For programs; fields may be added, none is taken away.
    Json,
    /// The same as YAML.
    Yaml,
    /// The same as JSON, one session a line.
    Jsonl,
    /// As `get` takes them, one a line.
    Name,
}

/// `conntrack get`.
#[derive(Args, Debug)]
pub struct ConntrackGet {
    /// The protocol: tcp, udp, icmp, icmpv6, sctp... or a number.
    #[arg(value_name = "PROTOCOL")]
    pub proto: Proto,

    /// Where the packet comes from.
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = flow_end)]
    pub from: FlowEnd,

    /// Where it goes to.
    #[arg(value_name = "ADDRESS[:PORT]", value_parser = flow_end)]
    pub to: FlowEnd,

    #[command(flatten)]
    pub show: Show,
}

/// An end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEnd {
    /// The address.
    pub addr: Addr,
    /// The port; none: any.
    pub port: Option<u16>,
}

/// `conntrack count`.
#[derive(Args, Debug)]
pub struct ConntrackCount {
    #[command(flatten)]
    pub filter: FlowFilter,

    /// Tell them apart by this.
    #[arg(long, value_name = "WHAT")]
    pub by: Option<CountBy>,

    #[command(flatten)]
    pub look: Look,
}

/// `conntrack top`.
#[derive(Args, Debug)]
pub struct ConntrackTop {
    #[command(flatten)]
    pub filter: FlowFilter,

    /// Whose sessions are counted.
    #[arg(long, value_name = "WHAT", default_value = "endpoint")]
    pub by: CountBy,

    /// Show this many.
    #[arg(long, value_name = "NUMBER", default_value = "10")]
    pub limit: NonZeroU32,

    #[command(flatten)]
    pub look: Look,
}

/// What sessions have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CountBy {
    /// The workload, or the host, at either end.
    Endpoint,
    /// The opener's address.
    Source,
    /// The address they are opened to, before translation.
    Destination,
    /// Protocol and destination port.
    Port,
    /// The protocol.
    Protocol,
    /// The state.
    State,
    /// The worker that has them.
    Worker,
    /// The snapshot that judged them last.
    Generation,
}

/// `conntrack flush`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("which").args(["words", "text", "all"]).required(true))]
pub struct ConntrackFlush {
    #[command(flatten)]
    pub filter: FlowFilter,

    /// All of them.
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub show: Show,
}

pub fn flow_end(text: &str) -> Result<FlowEnd, String> {
    let wrong = || "write an address, or an address and a port, as in 10.0.0.1:80 or [fd00::1]:80".to_owned();
    if let Ok(end) = text.parse::<std::net::SocketAddr>() {
        return Ok(FlowEnd { addr: end.ip().into(), port: Some(end.port()) });
    }
    let addr: IpAddr = text.parse().map_err(|_| wrong())?;
    Ok(FlowEnd { addr: addr.into(), port: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_sessions() {
        let end = |addr: &str, port| Ok(FlowEnd { addr: addr.parse().unwrap(), port });
        assert_eq!(flow_end("10.0.0.1"), end("10.0.0.1", None));
        assert_eq!(flow_end("10.0.0.1:80"), end("10.0.0.1", Some(80)));
        assert_eq!(flow_end("fd00::1"), end("fd00::1", None));
        assert_eq!(flow_end("[fd00::1]:80"), end("fd00::1", Some(80)));
        for text in ["", "web", "10.0.0.1:", "10.0.0.1:http", "10.0.0.1:65536", "[fd00::1]"] {
            assert!(flow_end(text).is_err(), "{text}");
        }
    }
}
