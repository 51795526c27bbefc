//! A peer, as those of `bench/peers`: a program that builds its tables and then takes turns with us.
//!
//! It is told a command a line, and answers each with a line of JSON. The first line, without a command, tells of the
//! build.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running peer.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Figures of one turn.
#[derive(Deserialize)]
struct Turn {
    nanos: f64,
}

impl Peer {
    /// Starts it; what it tells of its build comes with it.
    pub fn start<B: DeserializeOwned>(command: &mut Command) -> Result<(Self, B)> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| {
            format!("cannot run {}; `make` builds it", command.get_program().to_string_lossy())
        })?;
        let to = child.stdin.take().context("the peer has a standard input")?;
        let from = BufReader::new(child.stdout.take().context("the peer has a standard output")?);
        let mut peer = Self { child, to, from };
        let built = peer.answer()?;
        Ok((peer, built))
    }

    /// What it says to a command.
    pub fn ask<A: DeserializeOwned>(&mut self, command: impl Display) -> Result<A> {
        writeln!(self.to, "{command}")?;
        self.answer()
    }

    /// Nanoseconds of CPU time that an operation of the command took.
    pub fn turn(&mut self, command: impl Display) -> Result<f64> {
        Ok(self.ask::<Turn>(command)?.nanos)
    }

    fn answer<A: DeserializeOwned>(&mut self) -> Result<A> {
        let mut line = String::new();
        ensure!(self.from.read_line(&mut line)? > 0, "the peer ended; what it said is above");
        serde_json::from_str(&line).with_context(|| format!("the peer said {line:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends by itself when its input does; if not, there is nothing it must do first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
