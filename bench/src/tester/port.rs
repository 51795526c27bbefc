//! An AF_XDP socket in a network namespace.

use anyhow::{Context as _, Result, anyhow, ensure};
use margay_dataplane::io::af_xdp::{AfXdp, Options, Program, Role};
use margay_dataplane::packet::Frames;
use nix::sched::{CloneFlags, setns};
use std::fmt;
use std::fs::{self, File};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

/// An interface, and the namespace that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As `ip netns list` shows it; none: our own.
    namespace: Option<String>,
    interface: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, interface) = match text.split_once(':') {
            Some((namespace, interface)) => (Some(namespace), interface),
            None => (None, text),
        };
        if interface.is_empty() || namespace.is_some_and(|name| name.is_empty() || name.contains('/')) {
            return Err(format!("{text:?} is not a place: write IFACE, or NETNS:IFACE"));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), interface: interface.into() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}:{}", self.interface),
            None => f.write_str(&self.interface),
        }
    }
}

impl Place {
    /// How many packets left by the interface, as it says itself.
    pub fn sent(&self) -> Result<u64> {
        self.visit(|| {
            // Of this thread's namespace.
            let table = "/proc/thread-self/net/dev";
            let text = fs::read_to_string(table).context(table)?;
            tx_packets(&text, &self.interface).with_context(|| format!("{table} does not have it"))
        })
    }

    /// On a thread of its own, since its namespace is another then.
    fn visit<T: Send>(&self, see: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let visit = || {
            self.enter()?;
            see()
        };
        let seen = thread::scope(|scope| scope.spawn(visit).join());
        seen.map_err(|_| anyhow!("{self}: looking at it panicked"))?.with_context(|| self.to_string())
    }

    fn enter(&self) -> Result<()> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        let path = format!("/run/netns/{namespace}");
        let file = File::open(&path).with_context(|| format!("{path}; see `ip netns list`"))?;
        setns(file, CloneFlags::CLONE_NEWNET).context("entering the namespace (as root)")
    }
}

/// The tenth number of an interface's line.
fn tx_packets(table: &str, interface: &str) -> Option<u64> {
    let of = |line: &str| line.trim_start().strip_prefix(interface)?.strip_prefix(':').map(str::to_owned);
    table.lines().find_map(of)?.split_whitespace().nth(9)?.parse().ok()
}

/// Takes the interface, all of whose packets are ours from now on: it must have one queue.
pub fn open(place: &Place, frames: &Arc<Frames>) -> Result<AfXdp> {
    place.visit(|| open_here(place, frames)).context("opening")
}

fn open_here(place: &Place, frames: &Arc<Frames>) -> Result<AfXdp> {
    let program = Program::attach(&place.interface, Role::Workload, false)?;
    let queues = program.queues();
    ensure!(
        queues == 1,
        "it has {queues} queues, and one is polled: ethtool -L {} combined 1",
        place.interface
    );
    Ok(AfXdp::open(&program, 0, frames, &Options::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_counts_what_it_sends() {
        let table = "Inter-|   Receive\n face |bytes packets\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\neth01:1 2 3 4 5 6 7 8 9 77 0\n";
        assert_eq!((tx_packets(table, "eth0"), tx_packets(table, "eth01")), (Some(10), Some(77)));
        assert_eq!((tx_packets(table, "eth"), tx_packets("", "lo")), (None, None));
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["eth0", "lab-gen:eth0"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "lab:", ":eth0", "../lab:eth0"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
