//! Metrics for Prometheus: families of samples, and how they are written and served.
//!
//! Nothing is registered and kept. Both processes count for themselves, on their own threads and in their own way; at a
//! scrape they put together [`Families`] from what they have, which are written and gone. They are written as
//! [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/) to whoever asks for it, else in
//! [Prometheus' text format](https://prometheus.io/docs/instrumenting/exposition_formats/), which is what `promtool check
//! metrics` reads. No crate writes both: the official one (`prometheus-client`) knows only the former.

mod histogram;
mod server;
mod text;

pub use histogram::{Histogram, LATENCY};
pub use server::{Metrics, serve};

use histogram::Buckets;

/// How the families are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Prometheus,
}

impl Format {
    /// The one that an `Accept` header asks for.
    pub fn accepted(header: &str) -> Self {
        let types = header.split(',').map(|each| each.split(';').next().unwrap_or_default().trim());
        let wants = |wanted: &str| types.clone().any(|each| each.eq_ignore_ascii_case(wanted));
        if wants("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// For the header of the answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A name with its samples.
#[derive(Clone, Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Integer(u64),
    Real(f64),
    Buckets(Buckets),
}

impl Family {
    /// One more sample. Labels that are empty are the same as none.
    pub fn sample<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: u64) -> &mut Self {
        self.push(&labels, Value::Integer(value))
    }

    /// One more sample, of what is no whole number.
    pub fn real<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: f64) -> &mut Self {
        self.push(&labels, Value::Real(value))
    }

    fn push(&mut self, labels: &[(&'static str, &str)], value: Value) -> &mut Self {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { labels, value });
        self
    }
}

/// What one scrape shows.
#[derive(Clone, Debug, Default)]
pub struct Families(Vec<Family>);

impl Families {
    /// Something that only grows. `name` is without `_total`, which is written behind it.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, Kind::Counter)
    }

    /// Something that rises and falls.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, Kind::Gauge)
    }

    /// How often something took how long.
    pub fn histogram(&mut self, name: &'static str, help: &'static str, histogram: &Histogram) {
        let family = self.family(name, help, Kind::Histogram);
        family.push(&[], Value::Buckets(histogram.read()));
    }

    /// A counter of one sample.
    pub fn count(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counter(name, help).sample([], value);
    }

    /// A gauge of one sample.
    pub fn level(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.gauge(name, help).sample([], value);
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) -> &mut Family {
        self.0.push(Family { name, help, kind, samples: vec![] });
        self.0.last_mut().expect("it was just pushed")
    }
}
