//! Nodes that several generations of a table share.
//!
//! The writer adds nodes and gives them up; tables that were published read them all the while. A node's words are
//! written before any published table leads to it, and not again before all tables that led to it are gone: so a reader
//! never sees one half made, and relaxed atomics, which cost a reader nothing, are enough.

use crate::packet::prefetch_element;
use ahash::RandomState;
use hashbrown::HashTable;
use std::array;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

/// What nodes are made of.
pub trait Word: Copy + Default + Eq + Hash {
    /// Where one is kept.
    type Cell: Default + Send + Sync;
    fn get(cell: &Self::Cell) -> Self;
    fn set(self, cell: &Self::Cell);
}

macro_rules! word {
    ($word:ty, $cell:ty) => {
        impl Word for $word {
            type Cell = $cell;

            #[inline]
            fn get(cell: &$cell) -> Self {
                cell.load(Relaxed)
            }

            fn set(self, cell: &$cell) {
                cell.store(self, Relaxed);
            }
        }
    };
}

word!(u16, AtomicU16);
word!(u32, AtomicU32);

/// A reader's view: all nodes, `N` words each.
pub struct Nodes<W: Word, const N: usize>(Arc<[W::Cell]>);

impl<W: Word, const N: usize> Clone for Nodes<W, N> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Word, const N: usize> Nodes<W, N> {
    fn with_room(nodes: usize) -> Self {
        Self((0..nodes * N).map(|_| W::Cell::default()).collect())
    }

    /// Where word `at` of a node stands among all words.
    #[inline]
    pub const fn place(node: u32, at: usize) -> usize {
        node as usize * N + at
    }

    /// The word at a [`place`](Self::place).
    #[inline]
    pub fn word(&self, place: usize) -> W {
        W::get(&self.0[place])
    }

    /// Pulls it towards the cache.
    #[inline]
    pub fn prefetch(&self, place: usize) {
        prefetch_element(&self.0, place);
    }

    fn node(&self, node: u32) -> [W; N] {
        array::from_fn(|at| self.word(Self::place(node, at)))
    }

    fn room(&self) -> usize {
        self.0.len() / N
    }

    fn write(&self, node: u32, words: &[W; N]) {
        for (word, cell) in words.iter().zip(&self.0[node as usize * N..]) {
            word.set(cell);
        }
    }
}

/// The writer's side. Equal nodes are one node; how many lead to it is counted.
pub struct Arena<W: Word, const N: usize> {
    nodes: Nodes<W, N>,
    entries: Vec<Entry>,
    by_content: HashTable<u32>,
    hasher: RandomState,
    /// May be written anew.
    spare: Vec<u32>,
    /// Given up since the last publication, and perhaps read by tables published before.
    given_up: Vec<u32>,
    /// Publications so far.
    epoch: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    refs: u32,
    /// Publications before it was made.
    born: u32,
}

impl<W: Word, const N: usize> Arena<W, N> {
    pub fn new() -> Self {
        Self {
            nodes: Nodes::with_room(0),
            entries: vec![],
            by_content: HashTable::new(),
            // Fixed seeds: routes come from the control plane, and equal routes build equal tables.
            hasher: RandomState::with_seeds(1, 2, 3, 4),
            spare: vec![],
            given_up: vec![],
            epoch: 0,
        }
    }

    /// The node with these words, made if there is none, with one reference more. The flag says that there was one.
    pub fn intern(&mut self, words: &[W; N]) -> (u32, bool) {
        let hash = self.hasher.hash_one(words);
        let nodes = &self.nodes;
        if let Some(&number) = self.by_content.find(hash, |&number| nodes.node(number) == *words) {
            self.entries[number as usize].refs += 1;
            return (number, true);
        }
        let entry = Entry { hash, refs: 1, born: self.epoch };
        let number = match self.spare.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        assert!(number < super::slot::Slot::LIMIT, "2^30 nodes are more than memory holds");
        if number as usize >= self.nodes.room() {
            self.grow();
        }
        self.nodes.write(number, words);
        let entries = &self.entries;
        self.by_content.insert_unique(hash, number, |&number| entries[number as usize].hash);
        (number, false)
    }

    pub fn node(&self, number: u32) -> [W; N] {
        self.nodes.node(number)
    }

    pub fn retain(&mut self, number: u32) {
        self.entries[number as usize].refs += 1;
    }

    /// One reference less. True when it was the last: the node is given up, and so are its references.
    pub fn release(&mut self, number: u32) -> bool {
        let entry = &mut self.entries[number as usize];
        entry.refs -= 1;
        if entry.refs > 0 {
            return false;
        }
        if let Ok(found) = self.by_content.find_entry(entry.hash, |&other| other == number) {
            found.remove();
        }
        // Made since the last publication: nobody ever saw it.
        let unseen = entry.born == self.epoch;
        if unseen { &mut self.spare } else { &mut self.given_up }.push(number);
        true
    }

    /// For a table about to be published.
    pub fn publish(&mut self) -> Nodes<W, N> {
        self.epoch += 1;
        self.nodes.clone()
    }

    /// What was given up since the last publication.
    pub fn take_given_up(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.given_up)
    }

    /// No published table leads to these any more.
    pub fn reuse(&mut self, numbers: &[u32]) {
        self.spare.extend_from_slice(numbers);
    }

    /// Memory that readers may touch, in bytes.
    pub fn bytes(&self) -> usize {
        self.nodes.0.len() * size_of::<W::Cell>()
    }

    /// A quarter more room. Tables published before keep the old memory.
    fn grow(&mut self) {
        let room = self.nodes.room();
        let larger = Nodes::with_room(room + (room / 4).max(2));
        for (cell, new) in self.nodes.0.iter().zip(larger.0.iter()) {
            W::get(cell).set(new);
        }
        self.nodes = larger;
    }
}
