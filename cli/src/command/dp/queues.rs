//! `dp queues`: which worker serves which queue of which interface, and what the kernel says of it.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::{Counted, grown};
use crate::output::{Cell, Output, Table, Tone, View};

/// Every queue of every interface that is served.
#[derive(Clone, Debug, Serialize)]
pub struct Queues {
    queues: Vec<Queue>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    interface: String,
    queue: u32,
    worker: u32,
    /// Absent where the worker is pinned to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<u32>,
    mode: String,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_full: u64,
    kernel_rx_dropped: u64,
    kernel_rx_ring_full: u64,
    kernel_fill_ring_empty: u64,
    kernel_invalid_descriptors: u64,
}

impl Counted for Queues {
    const WHAT: &'static str = "queues";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let status = dataplane.get_status(api::GetStatusRequest {}).await?.into_inner();
        let pinned = status.workers.into_iter().filter(|worker| worker.pinned);
        let cores: BTreeMap<u32, u32> = pinned.map(|worker| (worker.id, worker.core)).collect();
        let interfaces =
            dataplane.list_interfaces(api::ListInterfacesRequest {}).await?.into_inner().interfaces;
        let of = |interface: api::Interface| {
            let (name, mode, cores) = (interface.name, interface.mode, &cores);
            interface.queues.into_iter().map(move |queue| Queue {
                interface: name.clone(),
                queue: queue.queue,
                worker: queue.worker,
                core: cores.get(&queue.worker).copied(),
                mode: mode.clone(),
                rx_packets: queue.rx_packets,
                rx_bytes: queue.rx_bytes,
                tx_packets: queue.tx_packets,
                tx_bytes: queue.tx_bytes,
                tx_full: queue.tx_full,
                kernel_rx_dropped: queue.kernel_rx_dropped,
                kernel_rx_ring_full: queue.kernel_rx_ring_full,
                kernel_fill_ring_empty: queue.kernel_fill_ring_empty,
                kernel_invalid_descriptors: queue.kernel_invalid_descriptors,
            })
        };
        Ok(Self { queues: interfaces.into_iter().flat_map(of).collect() })
    }

    fn since(&self, earlier: &Self) -> Self {
        let since = |now: &Queue| {
            let same = |old: &&Queue| (&old.interface, old.queue) == (&now.interface, now.queue);
            let before = earlier.queues.iter().find(same).cloned().unwrap_or_default();
            Queue {
                rx_packets: grown(now.rx_packets, before.rx_packets),
                rx_bytes: grown(now.rx_bytes, before.rx_bytes),
                tx_packets: grown(now.tx_packets, before.tx_packets),
                tx_bytes: grown(now.tx_bytes, before.tx_bytes),
                tx_full: grown(now.tx_full, before.tx_full),
                kernel_rx_dropped: grown(now.kernel_rx_dropped, before.kernel_rx_dropped),
                kernel_rx_ring_full: grown(now.kernel_rx_ring_full, before.kernel_rx_ring_full),
                kernel_fill_ring_empty: grown(now.kernel_fill_ring_empty, before.kernel_fill_ring_empty),
                kernel_invalid_descriptors: grown(
                    now.kernel_invalid_descriptors,
                    before.kernel_invalid_descriptors,
                ),
                ..now.clone()
            }
        };
        Self { queues: self.queues.iter().map(since).collect() }
    }
}

impl View for Queues {
    const RECORDS: Option<&'static str> = Some("queues");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        if self.queues.is_empty() {
            return writeln!(out, "No interface is served.");
        }
        let columns = [
            "INTERFACE",
            ">QUEUE",
            ">WORKER",
            ">CORE",
            "MODE",
            ">RX",
            ">TX",
            ">TX-FULL",
            ">DROPPED",
            ">RING-FULL",
            ">FILL-EMPTY",
        ];
        let more: &[&str] = if wide { &[">RX-BYTES", ">TX-BYTES", ">INVALID"] } else { &[] };
        let mut table = Table::new(columns.into_iter().chain(more.iter().copied()));
        for queue in &self.queues {
            let mut row: Vec<Cell> = vec![
                (&queue.interface).into(),
                queue.queue.into(),
                queue.worker.into(),
                queue.core.map_or_else(|| "-".to_owned(), |core| core.to_string()).into(),
                (&queue.mode).into(),
                queue.rx_packets.into(),
                queue.tx_packets.into(),
                lost(queue.tx_full),
                lost(queue.kernel_rx_dropped),
                lost(queue.kernel_rx_ring_full),
                lost(queue.kernel_fill_ring_empty),
            ];
            if wide {
                let bytes = [queue.rx_bytes.into(), queue.tx_bytes.into()];
                row.extend(bytes.into_iter().chain([lost(queue.kernel_invalid_descriptors)]));
            }
            table.row(row);
        }
        table.print(out)
    }
}

fn lost(count: u64) -> Cell {
    if count > 0 { Cell::toned(count.to_string(), Tone::Bad) } else { count.into() }
}
