//! One trial: packets at a rate for a time, and what became of them.

use super::frame::sent_at;
use super::packets::Packets;
use super::port::{self, Place};
use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use margay_dataplane::io::Device as _;
use margay_dataplane::io::af_xdp::AfXdp;
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::{Frames, Pool, Vector};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Packets handed to the port at once, and read from it.
const BATCH: u64 = 64;
/// Packets that are sent late, after a pause of ours, rather than never.
const LATE: u64 = 512;
/// After the last packet was sent, how long nothing may come until the rest counts as lost.
const SILENCE: Duration = Duration::from_millis(200);
/// Packet buffers of a port: both its rings and what the kernel holds.
const FRAMES: u32 = 8192;

/// Two ports and what is sent.
pub struct Tester {
    sending: Side,
    receiving: Option<Side>,
    packets: Packets,
    epoch: Instant,
}

struct Side {
    device: AfXdp,
    pool: Pool,
    vector: Vector,
}

/// What became of the packets of a trial.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    pub seconds: f64,
    pub sent: u64,
    pub sent_pps: u64,
    /// Packets that should have been sent and were not: the tester was too slow, not the device.
    pub skipped: u64,
    pub received: u64,
    pub received_pps: u64,
    /// Sent and not received.
    pub lost: u64,
    /// Of those, what came out of the device under test and found no room at the tester.
    pub lost_here: u64,
    /// Received, and not of this trial.
    pub strange: u64,
    /// From the port that sends to the one that receives, where there is one.
    pub delays: Option<Delays>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Delays {
    pub min_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub p9999_us: f64,
    pub max_us: f64,
}

impl Outcome {
    /// The share that was lost.
    pub fn loss(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }
}

impl Tester {
    /// Takes both interfaces.
    pub fn open(from: &Place, to: Option<&Place>, packets: Packets) -> Result<Self> {
        Ok(Self {
            sending: Side::open(from)?,
            receiving: to.map(Side::open).transpose()?,
            packets,
            epoch: Instant::now(),
        })
    }

    /// Sends `rate` packets a second for so long, or with a rate of 0 as many as go.
    pub fn trial(&mut self, rate: u64, length: Duration) -> Result<Outcome> {
        self.quiet();
        let missed = self.missed();
        let begun = self.now();
        let end = begun + length.as_nanos() as u64;
        let mut outcome = Outcome::default();
        let mut delays = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
        let mut now = begun;
        while now < end {
            let left = match rate {
                0 => BATCH,
                _ => {
                    let due = (u128::from(now - begun) * u128::from(rate) / 1_000_000_000) as u64;
                    let left = due.saturating_sub(outcome.sent + outcome.skipped);
                    let late = left.saturating_sub(LATE);
                    outcome.skipped += late;
                    left - late
                }
            };
            if left > 0 {
                outcome.sent += self.send(left.min(BATCH), now)?;
            }
            self.sending.settle();
            self.receive(begun, &mut outcome, &mut delays);
            now = self.now();
        }
        outcome.seconds = (now - begun) as f64 / 1e9;
        // What is still on its way.
        let mut heard = now;
        while self.receiving.is_some()
            && outcome.received < outcome.sent
            && now - heard < SILENCE.as_nanos() as u64
        {
            self.sending.settle();
            if self.receive(begun, &mut outcome, &mut delays) > 0 {
                heard = now;
            }
            now = self.now();
        }
        outcome.lost_here = self.missed() - missed;
        self.sum_up(&mut outcome, &delays);
        ensure!(outcome.sent > 0, "nothing could be sent: is the interface up, and its peer too?");
        Ok(outcome)
    }

    fn sum_up(&self, outcome: &mut Outcome, delays: &Histogram<u64>) {
        let a_second = |packets: u64| (packets as f64 / outcome.seconds) as u64;
        outcome.sent_pps = a_second(outcome.sent);
        if self.receiving.is_none() {
            return;
        }
        outcome.received_pps = a_second(outcome.received);
        outcome.lost = outcome.sent.saturating_sub(outcome.received);
        let at = |quantile| delays.value_at_quantile(quantile) as f64 / 1e3;
        outcome.delays = Some(Delays {
            min_us: delays.min() as f64 / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: delays.max() as f64 / 1e3,
        });
    }

    /// Reads until nothing comes: what is left of the trial before is not of this one.
    fn quiet(&mut self) {
        let mut heard = self.now();
        let Some(side) = &mut self.receiving else { return };
        loop {
            let now = self.epoch.elapsed().as_nanos() as u64;
            if side.receive(|_| ()) > 0 {
                heard = now;
            }
            if now - heard > SILENCE.as_nanos() as u64 / 10 {
                return;
            }
        }
    }

    /// What the port that receives was too slow for so far.
    fn missed(&self) -> u64 {
        self.receiving.as_ref().map_or(0, |side| side.device.counters().kernel.lost())
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Up to so many packets; how many the port took.
    fn send(&mut self, count: u64, now: u64) -> Result<u64> {
        let side = &mut self.sending;
        for _ in 0..count {
            let Some(mut idx) = side.pool.alloc() else { break };
            let written = self.packets.write(&mut side.pool.get(&mut idx), now);
            side.vector.push(idx);
            ensure!(written, "a packet is longer than its frame");
        }
        let sent = side.device.transmit(&mut side.pool, &mut side.vector, Nanos(now)).sent;
        side.pool.free_all(&mut side.vector);
        Ok(u64::from(sent))
    }

    /// How many packets came, of whatever kind.
    fn receive(&mut self, begun: u64, outcome: &mut Outcome, delays: &mut Histogram<u64>) -> usize {
        let Some(side) = &mut self.receiving else { return 0 };
        let now = self.epoch.elapsed().as_nanos() as u64;
        side.receive(|bytes| match sent_at(bytes) {
            Some(sent) if sent >= begun => {
                outcome.received += 1;
                delays.saturating_record(now.saturating_sub(sent));
            }
            _ => outcome.strange += 1,
        })
    }
}

impl Side {
    fn open(place: &Place) -> Result<Self> {
        let frames = Frames::new(FRAMES, 2048, false)?;
        let device = port::open(place, &frames)?;
        Ok(Self { device, pool: Pool::new(frames, FRAMES as usize), vector: Vector::default() })
    }

    fn settle(&mut self) {
        // Whatever comes back to the port that sends is of no interest.
        self.receive(|_| ());
    }

    fn receive(&mut self, mut see: impl FnMut(&[u8])) -> usize {
        let received = self.device.receive(&mut self.pool, &mut self.vector, BATCH as usize, Nanos(0));
        for mut idx in self.vector.drain() {
            see(self.pool.get(&mut idx).bytes());
            self.pool.free(idx);
        }
        self.device.settle(&mut self.pool);
        received
    }
}
