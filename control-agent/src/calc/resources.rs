//! All objects of the cluster, typed, in Calico's kinds.

use crate::model::{
    ATTACHMENT, Key, Kind, Metadata, Object, Resource, WorkloadEndpoint,
    kubernetes::{self, Typed},
};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    iter,
    ops::Bound,
    sync::Arc,
};

/// Objects by key: those that were written, and those that Kubernetes' objects become.
///
/// An object that was written counts more than one of the same name that another becomes, and that more than one that another
/// takes for granted. An endpoint that CNI attached follows its pod, where that is known: the link and its addresses are the
/// endpoint's, all else the pod's.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    written: Objects,
    /// What counts and is not as it was written.
    made: Objects,
    /// What each object of Kubernetes becomes, under that object's key.
    converted: BTreeMap<Key, Converted>,
    /// What objects of Kubernetes become, and which of them do.
    sources: BTreeMap<Key, BTreeSet<(Claim, Key)>>,
    /// Endpoints that CNI attached, by their pod.
    attached: BTreeMap<Key, BTreeSet<Key>>,
    /// What is wrong with what objects of Kubernetes become, under those objects' keys.
    problems: BTreeMap<Key, Vec<String>>,
}

type Objects = BTreeMap<Key, Arc<Resource>>;

#[derive(Clone, Debug)]
struct Converted {
    /// What it becomes, and how much that counts.
    into: Vec<(Claim, Arc<Resource>)>,
    described: Option<Box<WorkloadEndpoint>>,
    problems: Vec<String>,
}

/// How much an object counts that another becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Becomes,
    Implies,
}

/// What counted under a key before a change; none: nothing.
pub(super) type Before = (Key, Option<Arc<Resource>>);

impl Resources {
    /// Adds the object, or replaces the one of its name.
    pub fn insert(&mut self, object: impl Into<Arc<Resource>>) {
        let object = object.into();
        self.change(object.key(), Some(object));
    }

    /// Removes the object, if it is there.
    pub fn remove(&mut self, key: &Key) {
        self.change(key.clone(), None);
    }

    /// Puts the object in the place of what was written under the key. Returns all that this may change.
    pub(super) fn change(&mut self, key: Key, object: Option<Arc<Resource>>) -> Vec<Before> {
        let mut touched = self.dependents(&key);
        let old = match &object {
            Some(object) => self.written.insert(key.clone(), object.clone()),
            None => self.written.remove(&key),
        };
        self.attach(&key, old.as_deref(), object.as_deref());
        self.convert(&key, object.as_deref());
        touched.extend(self.dependents(&key));
        let before = |touched: Key| {
            let was = match self.made.get(&touched) {
                None if touched == key => old.clone(),
                _ => self.object(&touched).cloned(),
            };
            (touched, was)
        };
        let changes: Vec<Before> = touched.into_iter().map(before).collect();
        for (key, _) in &changes {
            self.settle(key);
        }
        changes
    }

    /// What an object decides over: itself, what it becomes, and if it is a pod or a pod's link, what that pod and its links
    /// become.
    fn dependents(&self, key: &Key) -> BTreeSet<Key> {
        let pod = self.written.get(key).and_then(|object| pod_of(object)).unwrap_or_else(|| key.clone());
        let becomes = |from: &Key| {
            let into = self.converted.get(from).into_iter().flat_map(|converted| &converted.into);
            into.map(|(_, made)| made.key()).collect::<Vec<_>>()
        };
        let links = self.attached.get(&pod).into_iter().flatten().cloned();
        links.chain(becomes(key)).chain(becomes(&pod)).chain([key.clone()]).collect()
    }

    /// Notes of which pod an object is the link.
    fn attach(&mut self, key: &Key, old: Option<&Resource>, new: Option<&Resource>) {
        if let Some(pod) = old.and_then(pod_of)
            && let Some(links) = self.attached.get_mut(&pod)
        {
            links.remove(key);
            if links.is_empty() {
                self.attached.remove(&pod);
            }
        }
        if let Some(pod) = new.and_then(pod_of) {
            self.attached.entry(pod).or_default().insert(key.clone());
        }
    }

    /// Notes what an object becomes.
    fn convert(&mut self, from: &Key, object: Option<&Resource>) {
        for (claim, made) in self.converted.remove(from).into_iter().flat_map(|old| old.into) {
            let key = made.key();
            if let Some(sources) = self.sources.get_mut(&key) {
                sources.remove(&(claim, from.clone()));
                if sources.is_empty() {
                    self.sources.remove(&key);
                }
            }
        }
        self.problems.remove(from);
        let Some(Resource::Kubernetes(object)) = object else { return };
        let kubernetes::Converted { resources, implied, described, problems } = kubernetes::convert(object);
        let shared = |claim| move |made: Resource| (claim, Arc::new(made));
        let implied = implied.into_iter().map(shared(Claim::Implies));
        let into: Vec<_> = resources.into_iter().map(shared(Claim::Becomes)).chain(implied).collect();
        for (claim, made) in &into {
            self.sources.entry(made.key()).or_default().insert((*claim, from.clone()));
        }
        self.converted.insert(from.clone(), Converted { into, described, problems });
        self.complain(from);
    }

    /// Decides what counts under a key.
    fn settle(&mut self, key: &Key) {
        let made = match self.written.get(key) {
            Some(written) => self.following(written),
            None => self.claims(key).next().map(|(_, object)| object.clone()),
        };
        match made {
            Some(made) => drop(self.made.insert(key.clone(), made)),
            None => drop(self.made.remove(key)),
        }
        let sources: Vec<_> = self.sources.get(key).into_iter().flatten().cloned().collect();
        for (_, from) in sources.iter().filter(|(claim, _)| *claim == Claim::Becomes) {
            self.complain(from);
        }
    }

