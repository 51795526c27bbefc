//! `bgp peers`: the sessions, what they are for, and how they are.

use std::io::{self, Write as _};

use margay_api::control::v1 as control;
use serde::Serialize;

use crate::{
    args::{Bgp as Command, Global},
    client,
    exit::{Code, Outcome},
    output::{Cell, Output, Table, Tone, View},
};

/// Asks the agent, which asks BIRD.
pub async fn run(global: &Global, command: &Command, out: &mut Output) -> Outcome {
    let Command::Peers(args) = command;
    let mut agent = client::agent(global).await?;
    let call = agent.get_bgp(control::GetBgpRequest {});
    let bgp = Bgp::from(client::answer(global.timeout, "ask for BGP's sessions", call).await?.into_inner());
    out.show(&bgp, args.output)?;
    let well = bgp.error.is_empty() && bgp.peers.iter().all(|peer| peer.established);
    Ok(if well { Code::Ok } else { Code::Problems })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bgp {
    /// Whether something speaks BGP for this node.
    driven: bool,
    router_id: String,
    as_number: u32,
    kernel_table: u32,
    announced: Vec<String>,
    peers: Vec<Peer>,
    /// Why BIRD cannot be asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    address: String,
    port: u32,
    as_number: u32,
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    node: String,
    protocol: String,
    established: bool,
    state: String,
    since: String,
    imported: u64,
    exported: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl From<control::Bgp> for Bgp {
    fn from(from: control::Bgp) -> Self {
        Self {
            driven: from.driven,
            router_id: from.router_id,
            as_number: from.as_number,
            kernel_table: from.kernel_table,
            announced: from.announced,
            peers: from.peers.into_iter().map(Peer::from).collect(),
            error: from.error,
        }
    }
}

impl From<control::BgpPeer> for Peer {
    fn from(from: control::BgpPeer) -> Self {
        Self {
            address: from.address,
            port: from.port,
            as_number: from.as_number,
            object: from.object,
            node: from.node,
            protocol: from.protocol,
            established: from.state == "Established",
            state: if from.state.is_empty() { "unknown".to_owned() } else { from.state },
            since: from.since,
            imported: from.imported,
            exported: from.exported,
            error: from.error,
        }
    }
}

impl View for Bgp {
    const RECORDS: Option<&'static str> = Some("peers");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        if !self.driven {
            return writeln!(
                out,
                "nothing speaks BGP for this node: its agent was started without --bird-conf"
            );
        }
        if !self.error.is_empty() {
            let error = out.paint(&self.error, Tone::Bad);
            writeln!(out, "{error}")?;
        } else {
            self.table(out, wide)?;
        }
        writeln!(out)?;
        writeln!(out, "Router:     {}, AS {}", self.router_id, self.as_number)?;
        writeln!(
            out,
            "Announced:  {}",
            if self.announced.is_empty() { "-".into() } else { self.announced.join(" ") }
        )?;
        writeln!(out, "Routes to:  the kernel's table {}", self.kernel_table)
    }
}

impl Bgp {
    fn table(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let mut titles = vec!["PEER", ">AS", "FOR", "NODE", "STATE", "SINCE", ">IMPORTED", ">EXPORTED"];
        if wide {
            titles.extend([">PORT", "PROTOCOL"]);
        }
        titles.push("ERROR");
        let mut table = Table::new(titles);
        for peer in &self.peers {
            let tone = if peer.established { Tone::Good } else { Tone::Bad };
            let mut row: Vec<Cell> = vec![
                (&peer.address).into(),
                peer.as_number.into(),
                (&peer.object).into(),
                (&peer.node).into(),
                Cell::toned(&peer.state, tone),
                (&peer.since).into(),
                peer.imported.into(),
                peer.exported.into(),
            ];
            if wide {
                row.extend([peer.port.into(), Cell::from(&peer.protocol)]);
            }
            row.push((&peer.error).into());
            table.row(row);
        }
        table.print(out)
    }
}
