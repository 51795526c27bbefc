//! Policies and profiles as the agent sends them: parsed, and recognised where they are sent again.
//!
//! An agent sends a policy whole when one of its rules changes. So rules are kept in chunks, each with the
//! bytes that they came as: a chunk that comes again is compared as bytes, and not parsed, hashed or compiled
//! again.

use super::convert::{self, FieldError};
use crate::policy::{PolicyId, Rule, Rules, SetId};
use margay_api::dataplane::v1 as pb;
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;

/// Rules in a chunk, when it is cut.
const CHUNK: usize = 64;
/// Fewer rules are no chunk of their own, unless they are the last: they go into one with what is next.
const SMALL: usize = 16;

/// Chunks that begin alike of which one is looked for among what came.
const ALIKE: usize = 8;

/// A policy, both directions. The tiers of an endpoint refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is known by.
    pub id: PolicyId,
    /// The tier it stands in.
    pub tier: Arc<str>,
    /// Judges packets to the endpoint.
    pub inbound: Written,
    /// Judges packets from the endpoint.
    pub outbound: Written,
}

/// A profile: rules that judge what no tier decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// As in `kns.default`.
    pub name: Arc<str>,
    /// Judges packets to the endpoint.
    pub inbound: Written,
    /// Judges packets from the endpoint.
    pub outbound: Written,
}

/// The rules of one direction. Equal where the rules are, however they are cut.
#[derive(Clone, Debug, Default)]
pub struct Written {
    rules: Rules,
    /// Of each chunk of `rules`.
    sources: Arc<[Arc<Source>]>,
    sets: Arc<[SetId]>,
}

/// What a chunk was parsed from.
#[derive(Debug)]
struct Source {
    /// The messages, encoded one after the other.
    bytes: Box<[u8]>,
    /// Where each ends.
    ends: Box<[u32]>,
    /// The sets they name, ascending.
    sets: Box<[SetId]>,
}

impl Written {
    /// Parses the rules in the field of this name. `before` is what stood there, of whose sets `set`
    /// must still give the same numbers.
    pub fn parse(
        field: &str,
        messages: &[pb::Rule],
        before: Option<&Self>,
        set: &mut dyn FnMut(&str) -> SetId,
    ) -> Result<Self, FieldError> {
        if messages.len() > convert::MAX_RULES {
            let most = convert::MAX_RULES;
            let message = format!("{} rules; at most {most} fit one direction", messages.len());
            return Err(FieldError::new(field, message));
        }
        let encoded = Encoded::new(messages);
        let mut known = Known::new(before);
        let mut parse = |from: usize, to: usize| -> Result<Chunk, FieldError> {
            let rule = |at: usize| {
                convert::rule(&messages[at], set).map_err(|error| error.within(format!("{field}[{at}]")))
            };
            let rules = (from..to).map(rule).collect::<Result<Arc<[Rule]>, _>>()?;
            let source = Arc::new(encoded.source(from..to, &rules));
            Ok((rules, source))
        };
        let mut chunks: Vec<Chunk> = vec![];
        // From here on nothing has a chunk yet.
        let (mut open, mut at) = (0, 0);
        loop {
            let next = (at < messages.len()).then(|| known.at(&encoded, at)).flatten();
            // So that chunks do not become ever smaller.
            let next = next.filter(|(_, source)| {
                let last = at + source.ends.len() == messages.len();
                let small = source.ends.len() < SMALL && (open < at || !last);
                !small && !(1..SMALL).contains(&(at - open))
            });
            if next.is_some() || at >= messages.len() {
                let parts = (at - open).div_ceil(CHUNK);
                let cut = |part: usize| open + (at - open) * part / parts;
                for part in 0..parts {
                    chunks.push(parse(cut(part), cut(part + 1))?);
                }
                open = at;
            }
            match next {
                Some(chunk) => {
                    at += chunk.1.ends.len();
                    open = at;
                    chunks.push(chunk);
                }
                None if at >= messages.len() => break,
                None => at += 1,
            }
        }
        Ok(Self::of(chunks, before))
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The sets they name, ascending.
    pub fn sets(&self) -> &Arc<[SetId]> {
        &self.sets
    }

    /// As much as possible of it what it was before.
    fn of(chunks: Vec<Chunk>, before: Option<&Self>) -> Self {
        let (rules, sources): (Vec<_>, Vec<_>) = chunks.into_iter().unzip();
        let rules = Rules::of_chunks(rules);
        if let Some(before) = before
            && before.rules.is(&rules)
        {
            return before.clone();
        }
        let sets = union(sources.iter().map(|source: &Arc<Source>| &*source.sets));
        let sets = match before {
            Some(before) if *before.sets == *sets => before.sets.clone(),
            _ => sets.into(),
        };
        Self { rules, sources: sources.into(), sets }
    }
}

impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Written {}

/// Rules, and what they were parsed from.
type Chunk = (Arc<[Rule]>, Arc<Source>);

/// Messages as bytes.
struct Encoded {
    bytes: Vec<u8>,
    /// Where each begins, and the last ends.
    bounds: Vec<u32>,
}

impl Encoded {
    fn new(messages: &[pb::Rule]) -> Self {
        let mut encoded = Self { bytes: vec![], bounds: Vec::with_capacity(messages.len() + 1) };
        encoded.bounds.push(0);
        for message in messages {
            message.encode(&mut encoded.bytes).expect("a vector has room");
            encoded.bounds.push(encoded.bytes.len() as u32);
        }
        encoded
    }

