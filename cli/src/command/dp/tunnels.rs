//! `dp tunnels`: the ways to other nodes that packets are carried by.

use std::io;

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::Counted;
use crate::{
    output::{Cell, Output, Table, Tone, View},
    readable::{address, mac},
};

/// Every tunnel.
#[derive(Debug, Serialize)]
pub struct Tunnels {
    tunnels: Vec<Tunnel>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tunnel {
    node: String,
    kind: String,
    local: String,
    remote: String,
    /// Packets can be sent.
    up: bool,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// What its packets leave by.
    #[serde(skip_serializing_if = "String::is_empty")]
    interface: String,
    /// The largest packet inside.
    mtu: u32,
    /// What a router on the way said that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_mtu: Option<u32>,
    routes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    vxlan: Option<Vxlan>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Vxlan {
    port: u32,
    vni: u32,
    remote_mac: String,
}

impl Counted for Tunnels {
    const WHAT: &'static str = "tunnels";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let answer = dataplane.list_tunnels(api::ListTunnelsRequest::default()).await?.into_inner();
        Ok(Self { tunnels: answer.tunnels.into_iter().map(Tunnel::from).collect() })
    }

    /// Nothing of it is counted.
    fn since(&self, _: &Self) -> Self {
        Self { tunnels: self.tunnels.clone() }
    }
}

impl From<api::Tunnel> for Tunnel {
    fn from(from: api::Tunnel) -> Self {
        Self {
            node: from.node,
            up: from.reason.is_empty(),
            local: address(&from.local),
            remote: address(&from.remote),
            reason: from.reason,
            interface: from.interface,
            mtu: from.mtu,
            path_mtu: (from.path_mtu > 0).then_some(from.path_mtu),
            routes: from.routes,
            vxlan: from.kind.starts_with("vxlan").then(|| Vxlan {
                port: from.port,
                vni: from.vni,
                remote_mac: mac(&from.mac),
            }),
            kind: from.kind,
        }
    }
}

impl View for Tunnels {
    const RECORDS: Option<&'static str> = Some("tunnels");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let mut titles =
            vec!["NODE", "KIND", "LOCAL", "REMOTE", "STATE", "INTERFACE", ">MTU", ">PATH-MTU", ">ROUTES"];
        if wide {
            titles.extend([">PORT", ">VNI", "REMOTE-MAC"]);
        }
        titles.push("REASON");
        let mut table = Table::new(titles);
        for tunnel in &self.tunnels {
            let state = match (tunnel.up, tunnel.routes) {
                (true, _) => Cell::toned("up", Tone::Good),
                (false, 0) => Cell::toned("idle", Tone::Warn),
                (false, _) => Cell::toned("down", Tone::Bad),
            };
            let mut row: Vec<Cell> = vec![
                (&tunnel.node).into(),
                (&tunnel.kind).into(),
                (&tunnel.local).into(),
                (&tunnel.remote).into(),
                state,
                (&tunnel.interface).into(),
                tunnel.mtu.into(),
                tunnel.path_mtu.map(|mtu| mtu.to_string()).unwrap_or_default().into(),
                tunnel.routes.into(),
            ];
            if wide {
                let vxlan = tunnel.vxlan.as_ref();
                row.extend([
                    vxlan.map(|vxlan| vxlan.port.to_string()).unwrap_or_default().into(),
                    vxlan.map(|vxlan| vxlan.vni.to_string()).unwrap_or_default().into(),
                    vxlan.map(|vxlan| vxlan.remote_mac.clone()).unwrap_or_default().into(),
                ]);
            }
            row.push((&tunnel.reason).into());
            table.row(row);
        }
        table.print(out)
    }
}
