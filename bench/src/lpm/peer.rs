//! rte_fib, in a process of its own that takes turns with us.

use super::Keys;
use anyhow::{Context, Result, ensure};
use margay_dataplane::net::Prefix;
use serde::Deserialize;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running peer that has built its table.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
    pub built: Built,
}

/// What building took.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Built {
    pub build_seconds: f64,
    pub bytes: usize,
}

#[derive(Deserialize)]
struct Turn {
    nanos: f64,
}

#[derive(Deserialize)]
struct Answers {
    answers: Vec<i64>,
}

impl Peer {
    /// Starts `program` over the routes and the addresses of each order.
    pub fn start(program: &Path, routes: &[(Prefix, u32)], orders: &[&Keys]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let family = if routes.first().is_some_and(|(prefix, _)| prefix.is_v4()) { "4" } else { "6" };
        let table = folder.path().join("routes");
        std::fs::write(&table, lines(routes))?;
        let mut command = Command::new(program);
        command.arg(family).arg(&table);
        for (number, keys) in orders.iter().enumerate() {
            let path = folder.path().join(format!("addresses{number}"));
            std::fs::write(&path, keys.lines())?;
            command.arg(path);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let to = child.stdin.take().context("the peer has a standard input")?;
        let mut from = BufReader::new(child.stdout.take().context("the peer has a standard output")?);
        let built = answer(&mut from)?;
        Ok(Self { child, to, from, folder, built })
    }

    /// Nanoseconds of CPU time a lookup of the addresses of one order, in batches of `batch`.
    pub fn turn(&mut self, order: usize, batch: usize, millis: u64) -> Result<f64> {
        writeln!(self.to, "run {order} {batch} {millis}")?;
        Ok(answer::<Turn>(&mut self.from)?.nanos)
    }

    /// What each address of an order leads to.
    pub fn answers(&mut self, order: usize) -> Result<Vec<Option<u32>>> {
        writeln!(self.to, "answers {order}")?;
        let answers: Answers = answer(&mut self.from)?;
        Ok(answers.answers.into_iter().map(|value| u32::try_from(value).ok()).collect())
    }

    /// Nanoseconds of CPU time a changed route.
    pub fn change(&mut self, routes: &[(Prefix, u32)]) -> Result<f64> {
        let path = self.folder.path().join("changes");
        std::fs::write(&path, lines(routes))?;
        writeln!(self.to, "change {}", path.display())?;
        Ok(answer::<Turn>(&mut self.from)?.nanos)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when its input does; if not, there is nothing it must do first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(routes: &[(Prefix, u32)]) -> String {
    let mut text = String::new();
    for (prefix, value) in routes {
        // To a string this cannot fail.
        let _ = writeln!(text, "{prefix} {value}");
    }
    text
}

fn answer<A: for<'a> Deserialize<'a>>(from: &mut impl BufRead) -> Result<A> {
    let mut line = String::new();
    ensure!(from.read_line(&mut line)? > 0, "the peer ended; what it said is above");
    serde_json::from_str(&line).with_context(|| format!("the peer said {line:?}"))
}
