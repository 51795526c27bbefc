//! All that a node may touch.

use super::{Datagram, Early, Event, Held, Inbox, Pieces, Refusals, Unsealed, Watcher, WorkerCounters};
use crate::conntrack::{self, Directory, FlowHasher, FlowLog, Segment, TcpFlags, TcpSegment};
use crate::net::{FlowKey, IfId, Nanos, Proto, WorkerId};
use crate::packet::{DropReason, Packet, PacketFlags, PktIdx, Pool, Vector};
use crate::snapshot::Snapshot;
use crate::wire::{ip6, l4, sctp, tcp};
use crossbeam::queue::ArrayQueue;
use std::cell::Cell;
use std::sync::Arc;

/// Sizes of what a worker allocates once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The flow table.
    pub flows: conntrack::Settings,
    /// Interfaces, VLANs included.
    pub interfaces: u16,
}

/// What a worker notes of flows for who reads about them.
pub struct Logs {
    /// Of its sessions.
    pub flows: Box<FlowLog>,
    /// Of what it drops.
    pub refusals: Box<Refusals>,
}

/// Packets under way in fragments that a worker remembers: 640 kB.
const FRAGMENTED: usize = 1024;

/// One worker's world.
pub struct World {
    /// The time of this poll.
    pub now: Nanos,
    /// What packets are judged by in this poll.
    pub snapshot: Arc<Snapshot>,
    /// This worker.
    pub me: WorkerId,
    /// Its flows.
    pub flows: conntrack::Table,
    /// Its counts.
    pub counters: Arc<WorkerCounters>,
    /// Packets that wait for a neighbour.
    pub held: Held,
    /// Packets that wait for a WireGuard session.
    pub unsealed: Unsealed,
    /// Packets of which fragments have come.
    pub fragments: conntrack::Fragments,
    /// Fragments that wait for the first.
    pub early: Early,
    /// Pieces of packets that were cut in this run of the graph.
    pub pieces: Pieces,
    /// What the control thread should know. Full: the news is dropped, and comes again.
    pub events: Arc<ArrayQueue<Event>>,
    /// Messages of WireGuard handshakes, for the control thread.
    pub handshakes: Arc<ArrayQueue<Datagram>>,
    /// Every worker's inbox, its own too.
    pub inboxes: Arc<[Inbox]>,
    /// Packets to send, by the interface that carries them; `None`: no queue of it is ours.
    pub outboxes: Vec<Option<Box<Vector>>>,
    /// When the next ICMP error may be sent, in credit.
    pub errors: Credit,
    /// When the next dropped packet is shown to the control thread.
    pub samples: Credit,
    /// When it was told last that the flow table is full.
    pub told_full: Option<Nanos>,
    /// When it was told last that no port was free for a translated flow.
    pub told_exhausted: Option<Nanos>,
    /// When the next packet is shown that staged policies would have had judged otherwise.
    pub differences: Cell<Credit>,
    /// Somebody wants to know who is refused.
    pub refusals: Option<Box<Refusals>>,
    /// Somebody wants to see packets' ways.
    pub watcher: Option<Box<Watcher>>,
}

impl World {
    /// A worker's world at its start.
    pub fn new(
        me: WorkerId,
        limits: Limits,
        hasher: FlowHasher,
        snapshot: Arc<Snapshot>,
        inboxes: Arc<[Inbox]>,
    ) -> Result<Self, conntrack::SettingsError> {
        let mut flows = conntrack::Table::new(limits.flows, hasher)?;
        flows.count_in(snapshot.quotas.clone());
        flows.track(snapshot.tracking);
        Ok(Self {
            now: Nanos(0),
            snapshot,
            me,
            flows,
            counters: Arc::default(),
            held: Held::default(),
            unsealed: Unsealed::default(),
            fragments: conntrack::Fragments::new(FRAGMENTED),
            early: Early::default(),
            pieces: Pieces::default(),
            events: Arc::new(ArrayQueue::new(1024)),
            // What a flood can have of the control thread between two looks.
            handshakes: Arc::new(ArrayQueue::new(256)),
            inboxes,
            outboxes: (0..limits.interfaces).map(|_| None).collect(),
            // RFC 4443 §2.4 (f) asks for a limit; a thousand a second and worker, a hundred at once.
            errors: Credit::new(Nanos::from_millis(1), 100),
            samples: Credit::new(Nanos::from_millis(10), 10),
            told_full: None,
            told_exhausted: None,
            differences: Cell::new(Credit::new(Nanos::from_millis(10), 10)),
            refusals: None,
            watcher: None,
        })
    }

    /// Has translated flows known to the other workers, who are given the same directory.
    pub fn share(&mut self, directory: Arc<Directory>) {
        self.flows.share(directory, self.me);
    }

    /// Ends a packet that does not reach the drop node any more.
    pub fn drop(&mut self, pool: &mut Pool, mut idx: PktIdx, reason: DropReason) {
        let mut packet = pool.get(&mut idx);
        packet.meta.drop = reason;
        self.see_dropped(packet.reborrow());
        super::drop::account(self, packet);
        pool.free(idx);
    }

    /// Tells the control thread, if it has an ear.
    #[inline]
    pub fn tell(&self, event: Event) {
        if self.events.push(event).is_err() {
            self.counters.lost_events.add(1);
        }
    }

