//! `dp hist`: how the sizes and the costs of vectors are spread.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    iter,
};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::{Counted, grown, one_of};
use crate::{
    args::Spread,
    exit::Outcome,
    output::{Output, Table, View},
    readable::{percent, ratio},
};

/// The longest bar of a drawing.
const BAR: f64 = 40.0;

/// Workers' histograms, one of which is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(into = "Shown")]
pub struct Histograms {
    of: Spread,
    tsc_hz: f64,
    workers: Vec<api::WorkerHistograms>,
}

impl Counted for Histograms {
    const WHAT: &'static str = "histograms";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let answer = dataplane.get_histograms(api::GetHistogramsRequest {}).await?.into_inner();
        Ok(Self { of: Spread::Cycles, tsc_hz: answer.tsc_hz, workers: answer.workers })
    }

    fn since(&self, earlier: &Self) -> Self {
        let since = |now: &api::WorkerHistograms| {
            let before = earlier.workers.iter().find(|before| before.worker == now.worker);
            before.map_or_else(|| now.clone(), |before| worker_since(now, before))
        };
        Self { workers: self.workers.iter().map(since).collect(), ..*self }
    }
}

impl Histograms {
    /// To show this one, of one worker where one is asked for.
    pub fn only(self, of: Spread, worker: Option<u32>) -> Outcome<Self> {
        let workers = one_of(self.workers, |worker| worker.worker, worker)?;
        Ok(Self { of, workers, ..self })
    }
}

fn worker_since(now: &api::WorkerHistograms, earlier: &api::WorkerHistograms) -> api::WorkerHistograms {
    let one = |now: &Option<api::Histogram>, earlier: &Option<api::Histogram>| {
        now.as_ref().map(|now| since(now, earlier.as_ref().unwrap_or(&api::Histogram::default())))
    };
    api::WorkerHistograms {
        worker: now.worker,
        vector: one(&now.vector, &earlier.vector),
        cycles: one(&now.cycles, &earlier.cycles),
        latency: one(&now.latency, &earlier.latency),
    }
}

/// What was counted after `earlier`. Its largest value is known as well as its bucket.
fn since(now: &api::Histogram, earlier: &api::Histogram) -> api::Histogram {
    let before: BTreeMap<u64, u64> =
        earlier.buckets.iter().map(|bucket| (bucket.lowest, bucket.count)).collect();
    let count = |bucket: &api::HistogramBucket| {
        grown(bucket.count, before.get(&bucket.lowest).copied().unwrap_or_default())
    };
    let more = now.buckets.iter().map(|bucket| api::HistogramBucket { count: count(bucket), ..*bucket });
    let buckets: Vec<_> = more.filter(|bucket| bucket.count > 0).collect();
    let max = if now.max > earlier.max {
        now.max
    } else {
        buckets.last().map_or(0, |bucket| bucket.highest.min(now.max))
    };
    api::Histogram { buckets, max }
}

/// As programs read it, in the unit that is said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    of: &'static str,
    unit: &'static str,
    counted: &'static str,
    /// As people read it.
    #[serde(skip)]
    what: &'static str,
    tsc_hz: f64,
    /// Of the workers shown.
    total: Histogram,
    workers: Vec<Worker>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    worker: u32,
    #[serde(flatten)]
    histogram: Histogram,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Histogram {
    count: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    #[serde(rename = "p99.9")]
    p999: u64,
    max: u64,
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket {
    lowest: u64,
    highest: u64,
    count: u64,
}

impl From<Histograms> for Shown {
    fn from(from: Histograms) -> Self {
        let Histograms { of, tsc_hz, workers } = from;
        let (name, unit, counted, what) = match of {
            Spread::Cycles => ("cycles", "cycles", "packets", "cycles a packet"),
            Spread::Vector => ("vector", "packets", "vectors", "packets a vector"),
            Spread::Latency => ("latency", "nanoseconds", "packets", "nanoseconds in the worker"),
        };
        let scale = |value: u64| match of {
            Spread::Latency if tsc_hz > 0.0 => (value as f64 * 1e9 / tsc_hz).round() as u64,
            _ => value,
        };
        let raw = |worker: &api::WorkerHistograms| {
            let histogram = match of {
                Spread::Cycles => &worker.cycles,
                Spread::Vector => &worker.vector,
                Spread::Latency => &worker.latency,
            };
            histogram.clone().unwrap_or_default()
        };
        let one = |worker: &api::WorkerHistograms| Worker {
            worker: worker.worker,
            histogram: Histogram::new(raw(worker), scale),
        };
        Self {
            of: name,
            unit,
            counted,
            what,
            tsc_hz,
            total: Histogram::new(sum(workers.iter().map(raw)), scale),
            workers: workers.iter().map(one).collect(),
        }
    }
}

fn sum(histograms: impl Iterator<Item = api::Histogram>) -> api::Histogram {
    let (mut all, mut max) = (BTreeMap::new(), 0);
    for histogram in histograms {
        max = max.max(histogram.max);
        for bucket in histogram.buckets {
            all.entry(bucket.lowest).or_insert(api::HistogramBucket { count: 0, ..bucket }).count +=
                bucket.count;
        }
    }
    api::Histogram { buckets: all.into_values().collect(), max }
}

impl Histogram {
    fn new(raw: api::Histogram, scale: impl Fn(u64) -> u64) -> Self {
        let count = raw.buckets.iter().map(|bucket| bucket.count).fold(0, u64::saturating_add);
        // The value that so many of a thousand are not above, rounded up to its bucket's end.
        let at = |thousandths: u64| {
            let wanted = (u128::from(count) * u128::from(thousandths)).div_ceil(1000);
            let mut so_far = 0;
            let of = raw.buckets.iter().find(|bucket| {
                so_far += u128::from(bucket.count);
                so_far >= wanted
            });
            scale(of.map_or(0, |bucket| bucket.highest.min(raw.max)))
        };
        let bucket = |bucket: &api::HistogramBucket| Bucket {
            lowest: scale(bucket.lowest),
            highest: scale(bucket.highest),
            count: bucket.count,
        };
        Self {
            count,
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: scale(raw.max),
            buckets: raw.buckets.iter().map(bucket).collect(),
        }
    }

    /// Buckets that share a power of two, together.
    fn coarse(&self) -> Vec<Bucket> {
        let mut coarse: Vec<Bucket> = vec![];
        for bucket in &self.buckets {
            match coarse.last_mut() {
                Some(last) if last.lowest.checked_ilog2() == bucket.lowest.checked_ilog2() => {
                    last.count += bucket.count;
                    last.highest = bucket.highest;
                }
                _ => coarse.push(*bucket),
            }
        }
        coarse
    }
}

impl View for Histograms {
    const RECORDS: Option<&'static str> = Some("workers");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let shown = Shown::from(self.clone());
        let total = (shown.workers.len() != 1).then(|| ("All workers".to_owned(), &shown.total));
        let each =
            shown.workers.iter().map(|worker| (format!("Worker {}", worker.worker), &worker.histogram));
        for (index, (whose, histogram)) in each.chain(total).enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            shown.draw(&whose, histogram, wide, out)?;
        }
        Ok(())
    }
}

