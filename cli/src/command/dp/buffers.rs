//! `dp buffers`: who has the packet buffers.

use std::io::{self, Write as _};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::Counted;
use crate::output::{Cell, Output, Table, Tone, View};

/// Every owner; the sum is the pool.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Buffers {
    frames: u64,
    frame_size: u32,
    hugepages: bool,
    owners: Vec<Owner>,
}

#[derive(Clone, Debug, Serialize)]
struct Owner {
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
    frames: u64,
}

impl Counted for Buffers {
    const WHAT: &'static str = "buffers";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let status = dataplane.get_status(api::GetStatusRequest {}).await?.into_inner();
        let buffers = status.buffers.unwrap_or_default();
        let owner = |from: api::BufferOwner| Owner {
            owner: from.owner,
            worker: u32::try_from(from.worker).ok(),
            frames: from.frames,
        };
        Ok(Self {
            frames: buffers.frames,
            frame_size: buffers.frame_size,
            hugepages: buffers.hugepages,
            owners: buffers.owners.into_iter().map(owner).collect(),
        })
    }

    /// They are levels, not counts.
    fn since(&self, _: &Self) -> Self {
        self.clone()
    }
}

impl View for Buffers {
    const RECORDS: Option<&'static str> = Some("owners");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let mut table = Table::new(["OWNER", "WORKER", ">FRAMES", ">SHARE", "MEANING"]);
        for owner in &self.owners {
            let meaning = match owner.owner.as_str() {
                "free" => "with nobody: any worker may take them",
                "worker" => "free, at the worker's hand",
                "devices" => "in the rings of its AF_XDP sockets",
                "waiting" if owner.worker.is_some() => {
                    "packets that wait for a neighbour or a first fragment"
                }
                "waiting" => "packets on their way between workers",
                "unaccounted" => "moved while this was counted; a number that only grows is a leak",
                _ => "",
            };
            let share = 100.0 * owner.frames as f64 / self.frames.max(1) as f64;
            let stray = owner.owner == "unaccounted" && owner.frames > 0;
            let name = if stray { Cell::toned(&owner.owner, Tone::Warn) } else { (&owner.owner).into() };
            table.row(vec![
                name,
                owner.worker.map_or_else(|| "-".to_owned(), |worker| worker.to_string()).into(),
                owner.frames.into(),
                format!("{share:.1}%").into(),
                meaning.into(),
            ]);
        }
        table.print(out)?;
        let pages = if self.hugepages { "hugepages" } else { "ordinary pages" };
        writeln!(out, "\n{} frames of {} bytes on {pages}", self.frames, self.frame_size)
    }
}
