//! What a process was started with, and where each setting is from: its flags, else its environment, else a file, else
//! what is built in.

use crate::dataplane::v1::{Setting, setting::Origin};
use clap::{Arg, ArgAction, ArgMatches, Command, Parser, error::ErrorKind, parser::ValueSource};
use std::{collections::BTreeMap, env, ffi::OsString, fs};

/// The flag that names the file.
const FILE: &str = "config";

/// A name of the file is taken for a misspelt one of a setting's from this likeness on.
const LIKE: f64 = 0.7;

/// The arguments of this process, and all its settings. `variable` may name the file, as may `--config`.
///
/// The file has a setting a line, called as its flag is: `listen = /run/margay/agent.sock`. A flag without a value is
/// `on` or `off`; one that may be repeated has a line for each value. What follows `#` at a line's begin is for people.
///
/// Ends the process with a message where something cannot be understood, as clap does.
pub fn parse<T: Parser>(variable: &'static str) -> (T, Vec<Setting>) {
    parse_from(env::args_os().collect(), variable)
}

/// The same of what was typed, the program's name first.
pub fn parse_from<T: Parser>(typed: Vec<OsString>, variable: &'static str) -> (T, Vec<Setting>) {
    read(typed, variable).unwrap_or_else(|error| error.exit())
}

fn read<T: Parser>(typed: Vec<OsString>, variable: &'static str) -> Result<(T, Vec<Setting>), clap::Error> {
    let file = Arg::new(FILE).long(FILE).env(variable).value_name("FILE");
    let file = file.help(
        "Settings, one a line as in `log = debug`; flags and variables of the environment go before them",
    );
    let command = T::command().arg(file);
    // What is wrong is said below, when the file's settings are there, too.
    let alone = command.clone().ignore_errors(true).try_get_matches_from(typed.clone())?;
    let lines = match alone.get_one::<String>(FILE) {
        Some(path) => Lines::of(path, &command).map_err(|why| wrong(&command, &why))?,
        None => Lines::default(),
    };
    let mut arguments = typed;
    let begin = arguments.len().min(1);
    let given = lines.arguments.into_iter().filter(|(id, _)| !is_given(&alone, id));
    let given: Vec<OsString> = given.map(|(_, argument)| argument.into()).collect();
    arguments.splice(begin..begin, given);
    let mut matches = command.clone().try_get_matches_from(arguments)?;
    let settings = settings(&command, &alone, &matches, &lines.places);
    Ok((T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command.clone()))?, settings))
}

/// What a file says.
#[derive(Default)]
struct Lines {
    /// As they would be typed, each behind its setting's id.
    arguments: Vec<(String, String)>,
    /// File and line, by setting.
    places: BTreeMap<String, String>,
}

impl Lines {
    fn of(path: &str, command: &Command) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("--{FILE} {path}: {error}"))?;
        let mut lines = Self::default();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{path}:{number}");
            let (name, value) =
                line.split_once('=').ok_or_else(|| format!("{place}: write it as in `log = debug`"))?;
            let (name, value) = (name.trim(), value.trim());
            let known = arguments(command).find(|known| known.get_long() == Some(name));
            let known =
                known.ok_or_else(|| format!("{place}: {name:?} is no setting{}", nearest(name, command)))?;
            let argument = match (known.get_action().takes_values(), value) {
                (true, "") => {
                    return Err(format!("{place}: {name} has no value: give one, or remove the line"));
                }
                (true, value) => Some(format!("--{name}={value}")),
                (false, "on") => Some(format!("--{name}")),
                (false, "off") => None,
                (false, _) => return Err(format!("{place}: {name} is on or off, not {value:?}")),
            };
            if lines.places.insert(name.to_owned(), place.clone()).is_some()
                && !matches!(known.get_action(), ArgAction::Append)
            {
                return Err(format!("{place}: {name} is there twice: remove one of the lines"));
            }
            lines.arguments.extend(argument.map(|argument| (known.get_id().to_string(), argument)));
        }
        Ok(lines)
    }
}

/// Those that are settings.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|argument| !matches!(argument.get_id().as_str(), FILE | "help" | "version"))
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn nearest(name: &str, command: &Command) -> String {
    let known = arguments(command).filter_map(Arg::get_long);
    let likeness = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = likeness.filter(|(likeness, _)| *likeness >= LIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or_else(|| "; --help names all".to_owned(), |(_, known)| format!("; did you mean {known}?"))
}

fn wrong(command: &Command, why: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("{why}\n")).with_cmd(command)
}

