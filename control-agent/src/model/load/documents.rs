//! Text into documents.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer};
use serde_json::Value;

use super::tree::{Budget, Tree};

/// Not YAML or JSON.
pub(super) struct Problem {
    /// Of the whole text, from 1.
    pub(super) line: usize,
    pub(super) message: String,
}

/// Calls `f` with the line on which each document starts and the document, until it says false or
/// a document cannot be read.
pub(super) fn each(text: &str, f: &mut dyn FnMut(usize, Result<Value, Problem>) -> bool) {
    if is_json(text) {
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Json>();
        for document in documents {
            let proceed = match document {
                Ok(Json(value)) => f(1, Ok(value)),
                Err(e) => {
                    f(1, Err(json_problem(&e)));
                    false
                }
            };
            if !proceed {
                return;
            }
        }
        return;
    }
    let budget = Budget::for_input(text.len());
    for (line, chunk) in chunks(text) {
        if nests_too_deep(chunk) {
            let message = format!("more than {MAX_NESTING} lists or objects within each other; flatten it");
            f(line, Err(Problem { line, message }));
            return;
        }
        let document = Tree(&budget).deserialize(serde_yaml_ng::Deserializer::from_str(chunk));
        let proceed = match document {
            // Only comments.
            Ok(Value::Null) => true,
            Ok(value) => f(first_line(line, chunk), Ok(value)),
            Err(e) => {
                f(line, Err(yaml_problem(line, &e)));
                false
            }
        };
        if !proceed {
            return;
        }
    }
}

/// One document of JSON and nothing else.
pub(super) fn json(text: &str) -> Result<Value, Problem> {
    serde_json::from_str::<Json>(text).map(|json| json.0).map_err(|e| json_problem(&e))
}

struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        // Without aliases a tree is never larger than its text allows.
        Tree(&Budget::for_input(super::MAX_INPUT)).deserialize(de).map(Self)
    }
}

/// YAML's flow style starts with a brace too, but nobody quotes its keys.
fn is_json(text: &str) -> bool {
    text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with(['"', '}']))
}

/// Far more than any object needs, and than the deserializers would follow.
const MAX_NESTING: usize = 512;

/// The YAML scanner takes time with the square of the depth, so the depth is bounded before it
/// runs. Brackets in strings are counted too: no honest text has hundreds left open.
fn nests_too_deep(chunk: &str) -> bool {
    let mut depth = 0_usize;
    chunk.bytes().any(|b| {
        match b {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_NESTING
    })
}

fn json_problem(e: &serde_json::Error) -> Problem {
    Problem { line: e.line().max(1), message: format!("cannot be read as JSON: {e}") }
}

fn yaml_problem(start: usize, e: &serde_yaml_ng::Error) -> Problem {
    let line = e.location().map_or(start, |at| start + at.line().saturating_sub(1));
    // The parser counts lines from the start of the chunk; ours is counted from that of the text.
    let message = e.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    Problem { line, message: format!("cannot be read as YAML: {message}") }
}

/// The text between one `---` and the next, and its first line, from 1. In YAML that marker, at
/// the start of a line, ends whatever construct is open.
fn chunks(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    let mut line = 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (mut end, mut lines, mut content) = (0, 0, false);
        for this in rest.split_inclusive('\n') {
            let marker = is_marker(this);
            if marker && content {
                break;
            }
            // Directives and comments belong to the document after them.
            let trimmed = this.trim();
            content |= marker || !(trimmed.is_empty() || trimmed.starts_with(['#', '%']));
            end += this.len();
            lines += 1;
        }
        let chunk = (line, &rest[..end]);
        rest = &rest[end..];
        line += lines;
        Some(chunk)
    })
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|after| after.is_empty() || after.starts_with([' ', '\t', '\r', '\n']))
}

/// The first line of a chunk that says something.
fn first_line(start: usize, chunk: &str) -> usize {
    let quiet = |l: &&str| l.trim().is_empty() || l.starts_with('#') || (is_marker(l) && l.trim() == "---");
    start + chunk.lines().take_while(quiet).count()
}
