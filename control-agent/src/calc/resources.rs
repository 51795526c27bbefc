//! All objects of the cluster, typed.

use crate::model::{Key, Kind, Object, Resource};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// Objects by key.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    objects: BTreeMap<Key, Arc<Resource>>,
}

impl Resources {
    /// Adds the object, or replaces the one of its name.
    pub fn insert(&mut self, object: impl Into<Arc<Resource>>) {
        let object = object.into();
        self.objects.insert(object.key(), object);
    }

    /// Removes the object, if it is there.
    pub fn remove(&mut self, key: &Key) {
        self.objects.remove(key);
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
