//! `connectivity` and `diag`: does it work, and what to send along if it does not.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::Format;

/// `connectivity`.
#[derive(Debug, Subcommand)]
pub enum ConnectivityCommand {
    /// Compare what policy says with what becomes of packets: between workloads made for it, or two endpoints.
    #[command(after_help = "\
Examples:
  margayctl connectivity test
  margayctl connectivity test --from shop/client --to shop/web --proto tcp --port 80
  margayctl connectivity test --from shop/client --to 203.0.113.7 --proto udp --port 53 -o json
  margayctl connectivity test --from shop/client --to shop/web --proto icmp

Without endpoints it makes a client, a server and a stranger on this node, with policy between them, has them speak over TCP, UDP and
ICMP, and removes all of it at the end. Their namespaces have no names and go with this process; their addresses are of 198.18.0.0/15
and 2001:2::/48. That needs root, the dataplane's network namespace, and the role admin.

Between endpoints the dataplane makes a packet up and takes it as if the source had sent it: it goes its whole way, and arrives.

Prints what was expected and what was seen; where they differ, the packet's story node by node, and exits with 6.")]
    Test(Connectivity),
}

/// `connectivity test`.
#[derive(Args, Debug)]
pub struct Connectivity {
    /// Who sends: an endpoint of this node, NAMESPACE/NAME, or an address.
    #[arg(long, value_name = "WHO", requires_all = ["to", "proto"])]
    pub from: Option<String>,

    /// To whom: the same, or any address.
    #[arg(long, value_name = "WHO", requires = "from")]
    pub to: Option<String>,

    /// tcp, udp, icmp or icmp6.
    #[arg(long, value_name = "PROTOCOL", requires = "from")]
    pub proto: Option<String>,

    /// The destination's port.
    #[arg(long, value_name = "PORT", requires = "from", required_if_eq_any = [("proto", "tcp"), ("proto", "udp")])]
    pub port: Option<u16>,

    /// The source's port.
    #[arg(long, value_name = "PORT", requires = "from", default_value = "61001")]
    pub sport: u16,

    /// How to print it; wide has the packet's story in any case.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Two endpoints, and a packet between them.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Who sends.
    pub from: String,
    /// To whom.
    pub to: String,
    /// By which protocol.
    pub proto: String,
    /// The destination's port, of a protocol that has some.
    pub port: Option<u16>,
    /// The source's.
    pub sport: u16,
}

impl Connectivity {
    /// Those that were named, if any were.
    pub fn pair(&self) -> Option<Pair> {
        let Self { port, sport, .. } = *self;
        Some(Pair { from: self.from.clone()?, to: self.to.clone()?, proto: self.proto.clone()?, port, sport })
    }
}

/// `diag`.
#[derive(Debug, Subcommand)]
pub enum Diag {
    /// Put what both processes say of themselves into one archive, without keys and secrets.
    #[command(after_help = "\
Examples:
  margayctl diag collect
  margayctl diag collect -f /tmp/node-a.tar

Each answer is a file of its own; one that cannot be had says why. Whatever looks like a key, a token or a password is blacked
out. Addresses, names, labels and policies are in it: look at it before you give it away.")]
    Collect(DiagCollect),
}

/// `diag collect`.
#[derive(Args, Debug)]
pub struct DiagCollect {
    /// The archive to write [default: margay-diag-NODE-TIME.tar].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}
