//! All objects of the cluster, typed.

use crate::model::{
    ATTACHMENT, Key, Kind, Metadata, Object, Resource, WorkloadEndpoint,
    kubernetes::{self, Typed},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

/// Objects by key.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    objects: BTreeMap<Key, Arc<Resource>>,
    /// What each object of Kubernetes becomes, under that object's key.
    converted: BTreeMap<Key, Converted>,
}

#[derive(Clone, Debug)]
struct Converted {
    resources: Vec<Arc<Resource>>,
    implied: Vec<Arc<Resource>>,
    described: Option<Box<WorkloadEndpoint>>,
    problems: Vec<String>,
}

impl Resources {
    /// Adds the object, or replaces the one of its name.
    pub fn insert(&mut self, object: impl Into<Arc<Resource>>) {
        let object = object.into();
        let key = object.key();
        if let Resource::Kubernetes(kubernetes) = &*object {
            let kubernetes::Converted { resources, implied, described, problems } =
                kubernetes::convert(kubernetes);
            let shared = |resources: Vec<Resource>| resources.into_iter().map(Arc::new).collect();
            let (resources, implied) = (shared(resources), shared(implied));
            let converted = Converted { resources, implied, described, problems };
            self.converted.insert(key.clone(), converted);
        }
        self.objects.insert(key, object);
    }

    /// Removes the object, if it is there.
    pub fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
        self.converted.remove(key);
    }

    /// The same cluster in Calico's kinds: with what Kubernetes' objects become. An object that was
    /// written counts more than one of the same name that another becomes.
    pub fn in_calicos_kinds(&self, problems: &mut Vec<String>) -> Cow<'_, Self> {
        if self.converted.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut objects = self.objects.clone();
        let attached = self.attached_pods(&mut objects);
        for (from, converted) in &self.converted {
            problems.extend(converted.problems.iter().map(|problem| format!("{from}: {problem}")));
            for object in converted.resources.iter().filter(|_| !attached.contains(from)) {
                match objects.entry(object.key()) {
                    Entry::Vacant(entry) => {
                        entry.insert(object.clone());
                    }
                    Entry::Occupied(entry) => {
                        problems.push(format!("{from}: {} is given too, and counts", entry.key()));
                    }
                }
            }
        }
        for object in self.converted.values().flat_map(|converted| &converted.implied) {
            objects.entry(object.key()).or_insert_with(|| object.clone());
        }
        Cow::Owned(Self { objects, converted: BTreeMap::new() })
    }

    /// Has every endpoint that CNI attached follow its pod, where that is known: the link and its
    /// addresses are the endpoint's, all else the pod's. Returns the pods whose own link that is.
    fn attached_pods(&self, objects: &mut BTreeMap<Key, Arc<Resource>>) -> BTreeSet<Key> {
        let mut attached = BTreeSet::new();
        for link in self.all::<WorkloadEndpoint>() {
            let Metadata { namespace, annotations, .. } = &link.metadata;
            if link.spec.pod.is_empty() || !annotations.contains_key(ATTACHMENT) {
                continue;
            }
            let pod = Key { kind: Kind::Pod, namespace: namespace.clone(), name: link.spec.pod.clone() };
            let known = self.converted.get(&pod).and_then(|converted| converted.described.as_deref());
            if let Some(known) = known {
                let mut link = link.clone();
                link.follow(known);
                if link.spec.endpoint == known.spec.endpoint {
                    attached.insert(pod);
                }
                objects.insert(link.key(), Arc::new(link.into()));
            }
        }
        attached
    }

    /// One object.
    pub fn get<T: Object>(&self, namespace: &str, name: &str) -> Option<&T> {
        let key = Key { kind: T::KIND, namespace: namespace.to_owned(), name: name.to_owned() };
        self.objects.get(&key).and_then(|object| T::from_resource(object))
    }

    /// All objects of a type, by namespace and name.
    pub fn all<T: Object + 'static>(&self) -> impl Iterator<Item = &T> {
        self.of_kind(T::KIND).filter_map(T::from_resource)
    }

    /// All objects of one of Kubernetes' kinds, by namespace and name.
    pub fn kubernetes(&self, kind: Kind) -> impl Iterator<Item = &Typed> {
        self.of_kind(kind).filter_map(|object| match object {
            Resource::Kubernetes(object) => Some(object.typed()),
            _ => None,
        })
    }

    /// All objects, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.objects.values()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        let first = Key { kind, namespace: String::new(), name: String::new() };
        let from = (Bound::Included(first), Bound::Unbounded);
        self.objects.range(from).take_while(move |(key, _)| key.kind == kind).map(|(_, object)| &**object)
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(objects: I) -> Self {
        let mut resources = Self::default();
        objects.into_iter().for_each(|object| resources.insert(object));
        resources
    }
}