fn settings(
    command: &Command,
    alone: &ArgMatches,
    matches: &ArgMatches,
    places: &BTreeMap<String, String>,
) -> Vec<Setting> {
    let setting = |argument: &Arg| {
        let (id, name) = (argument.get_id().as_str(), argument.get_long()?);
        let (origin, source) = match (alone.value_source(id), places.get(name)) {
            (Some(ValueSource::CommandLine), _) => (Origin::Flag, format!("--{name}")),
            (Some(ValueSource::EnvVariable), _) => {
                (Origin::Environment, argument.get_env().unwrap_or_default().to_string_lossy().into_owned())
            }
            (_, Some(place)) => (Origin::File, place.clone()),
            _ => (Origin::Default, String::new()),
        };
        let values = matches.get_raw(id).into_iter().flatten();
        let values: Vec<String> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        let value = match (argument.get_action().takes_values(), values.join(",")) {
            (true, value) => value,
            (false, value) => if value == "true" { "on" } else { "off" }.to_owned(),
        };
        Some(Setting { name: name.to_owned(), value, origin: origin.into(), source, needs_restart: true })
    };
    arguments(command).filter_map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[arg(long, default_value = "info")]
        log: String,
        #[arg(long)]
        uplink: Vec<String>,
        #[arg(long, default_value_t = 4, allow_negative_numbers = true)]
        nice: i32,
        #[arg(long)]
        share_cores: bool,
        /// A variable that is there wherever tests run.
        #[arg(long, env = "PATH")]
        path: Option<String>,
    }

    fn with(file: &str, typed: &[&str]) -> Result<(Arguments, Vec<Setting>), String> {
        let mut config = tempfile::NamedTempFile::new().unwrap();
        config.write_all(file.as_bytes()).unwrap();
        let file = format!("--config={}", config.path().display());
        let typed = ["program", &file].iter().chain(typed).map(OsString::from).collect();
        read(typed, "MARGAY_TEST_CONFIG").map_err(|error| error.to_string())
    }

    fn origin(settings: &[Setting], name: &str) -> (Origin, String) {
        let setting = settings.iter().find(|setting| setting.name == name).unwrap();
        (setting.origin(), setting.value.clone())
    }

    #[test]
    fn flags_go_before_the_environment_that_before_the_file_and_that_before_defaults() {
        let file = "# of this node\nlog = debug\nuplink = eth0\nuplink = eth1\nnice = -5\nshare-cores = on\npath = /nowhere\n";
        let (arguments, settings) = with(file, &["--log", "warn"]).unwrap();
        assert_eq!((arguments.log.as_str(), arguments.nice, arguments.share_cores), ("warn", -5, true));
        assert_eq!(arguments.uplink, ["eth0", "eth1"]);
        assert_ne!(arguments.path.as_deref(), Some("/nowhere"));
        assert_eq!(origin(&settings, "log"), (Origin::Flag, "warn".into()));
        assert_eq!(origin(&settings, "uplink"), (Origin::File, "eth0,eth1".into()));
        assert_eq!(origin(&settings, "share-cores"), (Origin::File, "on".into()));
        assert_eq!(origin(&settings, "path").0, Origin::Environment);
        assert!(settings.iter().find(|setting| setting.name == "nice").unwrap().source.ends_with(":5"));

        let (arguments, settings) = with("", &[]).unwrap();
        assert_eq!((arguments.nice, origin(&settings, "nice")), (4, (Origin::Default, "4".into())));
        assert_eq!(origin(&settings, "share-cores"), (Origin::Default, "off".into()));
        assert_eq!(origin(&settings, "uplink"), (Origin::Default, String::new()));
        assert!(settings.iter().all(|setting| setting.name != "config" && setting.name != "help"));
    }

    #[test]
    fn what_a_file_may_not_say_is_named_with_its_line_and_a_remedy() {
        for (file, said) in [
            ("log = info\nuplnk = eth0", ":2: \"uplnk\" is no setting; did you mean uplink?"),
            ("zzz = 1", "\"zzz\" is no setting; --help names all"),
            ("config = other", "\"config\" is no setting"),
            ("log debug", ":1: write it as in `log = debug`"),
            ("log =", "log has no value"),
            ("share-cores = maybe", "is on or off, not \"maybe\""),
            ("log = info\nlog = debug", ":2: log is there twice"),
            ("nice = much", "invalid value 'much' for '--nice"),
        ] {
            let error = with(file, &[]).unwrap_err();
            assert!(error.contains(said), "{file:?}: {error}");
        }
        let missing = read::<Arguments>(
            ["p", "--config=/nowhere/at/all"].map(OsString::from).into(),
            "MARGAY_TEST_CONFIG",
        );
        assert!(missing.unwrap_err().to_string().contains("/nowhere/at/all: No such file"));
    }
}
