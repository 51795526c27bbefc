//! `dp neighbours`: who is at which address.

use std::io;

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::Counted;
use crate::{
    output::{Cell, Output, Table, Tone, View},
    readable::{address, mac, span},
};

/// Every neighbour.
#[derive(Debug, Serialize)]
pub struct Neighbours {
    neighbours: Vec<Neighbour>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Neighbour {
    interface: String,
    address: String,
    mac: String,
    state: String,
    age_seconds: u64,
}

impl Counted for Neighbours {
    const WHAT: &'static str = "neighbours";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let answer = dataplane.list_neighbours(api::ListNeighboursRequest {}).await?.into_inner();
        Ok(Self { neighbours: answer.neighbours.into_iter().map(Neighbour::from).collect() })
    }

    /// Nothing of it is counted.
    fn since(&self, _: &Self) -> Self {
        Self { neighbours: self.neighbours.clone() }
    }
}

impl From<api::ShownNeighbour> for Neighbour {
    fn from(from: api::ShownNeighbour) -> Self {
        Self {
            interface: from.interface_name,
            address: address(&from.address),
            mac: mac(&from.mac),
            state: from.state,
            age_seconds: from.age_seconds,
        }
    }
}

impl View for Neighbours {
    const RECORDS: Option<&'static str> = Some("neighbours");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let mut table = Table::new(["INTERFACE", "ADDRESS", "MAC", "STATE", ">AGE"]);
        for neighbour in &self.neighbours {
            let tone = match neighbour.state.as_str() {
                "failed" => Tone::Bad,
                "incomplete" | "probe" => Tone::Warn,
                _ => Tone::Plain,
            };
            table.row(vec![
                (&neighbour.interface).into(),
                (&neighbour.address).into(),
                (&neighbour.mac).into(),
                Cell::toned(&neighbour.state, tone),
                span(neighbour.age_seconds).into(),
            ]);
        }
        table.print(out)
    }
}
