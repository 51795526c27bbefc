//! `selector eval`: whether selectors match labels, line by line.

use std::{collections::BTreeMap, path::Path};

use margay_agent::model::Selector;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{exit::Outcome, lines, output::Output};

/// The longest line that is taken, in bytes.
const MAX_LINE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    selector: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
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
    let wrong = |error| json!({ "valid": false, "error": error });
    lines::answer_each(file, MAX_LINE, out, wrong, |line| Ok(answer(line)?))
}

fn answer(line: &[u8]) -> serde_json::Result<Answer> {
    let question: Question = serde_json::from_slice(line)?;
    Ok(match Selector::parse(&question.selector) {
        Ok(selector) => Answer::Valid {
            valid: true,
            matched: selector.matches(&question.labels.unwrap_or_default()),
            canonical: selector.canonical().to_owned(),
            uid: selector.uid(),
        },
        Err(error) => Answer::Invalid { valid: false, error: error.to_string() },
    })
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
        assert!(answer(b"{}").is_err() && answer(b"\xff").is_err());
    }
}
