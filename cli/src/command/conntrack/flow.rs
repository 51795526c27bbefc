//! A session, for people and for programs.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use margay_api::dataplane::v1 as api;
use margay_dataplane::net::{Addr, Proto};
use serde::Serialize;

use crate::{
    output::{Cell, Output, Tone},
    readable::span,
};

/// A live session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    protocol: String,
    original: Tuple,
    reply: Tuple,
    /// An address or a port is translated.
    nat: bool,
    state: String,
    idle_milliseconds: u64,
    remaining_milliseconds: u64,
    generation: u64,
    worker: u32,
    /// Whose the opener's address is, where it is of this node.
    #[serde(skip_serializing_if = "String::is_empty")]
    from: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    to: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tuple {
    source: IpAddr,
    /// Absent where the protocol has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    destination: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<u16>,
}

impl Flow {
    /// As the dataplane says it; `None`: that is no session.
    pub fn read(from: api::Flow) -> Option<Self> {
        let protocol = Proto(u8::try_from(from.protocol).ok()?);
        let (original, reply) =
            (Tuple::read(protocol, &from.original?)?, Tuple::read(protocol, &from.reply?)?);
        Some(Self {
            protocol: protocol.to_string(),
            nat: reply != original.reversed(),
            original,
            reply,
            state: from.state,
            idle_milliseconds: from.idle_milliseconds,
            remaining_milliseconds: from.remaining_milliseconds,
            generation: from.judged_generation,
            worker: from.worker,
            from: from.from,
            to: from.to,
        })
    }

    /// As `get` takes it.
    pub fn name(&self) -> String {
        let Self { protocol, original, .. } = self;
        format!("{protocol} {} {}", original.from(), original.to())
    }

    /// The titles of [`row`](Self::row).
    pub fn titles(wide: bool) -> impl Iterator<Item = &'static str> {
        let titles = ["PROTO", "ORIG", "NAT", "STATE", ">IDLE", ">TTL", ">GENERATION", ">WORKER"];
        titles.into_iter().chain(["REPLY", "FROM", "TO"].into_iter().filter(move |_| wide))
    }

    /// In a table.
    pub fn row(&self, wide: bool) -> Vec<Cell> {
        let tone = match self.state.as_str() {
            "established" | "replied" => Tone::Good,
            "syn-sent" | "unreplied" | "picked-up" => Tone::Warn,
            _ => Tone::Plain,
        };
        let mut row: Vec<Cell> = vec![
            (&self.protocol).into(),
            self.original.arrow().into(),
            self.translated().unwrap_or_default().into(),
            Cell::toned(&self.state, tone),
            span(self.idle_milliseconds / 1000).into(),
            span(self.remaining_milliseconds / 1000).into(),
            self.generation.into(),
            self.worker.into(),
        ];
        if wide {
            row.extend([self.reply.arrow().into(), (&self.from).into(), (&self.to).into()]);
        }
        row
    }

    /// Its first cells, and its state.
    pub fn brief(&self) -> Vec<Cell> {
        vec![(&self.protocol).into(), self.original.arrow().into(), (&self.state).into()]
    }

    /// In some lines.
    pub fn describe(&self, out: &mut Output) -> io::Result<()> {
        writeln!(out, "{} {}", self.protocol, self.original.arrow())?;
        if let Some(translated) = self.translated() {
            writeln!(out, "  Leaves as:    {translated}")?;
        }
        writeln!(out, "  Answered as:  {}", self.reply.arrow())?;
        let (idle, left) = (span(self.idle_milliseconds / 1000), span(self.remaining_milliseconds / 1000));
        writeln!(
            out,
            "  State:        {}, idle for {idle}, forgotten in {left} without a packet",
            self.state
        )?;
        writeln!(out, "  Judged:       by generation {}, on worker {}", self.generation, self.worker)?;
        for (title, name) in [("From:  ", &self.from), ("To:    ", &self.to)] {
            if !name.is_empty() {
                writeln!(out, "  {title}       {name}")?;
            }
        }
        Ok(())
    }

    /// How its packets leave, where that is not how they came.
    fn translated(&self) -> Option<String> {
        self.nat.then(|| self.reply.reversed().arrow())
    }
}

impl Tuple {
    fn read(protocol: Proto, from: &api::FlowTuple) -> Option<Self> {
        let addr = |bytes: &[u8]| Addr::from_slice(bytes).map(IpAddr::from);
        let port = |port: u32| Some(protocol.has_ports().then_some(u16::try_from(port).ok()?));
        Some(Self {
            source: addr(&from.source)?,
            source_port: port(from.source_port)?,
            destination: addr(&from.destination)?,
            destination_port: port(from.destination_port)?,
        })
    }

    fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }

    fn from(&self) -> String {
        end(self.source, self.source_port)
    }

    fn to(&self) -> String {
        end(self.destination, self.destination_port)
    }

    fn arrow(&self) -> String {
        format!("{} > {}", self.from(), self.to())
    }
}

fn end(addr: IpAddr, port: Option<u16>) -> String {
    port.map_or_else(|| addr.to_string(), |port| SocketAddr::new(addr, port).to_string())
}
