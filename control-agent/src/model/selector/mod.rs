//! Selectors: boolean expressions over labels, in Calico's grammar.
//!
//! ```text
//! or      = and ("||" and)*
//! and     = term ("&&" term)*
//! term    = "!"* ( "all()" | "global()" | "has(" label ")" | "(" or ")" | label test )
//! test    = ("==" | "!=" | "contains" | "starts with" | "ends with") string
//!         | ("in" | "not in") "{" (string ("," string)* ","?)? "}"
//! label   = 1 to 512 of [A-Za-z0-9_./-]
//! string  = "'" any but ' "'" | '"' any but " '"'
//! ```
//!
//! White space is space and TAB. Blank text is `all()`. A label that is absent makes `!=` and
//! `not in` true and every other test false. `global()` matches whatever it is asked about: what it
//! means is decided where a namespace selector is folded into a policy's scope.

mod expr;
mod labels;
mod parse;
mod restriction;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha224};

use expr::Expr;
pub use labels::{Labels, Layers};
pub use restriction::Restriction;

/// The longest selector that an object may hold, in bytes.
pub const MAX_LENGTH: usize = 1024;

/// A parsed selector. Two are equal when their canonical forms are.
#[derive(Clone)]
pub struct Selector {
    expr: Expr,
    canonical: Box<str>,
}

/// Why some text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {message}")]
pub struct SelectorError {
    /// Where, in characters from 1.
    pub at: usize,
    message: String,
}

impl Selector {
    /// Reads a selector, in time linear in its length.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::parse(text).map(Self::new)
    }

    /// Everything.
    pub fn all() -> Self {
        Self::new(Expr::All)
    }

    /// `label == "value"`
    pub fn equals(label: &str, value: &str) -> Self {
        Self::new(Expr::Equals(label.into(), value.into()))
    }

    /// `has(label)`
    pub fn has(label: &str) -> Self {
        Self::new(Expr::Has(label.into()))
    }

    /// `label in {values}`
    pub fn one_of<S: AsRef<str>>(label: &str, values: &[S]) -> Self {
        Self::new(Expr::In(label.into(), expr::set(values.iter().map(S::as_ref))))
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(Expr::And(vec![self.expr, other.expr]))
    }

    /// The same question about the labels whose names start with `prefix`.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        Self::new(self.expr.rewrite(&mut |e| {
            if let Some(label) = e.label_mut() {
                *label = format!("{prefix}{label}").into();
            }
        }))
    }

    /// `all()` becomes `has(label)`, `global()` its opposite: what they mean of namespaces.
    #[must_use]
    pub fn within(self, label: &str) -> Self {
        Self::new(self.expr.rewrite(&mut |e| match e {
            Expr::All => *e = Expr::Has(label.into()),
            Expr::Global => *e = Expr::Not(Box::new(Expr::Has(label.into()))),
            _ => {}
        }))
    }

    /// Every label that the selector asks about, with the values it compares it to.
    pub fn mentions(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut mentions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        self.expr.visit(&mut |expr| {
            let (label, values): (_, &[Box<str>]) = match expr {
                Expr::Has(label) => (label, &[]),
                Expr::In(label, values) | Expr::NotIn(label, values) => (label, values),
                Expr::Equals(label, value)
                | Expr::NotEquals(label, value)
                | Expr::Contains(label, value)
                | Expr::StartsWith(label, value)
                | Expr::EndsWith(label, value) => (label, std::slice::from_ref(value)),
                Expr::All | Expr::Global | Expr::Not(_) | Expr::And(_) | Expr::Or(_) => return,
            };
            mentions.entry(label).or_default().extend(values.iter().map(|value| &**value));
        });
        mentions
    }

    /// Whether something with these labels is selected.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.expr.matches(labels)
    }

    /// One spelling for all selectors that differ only in white space, quotes, redundant
    /// parentheses, doubled `!`, and the order of sets.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// `s:` and the unpadded URL-safe base64 of SHA-224 over `s:` and the canonical form: what
    /// Calico calls the set of addresses that the selector selects.
    pub fn uid(&self) -> String {
        let digest = Sha224::new().chain_update("s:").chain_update(self.canonical.as_bytes()).finalize();
        format!("s:{}", URL_SAFE_NO_PAD.encode(digest))
    }

    /// Whether `global()` occurs anywhere.
    pub fn mentions_global(&self) -> bool {
        let mut found = false;
        self.expr.visit(&mut |e| found |= matches!(e, Expr::Global));
        found
    }

    /// Whether it is `global()` and nothing else.
    pub fn is_global(&self) -> bool {
        matches!(self.expr, Expr::Global)
    }

    /// What each label must be like for the selector to match at all: for indexes that skip what
    /// cannot match.
    pub fn restrictions(&self) -> BTreeMap<String, Restriction> {
        restriction::of(&self.expr)
    }

    fn new(expr: Expr) -> Self {
        let canonical = expr.to_string().into();
        Self { expr, canonical }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(s: &str) -> Result<Self, SelectorError> {
        Self::parse(s)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.canonical)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.canonical.cmp(&other.canonical)
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
