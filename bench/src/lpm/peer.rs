//! rte_fib, in a process of its own that takes turns with us.

use super::Keys;
use crate::peer;
use anyhow::Result;
use margay_dataplane::net::Prefix;
use serde::Deserialize;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// A running peer that has built its table.
pub struct Peer {
    process: peer::Peer,
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
        let (process, built) = peer::Peer::start(&mut command)?;
        Ok(Self { process, folder, built })
    }

    /// Nanoseconds of CPU time a lookup of the addresses of one order, in batches of `batch`.
    pub fn turn(&mut self, order: usize, batch: usize, millis: u64) -> Result<f64> {
        self.process.turn(format_args!("run {order} {batch} {millis}"))
    }

    /// What each address of an order leads to.
    pub fn answers(&mut self, order: usize) -> Result<Vec<Option<u32>>> {
        let answers: Answers = self.process.ask(format_args!("answers {order}"))?;
        Ok(answers.answers.into_iter().map(|value| u32::try_from(value).ok()).collect())
    }

    /// Nanoseconds of CPU time a changed route.
    pub fn change(&mut self, routes: &[(Prefix, u32)]) -> Result<f64> {
        let path = self.folder.path().join("changes");
        std::fs::write(&path, lines(routes))?;
        self.process.turn(format_args!("change {}", path.display()))
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
