use proptest::prelude::*;

use super::expr::Expr;
use super::*;

fn parse(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn an_absent_label_makes_only_the_negative_tests_true() {
    let none = labels(&[]);
    for (text, verdict) in [
        ("a == 'x'", false),
        ("a != 'x'", true),
        ("a in {'x'}", false),
        ("a not in {'x'}", true),
        ("a contains 'x'", false),
        ("a starts with 'x'", false),
        ("a ends with 'x'", false),
        ("a contains ''", false),
        ("has(a)", false),
        ("!(a == 'x')", true),
        ("", true),
        ("\t ", true),
    ] {
        assert_eq!(parse(text).matches(&none), verdict, "{text}");
    }
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    assert_eq!(parse("has(a) || has(b) && !has(c)").canonical(), "(has(a) || (has(b) && !has(c)))");
    assert_eq!(parse("!has(a) && has(b)").canonical(), "(!has(a) && has(b))");
    assert_eq!(parse("!!!(has(a) || has(b))").canonical(), "!(has(a) || has(b))");
    assert_eq!(parse("((((has(a)))))").canonical(), "has(a)");
}

#[test]
fn words_are_labels_wherever_a_label_may_stand() {
    let l = labels(&[("contains", "contains"), ("in", "in"), ("has", "x"), ("all", "y"), ("not", "z")]);
    for text in [
        "contains contains\"contains\"",
        "in in{'in',}",
        "has == 'x'",
        "all == 'y'",
        "not notin {}",
        "not not\tin{}",
    ] {
        assert!(parse(text).matches(&l), "{text}");
    }
}

#[test]
fn errors_say_where_and_what_to_do() {
    for (text, at, remedy) in [
        ("a = 'x'", 3, "write '=='"),
        ("a == x", 6, "in quotes"),
        ("a == 'x' && ", 13, "should follow"),
        ("a == 'x", 6, "end it with '"),
        ("(a == 'x'", 10, "add ')'"),
        ("a == 'x')", 9, "remove it"),
        ("has(a) has(b)", 8, "join them"),
        ("has()", 5, "has(app)"),
        ("a in 'x'", 6, "a set"),
        ("a in {'x' 'y'}", 11, "'}'"),
        ("a", 2, "needs a test"),
        ("a equals 'x'", 3, "needs a test"),
        ("ü == 'x'", 1, "quoted"),
        ("a\n== 'x'", 2, "needs a test"),
        ("'ü' == 'x'", 1, "expected an expression"),
        ("all(x)", 5, "takes nothing"),
    ] {
        let e = Selector::parse(text).unwrap_err();
        assert_eq!(e.at, at, "{text}: {e}");
        assert!(e.to_string().contains(remedy), "{text}: {e}");
    }
}

#[test]
fn labels_have_512_bytes_at_most() {
    assert!(Selector::parse(&format!("has({})", "a".repeat(512))).is_ok());
    assert!(Selector::parse(&format!("has({})", "a".repeat(513))).is_err());
    assert!(Selector::parse(&format!("{} in {{}}", "a".repeat(513))).is_err());
}

#[test]
fn the_deepest_selector_that_fits_is_read_and_a_deeper_one_refused() {
    let nested = |open: &str, n: usize| format!("{}all(){}", open.repeat(n), ")".repeat(n));
    let deepest = (MAX_LENGTH - "all()".len()) / 2;
    assert!(nested("(", deepest).len() <= MAX_LENGTH);
    assert_eq!(parse(&nested("(", deepest)).canonical(), "all()");
    let not = parse(&nested("!(", 340));
    assert!(not.matches(&labels(&[])) && not.canonical().len() == 340 + 5);
    for hostile in [nested("(", 20_000), "(".repeat(60_000), "!".repeat(60_000), "a".repeat(1 << 20)] {
        assert!(Selector::parse(&hostile).is_err());
    }
}

#[test]
fn global_is_known_where_it_stands() {
    assert!(parse("global()").is_global() && parse("(global( ))").is_global());
    assert!(!parse("!global()").is_global() && parse("has(a) && !global()").mentions_global());
    assert!(!parse("a == 'global()'").mentions_global());
    assert_eq!(
        parse("global() || all() && b == 'all()'").within("ns").canonical(),
        "(!has(ns) || (has(ns) && b == \"all()\"))"
    );
}

#[test]
fn the_first_layer_that_has_a_label_wins() {
    let (own, profile) = (labels(&[("a", "own")]), labels(&[("a", "inherited"), ("b", "inherited")]));
    let layers = [&own, &profile];
    let both = Layers(&layers);
    assert!(parse("a == 'own' && b == 'inherited' && !has(c)").matches(&both));
}

/// What the canonical form cannot tell apart: `!` of `!`, which reading collapses.
fn without_double_negation(e: Expr) -> Expr {
    e.rewrite(&mut |e| {
        if let Expr::Not(outer) = e
            && let Expr::Not(inner) = &mut **outer
        {
            *e = std::mem::replace(inner, Expr::All);
        }
    })
}

fn value() -> impl Strategy<Value = Box<str>> {
    prop_oneof!["[a-c]{0,2}", "[ -!#-~é\t]{0,6}"].prop_map(String::into)
}

fn expr() -> impl Strategy<Value = Expr> {
    let label = || {
        prop_oneof!["[a-c]", "has|all|in|not|contains|starts|global", "[A-Za-z0-9_./-]{1,9}"]
            .prop_map(Box::<str>::from)
    };
    let values =
        || prop::collection::vec(value(), 0..4).prop_map(|v| super::expr::set(v.iter().map(|s| &**s)));
    let leaf = prop_oneof![
        Just(Expr::All),
        Just(Expr::Global),
        label().prop_map(Expr::Has),
        (label(), value()).prop_map(|(l, v)| Expr::Equals(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::NotEquals(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::Contains(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::StartsWith(l, v)),
        (label(), value()).prop_map(|(l, v)| Expr::EndsWith(l, v)),
        (label(), values()).prop_map(|(l, v)| Expr::In(l, v)),
        (label(), values()).prop_map(|(l, v)| Expr::NotIn(l, v)),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|e| Expr::Not(Box::new(e))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner, 2..4).prop_map(Expr::Or),
        ]
    })
}

fn some_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-c]|has|in", value().prop_map(String::from), 0..4)
}