    /// What others become under a key: the first counts.
    fn claims(&self, key: &Key) -> impl Iterator<Item = (&Key, &Arc<Resource>)> {
        let sources = self.sources.get(key).into_iter().flatten();
        let sources = sources.filter(|(claim, from)| *claim == Claim::Implies || !self.has_link(from));
        sources.filter_map(move |(claim, from)| {
            let into = &self.converted.get(from)?.into;
            let is_it = |made: &Resource| {
                (made.kind(), made.namespace(), made.name()) == (key.kind, &*key.namespace, &*key.name)
            };
            let (_, made) = into.iter().find(|(its, made)| its == claim && is_it(made))?;
            Some((from, made))
        })
    }

    /// A pod's link as its pod has it, where that is known.
    fn following(&self, link: &Resource) -> Option<Arc<Resource>> {
        let known = self.converted.get(&pod_of(link)?)?.described.as_deref()?;
        let mut link = WorkloadEndpoint::from_resource(link)?.clone();
        link.follow(known);
        Some(Arc::new(link.into()))
    }

    /// Whether the endpoint that a pod becomes is there as its link.
    fn has_link(&self, pod: &Key) -> bool {
        let described = self.converted.get(pod).and_then(|pod| pod.described.as_ref());
        let Some((described, links)) = described.zip(self.attached.get(pod)) else { return false };
        let links = links.iter().filter_map(|link| WorkloadEndpoint::from_resource(self.written.get(link)?));
        links.into_iter().any(|link| link.spec.endpoint == described.spec.endpoint)
    }

    /// Says what is wrong with what an object becomes.
    fn complain(&mut self, from: &Key) {
        let Some(converted) = self.converted.get(from) else { return };
        let mut problems: Vec<_> =
            converted.problems.iter().map(|problem| format!("{from}: {problem}")).collect();
        let becomes = converted.into.iter().filter(|(claim, _)| *claim == Claim::Becomes);
        for key in becomes.map(|(_, made)| made.key()).filter(|_| !self.has_link(from)) {
            let counts = self.claims(&key).next().is_some_and(|(first, _)| first == from);
            if self.written.contains_key(&key) || !counts {
                problems.push(format!("{from}: {key} is given too, and counts"));
            }
        }
        match problems.is_empty() {
            true => drop(self.problems.remove(from)),
            false => drop(self.problems.insert(from.clone(), problems)),
        }
    }

    /// What is wrong with what objects of Kubernetes become, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        self.problems.values().flatten().cloned().collect()
    }

    /// What counts under a key.
    pub(super) fn object(&self, key: &Key) -> Option<&Arc<Resource>> {
        self.made.get(key).or_else(|| self.written.get(key))
    }

    /// One object.
    pub fn get<T: Object>(&self, namespace: &str, name: &str) -> Option<&T> {
        let key = Key { kind: T::KIND, namespace: namespace.to_owned(), name: name.to_owned() };
        self.object(&key).and_then(|object| T::from_resource(object))
    }

    /// All objects of a type, by namespace and name.
    pub fn all<T: Object + 'static>(&self) -> impl Iterator<Item = &T> {
        self.of_kind(T::KIND).filter_map(|object| T::from_resource(object))
    }

    /// All objects of one of Kubernetes' kinds, by namespace and name.
    pub fn kubernetes(&self, kind: Kind) -> impl Iterator<Item = &Typed> {
        self.of_kind(kind).filter_map(|object| match &**object {
            Resource::Kubernetes(object) => Some(object.typed()),
            _ => None,
        })
    }

    /// All objects, by kind, namespace and name: Kubernetes' as they were written, too.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        merged(self.written.iter(), self.made.iter())
    }

    /// What was written, by key.
    pub(super) fn written(&self) -> impl Iterator<Item = &Key> {
        self.written.keys()
    }

    /// How many objects were written.
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// All of a kind, by namespace and name.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        let first = Key { kind, namespace: String::new(), name: String::new() };
        let from = (Bound::Included(first), Bound::Unbounded);
        let (written, made) = (self.written.range(from.clone()), self.made.range(from));
        let is_of_it = move |(key, _): &(&Key, &Arc<Resource>)| key.kind == kind;
        merged(written.take_while(is_of_it), made.take_while(is_of_it))
    }
}

type Entry<'a> = (&'a Key, &'a Arc<Resource>);

/// Both in one order. Under one key what is made counts.
fn merged<'a>(
    written: impl Iterator<Item = Entry<'a>>,
    made: impl Iterator<Item = Entry<'a>>,
) -> impl Iterator<Item = &'a Arc<Resource>> {
    let (mut written, mut made) = (written.peekable(), made.peekable());
    iter::from_fn(move || {
        let order = match (written.peek(), made.peek()) {
            (Some((written, _)), Some((made, _))) => written.cmp(made),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let as_written = if order.is_le() { written.next() } else { None };
        let found = if order.is_ge() { made.next() } else { as_written };
        found.map(|(_, object)| object)
    })
}

/// The pod of an endpoint that CNI attached.
fn pod_of(object: &Resource) -> Option<Key> {
    let link = WorkloadEndpoint::from_resource(object)?;
    let Metadata { namespace, annotations, .. } = &link.metadata;
    let is_link = !link.spec.pod.is_empty() && annotations.contains_key(ATTACHMENT);
    is_link.then(|| Key { kind: Kind::Pod, namespace: namespace.clone(), name: link.spec.pod.clone() })
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(objects: I) -> Self {
        let mut resources = Self::default();
        objects.into_iter().for_each(|object| resources.insert(object));
        resources
    }
}
