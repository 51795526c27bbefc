//! The cipher of WireGuard's transport: whole vectors, beside libraries that take one packet at a time.

use crate::measure::{Sample, Spread, fill, table};
use crate::peer::Peer;
use crate::random::Random;
use crate::{Common, record};
use anyhow::{Result, ensure};
use clap::Args;
use margay_dataplane::wireguard::aead::{Batch, Kernel, Key, Packet, TAG};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// As in the pool: a frame, and where in it the text begins, behind the headers of the tunnel.
const FRAME: usize = 2_048;
const TEXT: usize = 270;

/// Seven small packets, four of middle size, one of full size: 349 bytes on average.
pub const IMIX: [usize; 12] = [64, 64, 64, 64, 64, 64, 64, 594, 594, 594, 594, 1_364];

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Bytes of text of each packet; 0 for a mix of 64, 594 and 1,364
    #[arg(long, value_delimiter = ',', value_name = "N", default_value = "64,256,512,1024,1420,0", value_parser = clap::value_parser!(u32).range(0..=1_500))]
    bytes: Vec<u32>,
    /// Packets in a vector
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Keys, which packets have in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    keys: u32,
    /// Intel's multi-buffer library, as `make -C bench/peers/ipsec_mb` builds it
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Figures of one way to do it.
#[derive(Serialize)]
struct Figures {
    case: String,
    /// Nanoseconds a packet.
    nanos: Spread,
    /// Cycles of the time-stamp counter a packet.
    cycles: Spread,
    /// How many times as fast as ring, round by round.
    times_ring: Spread,
    gigabits: f64,
}

/// A vector of packets in frames, and the keys that they have.
pub struct Vector {
    keys: Vec<(Key, [u8; 32])>,
    lengths: Vec<usize>,
    frames: Vec<u8>,
    /// The counter of the first packet: no nonce comes twice.
    counter: u64,
}

/// Who seals or opens.
pub enum Way {
    Ours(Batch),
    Ring(Vec<ring::aead::LessSafeKey>),
    AwsLc(Vec<aws_lc_rs::aead::LessSafeKey>),
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let span = Duration::from_secs_f64(options.common.seconds / f64::from(options.common.rounds));
    let mut figures = vec![];
    for &bytes in &options.bytes {
        let mut vector = Vector::new(bytes as usize, options.batch as usize, options.keys as usize);
        let mut ways = ways(&vector);
        vector.check(&mut ways)?;
        let mut peer = options.peer.as_ref().map(|program| vector.peer(program)).transpose()?;
        for open in [false, true] {
            let mut rounds: Vec<Vec<[f64; 3]>> = ways.iter().map(|_| vec![]).collect();
            let mut beside = vec![];
            for _ in 0..options.common.rounds {
                let mut samples = vec![];
                for (_, way) in &mut ways {
                    samples.push(fill(span, || vector.turn(way, open))?);
                }
                let (ring, cycles) = (samples[0].nanos_each(), samples[0].cycles_each());
                if let Some(peer) = &mut peer {
                    let what = if open { "open" } else { "seal" };
                    let nanos = peer.turn(format_args!("{what} {}", span.as_millis().max(1)))?;
                    beside.push([nanos, nanos * cycles / ring, ring / nanos]);
                }
                for (rounds, sample) in rounds.iter_mut().zip(samples) {
                    rounds.push([sample.nanos_each(), sample.cycles_each(), ring / sample.nanos_each()]);
                }
            }
            let size = if bytes == 0 { "IMIX".to_owned() } else { format!("{bytes} B") };
            let average = vector.lengths.iter().sum::<usize>() as f64 / vector.lengths.len() as f64;
            let names = ways.iter().map(|(name, _)| name.as_str()).chain(peer.iter().map(|_| "ipsec-mb"));
            for (name, rounds) in names.zip(rounds.into_iter().chain([beside])) {
                let of = |at: usize| Spread::of(rounds.iter().map(|round| round[at]));
                figures.push(Figures {
                    case: format!("{}, {size}, {name}", if open { "open" } else { "seal" }),
                    nanos: of(0),
                    cycles: of(1),
                    times_ring: of(2),
                    gigabits: 8.0 * average / of(0).median,
                });
            }
        }
    }
    if !options.common.output.json {
        let row = |f: &Figures| {
            let times = &f.times_ring;
            vec![
                f.case.clone(),
                f.nanos.text(),
                format!("{:.0}", f.cycles.median),
                format!("{:.2} ({:.2} to {:.2})", times.median, times.min, times.max),
                format!("{:.1}", f.gigabits),
            ]
        };
        let heads = ["packets", "ns (min to max)", "cycles", "times ring", "Gbit/s"];
        table(&heads, &figures.iter().map(row).collect::<Vec<_>>());
    }
    record::finish(&options.common.output, &figures)
}

