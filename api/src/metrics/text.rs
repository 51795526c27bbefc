//! The two formats.

use super::{Families, Family, Format, Kind, Sample, Value};
use std::collections::HashSet;
use std::fmt::Write as _;

impl Families {
    /// As text. Families without a sample are left out.
    pub fn text(&self, format: Format) -> String {
        debug_assert_eq!(self.wrong(), None);
        let mut out = String::new();
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            header(&mut out, family, format);
            for sample in &family.samples {
                line(&mut out, family, sample);
            }
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    /// What no reader would take: a name that is none, a family or a sample that is there twice.
    fn wrong(&self) -> Option<String> {
        let mut names = HashSet::new();
        for family in &self.0 {
            if !is_name(family.name) || family.name.ends_with("_total") || !names.insert(family.name) {
                return Some(format!("the family's name {:?}", family.name));
            }
            if family.help.is_empty() {
                return Some(format!("{} says nothing", family.name));
            }
            let mut samples = HashSet::new();
            for Sample { labels, .. } in &family.samples {
                if !labels.iter().all(|(name, _)| is_name(name)) || !samples.insert(labels) {
                    return Some(format!("{}: the labels {labels:?}", family.name));
                }
            }
        }
        None
    }
}

fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    begins && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

// Writing to a string cannot fail.
macro_rules! put {
    ($out:expr, $($what:tt)*) => { let _ = write!($out, $($what)*); };
}

fn header(out: &mut String, family: &Family, format: Format) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // A counter's family has the name of its samples in one format, and in the other not.
    let suffix = if family.kind == Kind::Counter && format == Format::Prometheus { "_total" } else { "" };
    put!(out, "# HELP {}{suffix} {}\n", family.name, escaped(family.help, format == Format::OpenMetrics));
    put!(out, "# TYPE {}{suffix} {kind}\n", family.name);
}

fn line(out: &mut String, family: &Family, sample: &Sample) {
    let name = family.name;
    let labels = &sample.labels;
    match &sample.value {
        Value::Integer(value) => {
            let suffix = if family.kind == Kind::Counter { "_total" } else { "" };
            put!(out, "{name}{suffix}{} {value}\n", Labels(labels, None));
        }
        Value::Real(value) => {
            let suffix = if family.kind == Kind::Counter { "_total" } else { "" };
            put!(out, "{name}{suffix}{} {}\n", Labels(labels, None), number(*value));
        }
        Value::Buckets(buckets) => {
            let mut count = 0;
            let bounds = buckets.bounds.iter().map(|bound| number(*bound)).chain(["+Inf".to_owned()]);
            for (bound, more) in bounds.zip(&buckets.counts) {
                count += more;
                put!(out, "{name}_bucket{} {count}\n", Labels(labels, Some(&bound)));
            }
            put!(out, "{name}_sum{} {}\n", Labels(labels, None), number(buckets.sum));
            put!(out, "{name}_count{} {count}\n", Labels(labels, None));
        }
    }
}

/// Canonical where OpenMetrics asks for it: bounds are `1.0`, not `1`.
fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => format!("{value:?}"),
    }
}

/// A sample's labels, and the bucket's bound.
struct Labels<'l>(&'l [(&'static str, String)], Option<&'l str>);

impl std::fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.0.iter().map(|(name, value)| (*name, value.as_str()));
        let all = own.chain(self.1.map(|bound| ("le", bound))).filter(|(_, value)| !value.is_empty());
        let mut open = '{';
        for (name, value) in all {
            write!(f, "{open}{name}=\"{}\"", escaped(value, true))?;
            open = ',';
        }
        if open == ',' { f.write_str("}") } else { Ok(()) }
    }
}

fn escaped(text: &str, quotes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Histogram;
    use super::*;
    use std::time::Duration;

    fn families() -> Families {
        let mut families = Families::default();
        families
            .counter("margay_dp_drops", "Packets dropped.")
            .sample([("reason", "a\"b\\c\nd")], 3)
            .sample([("reason", "")], 1 << 60);
        families.gauge("margay_dp_up", "It says \"yes\".").real([("worker", "0"), ("x", "y")], 0.5);
        families.gauge("margay_dp_none", "Of nothing.");
        let histogram = Histogram::new(&[0.001, 1.0]);
        histogram.observe(Duration::from_millis(250));
        histogram.observe(Duration::from_secs(2));
        families.histogram("margay_dp_seconds", "How long.", &histogram);
        families
    }

    #[test]
    fn open_metrics_has_its_names_its_escapes_and_its_end() {
        let expected = r#"# HELP margay_dp_drops Packets dropped.
# TYPE margay_dp_drops counter
margay_dp_drops_total{reason="a\"b\\c\nd"} 3
margay_dp_drops_total 1152921504606846976
# HELP margay_dp_up It says \"yes\".
# TYPE margay_dp_up gauge
margay_dp_up{worker="0",x="y"} 0.5
# HELP margay_dp_seconds How long.
# TYPE margay_dp_seconds histogram
margay_dp_seconds_bucket{le="0.001"} 0
margay_dp_seconds_bucket{le="1.0"} 1
margay_dp_seconds_bucket{le="+Inf"} 2
margay_dp_seconds_sum 2.25
margay_dp_seconds_count 2
# EOF
"#;
        assert_eq!(families().text(Format::OpenMetrics), expected);
    }

    #[test]
    fn prometheus_names_a_counter_as_its_samples() {
        let text = families().text(Format::Prometheus);
        assert!(text.starts_with(
            "# HELP margay_dp_drops_total Packets dropped.\n# TYPE margay_dp_drops_total counter\n"
        ));
        assert!(text.contains("# HELP margay_dp_up It says \"yes\".\n") && !text.contains("EOF"), "{text}");
    }

    #[test]
    fn what_no_reader_would_take_is_found() {
        let wrong = |name: &'static str, twice: bool| {
            let mut families = Families::default();
            let family = families.counter(name, "Help.");
            family.sample([("a", "b")], 1);
            if twice {
                family.sample([("a", "b")], 1);
            }
            families.wrong()
        };
        assert_eq!(wrong("margay_fine", false), None);
        for (name, twice) in
            [("margay_fine", true), ("margay_total", false), ("9lives", false), ("a-b", false)]
        {
            assert!(wrong(name, twice).is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_no_ordinary_number_has_its_own_words() {
        let words: Vec<String> = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3.0].map(number).into();
        assert_eq!(words, ["NaN", "+Inf", "-Inf", "3.0"]);
    }
}
