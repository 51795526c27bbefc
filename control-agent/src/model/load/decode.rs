//! A tree into a typed object, with every error and not just the first.
//!
//! Serde stops at the first thing it does not like. We note it, take it out of the tree and try
//! again, so that one run names them all.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::strict::Strict;
use crate::model::kind::shorten;

/// Per object.
const MAX_PROBLEMS: usize = 20;

/// Field and message of each thing that is wrong.
#[derive(Debug)]
pub(in crate::model) struct Decoding(pub(in crate::model) Vec<(String, String)>);

/// Reads `body` strictly.
pub(in crate::model) fn decode<T: DeserializeOwned>(mut body: Value) -> Result<T, Decoding> {
    let mut problems = Vec::new();
    let mut removed = Removed::default();
    while problems.len() < MAX_PROBLEMS {
        let error = match serde_path_to_error::deserialize::<_, T>(Strict(&body)) {
            Ok(object) if problems.is_empty() => return Ok(object),
            Ok(_) => break,
            Err(error) => error,
        };
        let mut path = steps(error.path());
        let message = error.inner().to_string();
        let field = removed.original(&path);
        if let Some(missing) = quoted(&message, "missing field ") {
            // Missing because it was wrong, and was reported as such.
            if !removed.contains(&join(&field, missing)) {
                problems.push((join(&field, missing), "missing; add it".to_owned()));
            }
        } else {
            if let Some(unknown) = quoted(&message, "unknown field ")
                && !matches!(path.last(), Some(Step::Field(last)) if last == unknown)
            {
                path.push(Step::Field(unknown.to_owned()));
            }
            problems.push((removed.original(&path), explain(&message)));
        }
        if !removed.take(&mut body, &path) {
            break;
        }
    }
    Err(Decoding(problems))
}

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item(usize),
}

fn steps(path: &Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Field(key.clone())),
            Segment::Seq { index } => Some(Step::Item(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// What was taken out of the tree, by its place in the original.
#[derive(Default)]
struct Removed {
    fields: Vec<String>,
    /// For each list the original indices that are gone, ascending.
    items: BTreeMap<String, Vec<usize>>,
}

impl Removed {
    /// The path of the original tree that leads to where `path` leads now.
    fn original(&self, path: &[Step]) -> String {
        path.iter().fold(String::new(), |at, step| match step {
            Step::Field(name) => join(&at, name),
            Step::Item(index) => {
                let gone = self.items.get(&at).map_or(&[][..], Vec::as_slice);
                let index = gone.iter().fold(*index, |i, gone| if *gone <= i { i + 1 } else { i });
                format!("{at}[{index}]")
            }
        })
    }

    fn contains(&self, field: &str) -> bool {
        self.fields.iter().any(|f| f == field)
    }

    /// Takes out what `path` leads to; false where that is nothing, or everything.
    fn take(&mut self, body: &mut Value, path: &[Step]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let original = self.original(path);
        let list = self.original(parents);
        let parent = parents.iter().try_fold(body, |value, step| match step {
            Step::Field(name) => value.get_mut(name),
            Step::Item(index) => value.get_mut(index),
        });
        match (parent, last) {
            (Some(Value::Object(fields)), Step::Field(name)) => {
                self.fields.push(original);
                fields.remove(name).is_some()
            }
            (Some(Value::Array(items)), Step::Item(index)) if *index < items.len() => {
                let gone = self.items.entry(list).or_default();
                let index_then = gone.iter().fold(*index, |i, gone| if *gone <= i { i + 1 } else { i });
                gone.insert(gone.partition_point(|g| *g < index_then), index_then);
                items.remove(*index);
                true
            }
            _ => false,
        }
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// `name` of serde's "prefix `name`, ...".
fn quoted<'m>(message: &'m str, prefix: &str) -> Option<&'m str> {
    message.strip_prefix(prefix)?.strip_prefix('`')?.split('`').next()
}

/// Serde's message in our words, with the nearest valid name.
fn explain(message: &str) -> String {
    for (prefix, what) in [("unknown field ", "unknown field"), ("unknown variant ", "not a valid value")] {
        let Some(given) = quoted(message, prefix) else { continue };
        let valid: Vec<&str> =
            message[prefix.len() + given.len() + 2..].split('`').skip(1).step_by(2).collect();
        let shown = shorten(given);
        let what = if prefix == "unknown field " { what.to_owned() } else { format!("{shown:?} is {what}") };
        return match nearest(given, &valid) {
            Some(name) => format!("{what}; did you mean {name}?"),
            None if valid.is_empty() => format!("{what}; nothing is allowed here"),
            None => format!("{what}; the valid ones are {}", valid.join(", ")),
        };
    }
    let mismatch = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match mismatch.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((given, wanted)) => format!("{}, expected {}", shorten(plain(given)), plain(wanted)),
        None => message.to_owned(),
    }
}

/// What serde calls a type, as a user of YAML would.
fn plain(type_name: &str) -> &str {
    match type_name {
        "unit value" => "null",
        "sequence" => "a list",
        "map" => "an object",
        "a string" => "a string; put it in quotes",
        "a sequence" => "a list",
        "a map" => "an object",
        "u8" => "a whole number, 0 to 255",
        "u16" => "a whole number, 0 to 65535",
        "u32" | "u64" | "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        other => other,
    }
}

/// The valid name that a typing error would turn into `given`.
fn nearest<'v>(given: &str, valid: &[&'v str]) -> Option<&'v str> {
    let lower = shorten(given).to_ascii_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase());
    let (best, name) = valid.iter().map(|name| (distance(name), *name)).min()?;
    (best <= 1 + given.len() / 4).then_some(name)
}
