//! What one node needs, and its recent past, from which its readers go on.

use super::{
    arena::Bits,
    encoded::{Change, Encoded},
};
use margay_api::control::v1::watch_event::Type;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::sync::watch;

/// What is told to those who read for one node.
pub(super) struct View {
    /// None: everything is told.
    pub node: Option<Box<str>>,
    /// Groups that are told of.
    pub sent: Bits,
    /// How many of the node's members each policy or profile holds for.
    pub active: HashMap<Rule, usize>,
    /// Selectors whose members the rules of those name, and how many rules do.
    pub selectors: HashMap<u32, usize>,
    pub log: Arc<Log>,
    /// Since when nobody has read it.
    pub idle: Option<Instant>,
}

/// What has rules: the group of a policy, or a profile by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Rule {
    Policy(u32),
    Profile(u32),
}

/// What changed for a node at once.
pub(super) struct Delta {
    /// Where in the log it is.
    pub at: u64,
    /// Referents first, and nothing is gone before who refers to it.
    pub changes: Vec<Change>,
    pub since: Instant,
}

/// The recent past of a view, which all its readers share: a slow one costs nothing, and one that is too slow is told so.
pub(super) struct Log {
    content: Mutex<Content>,
    news: watch::Sender<u64>,
    /// How many changes are kept.
    bound: usize,
}

#[derive(Default)]
struct Content {
    deltas: VecDeque<Arc<Delta>>,
    changes: usize,
    /// Of the last delta; and of the last that is forgotten.
    last: u64,
    forgotten: u64,
    objects: u64,
}

/// A reader's place is further back than the log goes.
pub(super) struct Forgotten;

impl View {
    /// Of this node, remembering so many changes. `life`: no view had this number before, so that no place in one's log is taken
    /// for a place in another's.
    pub fn new(node: Option<&str>, bound: usize, life: u32) -> Self {
        let node = node.map(Into::into);
        let begin = u64::from(life) << 40;
        let (sent, active, selectors) = (Bits::default(), HashMap::new(), HashMap::new());
        let content = Content { last: begin, forgotten: begin, ..Content::default() };
        let log = Log { content: Mutex::new(content), news: watch::Sender::new(begin), bound };
        Self { node, sent, active, selectors, log: Arc::new(log), idle: None }
    }
}

impl Log {
    /// Adds what changed, in the order in which it can be taken over; nothing for nothing.
    pub fn push(&self, mut changes: Vec<Change>, objects: u64) {
        let mut content = self.lock();
        content.objects = objects;
        if changes.is_empty() {
            return;
        }
        changes.sort_by_key(|change| match change.what {
            Type::Deleted => (true, None, Some(Reverse(change.object.kind))),
            _ => (false, Some(change.object.kind), None),
        });
        content.last += 1;
        content.changes += changes.len();
        let delta = Delta { at: content.last, changes, since: Instant::now() };
        content.deltas.push_back(Arc::new(delta));
        // The newest stays, however large: those who follow closely must not be thrown back.
        while content.changes > self.bound && content.deltas.len() > 1 {
            let Some(oldest) = content.deltas.pop_front() else { break };
            content.changes -= oldest.changes.len();
            content.forgotten = oldest.at;
        }
        let last = content.last;
        drop(content);
        self.news.send_replace(last);
    }

    /// What comes after the place.
    pub fn after(&self, at: u64) -> Result<Option<Arc<Delta>>, Forgotten> {
        let content = self.lock();
        if at < content.forgotten || at > content.last {
            return Err(Forgotten);
        }
        let next = usize::try_from(at - content.forgotten).unwrap_or(usize::MAX);
        Ok(content.deltas.get(next).cloned())
    }

    pub fn last(&self) -> u64 {
        self.lock().last
    }

    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// How many objects there are for the readers.
    pub fn objects(&self) -> u64 {
        self.lock().objects
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gathers what becomes of objects for one view.
#[derive(Default)]
pub(super) struct Gathered(BTreeMap<u32, Change>);

impl Gathered {
    pub fn note(&mut self, object: u32, what: Type, encoded: &Arc<Encoded>) {
        self.0.insert(object, Change { what, object: encoded.clone() });
    }

    pub fn into_changes(self) -> Vec<Change> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        datastore::Entry,
        model::{Key, Kind},
    };

    fn change(what: Type, kind: Kind) -> Change {
        let entry = Entry { key: Key::global(kind, "a"), json: "{}".into(), version: 1 };
        Change { what, object: Encoded::of(&entry) }
    }

    #[test]
    fn referents_come_first_and_go_last_and_the_past_is_bounded() {
        let log = View::new(None, 4, 0).log;
        log.push(
            vec![
                change(Type::Deleted, Kind::Tier),
                change(Type::Deleted, Kind::GlobalNetworkPolicy),
                change(Type::Added, Kind::GlobalNetworkPolicy),
                change(Type::Modified, Kind::Tier),
            ],
            2,
        );
        let Ok(Some(delta)) = log.after(0) else { panic!("it is there") };
        let order: Vec<_> = delta.changes.iter().map(|change| (change.what, change.object.kind)).collect();
        let policy = Kind::GlobalNetworkPolicy;
        assert_eq!(
            order,
            [
                (Type::Modified, Kind::Tier),
                (Type::Added, policy),
                (Type::Deleted, policy),
                (Type::Deleted, Kind::Tier)
            ]
        );
        log.push(Vec::new(), 2);
        assert!(matches!(log.after(1), Ok(None)) && log.after(2).is_err(), "of the future nothing is known");
        log.push(vec![change(Type::Added, Kind::Node)], 3);
        assert!(log.after(0).is_err(), "it is forgotten");
        assert!(matches!(log.after(1), Ok(Some(delta)) if delta.at == 2));
        assert_eq!((log.last(), log.objects()), (2, 3));
    }
}
