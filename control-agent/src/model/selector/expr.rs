//! The syntax tree, what it means, and its one canonical spelling.

use std::fmt;

use super::Labels;

/// Nested no deeper than the parser's bound plus what [`Selector::and`](super::Selector::and) adds,
/// so that recursion over it is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    All,
    Global,
    Has(Box<str>),
    Equals(Box<str>, Box<str>),
    NotEquals(Box<str>, Box<str>),
    Contains(Box<str>, Box<str>),
    StartsWith(Box<str>, Box<str>),
    EndsWith(Box<str>, Box<str>),
    /// Sorted, each value once.
    In(Box<str>, Box<[Box<str>]>),
    /// Sorted, each value once.
    NotIn(Box<str>, Box<[Box<str>]>),
    Not(Box<Expr>),
    /// Two or more.
    And(Vec<Expr>),
    /// Two or more.
    Or(Vec<Expr>),
}

/// The values of an `in`: sorted, each once.
pub(super) fn set<'a>(values: impl Iterator<Item = &'a str>) -> Box<[Box<str>]> {
    let mut values: Vec<Box<str>> = values.map(Into::into).collect();
    values.sort_unstable();
    values.dedup();
    values.into()
}

impl Expr {
    pub(super) fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let test = |label: &str, of: &dyn Fn(&str) -> bool| labels.get(label).is_some_and(of);
        let contains = |set: &[Box<str>], v: &str| set.binary_search_by(|e| (**e).cmp(v)).is_ok();
        match self {
            Self::All | Self::Global => true,
            Self::Has(label) => labels.get(label).is_some(),
            Self::Equals(label, value) => test(label, &|v| v == &**value),
            Self::NotEquals(label, value) => !test(label, &|v| v == &**value),
            Self::Contains(label, part) => test(label, &|v| v.contains(&**part)),
            Self::StartsWith(label, start) => test(label, &|v| v.starts_with(&**start)),
            Self::EndsWith(label, end) => test(label, &|v| v.ends_with(&**end)),
            Self::In(label, set) => test(label, &|v| contains(set, v)),
            Self::NotIn(label, set) => !test(label, &|v| contains(set, v)),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(terms) => terms.iter().all(|t| t.matches(labels)),
            Self::Or(terms) => terms.iter().any(|t| t.matches(labels)),
        }
    }

    /// The label that a leaf asks about.
    pub(super) fn label_mut(&mut self) -> Option<&mut Box<str>> {
        match self {
            Self::Has(label)
            | Self::Equals(label, _)
            | Self::NotEquals(label, _)
            | Self::Contains(label, _)
            | Self::StartsWith(label, _)
            | Self::EndsWith(label, _)
            | Self::In(label, _)
            | Self::NotIn(label, _) => Some(label),
            Self::All | Self::Global | Self::Not(_) | Self::And(_) | Self::Or(_) => None,
        }
    }

    /// Every node, the innermost first; what `f` puts in is not visited again.
    pub(super) fn rewrite(mut self, f: &mut impl FnMut(&mut Self)) -> Self {
        fn walk(e: &mut Expr, f: &mut impl FnMut(&mut Expr)) {
            match e {
                Expr::Not(inner) => walk(inner, f),
                Expr::And(terms) | Expr::Or(terms) => terms.iter_mut().for_each(|t| walk(t, f)),
                _ => {}
            }
            f(e);
        }
        walk(&mut self, f);
        self
    }

    pub(super) fn visit<'e>(&'e self, f: &mut impl FnMut(&'e Self)) {
        f(self);
        match self {
            Self::Not(inner) => inner.visit(f),
            Self::And(terms) | Self::Or(terms) => terms.iter().for_each(|t| t.visit(f)),
            _ => {}
        }
    }
}

/// The canonical spelling.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Equals(label, value) => write!(f, "{label} == {}", Quoted(value)),
            Self::NotEquals(label, value) => write!(f, "{label} != {}", Quoted(value)),
            Self::Contains(label, part) => write!(f, "{label} contains {}", Quoted(part)),
            Self::StartsWith(label, start) => write!(f, "{label} starts with {}", Quoted(start)),
            Self::EndsWith(label, end) => write!(f, "{label} ends with {}", Quoted(end)),
            Self::In(label, set) => write!(f, "{label} in {}", Set(set)),
            Self::NotIn(label, set) => write!(f, "{label} not in {}", Set(set)),
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::And(terms) => joined(f, terms, " && "),
            Self::Or(terms) => joined(f, terms, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, terms: &[Expr], operator: &str) -> fmt::Result {
    for (i, term) in terms.iter().enumerate() {
        write!(f, "{}{term}", if i == 0 { "(" } else { operator })?;
    }
    f.write_str(")")
}

/// Strings have no escapes, so no value holds both kinds of quote.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a [Box<str>]);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, value) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, Quoted(value))?;
        }
        f.write_str("}")
    }
}
