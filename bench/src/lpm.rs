//! Longest-prefix match alone, on a table of routes from a file or a made-up one.

use crate::Common;
use crate::measure::{Work, alternate, report, short};
use crate::random::Random;
use anyhow::{Context, Result, bail};
use clap::Args;
use margay_dataplane::fib::lpm::Lpm;
use margay_dataplane::net::{Addr, Prefix};
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Addresses looked up in one turn.
const TURN: usize = 1 << 20;
/// Destinations that Zipf's law is spread over.
const ZIPF: usize = 1_000_000;
/// Routes of the made-up table.
const ROUTES: u32 = 100_000;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Routes, one a line: a prefix, and perhaps a number behind it; `-`: standard input
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let routes = match &options.table {
        Some(path) => read(path)?,
        None => synthetic(),
    };
    let lpm = Rc::new(Lpm::build(routes.iter().copied())?);
    eprintln!("{} routes: {} bytes", routes.len(), lpm.bytes());
    let prefixes: Vec<Prefix> = routes.iter().map(|(prefix, _)| *prefix).collect();
    let v6 = prefixes.iter().filter(|prefix| !prefix.is_v4()).count() > prefixes.len() / 2;
    let mut random = Random::new(2);
    let anywhere: Vec<Addr> = (0..TURN).map(|_| within(all(v6), &mut random)).collect();
    let spread: Vec<Addr> = (0..TURN).map(|_| within(*random.pick(&prefixes), &mut random)).collect();
    let zipf = zipf(&prefixes, &mut random);
    let mut cases: Vec<(String, Work<'_>)> = vec![];
    for (name, addrs) in [("random", anywhere), ("a prefix at random", spread), ("zipf", zipf)] {
        let lpm = lpm.clone();
        let lookups = move || {
            for addr in &addrs {
                black_box(lpm.lookup(black_box(*addr)));
            }
            addrs.len() as u64
        };
        cases.push((format!("{name}, {} routes", short(routes.len() as u64)), Box::new(lookups)));
    }
    cases.push((
        "build".into(),
        Box::new(move || u64::from(black_box(Lpm::build(routes.iter().copied())).is_ok())),
    ));
    report(&options.common, &alternate(&options.common, cases)?)
}

fn read(path: &Path) -> Result<Vec<(Prefix, u32)>> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    let mut routes = vec![];
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let prefix = words.next().unwrap_or_default();
        let prefix = prefix.parse().with_context(|| format!("{}: line {number}", path.display()))?;
        let value = match words.next() {
            Some(word) => {
                word.parse().with_context(|| format!("{}: line {number}: {word:?}", path.display()))?
            }
            None => number,
        };
        routes.push((prefix, value));
    }
    if routes.is_empty() {
        bail!("{}: no routes", path.display());
    }
    Ok(routes)
}

/// Lengths roughly as in the Internet's table: six in ten are of 24 bits.
fn synthetic() -> Vec<(Prefix, u32)> {
    let mut random = Random::new(1);
    let mut route = |value| {
        let len = if random.chance(60) { 24 } else { 12 + random.below(13) as u8 };
        let addr = Addr::v4((1 << 24 | random.below(223 << 24) as u32).to_be_bytes());
        (Prefix::truncate(addr, len), value % 256)
    };
    (0..ROUTES).map(&mut route).collect()
}

fn all(v6: bool) -> Prefix {
    // What is routed of IPv6 so far: 2000::/3 (RFC 4291 §2.4).
    if v6 { Prefix::truncate(Addr::from_bits(2 << 124), 3) } else { Prefix::truncate(Addr::v4([0; 4]), 0) }
}

fn within(prefix: Prefix, random: &mut Random) -> Addr {
    let noise = u128::from(random.bits()) << 64 | u128::from(random.bits());
    let (first, last) = (prefix.addr().bits(), prefix.last().bits());
    Addr::from_bits(first | noise & (last ^ first))
}

/// Draws by Zipf's law with exponent one.
fn zipf(prefixes: &[Prefix], random: &mut Random) -> Vec<Addr> {
    let destinations: Vec<Addr> = (0..ZIPF).map(|_| within(*random.pick(prefixes), random)).collect();
    let mut sum = 0.0;
    let weights: Vec<f64> = (1..=ZIPF)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut draw = || {
        let at = random.bits() as f64 / u64::MAX as f64 * sum;
        destinations[weights.partition_point(|weight| *weight < at).min(ZIPF - 1)]
    };
    (0..TURN).map(|_| draw()).collect()
}
