//! rte_acl, in a process of its own that takes turns with us.

use super::files::{Packet, Set};
use crate::peer;
use anyhow::Result;
use serde::Deserialize;
use std::path::Path;
use std::process::Command;

/// A running peer that has built its tables.
pub struct Peer {
    process: peer::Peer,
    pub built: Built,
}

/// What building took.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Built {
    pub build_seconds: f64,
    pub bytes: usize,
}

#[derive(Deserialize)]
struct Verdicts {
    verdicts: Vec<i64>,
}

impl Peer {
    /// Starts `program` over the set's filters and `packets`.
    pub fn start(program: &Path, set: &Set, packets: &[Packet], folder: &Path) -> Result<Self> {
        let (rules, trace) = (folder.join("rules"), folder.join("trace"));
        std::fs::write(&rules, &set.text)?;
        std::fs::write(&trace, packets.iter().map(Packet::line).collect::<String>())?;
        let (process, built) = peer::Peer::start(Command::new(program).args([&rules, &trace]))?;
        Ok(Self { process, built })
    }

    /// Nanoseconds of CPU time a packet, in batches of `batch`.
    pub fn turn(&mut self, batch: usize, millis: u64) -> Result<f64> {
        self.process.turn(format_args!("run {batch} {millis}"))
    }

    /// The rule that each packet matched; `None`: no rule.
    pub fn verdicts(&mut self) -> Result<Vec<Option<u32>>> {
        let answer: Verdicts = self.process.ask("verdicts")?;
        Ok(answer.verdicts.into_iter().map(|rule| u32::try_from(rule).ok()).collect())
    }
}