    fn bytes(&self, of: std::ops::Range<usize>) -> &[u8] {
        &self.bytes[self.bounds[of.start] as usize..self.bounds[of.end] as usize]
    }

    fn source(&self, of: std::ops::Range<usize>, rules: &[Rule]) -> Source {
        let begin = self.bounds[of.start];
        let sets = rules.iter().flat_map(|rule| rule.address_sets().chain(rule.port_sets()));
        Source {
            ends: self.bounds[of.start + 1..=of.end].iter().map(|end| end - begin).collect(),
            bytes: self.bytes(of).into(),
            sets: ascending(sets.collect()).into(),
        }
    }

    /// The messages from `at` on are those of `source`.
    fn has(&self, at: usize, source: &Source) -> bool {
        let end = at + source.ends.len();
        if end >= self.bounds.len() || *self.bytes(at..end) != *source.bytes {
            return false;
        }
        let begin = self.bounds[at];
        self.bounds[at + 1..=end].iter().zip(&source.ends).all(|(bound, end)| bound - begin == *end)
    }
}

/// The chunks there were, each of which is found again once.
struct Known<'a> {
    before: Option<&'a Written>,
    /// The one expected.
    next: usize,
    /// By the bytes of its first rule; made when another one than expected comes.
    by_first: Option<HashMap<&'a [u8], Vec<usize>, ahash::RandomState>>,
    taken: Vec<bool>,
}

impl<'a> Known<'a> {
    fn new(before: Option<&'a Written>) -> Self {
        let taken = vec![false; before.map_or(0, |before| before.sources.len())];
        Self { before, next: 0, by_first: None, taken }
    }

    /// A chunk that is what comes at `at`.
    fn at(&mut self, encoded: &Encoded, at: usize) -> Option<Chunk> {
        let before = self.before?;
        let is = |chunk: &usize| encoded.has(at, &before.sources[*chunk]);
        let expected = (self.next < self.taken.len() && !self.taken[self.next]).then_some(self.next);
        let found = expected.filter(is).or_else(|| {
            let by_first = self.by_first.get_or_insert_with(|| first_rules(before));
            let same = by_first.get(encoded.bytes(at..at + 1))?;
            // Where many begin alike, not all are looked at: parsing is not dear enough for that.
            same.iter().copied().filter(|chunk| !self.taken[*chunk]).take(ALIKE).find(is)
        })?;
        self.next = found + 1;
        self.taken[found] = true;
        Some((before.rules.chunks()[found].clone(), before.sources[found].clone()))
    }
}

fn first_rules(written: &Written) -> HashMap<&[u8], Vec<usize>, ahash::RandomState> {
    let mut by_first: HashMap<&[u8], Vec<usize>, ahash::RandomState> = HashMap::default();
    for (chunk, source) in written.sources.iter().enumerate() {
        let first = &source.bytes[..source.ends[0] as usize];
        by_first.entry(first).or_default().push(chunk);
    }
    by_first
}

/// Each set that is in a list, ascending. Numbers of sets are given from zero on.
fn union<'a>(lists: impl Iterator<Item = &'a [SetId]>) -> Vec<SetId> {
    let mut words: Vec<u64> = vec![];
    for SetId(id) in lists.flatten() {
        let word = *id as usize / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (id % 64);
    }
    let bits = |(at, word): (u32, u64)| {
        (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| SetId(64 * at + bit))
    };
    (0u32..).zip(words).flat_map(bits).collect()
}

