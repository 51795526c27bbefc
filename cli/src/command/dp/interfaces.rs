//! `dp interfaces`: what the dataplane is attached to, and what went through.

use std::io::{self, Write as _};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::{Counted, grown};
use crate::{
    output::{Cell, Output, Table, Tone, View},
    readable::mac,
};

/// Every interface.
#[derive(Debug, Serialize)]
pub struct Interfaces {
    interfaces: Vec<Interface>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Interface {
    id: u32,
    name: String,
    kind: String,
    endpoint: String,
    mac: String,
    mtu: u32,
    up: bool,
    reason: String,
    mode: String,
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
    /// All of the queues' losses together.
    drops: u64,
    queues: Vec<Queue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress_quota: Option<Quota>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress_quota: Option<Quota>,
}

/// What a workload has of the flows that it may.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Quota {
    flows: u64,
    /// 0: no limit.
    max_connections: u64,
    /// 0: no limit.
    new_connections_per_second: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    queue: u32,
    worker: u32,
    #[serde(flatten)]
    counts: QueueCounts,
}

/// What passed a queue, and what did not.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueueCounts {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_full: u64,
    pub kernel_rx_dropped: u64,
    pub kernel_rx_ring_full: u64,
    pub kernel_fill_ring_empty: u64,
    pub kernel_invalid_descriptors: u64,
}

impl Counted for Interfaces {
    const WHAT: &'static str = "interfaces";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let answer = dataplane.list_interfaces(api::ListInterfacesRequest {}).await?.into_inner();
        Ok(Self { interfaces: answer.interfaces.into_iter().map(Interface::from).collect() })
    }

    fn since(&self, earlier: &Self) -> Self {
        let interface = |now: &Interface| {
            let before =
                earlier.interfaces.iter().find(|before| before.id == now.id && before.name == now.name);
            let queues = now.queues.iter().map(|queue| {
                let before = before.and_then(|all| all.queues.iter().find(|old| old.queue == queue.queue));
                let counts = queue.counts.since(&before.map(|before| before.counts).unwrap_or_default());
                Queue { counts, ..queue.clone() }
            });
            Interface { queues: queues.collect(), ..now.clone() }.summed()
        };
        Self { interfaces: self.interfaces.iter().map(interface).collect() }
    }
}

impl From<api::Interface> for Interface {
    fn from(from: api::Interface) -> Self {
        Self {
            id: from.id,
            name: from.name,
            kind: from.kind,
            endpoint: from.endpoint,
            mac: mac(&from.mac),
            mtu: from.mtu,
            up: from.up,
            reason: from.reason,
            mode: from.mode,
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            drops: 0,
            queues: from.queues.into_iter().map(Queue::from).collect(),
            ingress_quota: from.ingress_quota.map(Quota::from),
            egress_quota: from.egress_quota.map(Quota::from),
        }
        .summed()
    }
}

impl Interface {
    fn summed(mut self) -> Self {
        let sum = |count: fn(&QueueCounts) -> u64| {
            self.queues.iter().map(|queue| count(&queue.counts)).fold(0, u64::saturating_add)
        };
        (self.rx_packets, self.rx_bytes) = (sum(|counts| counts.rx_packets), sum(|counts| counts.rx_bytes));
        (self.tx_packets, self.tx_bytes) = (sum(|counts| counts.tx_packets), sum(|counts| counts.tx_bytes));
        self.drops = sum(QueueCounts::drops);
        self
    }

    fn state(&self) -> Cell {
        if self.up { Cell::toned("up", Tone::Good) } else { Cell::toned("down", Tone::Bad) }
    }
}

/// What the kernel lost of an interface's packets before the dataplane received them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    pub interface: String,
    pub endpoint: String,
    /// The worker was too slow to read.
    pub ring_full: u64,
    /// There was none to receive into.
    pub no_frame: u64,
}

impl Interfaces {
    /// Of every interface that lost something.
    pub fn lost(&self) -> Vec<Lost> {
        let lost = |interface: &Interface| {
            let sum = |count: fn(&QueueCounts) -> u64| {
                interface.queues.iter().map(|queue| count(&queue.counts)).fold(0, u64::saturating_add)
            };
            Lost {
                interface: interface.name.clone(),
                endpoint: interface.endpoint.clone(),
                ring_full: sum(|counts| counts.kernel_rx_ring_full),
                no_frame: sum(QueueCounts::no_frame),
            }
        };
        self.interfaces.iter().map(lost).filter(|lost| (lost.ring_full, lost.no_frame) != (0, 0)).collect()
    }
}

impl From<api::Quota> for Quota {
    fn from(from: api::Quota) -> Self {
        let api::Quota { flows, max_connections, new_connections_per_second } = from;
        Self { flows, max_connections, new_connections_per_second }
    }
}

impl Quota {
    /// `12 of 100 flows, at most 50 new ones a second`.
    fn text(&self) -> String {
        let flows = match self.max_connections {
            0 => format!("{} flows", self.flows),
            most => format!("{} of {most} flows", self.flows),
        };
        match self.new_connections_per_second {
            0 => flows,
            rate => format!("{flows}, at most {rate} new ones a second"),
        }
    }
}

impl From<api::Queue> for Queue {
    fn from(from: api::Queue) -> Self {
        Self { queue: from.queue, worker: from.worker, counts: (&from).into() }
    }
}

