//! `selector eval`: whether selectors match labels, line by line.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write as _},
    path::Path,
};

use margay_agent::model::Selector;
use serde::{Deserialize, Serialize};

use crate::{
    exit::{Code, Failure, Outcome},
    output::Output,
};

/// The longest line that is taken, in bytes.
const MAX_LINE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    selector: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Valid {
        valid: bool,
        #[serde(rename = "match")]
        matched: bool,
        canonical: String,
        uid: String,
    },
    Invalid {
        valid: bool,
        error: String,
    },
}

/// Answers each line of a file, or of standard input, in order.
pub fn eval(file: &Path, out: &mut Output) -> Outcome {
    let reader: Box<dyn BufRead> = match file.to_str() {
        Some("-") => Box::new(BufReader::new(io::stdin())),
        _ => Box::new(BufReader::new(File::open(file).map_err(|error| unreadable(file, &error))?)),
    };
    answer_all(reader, file, out)
}

fn answer_all(mut reader: impl BufRead, file: &Path, out: &mut Output) -> Outcome {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(file, &error))? == 0 {
            break;
        }
        let answer = answer(&line).map_err(|error| {
            Failure::usage(
                format!("line {number} is not a question"),
                error.to_string(),
                "write {\"selector\":\"...\",\"labels\":{\"name\":\"value\"}} on one line",
            )
        })?;
        serde_json::to_writer(&mut *out, &answer).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(Code::Ok)
}

fn answer(line: &[u8]) -> serde_json::Result<Answer> {
    let question: Question = serde_json::from_slice(line)?;
    Ok(match Selector::parse(&question.selector) {
        Ok(selector) => Answer::Valid {
            valid: true,
            matched: selector.matches(&question.labels),
            canonical: selector.canonical().to_owned(),
            uid: selector.uid(),
        },
        Err(error) => Answer::Invalid { valid: false, error: error.to_string() },
    })
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { Code::Usage } else { Code::Failed };
    let problem = format!("cannot read {}", file.display());
    Failure::new(code, problem, error.to_string(), "check the name and that you may read it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> String {
        answer(line.as_bytes())
            .map_or_else(|error| error.to_string(), |answer| serde_json::to_string(&answer).unwrap())
    }

    #[test]
    fn a_selector_is_matched_and_named() {
        let text = answered(r#"{"selector":"a == 'b'","labels":{"a":"b"}}"#);
        assert!(
            text.starts_with(r#"{"valid":true,"match":true,"canonical":"a == \"b\"","uid":"s:"#),
            "{text}"
        );
        assert!(answered(r#"{"selector":"has(x)"}"#).contains(r#""match":false"#));
    }

    #[test]
    fn what_is_no_selector_is_an_answer_and_what_is_no_question_an_error() {
        assert!(answered(r#"{"selector":"a =="}"#).starts_with(r#"{"valid":false,"error":""#));
        assert!(answer(b"{}").is_err() && answer(b"\n").is_err() && answer(b"\xff").is_err());
    }
}
