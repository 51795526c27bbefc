//! Pictures of recorded figures: each of the newest record in `bench/results` that has what it shows.

mod chart;

use anyhow::{Context, Result, ensure};
use chart::{Chart, Line, Point, number};
use clap::Args;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Where the pictures go
    #[arg(long, value_name = "DIR", default_value = "docs/plots")]
    to: PathBuf,
}

/// What is drawn, and of what.
struct Plot {
    /// Of the file, and in `docs/performance.md`.
    name: &'static str,
    /// How names of records end that may have it.
    kind: &'static str,
    /// Draws a record, if it has what is shown.
    draw: fn(&Record) -> Option<Chart>,
}

const PLOTS: [Plot; 6] = [
    Plot { name: "rules", kind: "pipeline", draw: rules },
    Plot { name: "classbench", kind: "classbench", draw: classbench },
    Plot { name: "flows", kind: "conntrack", draw: flows },
    Plot { name: "routes", kind: "lpm", draw: routes_ipv4 },
    Plot { name: "routes-ipv6", kind: "lpm", draw: routes_ipv6 },
    Plot { name: "latency", kind: "wire", draw: latency },
];

/// Draws all.
pub fn run(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.to).with_context(|| format!("cannot make {}", options.to.display()))?;
    let records = records()?;
    for plot in &PLOTS {
        let newest = records.iter().rev().filter(|record| record.is(plot.kind)).find_map(plot.draw);
        let chart = newest.with_context(|| {
            format!("no record of `margay-bench {}` has what {} shows", plot.kind, plot.name)
        })?;
        let path = options.to.join(plot.name).with_extension("svg");
        fs::write(&path, chart.svg()).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}: {}", path.display(), chart.source);
    }
    Ok(())
}

/// A file of `bench/results`.
struct Record {
    name: String,
    content: Value,
}

/// All there are, the oldest first.
fn records() -> Result<Vec<Record>> {
    let folder = Path::new(ROOT).join("bench/results");
    let mut records = vec![];
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let content =
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        records.push(Record { name, content });
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!records.is_empty(), "{} is empty", folder.display());
    Ok(records)
}

impl Record {
    /// It was recorded by that command.
    fn is(&self, kind: &str) -> bool {
        self.name.ends_with(&format!("-{kind}.json"))
    }

