//! Any text as a selector: read or refused as the grammar says, and then judged alike by the
//! parsed form, by its canonical form, and by a reader of the grammar that evaluates as it reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_agent::model::selector::Selector;
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

fuzz_target!(|text: &str| {
    let labels = label_sets(text);
    let selector = match Selector::parse(text) {
        Ok(selector) => selector,
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.at), "{error}");
            assert!(!error.to_string().is_empty());
            assert_eq!(Reader::evaluate(text, &labels[0]), None, "refused: {error}");
            return;
        }
    };
    let canonical = Selector::parse(selector.canonical()).expect("a canonical form is a selector");
    let again = Selector::parse(canonical.canonical()).expect("a canonical form is a selector");
    // `!(!a)` is spelt `!!a`, as Calico does, which reads as `a`.
    if !selector.canonical().contains("!!") {
        assert_eq!(canonical.canonical(), selector.canonical(), "canonical forms are fixed points");
        assert_eq!(canonical.uid(), selector.uid());
    }
    assert_eq!(again.canonical(), canonical.canonical());
    assert_eq!(again, canonical);
    let restrictions = selector.restrictions();
    for labels in &labels {
        let matches = selector.matches(labels);
        assert_eq!(Some(matches), Reader::evaluate(text, labels), "{labels:?}");
        assert_eq!(matches, canonical.matches(labels), "{labels:?}");
        for (name, restriction) in &restrictions {
            let value = labels.get(name);
            let broken = (restriction.must_be_present && value.is_none())
                || (restriction.must_be_absent && value.is_some())
                || restriction
                    .must_have_one_of
                    .as_ref()
                    .is_some_and(|of| !value.is_some_and(|v| of.contains(v)));
            assert!(!(broken && matches), "{name} {restriction:?} {labels:?}");
        }
    }
});

/// Labels that the text talks about: none, and each of its words with one or other of its strings.
fn label_sets(text: &str) -> Vec<Labels> {
    let in_label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    let words: Vec<&str> = text.split(|c| !in_label(c)).filter(|word| !word.is_empty()).take(32).collect();
    let strings: Vec<&str> = text.split(['"', '\'']).take(32).collect();
    let set = |shift: usize| {
        let value = |at: usize| strings[(at + shift) % strings.len()].to_owned();
        words.iter().enumerate().map(|(at, word)| ((*word).to_owned(), value(at))).collect()
    };
    std::iter::once(Labels::new()).chain((0..4).map(set)).collect()
}

/// Reads by recursive descent, a function a rule of the grammar. `None`: not a selector.
struct Reader<'a> {
    rest: &'a str,
    labels: &'a Labels,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn evaluate(text: &'a str, labels: &'a Labels) -> Option<bool> {
        let mut reader = Self { rest: text, labels, depth: 0 };
        reader.blanks();
        if reader.rest.is_empty() {
            return Some(true);
        }
        let value = reader.or()?;
        reader.rest.is_empty().then_some(value)
    }

    fn or(&mut self) -> Option<bool> {
        let mut value = self.and()?;
        while self.eat("||") {
            value |= self.and()?;
        }
        Some(value)
    }

    fn and(&mut self) -> Option<bool> {
        let mut value = self.term()?;
        while self.eat("&&") {
            value &= self.term()?;
        }
        Some(value)
    }

    fn term(&mut self) -> Option<bool> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        let value = if self.eat("all(") || self.eat("global(") {
            self.eat(")").then_some(true)?
        } else if self.eat("has(") {
            let label = self.label()?;
            self.eat(")").then(|| self.labels.contains_key(label))?
        } else if self.eat("(") {
            // As deep as the longest selector that an object may hold.
            self.depth += 1;
            if self.depth > 512 {
                return None;
            }
            let value = self.or()?;
            self.depth -= 1;
            self.eat(")").then_some(value)?
        } else {
            self.test()?
        };
        Some(value != negated)
    }

    fn test(&mut self) -> Option<bool> {
        let label = self.label()?;
        let value = self.labels.get(label).map(String::as_str);
        Some(if self.eat("==") {
            let wanted = self.string()?;
            value == Some(wanted)
        } else if self.eat("!=") {
            let other = self.string()?;
            value != Some(other)
        } else if self.eat("contains") {
            let part = self.string()?;
            value.is_some_and(|value| value.contains(part))
        } else if self.eat("starts") {
            let start = self.eat("with").then(|| self.string())??;
            value.is_some_and(|value| value.starts_with(start))
        } else if self.eat("ends") {
            let end = self.eat("with").then(|| self.string())??;
            value.is_some_and(|value| value.ends_with(end))
        } else if self.eat("not") {
            let set = self.eat("in").then(|| self.set())??;
            !value.is_some_and(|value| set.contains(&value))
        } else if self.eat("in") {
            let set = self.set()?;
            value.is_some_and(|value| set.contains(&value))
        } else {
            return None;
        })
    }

    fn set(&mut self) -> Option<Vec<&'a str>> {
        let mut set = vec![];
        if !self.eat("{") {
            return None;
        }
        while !self.eat("}") {
            set.push(self.string()?);
            if !self.eat(",") {
                return self.eat("}").then_some(set);
            }
        }
        Some(set)
    }

    fn string(&mut self) -> Option<&'a str> {
        self.blanks();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (string, rest) = self.rest[1..].split_once(quote)?;
        self.rest = rest;
        self.blanks();
        Some(string)
    }

    fn label(&mut self) -> Option<&'a str> {
        self.blanks();
        let in_label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        let len = self.rest.find(|c| !in_label(c)).unwrap_or(self.rest.len());
        if !(1..=512).contains(&len) {
            return None;
        }
        let (label, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.blanks();
        Some(label)
    }

    /// Past blanks, `what`, and the blanks behind it.
    fn eat(&mut self, what: &str) -> bool {
        self.blanks();
        let Some(rest) = self.rest.strip_prefix(what) else { return false };
        self.rest = rest;
        self.blanks();
        true
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }
}