    /// Tells of flows, and of who is refused; `None`: no longer. Gives back what told before.
    pub fn tell_of_flows(&mut self, logs: Option<Logs>) -> Option<Logs> {
        let (flows, refusals) = logs.map(|Logs { flows, refusals }| (flows, refusals)).unzip();
        let flows = self.flows.tell_of_sessions(flows);
        let refusals = std::mem::replace(&mut self.refusals, refusals);
        flows.zip(refusals).map(|(flows, refusals)| Logs { flows, refusals })
    }

    /// Tells of what is ripe.
    pub fn sweep_refusals(&mut self) {
        if let Some(refusals) = &mut self.refusals {
            refusals.sweep(self.now);
        }
    }

    /// The worker that has the flow whose key has this hash, if any has: its owner, or for the
    /// replies of a translated flow the owner of the packets they answer.
    pub fn keeper(&self, hash: u64) -> WorkerId {
        self.flows.listed(hash).unwrap_or_else(|| self.owner(hash))
    }

    /// The worker that owns the flow whose key has this hash: the same for both directions.
    #[inline]
    pub fn owner(&self, hash: u64) -> WorkerId {
        WorkerId(FlowHasher::owner(hash, self.inboxes.len()) as u8)
    }
}

/// The flow key of a parsed packet, as it came: before anything in it was translated.
#[inline]
pub(super) fn flow_key(packet: &Packet<'_>) -> FlowKey {
    if let Some(key) = packet.key() {
        return key;
    }
    let meta = &packet.meta;
    l4::flow_key(packet.l3(), packet.l4(), meta.flags.has(PacketFlags::V6), meta.proto, meta.icmp)
}

/// What conntrack looks at in a parsed packet.
#[inline]
pub(super) fn segment(packet: &Packet<'_>) -> Segment {
    match packet.meta.proto {
        Proto::TCP => Segment::Tcp(tcp_segment(packet)),
        proto if proto.is_icmp() => Segment::Icmp(packet.meta.icmp),
        Proto::SCTP => Segment::Sctp(sctp::Header::read(packet.l4())),
        _ => Segment::Other,
    }
}

#[inline]
fn tcp_segment(packet: &Packet<'_>) -> TcpSegment {
    let bytes = packet.l4();
    let header = tcp::Header::read(bytes);
    let flags = TcpFlags(header.flags);
    let headers = usize::from(packet.meta.l4 - packet.meta.l3) + usize::from(header.len);
    let payload = packet.l3_len().saturating_sub(headers) as u32;
    TcpSegment {
        seq: header.seq,
        ack: header.ack,
        // How much follows a first fragment is not known; the tracker bears a segment too much.
        payload: if is_cut(packet) { u16::MAX.into() } else { payload },
        window: header.window,
        flags,
        scale: if flags.contains(TcpFlags::SYN) { header.window_scale(bytes) } else { None },
    }
}

/// The packet is the first fragment of several.
#[inline]
fn is_cut(packet: &Packet<'_>) -> bool {
    if packet.meta.flags.has(PacketFlags::PLAIN) {
        return false;
    }
    if packet.meta.flags.has(PacketFlags::V6) {
        let extended = packet.meta.l4 - packet.meta.l3 > 40;
        return extended && ip6::fragment(packet.l3()).is_ok_and(|piece| !piece.last);
    }
    packet.l3().get(6).is_some_and(|flags| flags & 0x20 != 0)
}

/// A token bucket on the virtual clock.
#[derive(Clone, Copy, Debug)]
pub struct Credit {
    interval: Nanos,
    burst: u64,
    /// When the bucket was, or will be, empty.
    empty_at: Nanos,
}

impl Credit {
    /// One every `interval`, and `burst` at once.
    pub const fn new(interval: Nanos, burst: u64) -> Self {
        Self { interval, burst, empty_at: Nanos(0) }
    }

    /// There always is one.
    pub const fn unlimited() -> Self {
        Self::new(Nanos(0), 1)
    }

    /// Takes one, if there is one.
    #[inline]
    pub fn take(&mut self, now: Nanos) -> bool {
        let full = self.interval.0 * self.burst;
        // Never more credit than the burst, however long nothing was taken.
        let start = self.empty_at.max(Nanos(now.0.saturating_sub(full)));
        let next = start.plus(self.interval);
        if next > now {
            return false;
        }
        self.empty_at = next;
        true
    }
}

/// The interface whose device carries `id`'s packets.
#[inline]
pub(super) fn carrier(snapshot: &Snapshot, id: IfId) -> Option<IfId> {
    snapshot.interfaces.get(id).map(|interface| interface.carrier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_a_rate_with_a_burst() {
        let mut credit = Credit::new(Nanos::from_millis(1), 10);
        let start = Nanos::from_secs(5);
        assert_eq!((0..100).filter(|_| credit.take(start)).count(), 10);
        let taken = (0..1000u64).filter(|us| credit.take(start.plus(Nanos(us * 10_000)))).count();
        assert!((9..=10).contains(&taken), "{taken}");
        assert_eq!((0..100).filter(|_| credit.take(start.plus(Nanos::from_secs(60)))).count(), 10);
        let mut unlimited = Credit::unlimited();
        assert!((0..100).all(|_| unlimited.take(start)));
    }
}
