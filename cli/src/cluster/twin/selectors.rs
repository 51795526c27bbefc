//! Selectors, and what they mean of labels.

use super::world::{Entity, LABELS, Labels, VALUES, World};
use proptest::prelude::*;
use proptest::sample::select;

/// A selector, and what it means.
#[derive(Clone, Debug)]
pub(super) enum Sel {
    All,
    Has(&'static str),
    Compare(&'static str, &'static str, &'static str),
    OneOf(&'static str, bool, Vec<&'static str>),
    Not(Box<Sel>),
    Both(Box<Sel>, Box<Sel>),
    Either(Box<Sel>, Box<Sel>),
}

impl Sel {
    pub fn text(&self) -> String {
        match self {
            Self::All => "all()".into(),
            Self::Has(label) => format!("has({label})"),
            Self::Compare(label, how, value) => format!("{label} {how} '{value}'"),
            Self::OneOf(label, is, values) => {
                let values: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
                format!("{label} {} {{{}}}", if *is { "in" } else { "not in" }, values.join(", "))
            }
            Self::Not(inner) => format!("!({})", inner.text()),
            Self::Both(a, b) => format!("({}) && ({})", a.text(), b.text()),
            Self::Either(a, b) => format!("({}) || ({})", a.text(), b.text()),
        }
    }

    pub fn selects(&self, labels: &Labels) -> bool {
        let value =
            |label: &str| labels.iter().find(|(own, _)| own == label).map(|(_, value)| value.as_str());
        match self {
            Self::All => true,
            Self::Has(label) => value(label).is_some(),
            Self::Compare(label, how, wanted) => match (value(label), *how) {
                (own, "!=") => own != Some(*wanted),
                (None, _) => false,
                (Some(own), "==") => own == *wanted,
                (Some(own), "contains") => own.contains(*wanted),
                (Some(own), "starts with") => own.starts_with(*wanted),
                (Some(own), _) => own.ends_with(*wanted),
            },
            Self::OneOf(label, is, values) => value(label).is_some_and(|own| values.contains(&own)) == *is,
            Self::Not(inner) => !inner.selects(labels),
            Self::Both(a, b) => a.selects(labels) && b.selects(labels),
            Self::Either(a, b) => a.selects(labels) || b.selects(labels),
        }
    }
}

pub(super) fn sel() -> impl Strategy<Value = Sel> {
    let how = select(vec!["==", "!=", "contains", "starts with", "ends with"]);
    let leaf = prop_oneof![
        1 => Just(Sel::All),
        2 => select(&LABELS[..]).prop_map(Sel::Has),
        4 => (select(&LABELS[..]), how, select(&VALUES[..])).prop_map(|(l, h, v)| Sel::Compare(l, h, v)),
        2 => (select(&LABELS[..]), any::<bool>(), prop::collection::vec(select(&VALUES[..]), 0..3))
            .prop_map(|(l, is, v)| Sel::OneOf(l, is, v)),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            inner.prop_map(|one| Sel::Not(Box::new(one))),
            pair.clone().prop_map(|(a, b)| Sel::Both(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Sel::Either(Box::new(a), Box::new(b))),
        ]
    })
}

/// Of namespaces: all of them, none of them, or those with such labels.
#[derive(Clone, Debug)]
pub(super) enum Spaces {
    All,
    Global,
    Of(Sel),
}

pub(super) fn spaces() -> impl Strategy<Value = Spaces> {
    // `all()` within a term would be of what has no namespace, too: written alone it means what it says.
    let of = sel().prop_filter("all() stands alone", |sel| !sel.text().contains("all()"));
    prop_oneof![Just(Spaces::All), Just(Spaces::Global), of.prop_map(Spaces::Of)]
}

impl Spaces {
    pub fn text(&self) -> String {
        match self {
            Self::All => "all()".into(),
            Self::Global => "global()".into(),
            Self::Of(sel) => sel.text(),
        }
    }

    pub fn hold(&self, world: &World, one: &Entity) -> bool {
        match (self, one.space) {
            (Self::All, space) => space.is_some(),
            (Self::Global, space) => space.is_none(),
            (Self::Of(sel), Some(space)) => sel.selects(&world.spaces[space]),
            (Self::Of(sel), None) => sel.selects(&vec![]),
        }
    }
}

pub(super) fn sel_without_all() -> impl Strategy<Value = Sel> {
    sel().prop_filter("has no all()", |sel| !sel.text().contains("all()"))
}
