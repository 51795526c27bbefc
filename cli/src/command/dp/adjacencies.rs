//! `dp adjacencies`: the next hops that packets leave to.

use std::io;

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::Counted;
use crate::{
    output::{Cell, Output, Table, Tone, View},
    readable::{address, mac},
};

/// Every adjacency.
#[derive(Debug, Serialize)]
pub struct Adjacencies {
    adjacencies: Vec<Adjacency>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Adjacency {
    index: u32,
    interface: String,
    /// Empty: this host.
    address: String,
    resolved: bool,
    /// Put before each packet, in hexadecimal.
    header: String,
    /// Its destination.
    mac: String,
    mtu: u32,
    users: u32,
}

impl Counted for Adjacencies {
    const WHAT: &'static str = "adjacencies";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let answer = dataplane.list_adjacencies(api::ListAdjacenciesRequest {}).await?.into_inner();
        Ok(Self { adjacencies: answer.adjacencies.into_iter().map(Adjacency::from).collect() })
    }

    /// Nothing of it is counted.
    fn since(&self, _: &Self) -> Self {
        Self { adjacencies: self.adjacencies.clone() }
    }
}

impl From<api::ShownAdjacency> for Adjacency {
    fn from(from: api::ShownAdjacency) -> Self {
        Self {
            index: from.index,
            interface: from.interface_name,
            address: address(&from.address),
            resolved: !from.header.is_empty(),
            header: from.header.iter().map(|byte| format!("{byte:02x}")).collect(),
            mac: mac(from.header.get(..6).unwrap_or_default()),
            mtu: from.mtu,
            users: from.users,
        }
    }
}

impl View for Adjacencies {
    const RECORDS: Option<&'static str> = Some("adjacencies");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let titles = [">INDEX", "INTERFACE", "ADDRESS", "MAC", ">MTU", ">USERS"];
        let mut table = Table::new(titles.into_iter().chain(wide.then_some("HEADER")));
        for adjacency in &self.adjacencies {
            let known = |text: &String| match adjacency.resolved {
                true => Cell::from(text),
                false => Cell::toned("not resolved", Tone::Warn),
            };
            let host = || Cell::from("this host");
            let mut row = vec![
                adjacency.index.into(),
                (&adjacency.interface).into(),
                if adjacency.address.is_empty() { host() } else { (&adjacency.address).into() },
                known(&adjacency.mac),
                if adjacency.resolved { adjacency.mtu.into() } else { Cell::default() },
                adjacency.users.into(),
            ];
            row.extend(wide.then(|| Cell::from(&adjacency.header)));
            table.row(row);
        }
        table.print(out)
    }
}
