//! Calico's own cases, and verdicts of Calico's own parser on random selectors.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::token::{Token, Tokens};
use super::{Restriction, Selector};
use crate::model::shared_data;

#[derive(Deserialize)]
struct Suite {
    cases: Vec<Case>,
    invalid: Vec<Invalid>,
    canonical: Vec<Canonical>,
}

#[derive(Deserialize)]
struct File {
    #[serde(flatten)]
    upstream: Suite,
    generated: Suite,
    visitor_prefix: Vec<Prefixed>,
    tokens: Vec<Tokenized>,
    label_restrictions: Vec<Restricted>,
}

#[derive(Deserialize)]
struct Case {
    selector: String,
    labels: BTreeMap<String, String>,
    #[serde(rename = "match")]
    matches: bool,
}

#[derive(Deserialize)]
struct Invalid {
    selector: String,
}

#[derive(Deserialize)]
struct Canonical {
    selector: String,
    canonical: String,
    uid: Option<String>,
}

#[derive(Deserialize)]
struct Prefixed {
    selector: String,
    prefix: String,
    rewritten: String,
}

#[derive(Deserialize)]
struct Tokenized {
    input: String,
    tokens: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Restricted {
    selector: String,
    restrictions: Option<BTreeMap<String, RestrictionCase>>,
}

#[derive(Deserialize)]
struct RestrictionCase {
    must_be_present: bool,
    must_be_absent: bool,
    must_have_one_of: Option<BTreeSet<String>>,
}

fn file() -> Option<File> {
    let text = shared_data("conformance/selectors.json")?;
    Some(serde_json::from_str(&text).expect("the file has the documented form"))
}

/// Every case that fails, so that one run tells all.
fn check<T>(what: &str, cases: impl IntoIterator<Item = T>, mut failure: impl FnMut(T) -> Option<String>) {
    let mut total = 0;
    let failures: Vec<String> = cases.into_iter().inspect(|_| total += 1).filter_map(&mut failure).collect();
    println!("{what}: {} of {total} pass", total - failures.len());
    assert!(total > 0, "{what}: no cases");
    assert!(failures.is_empty(), "{what}:\n{}", failures.join("\n"));
}

#[test]
fn verdicts() {
    let Some(file) = file() else { return };
    check("verdicts", file.upstream.cases.into_iter().chain(file.generated.cases), |c| {
        let found = Selector::parse(&c.selector).map(|s| s.matches(&c.labels));
        (found != Ok(c.matches))
            .then(|| format!("{:?} on {:?}: {found:?}, not {}", c.selector, c.labels, c.matches))
    });
}

#[test]
fn what_is_not_a_selector() {
    let Some(file) = file() else { return };
    check("invalid", file.upstream.invalid.into_iter().chain(file.generated.invalid), |c| {
        Selector::parse(&c.selector).ok().map(|s| format!("{:?} was read as {s}", c.selector))
    });
}

#[test]
fn canonical_forms_and_uids() {
    let Some(file) = file() else { return };
    check("canonical", file.upstream.canonical.into_iter().chain(file.generated.canonical), |c| {
        let s = match Selector::parse(&c.selector) {
            Ok(s) => s,
            Err(e) => return Some(format!("{:?}: {e}", c.selector)),
        };
        let same = s.canonical() == c.canonical && c.uid.as_ref().is_none_or(|uid| *uid == s.uid());
        (!same).then(|| {
            format!("{:?} is {s} with {}, not {} with {:?}", c.selector, s.uid(), c.canonical, c.uid)
        })
    });
}

#[test]
fn prefixes() {
    let Some(file) = file() else { return };
    check("prefixes", file.visitor_prefix, |c| {
        let s = Selector::parse(&c.selector).unwrap().with_prefix(&c.prefix);
        (s.canonical() != c.rewritten).then(|| format!("{:?} became {s}, not {}", c.selector, c.rewritten))
    });
}

#[test]
fn restrictions() {
    let Some(file) = file() else { return };
    check("restrictions", file.label_restrictions, |c| {
        let wanted: BTreeMap<String, Restriction> = c
            .restrictions
            .unwrap_or_default()
            .into_iter()
            .map(|(label, r)| {
                let RestrictionCase { must_be_present, must_be_absent, must_have_one_of } = r;
                (label, Restriction { must_be_present, must_be_absent, must_have_one_of })
            })
            .collect();
        let found = Selector::parse(&c.selector).unwrap().restrictions();
        (found != wanted).then(|| format!("{:?}: {found:?}, not {wanted:?}", c.selector))
    });
}

#[test]
fn tokens() {
    let Some(file) = file() else { return };
    check("tokens", file.tokens, |c| {
        let mut tokens = Tokens::new(&c.input);
        let mut found = Vec::new();
        loop {
            let (_, token) = tokens.next().unwrap_or_else(|p| panic!("{:?}: {}", c.input, p.message));
            found.push(calico_name(token));
            if token == Token::End {
                break;
            }
        }
        (found != c.tokens).then(|| format!("{:?}: {found:?}, not {:?}", c.input, c.tokens))
    });
}

fn calico_name(token: Token<'_>) -> (String, String) {
    let (name, value) = match token {
        Token::Label(label) => ("Label", label),
        Token::String(value) => ("StringLiteral", value),
        Token::Has(label) => ("Has", label),
        Token::All => ("All", ""),
        Token::Global => ("Global", ""),
        Token::Equals => ("Eq", ""),
        Token::NotEquals => ("Ne", ""),
        Token::In => ("In", ""),
        Token::NotIn => ("NotIn", ""),
        Token::Contains => ("Contains", ""),
        Token::StartsWith => ("StartsWith", ""),
        Token::EndsWith => ("EndsWith", ""),
        Token::Not => ("Not", ""),
        Token::And => ("And", ""),
        Token::Or => ("Or", ""),
        Token::OpenParen => ("LParen", ""),
        Token::CloseParen => ("RParen", ""),
        Token::OpenBrace => ("LBrace", ""),
        Token::CloseBrace => ("RBrace", ""),
        Token::Comma => ("Comma", ""),
        Token::End => ("EOF", ""),
    };
    (name.to_owned(), value.to_owned())
}
