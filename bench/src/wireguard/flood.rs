//! What 100,000 bogus initiations a second do to data: opened by one worker in memory, with and without them between.

use super::node::Node;
use super::{LAP, lengths};
use crate::Common;
use crate::measure::{Sample, Spread, fill, table};
use crate::record;
use anyhow::Result;
use margay_dataplane::worker::ticks;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// A bogus initiation in so many nanoseconds of the worker's time.
const EVERY: f64 = 10_000.0;

/// Figures of packets of one length. The device in memory is in all of them.
#[derive(Serialize)]
struct Figures {
    bytes: u32,
    /// Data packets opened, in millions a second.
    quiet_mpps: Spread,
    flooded_mpps: Spread,
    /// How much less, in percent, round by round.
    loss: Spread,
}

struct Case {
    bytes: u32,
    node: Node,
    bogus: Arc<[Vec<u8>]>,
    /// Nanoseconds a data packet, without and with the flood.
    rounds: Vec<[f64; 2]>,
}

/// Measures, prints, records.
pub fn run(common: &Common, bytes: &[u32]) -> Result<()> {
    let mut cases = bytes.iter().map(|bytes| Case::new(*bytes)).collect::<Result<Vec<_>>>()?;
    let span = Duration::from_secs_f64(common.seconds / f64::from(common.rounds));
    for _ in 0..common.rounds {
        for case in &mut cases {
            case.round(span)?;
        }
    }
    let figures: Vec<Figures> = cases.iter().map(Case::figures).collect();
    if !common.output.json {
        let row = |f: &Figures| {
            let size = if f.bytes == 0 { "IMIX".to_owned() } else { format!("{} B", f.bytes) };
            vec![size, f.quiet_mpps.text(), f.flooded_mpps.text(), f.loss.text()]
        };
        let heads = ["opened", "Mpps (min to max)", "flooded", "percent less"];
        table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    }
    record::finish(&common.output, &figures)
}

impl Case {
    fn new(bytes: u32) -> Result<Self> {
        let mut node = Node::new(1, 256, ticks)?;
        // With the right first code, as anyone can make it who knows the node's public key.
        let bogus = node.bogus(true, LAP)?;
        Ok(Self { bytes, node, bogus, rounds: vec![] })
    }

    fn round(&mut self, span: Duration) -> Result<()> {
        let mut nanos = [0.0; 2];
        for flooded in [false, true] {
            // So many of a lap's packets take the time from one initiation to the next.
            let apart = if flooded { EVERY / nanos[0] } else { f64::INFINITY };
            let sample = fill(span, || self.lap(apart))?;
            nanos[usize::from(flooded)] = sample.nanos_each();
        }
        self.rounds.push(nanos);
        Ok(())
    }

    /// Sends data through the node, with an initiation every so many packets. Only data counts.
    fn lap(&mut self, apart: f64) -> Result<Sample> {
        let data = self.node.messages(&lengths(self.bytes), LAP)?;
        let mut lap = Vec::with_capacity(2 * LAP);
        let mut bogus = self.bogus.iter().cycle();
        let mut due = apart;
        for (at, message) in data.iter().enumerate() {
            lap.push(message.clone());
            if at as f64 >= due {
                due += apart;
                lap.extend(bogus.next().cloned());
            }
        }
        let lap: Arc<[Vec<u8>]> = lap.into();
        let mut done = Ok(0);
        let sample = Sample::of(|| {
            done = self.node.open(&lap, LAP as u64);
            LAP as u64
        });
        done?;
        self.node.listen();
        Ok(sample)
    }

    fn figures(&self) -> Figures {
        let spread = |of: &dyn Fn(&[f64; 2]) -> f64| Spread::of(self.rounds.iter().map(of));
        Figures {
            bytes: self.bytes,
            quiet_mpps: spread(&|nanos| 1_000.0 / nanos[0]),
            flooded_mpps: spread(&|nanos| 1_000.0 / nanos[1]),
            loss: spread(&|nanos| 100.0 * (1.0 - nanos[0] / nanos[1])),
        }
    }
}