proptest! {
    #[test]
    fn the_canonical_form_reads_back_as_the_same_tree(e in expr()) {
        let e = without_double_negation(e);
        let read = parse(&e.to_string());
        prop_assert_eq!(&read.expr, &e);
        prop_assert_eq!(read.canonical(), e.to_string());
    }

    #[test]
    fn white_space_and_quotes_do_not_matter(e in expr(), blanks in "[ \t]{1,3}") {
        let canonical = e.to_string();
        // Only where no value holds what is replaced.
        prop_assume!(!canonical.contains('\'') && !canonical.contains('\t') && !canonical.contains("  "));
        prop_assume!(canonical.split('"').skip(1).step_by(2).all(|value| !value.contains(' ')));
        let respelled = canonical.replace('"', "'").replace(' ', &blanks);
        prop_assert_eq!(parse(&respelled), parse(&canonical));
    }

    #[test]
    fn a_restriction_that_is_broken_means_no_match(e in expr(), labels in some_labels()) {
        let selector = Selector::new(e);
        let broken = selector.restrictions().iter().any(|(name, r)| {
            let value = labels.get(name.as_str());
            r.must_be_present && value.is_none()
                || r.must_be_absent && value.is_some()
                || r.must_have_one_of.as_ref().is_some_and(|set| value.is_none_or(|v| !set.contains(v.as_str())))
        });
        prop_assert!(!(broken && selector.matches(&labels)), "{} on {:?}", selector, labels);
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place_within_it(text in "\\PC{0,80}") {
        if let Err(e) = Selector::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&e.at));
        }
    }

    #[test]
    fn so_is_any_text_that_looks_like_a_selector(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "a", "b ", "==", "!=", "!", "&&", "||", "(", ")", "{", "}", ",", "'x'", "\"y\"", "in", " not in ",
                "has(", "has(a)", "all()", "global()", "contains ", "starts with", "ends", " ", "'", "\n", "é",
            ]),
            0..30,
        )
    ) {
        let text = words.concat();
        match Selector::parse(&text) {
            Ok(selector) => {
                let again = parse(selector.canonical());
                prop_assert_eq!(&parse(again.canonical()), &again);
                prop_assert_eq!(selector.uid().len(), 2 + 38);
            }
            Err(e) => prop_assert!((1..=text.chars().count() + 1).contains(&e.at)),
        }
    }
}

#[test]
fn what_is_asked_about_is_mentioned_with_its_values() {
    let selector = parse("a == 'x' && !(b in {'y', 'z'} || a contains 'w') && has(c) && all()");
    let mentions = selector.mentions();
    let mentions: Vec<_> =
        mentions.iter().map(|(l, v)| (*l, v.iter().copied().collect::<Vec<_>>())).collect();
    assert_eq!(mentions, [("a", vec!["w", "x"]), ("b", vec!["y", "z"]), ("c", vec![])]);
}
