//! What a process logs, and how that is changed while it runs.

use crate::dataplane::v1::{Setting, setting::Origin};
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, IsTerminal as _},
    str::FromStr,
    sync::{Mutex, PoisonError},
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, Registry, filter::Targets, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

/// The setting's name.
const NAME: &str = "log";

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// Which lines are written: `LEVEL` of all targets, and `TARGET=LEVEL` of a module and those in it; several with commas
/// between. Of two targets the longer counts. What neither a target nor a level alone is said of is not logged.
#[derive(Clone, Debug)]
pub struct Filter {
    text: String,
    targets: Targets,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut targets, mut seen) = (Targets::new(), BTreeSet::new());
        for directive in text.split(',').map(str::trim) {
            let (target, level) = match directive.split_once('=') {
                Some((target, level)) => (Some(target), level),
                None => (None, directive),
            };
            if let Some(target) = target.filter(|target| !is_path(target)) {
                return Err(format!(
                    "{target:?} is no target: write a module's path, as in margay_agent::sync=debug"
                ));
            }
            let level =
                LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(level)).ok_or_else(|| {
                    format!(
                        "{level:?} is no level: write off, error, warn, info, debug or trace, or TARGET=LEVEL"
                    )
                })?;
            if !seen.insert(target) {
                let of = target.map_or_else(|| "all targets".to_owned(), |target| format!("{target:?}"));
                return Err(format!("there are two levels of {of}: leave out one"));
            }
            targets = match target {
                Some(target) => targets.with_target(target, level.1),
                None => targets.with_default(level.1),
            };
        }
        Ok(Self { text: text.to_owned(), targets })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_path(target: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    target.split("::").all(is_name)
}

/// What obeys a [`Log`]: the first layer of a subscriber.
pub type Obeying = reload::Layer<Targets, Registry>;

/// What this process logs.
#[derive(Debug)]
pub struct Log {
    /// As the process was started.
    first: Filter,
    /// What was said since.
    since: Mutex<Option<Filter>>,
    layer: reload::Handle<Targets, Registry>,
}

impl Log {
    /// A log, and what obeys it.
    pub fn new(filter: Filter) -> (Self, Obeying) {
        let (obeying, layer) = reload::Layer::new(filter.targets.clone());
        (Self { first: filter, since: Mutex::default(), layer }, obeying)
    }

    /// That of this process, on standard error: for people on a terminal, JSON elsewhere.
    pub fn start(filter: Filter) -> Self {
        let (log, obeying) = Self::new(filter);
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        let lines = if io::stderr().is_terminal() { lines.boxed() } else { lines.json().boxed() };
        tracing_subscriber::registry().with(obeying).with(lines).init();
        log
    }

    /// Logs by another filter from now on, until the process ends; by the one that it was started with if `text` is empty.
    /// Returns what is in force.
    ///
    /// # Errors
    /// That is no filter, with what is wrong with it; or there is no log any more.
    pub fn set(&self, text: &str) -> Result<String, String> {
        let said = if text.is_empty() { None } else { Some(text.parse::<Filter>()?) };
        let now = said.as_ref().unwrap_or(&self.first);
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        // Before: who reads a log that falls silent sees why.
        tracing::info!(filter = %now, "what is logged changes");
        self.layer.reload(now.targets.clone()).map_err(|error| error.to_string())?;
        let now = now.to_string();
        *since = said;
        Ok(now)
    }

    /// The process's settings as they are now.
    pub fn among(&self, settings: &[Setting]) -> Vec<Setting> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let now = |setting: &Setting| {
            let mut setting = setting.clone();
            if setting.name == NAME {
                setting.needs_restart = false;
                if let Some(since) = &*since {
                    setting.value = since.to_string();
                    setting.origin = Origin::RunTime.into();
                    setting.source = "until it ends".to_owned();
                }
            }
            setting
        };
        settings.iter().map(now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_no_filter_is_refused_with_a_remedy() {
        for (text, said) in [
            ("verbose", "\"verbose\" is no level: write off, error, warn, info, debug or trace"),
            ("", "\"\" is no level"),
            ("info,", "\"\" is no level"),
            ("3", "\"3\" is no level"),
            ("margay_agent", "is no level"),
            ("margay_agent=", "\"\" is no level"),
            ("margay_agent=loud", "\"loud\" is no level"),
            ("margay-agent=debug", "\"margay-agent\" is no target: write a module's path"),
            ("=debug", "\"\" is no target"),
            ("margay_agent::=debug", "is no target"),
            ("[span]=debug", "is no target"),
            ("info,debug", "there are two levels of all targets: leave out one"),
            ("h2=info,warn,h2=debug", "there are two levels of \"h2\""),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        for text in ["info", "OFF", "margay_agent::sync=debug", "warn, margay_dataplane=trace,h2=off"] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        }
    }

    /// Lines that were written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn taken(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn it_is_obeyed_at_once_and_taken_back_and_among_the_settings() {
        let (log, obeying) = Log::new("info".parse().unwrap());
        let lines = Lines::default();
        let written = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || written.clone());
        let _subscribed = tracing_subscriber::registry().with(obeying).with(layer).set_default();
        let speak = || {
            tracing::debug!(target: "margay_agent::sync", "one");
            tracing::debug!(target: "margay_agent::calc", "two");
            tracing::info!(target: "margay_agent::calc", "three");
            let text = lines.taken();
            ["one", "two", "three"].map(|word| text.contains(word))
        };
        let settings = [
            Setting { name: "log".into(), value: "info".into(), needs_restart: true, ..Setting::default() },
            Setting { name: "node".into(), needs_restart: true, ..Setting::default() },
        ];
        let shown = || {
            let [ours, other] = log.among(&settings).try_into().unwrap();
            assert!(other == settings[1] && !ours.needs_restart);
            (ours.value.clone(), ours.origin() == Origin::RunTime)
        };
        assert_eq!((speak(), shown()), ([false, false, true], ("info".into(), false)));
        assert_eq!(log.set("warn,margay_agent::sync=debug").as_deref(), Ok("warn,margay_agent::sync=debug"));
        assert_eq!(
            (speak(), shown()),
            ([true, false, false], ("warn,margay_agent::sync=debug".into(), true))
        );
        assert!(log.set("loud").is_err());
        assert_eq!(speak(), [true, false, false], "what is refused changes nothing");
        assert_eq!(log.set("").as_deref(), Ok("info"));
        assert_eq!((speak(), shown()), ([false, false, true], ("info".into(), false)));
    }
}
