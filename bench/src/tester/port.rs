//! An AF_XDP socket in a network namespace.

use anyhow::{Context as _, Result, anyhow, ensure};
use margay_dataplane::io::af_xdp::{AfXdp, Options, Program, Role};
use margay_dataplane::packet::Frames;
use nix::sched::{CloneFlags, setns};
use std::fmt;
use std::fs::File;
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

/// Takes the interface, all of whose packets are ours from now on: it must have one queue.
pub fn open(place: &Place, frames: &Arc<Frames>) -> Result<AfXdp> {
    // A thread of its own, since its namespace is another afterwards.
    let opened = thread::scope(|scope| scope.spawn(|| open_here(place, frames)).join());
    opened.map_err(|_| anyhow!("{place}: opening it panicked"))?.with_context(|| format!("opening {place}"))
}

fn open_here(place: &Place, frames: &Arc<Frames>) -> Result<AfXdp> {
    if let Some(namespace) = &place.namespace {
        let path = format!("/run/netns/{namespace}");
        let file = File::open(&path).with_context(|| format!("{path}; see `ip netns list`"))?;
        setns(file, CloneFlags::CLONE_NEWNET).context("entering the namespace (as root)")?;
    }
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
    fn places_are_read_as_they_are_written() {
        for text in ["eth0", "lab-gen:eth0"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "lab:", ":eth0", "../lab:eth0"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
