//! rte_acl, in a process of its own that takes turns with us.

use super::files::{Packet, Set};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running peer that has built its tables.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    pub built: Built,
}

/// What building took.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Built {
    pub build_seconds: f64,
    pub bytes: usize,
}

/// Figures of one turn.
#[derive(Clone, Debug, Deserialize)]
struct Turn {
    nanos: f64,
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
        let mut child = Command::new(program)
            .args([&rules, &trace])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let to = child.stdin.take().context("the peer has a standard input")?;
        let mut from = BufReader::new(child.stdout.take().context("the peer has a standard output")?);
        let built = answer(&mut from)?;
        Ok(Self { child, to, from, built })
    }

    /// Nanoseconds of CPU time a packet, in batches of `batch`.
    pub fn turn(&mut self, batch: usize, millis: u64) -> Result<f64> {
        writeln!(self.to, "run {batch} {millis}")?;
        Ok(answer::<Turn>(&mut self.from)?.nanos)
    }

    /// The rule that each packet matched; `None`: no rule.
    pub fn verdicts(&mut self) -> Result<Vec<Option<u32>>> {
        writeln!(self.to, "verdicts")?;
        let answer: Verdicts = answer(&mut self.from)?;
        Ok(answer.verdicts.into_iter().map(|rule| u32::try_from(rule).ok()).collect())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when its input does; if not, there is nothing it must do first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer<A: for<'a> Deserialize<'a>>(from: &mut impl BufRead) -> Result<A> {
    let mut line = String::new();
    ensure!(from.read_line(&mut line)? > 0, "the peer ended; what it said is above");
    serde_json::from_str(&line).with_context(|| format!("the peer said {line:?}"))
}
