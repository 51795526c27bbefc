//! The slow twin of [`Lpm`](super::Lpm): one map, asked for every length from the longest down.

use crate::net::{Addr, Prefix};
use std::collections::BTreeMap;

pub struct Reference {
    routes: BTreeMap<Prefix, u32>,
}

impl FromIterator<(Prefix, u32)> for Reference {
    fn from_iter<I: IntoIterator<Item = (Prefix, u32)>>(routes: I) -> Self {
        Self { routes: routes.into_iter().collect() }
    }
}

impl Reference {
    pub fn lookup(&self, addr: Addr) -> Option<u32> {
        let longest = Prefix::host(addr).len();
        (0..=longest).rev().find_map(|len| self.routes.get(&Prefix::truncate(addr, len)).copied())
    }
}
