//! `dp`: looks into the dataplane.

use clap::Subcommand;

use super::Look;

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

    /// Show services and their backends as the dataplane has them.
    #[command(after_help = "\
Examples:
  margayctl dp services
  margayctl dp services -o wide
  margayctl dp services -o json | jq '.services[] | select(.name == \"web\")'

-o wide lists the backends. A port of two IP versions is listed twice.")]
    Services(Look),
    /// Tunnels to other nodes, and what they take
    #[command(after_help = "Examples:
  margayctl dp tunnels
  margayctl dp tunnels -o wide
  margayctl dp tunnels -o json | jq '.tunnels[] | select(.up | not)'

A tunnel without routes is idle: no pool asks for it yet. PATH-MTU is what a router on the way said
that it takes; it counts for ten minutes.")]
    Tunnels(Look),
}