/// Ring first, with which all are compared.
fn ways(vector: &Vector) -> Vec<(String, Way)> {
    let ring = vector.keys.iter().map(|(_, key)| {
        let key = ring::aead::UnboundKey::new(&ring::aead::CHACHA20_POLY1305, key);
        ring::aead::LessSafeKey::new(key.expect("a key has 32 bytes"))
    });
    let aws_lc = vector.keys.iter().map(|(_, key)| {
        let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::CHACHA20_POLY1305, key);
        aws_lc_rs::aead::LessSafeKey::new(key.expect("a key has 32 bytes"))
    });
    let peers =
        [("ring".into(), Way::Ring(ring.collect())), ("aws-lc-rs".into(), Way::AwsLc(aws_lc.collect()))];
    let ours =
        Kernel::all().map(|kernel| (format!("ours, {}", kernel.name()), Way::Ours(Batch::new(kernel))));
    peers.into_iter().chain(ours).collect()
}

impl Way {
    /// Ours, with the best that this processor has.
    pub fn best() -> Self {
        Self::Ours(Batch::new(Kernel::best()))
    }
}

/// What the peer says of a packet.
#[derive(Deserialize)]
struct Tag {
    tag: String,
}

impl Vector {
    /// Starts the peer with packets of these lengths, and has it show that its tags are right.
    fn peer(&self, program: &Path) -> Result<Peer> {
        let mut command = Command::new(program);
        command.args(self.lengths.iter().map(usize::to_string));
        let (mut peer, _): (_, serde_json::Value) = Peer::start(&mut command)?;
        let key = Key::new(&std::array::from_fn(|at| at as u8));
        for (at, len) in self.lengths.iter().enumerate().take(16) {
            let mut bytes = vec![0; len + TAG];
            Batch::new(Kernel::best()).seal(&mut [Packet::new(&key, at as u64, &mut bytes)?]);
            let right: String = bytes[*len..].iter().map(|byte| format!("{byte:02x}")).collect();
            let said: Tag = peer.ask(format_args!("tag {at}"))?;
            ensure!(
                said.tag == right,
                "the peer's tag of packet {at} is {}, and should be {right}",
                said.tag
            );
        }
        Ok(peer)
    }

    fn new(bytes: usize, batch: usize, keys: usize) -> Self {
        let mut random = Random::new(1);
        let length = |_| if bytes == 0 { *random.pick(&IMIX) } else { bytes };
        Self::of((0..batch).map(length).collect(), keys)
    }

    /// Packets of these lengths, for so many keys in turn.
    pub fn of(lengths: Vec<usize>, keys: usize) -> Self {
        let mut random = Random::new(1);
        let mut key = || std::array::from_fn(|_| random.bits() as u8);
        let keys = (0..keys).map(|_| key()).map(|key| (Key::new(&key), key)).collect();
        Self { keys, frames: vec![0; FRAME * lengths.len()], lengths, counter: 0 }
    }