impl Shown {
    fn draw(&self, whose: &str, histogram: &Histogram, wide: bool, out: &mut Output) -> io::Result<()> {
        let Histogram { count, p50, p90, p99, p999, max, buckets } = histogram;
        let Self { what, counted, .. } = self;
        if *count == 0 {
            return writeln!(out, "{whose}: no {counted} yet");
        }
        writeln!(out, "{whose}: {what}, of {count} {counted}")?;
        writeln!(out, "p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}")?;
        let rows = if wide { buckets.clone() } else { histogram.coarse() };
        let most = rows.iter().map(|row| row.count).max().unwrap_or_default();
        let counted = format!(">{}", counted.to_uppercase());
        let mut table = Table::new([">FROM", ">TO", counted.as_str(), ">SHARE", "SPREAD"]);
        for row in rows {
            let length = (ratio(row.count, most) * BAR).ceil() as usize;
            table.row(vec![
                row.lowest.into(),
                row.highest.into(),
                row.count.into(),
                percent(ratio(row.count, *count)).into(),
                iter::repeat_n('#', length).collect::<String>().into(),
            ]);
        }
        table.print(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(buckets: &[(u64, u64, u64)], max: u64) -> api::Histogram {
        let bucket = |&(lowest, highest, count): &_| api::HistogramBucket { lowest, highest, count };
        api::Histogram { buckets: buckets.iter().map(bucket).collect(), max }
    }

    #[test]
    fn parts_of_a_thousand_are_never_above_the_largest() {
        let histogram = Histogram::new(raw(&[(1, 1, 899), (32, 33, 91), (64, 67, 10)], 65), |value| value);
        let Histogram { count, p50, p90, p99, p999, max, .. } = histogram;
        assert_eq!((count, p50, p90, p99, p999, max), (1000, 1, 33, 33, 65, 65));
        assert_eq!(Histogram::new(raw(&[], 0), |value| value), Histogram::default());
    }

    #[test]
    fn an_interval_has_its_own_counts() {
        let (earlier, now) =
            (raw(&[(1, 1, 5), (64, 67, 1)], 66), raw(&[(1, 1, 8), (32, 33, 1), (64, 67, 1)], 66));
        assert_eq!(since(&now, &earlier), raw(&[(1, 1, 3), (32, 33, 1)], 33));
        let larger = raw(&[(1, 1, 8), (64, 67, 2)], 67);
        assert_eq!(since(&larger, &earlier), raw(&[(1, 1, 3), (64, 67, 1)], 67));
        assert_eq!(since(&now, &raw(&[], 0)), now);
    }

    #[test]
    fn workers_are_summed_by_bucket() {
        let both = [raw(&[(1, 1, 2), (4, 4, 1)], 4), raw(&[(2, 2, 1), (4, 4, 3)], 4)];
        assert_eq!(sum(both.into_iter()), raw(&[(1, 1, 2), (2, 2, 1), (4, 4, 4)], 4));
    }

    #[test]
    fn a_drawing_has_a_line_for_each_power_of_two() {
        let histogram = Histogram::new(raw(&[(32, 33, 2), (62, 63, 1), (64, 67, 5)], 66), |value| value);
        let bucket = |lowest, highest, count| Bucket { lowest, highest, count };
        assert_eq!(histogram.coarse(), [bucket(32, 63, 3), bucket(64, 67, 5)]);
    }
}
