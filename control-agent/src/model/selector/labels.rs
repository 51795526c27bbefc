//! Where a selector looks labels up.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// A lookup by name, so that labels may be inherited or made up without copying maps.
pub trait Labels {
    /// The value of a label, if it is present.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

impl<S: BuildHasher> Labels for HashMap<String, String, S> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn get(&self, name: &str) -> Option<&str> {
        (**self).get(name)
    }
}

/// Several sources of labels; the first that has a label wins. An endpoint's own labels, then
/// those its profiles apply, in the order in which it names them.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a, L>(pub &'a [L]);

impl<L: Labels> Labels for Layers<'_, L> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|labels| labels.get(name))
    }
}
