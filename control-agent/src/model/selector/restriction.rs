//! What a selector demands of single labels.

use std::collections::{BTreeMap, BTreeSet};

use super::expr::Expr;

/// What one label must be like for a selector to match. A demand may be missed, never made up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction {
    /// The label must be there.
    pub must_be_present: bool,
    /// The label must not be there.
    pub must_be_absent: bool,
    /// Its value must be one of these; empty: nothing can match.
    pub must_have_one_of: Option<BTreeSet<String>>,
}

pub(super) fn of(expr: &Expr) -> BTreeMap<String, Restriction> {
    let one = |label: &str, values: Option<BTreeSet<String>>| {
        let restriction =
            Restriction { must_be_present: true, must_be_absent: false, must_have_one_of: values };
        BTreeMap::from([(label.to_owned(), restriction)])
    };
    match expr {
        Expr::Has(label)
        | Expr::Contains(label, _)
        | Expr::StartsWith(label, _)
        | Expr::EndsWith(label, _) => one(label, None),
        Expr::Equals(label, value) => one(label, Some(BTreeSet::from([value.to_string()]))),
        Expr::In(label, set) => one(label, Some(set.iter().map(|v| v.to_string()).collect())),
        Expr::Not(inner) => match &**inner {
            Expr::Has(label) => BTreeMap::from([(
                label.to_string(),
                Restriction { must_be_absent: true, ..Restriction::default() },
            )]),
            // `!(a == "b")` holds with and without `a`.
            _ => BTreeMap::new(),
        },
        Expr::And(terms) => terms.iter().map(of).fold(BTreeMap::new(), both),
        Expr::Or(terms) => terms.iter().map(of).reduce(either).unwrap_or_default(),
        Expr::All | Expr::Global | Expr::NotEquals(..) | Expr::NotIn(..) => BTreeMap::new(),
    }
}

fn both(
    mut a: BTreeMap<String, Restriction>,
    b: BTreeMap<String, Restriction>,
) -> BTreeMap<String, Restriction> {
    for (label, b) in b {
        let a = a.entry(label).or_default();
        a.must_be_present |= b.must_be_present;
        a.must_be_absent |= b.must_be_absent;
        a.must_have_one_of = match (a.must_have_one_of.take(), b.must_have_one_of) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (a, b) => a.or(b),
        };
    }
    a
}

fn either(
    a: BTreeMap<String, Restriction>,
    mut b: BTreeMap<String, Restriction>,
) -> BTreeMap<String, Restriction> {
    let merge = |(label, a): (String, Restriction)| {
        let b = b.remove(&label)?;
        let restriction = Restriction {
            must_be_present: a.must_be_present && b.must_be_present,
            must_be_absent: a.must_be_absent && b.must_be_absent,
            must_have_one_of: match (a.must_have_one_of, b.must_have_one_of) {
                (Some(a), Some(b)) => Some(&a | &b),
                _ => None,
            },
        };
        (restriction.must_be_present || restriction.must_be_absent).then_some((label, restriction))
    };
    a.into_iter().filter_map(merge).collect()
}
