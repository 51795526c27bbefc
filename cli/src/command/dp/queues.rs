//! `dp queues`: which worker serves which queue of which interface, and what the kernel says of it.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::{Counted, interfaces::QueueCounts};
use crate::{
    command::interrupts::{self, Interrupt},
    output::{Cell, Output, Table, Tone, View},
};

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
    /// That announces its packets; absent where the machine does not say, or there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    irq: Option<Interrupt>,
    #[serde(flatten)]
    counts: QueueCounts,
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
            let irqs = interrupts(&interface);
            let (name, mode, cores) = (interface.name, interface.mode, &cores);
            interface.queues.into_iter().map(move |queue| Queue {
                irq: irqs.iter().find(|irq| irq.queue == Some(queue.queue)).cloned(),
                interface: name.clone(),
                queue: queue.queue,
                worker: queue.worker,
                core: cores.get(&queue.worker).copied(),
                mode: mode.clone(),
                counts: (&queue).into(),
            })
        };
        Ok(Self { queues: interfaces.into_iter().flat_map(of).collect() })
    }

    fn since(&self, earlier: &Self) -> Self {
        let since = |now: &Queue| {
            let same = |old: &&Queue| (&old.interface, old.queue) == (&now.interface, now.queue);
            let before = earlier.queues.iter().find(same).map(|before| before.counts).unwrap_or_default();
            Queue { counts: now.counts.since(&before), ..now.clone() }
        };
        Self { queues: self.queues.iter().map(since).collect() }
    }
}

/// Of this machine's card of that name: where it has another Ethernet address, the dataplane is in another place.
fn interrupts(interface: &api::Interface) -> Vec<Interrupt> {
    let root = Path::new("/");
    let here = std::fs::read_to_string(root.join(format!("sys/class/net/{}/address", interface.name)));
    let mac: Vec<String> = interface.mac.iter().map(|byte| format!("{byte:02x}")).collect();
    match here {
        Ok(here) if here.trim() == mac.join(":") => interrupts::of(root, &interface.name),
        _ => vec![],
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
            "IRQ",
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
            let counts = &queue.counts;
            let mut row: Vec<Cell> = vec![
                (&queue.interface).into(),
                queue.queue.into(),
                queue.worker.into(),
                queue.core.map_or_else(|| "-".to_owned(), |core| core.to_string()).into(),
                queue.irq.as_ref().map_or_else(|| "-".to_owned(), announced).into(),
                (&queue.mode).into(),
                counts.rx_packets.into(),
                counts.tx_packets.into(),
                lost(counts.tx_full),
                lost(counts.kernel_rx_dropped),
                lost(counts.kernel_rx_ring_full),
                lost(counts.kernel_fill_ring_empty),
            ];
            if wide {
                let bytes = [counts.rx_bytes.into(), counts.tx_bytes.into()];
                row.extend(bytes.into_iter().chain([lost(counts.kernel_invalid_descriptors)]));
            }
            table.row(row);
        }
        table.print(out)
    }
}

fn announced(irq: &Interrupt) -> String {
    if irq.cpus.is_empty() { irq.number.to_string() } else { format!("{} on {}", irq.number, irq.cpus) }
}

fn lost(count: u64) -> Cell {
    if count > 0 { Cell::toned(count.to_string(), Tone::Bad) } else { count.into() }
}