impl From<&api::Queue> for QueueCounts {
    fn from(from: &api::Queue) -> Self {
        Self {
            rx_packets: from.rx_packets,
            rx_bytes: from.rx_bytes,
            tx_packets: from.tx_packets,
            tx_bytes: from.tx_bytes,
            tx_full: from.tx_full,
            kernel_rx_dropped: from.kernel_rx_dropped,
            kernel_rx_ring_full: from.kernel_rx_ring_full,
            kernel_fill_ring_empty: from.kernel_fill_ring_empty,
            kernel_invalid_descriptors: from.kernel_invalid_descriptors,
        }
    }
}

impl QueueCounts {
    /// What was lost for whatever reason.
    fn drops(&self) -> u64 {
        [self.tx_full, self.no_frame(), self.kernel_rx_ring_full, self.kernel_invalid_descriptors]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// Packets for which there was no frame. With copies the kernel counts them as dropped too.
    fn no_frame(&self) -> u64 {
        self.kernel_rx_dropped.max(self.kernel_fill_ring_empty)
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            rx_packets: grown(self.rx_packets, earlier.rx_packets),
            rx_bytes: grown(self.rx_bytes, earlier.rx_bytes),
            tx_packets: grown(self.tx_packets, earlier.tx_packets),
            tx_bytes: grown(self.tx_bytes, earlier.tx_bytes),
            tx_full: grown(self.tx_full, earlier.tx_full),
            kernel_rx_dropped: grown(self.kernel_rx_dropped, earlier.kernel_rx_dropped),
            kernel_rx_ring_full: grown(self.kernel_rx_ring_full, earlier.kernel_rx_ring_full),
            kernel_fill_ring_empty: grown(self.kernel_fill_ring_empty, earlier.kernel_fill_ring_empty),
            kernel_invalid_descriptors: grown(
                self.kernel_invalid_descriptors,
                earlier.kernel_invalid_descriptors,
            ),
        }
    }
}

impl View for Interfaces {
    const RECORDS: Option<&'static str> = Some("interfaces");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let titles = ["NAME", "KIND", "ENDPOINT", "MAC", ">MTU", "STATE", "MODE", ">RX", ">TX", ">DROPS"];
        let mut table = Table::new(titles);
        for interface in &self.interfaces {
            table.row(vec![
                (&interface.name).into(),
                (&interface.kind).into(),
                (&interface.endpoint).into(),
                (&interface.mac).into(),
                interface.mtu.into(),
                interface.state(),
                (&interface.mode).into(),
                interface.rx_packets.into(),
                interface.tx_packets.into(),
                interface.drops.into(),
            ]);
        }
        table.print(out)?;
        for interface in self.interfaces.iter().filter(|interface| !interface.reason.is_empty()) {
            writeln!(out, "\n{}: {}", interface.name, interface.reason)?;
        }
        for interface in &self.interfaces {
            for (quota, way) in [(&interface.ingress_quota, "to"), (&interface.egress_quota, "from")] {
                if let Some(quota) = quota {
                    writeln!(out, "\n{}: {way} {}: {}", interface.name, interface.endpoint, quota.text())?;
                }
            }
        }
        if wide {
            writeln!(out)?;
            self.queues().print(out)?;
        }
        Ok(())
    }
}

impl Interfaces {
    fn queues(&self) -> Table {
        let mut table = Table::new([
            "INTERFACE",
            ">QUEUE",
            ">WORKER",
            ">RX",
            ">RX-BYTES",
            ">TX",
            ">TX-BYTES",
            ">TX-FULL",
            ">KERNEL-DROPPED",
            ">RING-FULL",
            ">FILL-EMPTY",
            ">INVALID",
        ]);
        for (interface, queue) in self
            .interfaces
            .iter()
            .flat_map(|interface| interface.queues.iter().map(move |queue| (interface, queue)))
        {
            let counts = &queue.counts;
            table.row(vec![
                (&interface.name).into(),
                queue.queue.into(),
                queue.worker.into(),
                counts.rx_packets.into(),
                counts.rx_bytes.into(),
                counts.tx_packets.into(),
                counts.tx_bytes.into(),
                counts.tx_full.into(),
                counts.kernel_rx_dropped.into(),
                counts.kernel_rx_ring_full.into(),
                counts.kernel_fill_ring_empty.into(),
                counts.kernel_invalid_descriptors.into(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(name: &str, rx_packets: u64, tx_full: u64) -> Interfaces {
        let queue = api::Queue { rx_packets, tx_full, kernel_rx_dropped: 1, ..Default::default() };
        let interface = api::Interface { name: name.into(), queues: vec![queue; 1], ..Default::default() };
        Interfaces { interfaces: vec![interface.into()] }
    }

    #[test]
    fn an_interval_is_the_difference_queue_by_queue() {
        let interval = &interfaces("eth0", 10, 5).since(&interfaces("eth0", 7, 1)).interfaces[0];
        assert_eq!((interval.rx_packets, interval.drops), (3, 4));
    }

    #[test]
    fn a_quota_says_what_is_used_and_what_may_be() {
        let quota = |max_connections, new_connections_per_second| {
            Quota { flows: 12, max_connections, new_connections_per_second }.text()
        };
        assert_eq!(quota(100, 0), "12 of 100 flows");
        assert_eq!(quota(0, 50), "12 flows, at most 50 new ones a second");
    }

    #[test]
    fn an_interface_that_took_the_place_of_another_counts_whole() {
        let interval = &interfaces("cali2", 10, 5).since(&interfaces("cali1", 7, 1)).interfaces[0];
        assert_eq!((interval.rx_packets, interval.drops), (10, 6));
    }
}
