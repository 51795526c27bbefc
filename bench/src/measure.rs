//! Rounds of cases in turn, and what is left of them: median, lowest, highest.

use crate::{Common, record};
use anyhow::Result;
use margay_dataplane::worker::ticks;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Time and work of one run of a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Packets, lookups...
    pub operations: u64,
    /// Of the time-stamp counter.
    pub cycles: u64,
    /// By the system's clock.
    pub nanos: u64,
    /// In which this thread had its core.
    pub busy: u64,
}

impl Sample {
    /// Times `work`, which says how many operations it were.
    pub fn of(work: impl FnOnce() -> u64) -> Self {
        let (busy, start, before) = (on_core(), Instant::now(), ticks());
        let operations = work();
        let cycles = ticks().wrapping_sub(before);
        Self { operations, cycles, nanos: start.elapsed().as_nanos() as u64, busy: on_core() - busy }
    }

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self {
            operations: self.operations + other.operations,
            cycles: self.cycles + other.cycles,
            nanos: self.nanos + other.nanos,
            busy: self.busy + other.busy,
        }
    }

    /// The part of the time in which this thread had its core: others' work is not to be counted.
    pub fn share(&self) -> f64 {
        (self.busy as f64 / self.nanos as f64).min(1.0)
    }

    /// Cycles an operation.
    pub fn cycles_each(&self) -> f64 {
        self.cycles as f64 * self.share() / self.operations as f64
    }

    /// Nanoseconds an operation.
    pub fn nanos_each(&self) -> f64 {
        self.nanos as f64 * self.share() / self.operations as f64
    }
}

/// Nanoseconds that this thread has run. What a hypervisor takes away is among them.
fn on_core() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// Runs `once` until it has taken `span`, at least one time. Not longer than eight times that with what it prepares and
/// does not count.
pub fn fill(span: Duration, mut once: impl FnMut() -> Result<Sample>) -> Result<Sample> {
    let start = Instant::now();
    let mut sum = once()?;
    while sum.nanos < span.as_nanos() as u64 && start.elapsed() < 8 * span {
        sum = sum.and(once()?);
    }
    Ok(sum)
}

/// A piece of work that is measured: does all of it, and says how many operations it were.
pub type Work<'a> = Box<dyn FnMut() -> u64 + 'a>;

/// Figures of a case.
#[derive(Serialize)]
pub struct Figures {
    /// What was measured.
    pub case: String,
    /// Nanoseconds an operation.
    pub nanos: Spread,
    /// Cycles of the time-stamp counter an operation.
    pub cycles: Spread,
}

/// Runs all cases in turn, round after round.
pub fn alternate(common: &Common, mut cases: Vec<(String, Work<'_>)>) -> Result<Vec<Figures>> {
    let span = Duration::from_secs_f64(common.seconds / f64::from(common.rounds));
    let mut rounds: Vec<Vec<Sample>> = cases.iter().map(|_| vec![]).collect();
    for _ in 0..common.rounds {
        for ((_, work), rounds) in cases.iter_mut().zip(&mut rounds) {
            rounds.push(fill(span, || Ok(Sample::of(&mut *work)))?);
        }
    }
    let figures = |((case, _), rounds): ((String, Work<'_>), Vec<Sample>)| Figures {
        case,
        nanos: Spread::of(rounds.iter().map(Sample::nanos_each)),
        cycles: Spread::of(rounds.iter().map(Sample::cycles_each)),
    };
    Ok(cases.into_iter().zip(rounds).map(figures).collect())
}

/// Prints figures, unless JSON is wanted, and records them.
pub fn report(common: &Common, figures: &[Figures]) -> Result<()> {
    if !common.output.json {
        let row = |f: &Figures| vec![f.case.clone(), f.nanos.text(), format!("{:.1}", f.cycles.median)];
        table(&["case", "ns (min to max)", "cycles"], &figures.iter().map(row).collect::<Vec<_>>());
    }
    record::finish(&common.output, figures)
}

/// A figure over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Half of the rounds were below.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// Of at least one round.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        Self::exact(rounds.into_iter().map(|figure| (figure * 100.0).round() / 100.0).collect())
    }

    /// The same, not rounded to hundredths.
    pub fn exact(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let (min, max) = (rounds[0], rounds[rounds.len() - 1]);
        let half = rounds.len() / 2;
        let median =
            if rounds.len() % 2 == 1 { rounds[half] } else { (rounds[half - 1] + rounds[half]) / 2.0 };
        Self { median, min, max }
    }

    /// `12.3 (11.9 to 14.0)`
    pub fn text(&self) -> String {
        format!("{:.1} ({:.1} to {:.1})", self.median, self.min, self.max)
    }
}

/// Milliseconds that something took, again and again.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tail {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Tail {
    /// `None`: of nothing.
    pub fn of(millis: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = millis.into_iter().map(|ms| (ms * 1000.0).round() / 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        // The smallest that at least so many of a hundred do not exceed.
        let at = |of_hundred: usize| {
            sorted.get((sorted.len() * of_hundred).div_ceil(100).checked_sub(1)?).copied()
        };
        Some(Self { p50: at(50)?, p99: at(99)?, max: at(100)? })
    }

    /// `0.12 / 0.34 / 5.60`
    pub fn text(&self) -> String {
        format!("{:.2} / {:.2} / {:.2}", self.p50, self.p99, self.max)
    }
}

/// Prints rows under their heads, columns aligned; all but the first to the right.
pub fn table(heads: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut out = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            if column == 0 {
                out += &format!("{cell:<width$}");
            } else {
                out += &format!("  {cell:>width$}");
            }
        }
        println!("{}", out.trim_end());
    };
    line(heads.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// `1k`, `250k`, `1M`: for names of cases.
pub fn short(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        _ if n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        _ if n.is_multiple_of(1_000) => format!("{}k", n / 1_000),
        _ => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of([5.0, 1.0, 9.0]);
        assert_eq!((spread.median, spread.min, spread.max), (5.0, 1.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]).median, 3.0);
    }

    #[test]
    fn percentiles_are_of_those_there_are() {
        let tail = Tail::of((1..=200).map(f64::from)).unwrap();
        assert_eq!((tail.p50, tail.p99, tail.max), (100.0, 198.0, 200.0));
        assert!(Tail::of([]).is_none());
    }

    #[test]
    fn numbers_are_shortened_only_where_nothing_is_lost() {
        assert_eq!([1, 999, 1_000, 1_024, 3_000_000].map(short), ["1", "999", "1k", "1024", "3M"]);
    }
}
