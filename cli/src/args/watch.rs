//! `dp trace` and `dp capture`: packets on their way.

use std::{num::NonZeroU64, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use margay_dataplane::net::Proto;

use super::conntrack::{FlowEnd, FlowFilter, flow_end};
use super::duration;

/// `dp trace`.
#[derive(Args, Debug)]
pub struct DpTrace {
    #[command(flatten)]
    pub filter: FlowFilter,

    /// Only packets that this is true of, too: any filter of tcpdump's (pcap-filter(7)), which it compiles.
    #[arg(long, value_name = "FILTER")]
    pub pcap: Option<String>,

    /// Stop after this many packets.
    #[arg(long, value_name = "NUMBER", default_value = "10")]
    pub count: NonZeroU64,

    /// Only packets that are dropped.
    #[arg(long)]
    pub dropped_only: bool,

    /// Make a packet up, as in 'tcp 10.0.0.5:4000 > 10.0.1.9:80', and trace only that.
    #[arg(long, value_name = "PACKET", conflicts_with_all = ["words", "text", "pcap", "count", "dropped_only"])]
    pub inject: Option<Inject>,

    /// How to print them.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: TraceFormat,
}

/// The formats of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    /// For people; may change from version to version.
    Text,
    /// For programs, one packet a line; fields may be added, none is taken away.
    Json,
}

/// A packet that nobody sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inject {
    /// Its protocol.
    pub proto: Proto,
    /// Where it is to come from.
    pub from: FlowEnd,
    /// Where it is to go.
    pub to: FlowEnd,
}

impl FromStr for Inject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write tcp 10.0.0.5:4000 > 10.0.1.9:80, or icmp 10.0.0.5 > 10.0.1.9".to_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let [proto, from, ">", to] = words[..] else { return Err(wrong()) };
        let proto: Proto = proto.parse().map_err(|_| wrong())?;
        let (from, to) = (flow_end(from)?, flow_end(to)?);
        if [from, to].iter().any(|end| end.port.is_some() != proto.has_ports()) {
            let ports = if proto.has_ports() { "needs a port at either end" } else { "has no ports" };
            return Err(format!("{proto} {ports}"));
        }
        Ok(Self { proto, from, to })
    }
}

/// `dp capture`.
#[derive(Args, Debug)]
pub struct DpCapture {
    #[command(flatten)]
    pub filter: FlowFilter,

    /// Only packets that this is true of, too: any filter of tcpdump's (pcap-filter(7)), which it compiles.
    #[arg(long, value_name = "FILTER")]
    pub pcap: Option<String>,

    /// What to keep: rx, as packets come in; tx, as they leave; drop, as they are dropped.
    #[arg(long = "dir", value_name = "DIR", value_delimiter = ',', default_value = "rx,tx,drop")]
    pub directions: Vec<Way>,

    /// The pcapng file to write; - for standard output.
    #[arg(short, long, value_name = "FILE")]
    pub write: PathBuf,

    /// Stop after this many packets.
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<NonZeroU64>,

    /// Stop before the file is larger than this.
    #[arg(long, value_name = "BYTES", default_value = "1073741824")]
    pub bytes: NonZeroU64,

    /// Stop after this long, as in 30s or 5m.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,

    /// Bytes to keep of each packet [default: all that are in its first frame].
    #[arg(long, value_name = "BYTES")]
    pub snap_length: Option<u32>,
}

/// Where packets are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// As they came in.
    Rx,
    /// As they leave.
    Tx,
    /// As they are dropped.
    Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_are_made_up() {
        let inject: Inject = "tcp 10.0.0.5:4000 > 10.0.1.9:80".parse().unwrap();
        assert_eq!((inject.proto, inject.from.port, inject.to.port), (Proto::TCP, Some(4000), Some(80)));
        assert!("icmp6 fd00::1 > fd00::2".parse::<Inject>().is_ok());
        for wrong in [
            "",
            "tcp",
            "tcp 10.0.0.5 > 10.0.1.9",
            "icmp 10.0.0.5:1 > 10.0.1.9",
            "tcp 10.0.0.5:1 10.0.1.9:2",
            "tcp 10.0.0.5:1 > 10.0.1.9",
            "spell 10.0.0.5 > 10.0.1.9",
        ] {
            assert!(wrong.parse::<Inject>().is_err(), "{wrong}");
        }
    }
}