fn ascending(mut sets: Vec<SetId>) -> Vec<SetId> {
    sets.sort_unstable();
    sets.dedup();
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(number: u32) -> pb::Rule {
        let port = number % 60_000 + 1;
        pb::Rule {
            action: pb::Action::Allow.into(),
            protocol: Some(6),
            dst_ports: vec![pb::PortRange { first: port, last: port }],
            src_ip_set_ids: if number.is_multiple_of(3) { vec![format!("s{}", number % 50)] } else { vec![] },
            ..Default::default()
        }
    }

    fn parse(numbers: &[u32], before: Option<&Written>) -> Written {
        let messages: Vec<pb::Rule> = numbers.iter().copied().map(message).collect();
        Written::parse("r", &messages, before, &mut |name| SetId(name[1..].parse().unwrap())).unwrap()
    }

    fn shared(a: &Written, b: &Written) -> usize {
        let there = |chunk: &&Arc<[Rule]>| a.rules.chunks().iter().any(|other| Arc::ptr_eq(chunk, other));
        b.rules.chunks().iter().filter(there).map(|chunk| chunk.len()).sum()
    }

    #[test]
    fn what_comes_again_is_what_it_was() {
        let numbers: Vec<u32> = (0..1000).collect();
        let first = parse(&numbers, None);
        let again = parse(&numbers, Some(&first));
        assert!(again.rules.is(&first.rules) && Arc::ptr_eq(&again.sets, &first.sets));
    }

    #[test]
    fn a_change_leaves_all_chunks_but_its_own() {
        let numbers: Vec<u32> = (0..1000).collect();
        let first = parse(&numbers, None);
        let edit = |edit: &dyn Fn(&mut Vec<u32>)| {
            let mut edited = numbers.clone();
            edit(&mut edited);
            let after = parse(&edited, Some(&first));
            assert_eq!(after, parse(&edited, None));
            shared(&first, &after)
        };
        assert!(edit(&|rules| rules[500] = 7777) >= 1000 - CHUNK);
        assert!(edit(&|rules| rules.insert(500, 7777)) >= 1000 - CHUNK);
        assert!(edit(&|rules| rules.retain(|number| *number != 500)) >= 1000 - CHUNK);
        assert!(edit(&|rules| (rules[10], rules[900]) = (7777, 8888)) >= 1000 - 2 * CHUNK);
        assert!(edit(&|rules| rules.rotate_left(300)) >= 1000 - 2 * CHUNK);
        assert!(edit(&|rules| rules.push(7777)) >= 1000 - CHUNK);
        assert!(edit(&|rules| rules.insert(0, 7777)) >= 1000 - CHUNK);
    }

    #[test]
    fn chunks_do_not_crumble() {
        let mut numbers: Vec<u32> = (0..640).collect();
        let mut written = parse(&numbers, None);
        for round in 0..500u32 {
            let at = (round * 37) as usize % numbers.len();
            numbers.insert(if round.is_multiple_of(4) { numbers.len() } else { at }, 10_000 + round);
            written = parse(&numbers, Some(&written));
        }
        assert_eq!(written, parse(&numbers, None));
        let chunks = written.rules.chunks();
        assert!(chunks.len() <= numbers.len() / SMALL + 1, "{} chunks", chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.len() <= 2 * CHUNK));
    }

    #[test]
    fn errors_name_the_rule() {
        let mut messages: Vec<pb::Rule> = (0..100).map(message).collect();
        messages[77].ip_version = 5;
        let error = Written::parse("inbound_rules", &messages, None, &mut |_| SetId(0)).unwrap_err();
        assert_eq!(error.field, "inbound_rules[77].ip_version");
    }

    proptest! {
        #[test]
        fn any_succession_of_lists_is_parsed_as_if_it_were_the_first(
            lists in prop::collection::vec(
                prop::collection::vec((0u32..40, 1usize..50), 0..12),
                1..6,
            ),
        ) {
            let mut before: Option<Written> = None;
            for list in lists {
                // Stretches of numbers that occur again, cut and moved.
                let numbers: Vec<u32> =
                    list.iter().flat_map(|(from, len)| (0..*len as u32).map(move |n| from * 7 + n)).collect();
                let now = parse(&numbers, before.as_ref());
                let anew = parse(&numbers, None);
                prop_assert_eq!(&now, &anew);
                prop_assert_eq!(&now.sets, &anew.sets);
                prop_assert_eq!(now.sources.len(), now.rules.chunks().len());
                for (source, chunk) in now.sources.iter().zip(now.rules.chunks()) {
                    prop_assert_eq!(source.ends.len(), chunk.len());
                }
                before = Some(now);
            }
        }
    }
}