    fn results(&self) -> &[Value] {
        self.content["results"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Where the figures come from, in a line.
    fn source(&self) -> String {
        let of = |field: &str| self.content[field].as_str().unwrap_or("unknown").to_owned();
        let cpu = self.content["machine"]["cpu"].as_str().unwrap_or("unknown machine");
        format!("bench/results/{}, commit {}, {cpu}, virtual", self.name, of("commit"))
    }

    /// The figures of results whose case is `before` and a number with its unit, as in `new, 1k rules`.
    fn line(&self, name: &str, before: &str, unit: &str, field: &str) -> Line {
        let points = self.results().iter().filter_map(|result| {
            let counted = result["case"].as_str()?.strip_prefix(before)?.strip_suffix(unit)?.trim();
            let (y, range) = spread(&result[field])?;
            Some(Point { x: amount(counted)?.log10(), y, range: Some(range) })
        });
        Line { name: name.into(), ours: true, points: points.collect() }
    }

    fn chart(&self, title: &str, across: &str, up: &str, lines: Vec<Line>) -> Option<Chart> {
        let mut ticks: Vec<f64> =
            lines.iter().flat_map(|line| line.points.iter().map(|point| point.x)).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let complete = ticks.len() > 1 && lines.iter().all(|line| line.points.len() == ticks.len());
        complete.then(|| Chart {
            title: title.into(),
            source: self.source(),
            across: across.into(),
            ticks: ticks.into_iter().map(|x| (x, number(10f64.powf(x).round()))).collect(),
            up: up.into(),
            logarithmic: false,
            lines,
        })
    }
}

/// Median, lowest and highest round.
fn spread(value: &Value) -> Option<(f64, (f64, f64))> {
    let of = |field: &str| value[field].as_f64();
    Some((of("median")?, (of("min")?, of("max")?)))
}

/// `10k` is 10,000.
fn amount(text: &str) -> Option<f64> {
    let (digits, times) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    digits.parse().ok().map(|number: f64| number * times)
}

fn rules(record: &Record) -> Option<Chart> {
    let lines = vec![
        record.line("new flow, allowed", "new, ", "rules", "worker_nanos"),
        record.line("denied packet", "denied, ", "rules", "worker_nanos"),
    ];
    record.chart("The whole worker, by rules of the policy", "rules", "ns a packet, one core", lines)
}

fn flows(record: &Record) -> Option<Chart> {
    let line = |name: &str, kind: &str, field: &str| Line {
        ours: field == "nanos",
        ..record.line(name, "", &format!("flows, {kind}"), field)
    };
    let lines = vec![
        line("Margay, uniform", "uniform", "nanos"),
        line("rte_hash, uniform", "uniform", "peer_nanos"),
        line("Margay, Zipf", "Zipf", "nanos"),
        line("rte_hash, Zipf", "Zipf", "peer_nanos"),
    ];
    record.chart("A flow found in the table, by flows", "flows", "ns a lookup, one core", lines)
}

/// The geometric mean over the sets of a size: best batch of each.
fn classbench(record: &Record) -> Option<Chart> {
    const SIZES: [(&str, f64); 3] = [("1k", 1e3), ("10k", 1e4), ("100k", 1e5)];
    let best = |set: &Value, before: &str| {
        let turns = set["turns"].as_array()?;
        let batches = turns.iter().filter(|turn| {
            let case = turn["case"].as_str().and_then(|case| case.strip_prefix(before));
            case.is_some_and(|batch| batch.parse::<u32>().is_ok())
        });
        batches.filter_map(|turn| turn["nanos"]["median"].as_f64()).min_by(f64::total_cmp)
    };
    let line = |name: &str, ours: bool, before: &str| {
        let points = SIZES.iter().filter_map(|(size, rules)| {
            let of_size =
                |set: &&Value| set["set"].as_str().is_some_and(|name| name.ends_with(&format!("_{size}")));
            let logs: Option<Vec<f64>> =
                record.results().iter().filter(of_size).map(|set| Some(best(set, before)?.ln())).collect();
            let logs = logs.filter(|logs| !logs.is_empty())?;
            let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
            Some(Point { x: rules.log10(), y: mean, range: None })
        });
        Line { name: name.into(), ours, points: points.collect() }
    };
    let lines = vec![line("Margay", true, "random, "), line("rte_acl, AVX-512", false, "rte_acl, ")];
    record.chart("ClassBench, geometric mean of acl1, fw1, ipc1", "rules", "ns a packet, best batch", lines)
}

fn routes_ipv4(record: &Record) -> Option<Chart> {
    routes(record, "IPv4", "bgp4")
}

fn routes_ipv6(record: &Record) -> Option<Chart> {
    routes(record, "IPv6", "bgp6")
}

/// Lookups in the Internet's table, beside rte_fib's.
fn routes(record: &Record, version: &str, table: &str) -> Option<Chart> {
    if !record.content["command"].as_str()?.contains(table) {
        return None;
    }
    const ORDERS: [&str; 3] = ["random", "prefix", "zipf"];
    let result = record.results().first()?;
    let line = |name: &str, ours: bool, before: &str| {
        let points = ORDERS.iter().enumerate().filter_map(|(at, order)| {
            let case = format!("{before}{order}, 64");
            let lookups = result["lookups"].as_array()?;
            let (y, range) = spread(&lookups.iter().find(|lookup| lookup["case"] == *case)?["nanos"])?;
            Some(Point { x: at as f64, y, range: Some(range) })
        });
        Line { name: name.into(), ours, points: points.collect() }
    };
    let routes = result["routes"].as_f64()?;
    let lines = vec![line("Margay", true, ""), line("rte_fib, AVX-512", false, "rte_fib ")];
    let chart = record.chart("", "order of addresses", "ns a lookup, batches of 64", lines)?;
    Some(Chart {
        title: format!("A route found among {routes} of the Internet, {version}"),
        ticks: ORDERS.iter().enumerate().map(|(at, order)| (at as f64, (*order).to_owned())).collect(),
        ..chart
    })
}

/// Delays at shares of what passes with half a percent of loss.
fn latency(record: &Record) -> Option<Chart> {
    const WAYS: [(&str, &str, bool); 3] = [
        ("margay-1000", "Margay, 1,000 rules", true),
        ("l2fwd", "bare AF_XDP forwarder", false),
        ("kernel", "kernel, no rules", false),
    ];
    let lines = WAYS.iter().flat_map(|(way, name, ours)| {
        [("p50", "p50_us"), ("p99", "p99_us")].map(|(part, field)| {
            let points = [10u8, 50, 90].into_iter().filter_map(|share| {
                let y = record.content["results"][*way][format!("delay-{share}")][field].as_f64()?;
                Some(Point { x: f64::from(share), y, range: None })
            });
            Line { name: format!("{name}, {part}"), ours: *ours, points: points.collect() }
        })
    });
    let chart = record.chart(
        "Delay on veth, by load",
        "load, % of the highest rate (PDR) of each",
        "µs",
        lines.collect(),
    )?;
    Some(Chart {
        ticks: [10u8, 50, 90].map(|share| (f64::from(share), share.to_string())).into(),
        logarithmic: true,
        ..chart
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever records newer figures draws anew when they like; but no picture shows what no record says.
    #[test]
    fn the_pictures_of_the_documentation_are_of_the_records_that_they_name() {
        let records = records().unwrap();
        let page = fs::read_to_string(Path::new(ROOT).join("docs/performance.md")).unwrap();
        for plot in &PLOTS {
            let path = Path::new(ROOT).join("docs/plots").join(plot.name).with_extension("svg");
            let picture = fs::read_to_string(&path).unwrap();
            let record = records.iter().find(|record| picture.contains(&record.name));
            let record = record.unwrap_or_else(|| panic!("{} names no record there is", path.display()));
            assert!((plot.draw)(record).is_some_and(|chart| chart.svg() == picture), "margay-bench plots");
            assert!(page.contains(&format!("(plots/{}.svg)", plot.name)), "{} is not shown", plot.name);
        }
    }

    #[test]
    fn amounts_are_read_as_they_are_written() {
        let amounts = ["1", "100", "1k", "10k", "10M"].map(amount);
        assert_eq!(amounts, [1.0, 100.0, 1e3, 1e4, 1e7].map(Some));
        assert_eq!(["", "many", "k"].map(amount), [None; 3]);
    }
}