    /// What one seals the next opens, and the other way round.
    fn check(&mut self, ways: &mut [(String, Way)]) -> Result<()> {
        for seal in 0..ways.len() {
            for open in 0..ways.len() {
                self.frames.fill(0x5a);
                self.seal(&mut ways[seal].1);
                let right = self.open(&mut ways[open].1)?;
                let texts = self.frames.chunks(FRAME).zip(&self.lengths);
                let right =
                    right && texts.into_iter().all(|(f, len)| f[TEXT..TEXT + len].iter().all(|b| *b == 0x5a));
                ensure!(right, "{} does not open what {} seals", ways[open].0, ways[seal].0);
            }
        }
        Ok(())
    }

    /// One vector sealed or opened, and only that timed.
    pub fn turn(&mut self, way: &mut Way, open: bool) -> Result<Sample> {
        self.counter += self.lengths.len() as u64;
        let count = self.lengths.len() as u64;
        if !open {
            return Ok(Sample::of(|| {
                self.seal(way);
                count
            }));
        }
        self.seal(&mut Way::best());
        let mut right = Ok(true);
        let sample = Sample::of(|| {
            right = self.open(way);
            count
        });
        ensure!(right?, "a packet was taken for a forged one");
        Ok(sample)
    }

    fn seal(&mut self, way: &mut Way) {
        match way {
            Way::Ours(batch) => {
                batch.seal(&mut packets(&self.keys, &self.lengths, &mut self.frames, self.counter));
            }
            Way::Ring(keys) => {
                self.each(|at, nonce, bytes| {
                    let (text, tag) = bytes.split_at_mut(bytes.len() - TAG);
                    let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                    let key = &keys[at % keys.len()];
                    let sealed = key.seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), text);
                    tag.copy_from_slice(sealed.expect("the text is short enough").as_ref());
                    true
                });
            }
            Way::AwsLc(keys) => {
                self.each(|at, nonce, bytes| {
                    let (text, tag) = bytes.split_at_mut(bytes.len() - TAG);
                    let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
                    let key = &keys[at % keys.len()];
                    let sealed = key.seal_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::empty(), text);
                    tag.copy_from_slice(sealed.expect("the text is short enough").as_ref());
                    true
                });
            }
        }
    }

    /// Whether all were genuine.
    fn open(&mut self, way: &mut Way) -> Result<bool> {
        Ok(match way {
            Way::Ours(batch) => {
                let mut genuine = vec![false; self.lengths.len()];
                let mut packets = packets(&self.keys, &self.lengths, &mut self.frames, self.counter);
                batch.open(&mut packets, &mut genuine);
                genuine.iter().all(|genuine| *genuine)
            }
            Way::Ring(keys) => self.each(|at, nonce, bytes| {
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                keys[at % keys.len()].open_in_place(nonce, ring::aead::Aad::empty(), bytes).is_ok()
            }),
            Way::AwsLc(keys) => self.each(|at, nonce, bytes| {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
                keys[at % keys.len()].open_in_place(nonce, aws_lc_rs::aead::Aad::empty(), bytes).is_ok()
            }),
        })
    }

    /// Whether `one` was true for each packet: its number, nonce, text with tag.
    fn each(&mut self, mut one: impl FnMut(usize, [u8; 12], &mut [u8]) -> bool) -> bool {
        let mut all = true;
        for (at, (frame, len)) in self.frames.chunks_exact_mut(FRAME).zip(&self.lengths).enumerate() {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&(self.counter + at as u64).to_le_bytes());
            all &= one(at, nonce, &mut frame[TEXT..TEXT + len + TAG]);
        }
        all
    }
}

fn packets<'a>(
    keys: &'a [(Key, [u8; 32])],
    lengths: &[usize],
    frames: &'a mut [u8],
    counter: u64,
) -> Vec<Packet<'a>> {
    let packet = |(at, (frame, len)): (usize, (&'a mut [u8], &usize))| {
        let bytes = &mut frame[TEXT..TEXT + len + TAG];
        Packet::new(&keys[at % keys.len()].0, counter + at as u64, bytes).expect("there is room for a tag")
    };
    frames.chunks_exact_mut(FRAME).zip(lengths).enumerate().map(packet).collect()
}
