//! One family's routes, and the table that follows from them, kept up to date by what changed.
//!
//! A change is noted only. [`Family::publish`] then goes down from the direct table to the nodes that the changed prefixes
//! touch, copies those, and shares all others with the tables published before. Nodes own what they lead to, by count;
//! those that nothing leads to any more are written anew once the tables that led to them are gone.

use super::arena::Arena;
use super::key::Key;
use super::slot::{Kind, Slot};
use super::table::{Parts, SKIP_WORDS, Skip, Table};
use prefix_trie::{Prefix, PrefixMap};
use std::collections::VecDeque;
use std::sync::Arc;

/// One family's routes.
pub struct Family<K, const N: usize>
where
    (K, u8): Prefix,
{
    routes: PrefixMap<(K, u8), u32>,
    /// Prefixes that were changed since the last publication, perhaps more than once.
    changed: Vec<(K, u8)>,
    root: Vec<Slot>,
    nodes: Builder<K, N>,
    published: Option<Arc<Table<K, N>>>,
    /// Tables that may still be read, the oldest first; with each, what was given up after its publication.
    read: VecDeque<(Arc<()>, [Vec<u32>; 3])>,
}

impl<K: Key, const N: usize> Family<K, N>
where
    (K, u8): Prefix,
{
    pub fn new() -> Self {
        Self {
            routes: PrefixMap::new(),
            changed: vec![],
            root: vec![],
            nodes: Builder::new(),
            published: None,
            read: VecDeque::new(),
        }
    }

    /// Adds or replaces a route. Its value is at most [`Slot::MAX_VALUE`].
    pub fn insert(&mut self, bits: K, len: u8, value: u32) -> Option<u32> {
        let before = self.routes.insert((bits, len), value);
        if before != Some(value) {
            self.changed.push((bits, len));
        }
        before
    }

    pub fn remove(&mut self, bits: K, len: u8) -> Option<u32> {
        let before = self.routes.remove(&(bits, len));
        if before.is_some() {
            self.changed.push((bits, len));
        }
        before
    }

    pub fn get(&self, bits: K, len: u8) -> Option<u32> {
        self.routes.get(&(bits, len)).copied()
    }

    /// Length and value of the most specific route that holds an address.
    pub fn longest(&self, addr: K) -> Option<(u8, u32)> {
        self.routes.get_lpm(&(addr, K::BITS as u8)).map(|((_, len), value)| (len, *value))
    }

    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// A table with all changes so far.
    pub fn publish(&mut self) -> Arc<Table<K, N>> {
        if let Some(published) = self.published.as_ref().filter(|_| self.changed.is_empty()) {
            return published.clone();
        }
        self.reuse();
        let root_bits = self.root_bits();
        let as_wide = self.root.len() == 1 << root_bits;
        // One pass over all routes is cheaper than many over few.
        if as_wide && self.changed.len() < self.routes.len() / 4 {
            self.update(root_bits);
        } else {
            self.build(root_bits);
        }
        self.changed.clear();
        let given_up = self.nodes.take_given_up();
        if let Some((_, after)) = self.read.back_mut() {
            *after = given_up;
        }
        let alive = Arc::new(());
        self.read.push_back((alive.clone(), Default::default()));
        let table = Arc::new(Table::new(self.nodes.publish(self.root.clone().into(), alive)));
        self.published = Some(table.clone());
        table
    }

    /// A wider direct table saves loads; it must not outweigh the routes. A little slack, so that one route more and less
    /// does not build all anew.
    fn root_bits(&self) -> u32 {
        let wanted = |routes: usize| match routes {
            0..=256 => 8,
            257..=16_384 => 14,
            _ => Self::WIDEST,
        };
        let (now, routes) = (self.root.len().trailing_zeros(), self.routes.len());
        if wanted(routes - routes / 8) <= now && now <= wanted(routes + routes / 8) {
            return now;
        }
        wanted(routes)
    }

    /// With nodes of 256 entries, 16 bits lead to nodes at the byte boundaries that IPv6 is handed out by.
    const WIDEST: u32 = if N == 256 { 16 } else { 18 };

    fn build(&mut self, root_bits: u32) {
        for slot in std::mem::take(&mut self.root) {
            self.nodes.release(slot);
        }
        let routes: Vec<Route<K>> = self.routes.iter().map(Route::from).collect();
        let mut root = vec![Slot::NO_ROUTE; 1 << root_bits];
        self.nodes.fill(&mut root, root_bits, &routes, 0);
        for slot in &mut root {
            *slot = self.nodes.narrowed(*slot);
        }
        self.root = root;
    }

    fn update(&mut self, root_bits: u32) {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let mut root = std::mem::take(&mut self.root);
        self.nodes.update_slots(&self.routes, &mut root, root_bits, K::ZERO, 0, &changed, true);
        self.root = root;
        self.changed = changed;
    }

    /// Nodes of tables that nobody reads any more may be written again.
    fn reuse(&mut self) {
        // Unique: the table is gone, and what it read was read before.
        while self.read.len() > 1
            && self.read.front_mut().is_some_and(|(alive, _)| Arc::get_mut(alive).is_some())
        {
            if let Some((_, numbers)) = self.read.pop_front() {
                self.nodes.reuse(numbers);
            }
        }
    }
}

/// A prefix and what it leads to. Bits behind `len` are zero.
#[derive(Clone, Copy, Debug)]
struct Route<K> {
    bits: K,
    len: u32,
    value: u32,
}

impl<K> From<((K, u8), &u32)> for Route<K> {
    fn from(((bits, len), value): ((K, u8), &u32)) -> Self {
        Self { bits, len: u32::from(len), value: *value }
    }
}

/// The nodes of a table, and how to make them.
struct Builder<K, const N: usize> {
    narrow: Arena<u16, N>,
    wide: Arena<u32, N>,
    skips: Arena<u32, SKIP_WORDS>,
    /// Routes of the region at hand, kept for its memory.
    region: Vec<Route<K>>,
}

impl<K: Key, const N: usize> Builder<K, N>
where
    (K, u8): Prefix,
{
    const STRIDE: u32 = Table::<K, N>::STRIDE;
    /// The shortest run of shared bits worth a skip: what two nodes would resolve.
    const SKIP_MIN: u32 = 2 * Self::STRIDE;

    fn new() -> Self {
        Self { narrow: Arena::new(), wide: Arena::new(), skips: Arena::new(), region: vec![] }
    }

    fn publish(&mut self, root: Box<[Slot]>, alive: Arc<()>) -> Parts<N> {
        Parts {
            root,
            node_bytes: self.narrow.bytes() + self.wide.bytes() + self.skips.bytes(),
            narrow: self.narrow.publish(),
            wide: self.wide.publish(),
            skips: self.skips.publish(),
            alive,
        }
    }

    fn take_given_up(&mut self) -> [Vec<u32>; 3] {
        [self.narrow.take_given_up(), self.wide.take_given_up(), self.skips.take_given_up()]
    }

    fn reuse(&mut self, [narrow, wide, skips]: [Vec<u32>; 3]) {
        self.narrow.reuse(&narrow);
        self.wide.reuse(&wide);
        self.skips.reuse(&skips);
    }

    /// Writes `routes`, all of which lie behind the same first `depth` bits, into the slots for the next `width` bits. The
    /// slots are leaves, and hold what the routes above have to say.
    fn fill(&mut self, slots: &mut [Slot], width: u32, routes: &[Route<K>], depth: u32) {
        let end = depth + width;
        for route in routes.iter().filter(|r| r.len <= end) {
            let first = route.bits.after(depth).first(width);
            slots[first..first + (1 << (end - route.len))].fill(Slot::leaf(route.value));
        }
        let slot = |r: &Route<K>| r.bits.after(depth).first(width);
        for run in routes.chunk_by(|a, b| slot(a) == slot(b)) {
            let deeper = &run[run.partition_point(|r| r.len <= end)..];
            if let Some(first) = deeper.first() {
                let slot = &mut slots[slot(first)];
                *slot = self.grow(deeper, end, *slot);
            }
        }
    }

    /// The slot for `routes`, all of which lie behind the same first `depth` bits and are longer, where the leaf
    /// `inherited` is the answer for addresses that none of them holds.
    fn grow(&mut self, routes: &[Route<K>], depth: u32, inherited: Slot) -> Slot {
        let (Some(first), Some(last)) = (routes.first(), routes.last()) else { return inherited };
        let shortest = routes.iter().map(|r| r.len).min().unwrap_or(depth);
        let shared = first.bits.shared(last.bits).min(shortest);
        if shared >= depth + Self::SKIP_MIN {
            // Only the first route can be as short as what all of them share.
            let (below, answer) = if first.len == shared {
                (&routes[1..], Slot::leaf(first.value))
            } else {
                (routes, inherited)
            };
            let next = self.grow(below, shared, answer);
            return self.skip(Skip {
                bits: first.bits.after(depth).keep(shared - depth),
                len: shared - depth,
                miss: inherited,
                next,
            });
        }
        let mut slots = [inherited; N];
        self.fill(&mut slots, Self::STRIDE, routes, depth);
        self.node(&slots)
    }

    /// A skip, which takes over the reference that `next` stands for.
    fn skip(&mut self, skip: Skip<K>) -> Slot {
        if skip.next == skip.miss {
            return skip.miss;
        }
        let (number, known) = self.skips.intern(&skip.words());
        if known {
            self.release(skip.next);
        }
        Slot::skip(number)
    }

    /// A node of these slots, which takes over the references that they stand for.
    fn node(&mut self, slots: &[Slot; N]) -> Slot {
        if slots[0].kind() == Kind::Leaf && slots.iter().all(|slot| *slot == slots[0]) {
            return slots[0];
        }
        let mut narrow = [0; N];
        let fits = slots
            .iter()
            .zip(&mut narrow)
            .all(|(slot, entry)| slot.to_narrow().inspect(|answer| *entry = *answer).is_some());
        if fits {
            return Slot::narrow(self.narrow.intern(&narrow).0);
        }
        let (number, known) = self.wide.intern(&slots.map(|slot| slot.0));
        if known {
            for slot in slots {
                self.release(*slot);
            }
        }
        Slot::wide(number)
    }

    /// As the direct table has it: a narrow node, also where one leaf would do.
    fn narrowed(&mut self, slot: Slot) -> Slot {
        match slot.to_narrow() {
            Some(answer) => Slot::narrow(self.narrow.intern(&[answer; N]).0),
            None => slot,
        }
    }

    fn retain(&mut self, slot: Slot) {
        match slot.kind() {
            Kind::Narrow(number) => self.narrow.retain(number),
            Kind::Wide(number) => self.wide.retain(number),
            Kind::Skip(number) => self.skips.retain(number),
            Kind::Leaf => {}
        }
    }

    fn release(&mut self, slot: Slot) {
        match slot.kind() {
            Kind::Narrow(number) => {
                self.narrow.release(number);
            }
            Kind::Wide(number) => {
                if self.wide.release(number) {
                    for word in self.wide.node(number) {
                        self.release(Slot(word));
                    }
                }
            }
            Kind::Skip(number) => {
                if self.skips.release(number) {
                    self.release(Skip::<K>::from_words(self.skips.node(number)).next);
                }
            }
            Kind::Leaf => {}
        }
    }

    /// Brings up to date the slots for the `width` bits behind the first `depth`, which are those of `base`. Each prefix
    /// of `changed` lies there, and is longer than `depth` unless this is the direct table.
    #[expect(clippy::too_many_arguments, reason = "a place in the table is four of them")]
    fn update_slots(
        &mut self,
        routes: &PrefixMap<(K, u8), u32>,
        slots: &mut [Slot],
        width: u32,
        base: K,
        depth: u32,
        changed: &[(K, u8)],
        direct: bool,
    ) {
        let end = depth + width;
        let at = |bits: K| bits.after(depth).first(width);
        // Where a prefix as short as this changed, all below is made anew: what it inherits changed.
        let mut anew = 0;
        let mut rest = changed;
        while let Some(&(bits, len)) = rest.first() {
            let first = at(bits);
            if u32::from(len) <= end {
                rest = &rest[1..];
                let behind = first + (1 << (end - u32::from(len)));
                for (number, slot) in slots.iter_mut().enumerate().take(behind).skip(first.max(anew)) {
                    let place = base.with(depth, width, number);
                    let new = self.region(routes, place, end);
                    let new = if direct { self.narrowed(new) } else { new };
                    let old = std::mem::replace(slot, new);
                    self.release(old);
                }
                anew = anew.max(behind);
                continue;
            }
            let run = rest.partition_point(|(bits, _)| at(*bits) <= first);
            let (below, after) = rest.split_at(run);
            rest = after;
            if first >= anew {
                let new = self.update(routes, slots[first], base.with(depth, width, first), end, below);
                slots[first] = if direct { self.narrowed(new) } else { new };
            }
        }
    }

    /// What `slot`, which stands behind the first `depth` bits of `base`, becomes. Takes over the reference that it stands
    /// for, and gives one.
    fn update(
        &mut self,
        routes: &PrefixMap<(K, u8), u32>,
        slot: Slot,
        base: K,
        depth: u32,
        changed: &[(K, u8)],
    ) -> Slot {
        let mut slots = match slot.kind() {
            Kind::Narrow(number) => self.narrow.node(number).map(Slot::from_narrow),
            Kind::Wide(number) => self.wide.node(number).map(Slot),
            Kind::Skip(number) => {
                let skip = Skip::from_words(self.skips.node(number));
                if let Some(new) = self.update_skip(routes, skip, depth, changed) {
                    self.release(slot);
                    return new;
                }
                let new = self.region(routes, base, depth);
                self.release(slot);
                return new;
            }
            Kind::Leaf => return self.region(routes, base, depth),
        };
        for slot in slots {
            self.retain(slot);
        }
        self.update_slots(routes, &mut slots, Self::STRIDE, base, depth, changed, false);
        self.release(slot);
        self.node(&slots)
    }

    /// A skip stays one when all that changed lies below it.
    fn update_skip(
        &mut self,
        routes: &PrefixMap<(K, u8), u32>,
        skip: Skip<K>,
        depth: u32,
        changed: &[(K, u8)],
    ) -> Option<Slot> {
        let below = depth + skip.len;
        let inside = |(bits, len): &(K, u8)| {
            u32::from(*len) > below && bits.after(depth).shared(skip.bits) >= skip.len
        };
        let first = changed.first()?;
        if !changed.iter().all(inside) || !matches!(skip.next.kind(), Kind::Narrow(_) | Kind::Wide(_)) {
            return None;
        }
        self.retain(skip.next);
        let next = self.update(routes, skip.next, first.0.keep(below), below, changed);
        if matches!(next.kind(), Kind::Narrow(_) | Kind::Wide(_)) {
            return Some(self.skip(Skip { next, ..skip }));
        }
        // The routes below share more bits now, or are gone.
        self.release(next);
        None
    }

    /// The slot for all routes that are longer than the first `depth` bits of `base`, which they begin with.
    fn region(&mut self, routes: &PrefixMap<(K, u8), u32>, base: K, depth: u32) -> Slot {
        // The last node may reach beyond the address.
        let place = (base, depth.min(K::BITS) as u8);
        let inherited = routes.get_lpm(&place).map_or(Slot::NO_ROUTE, |(_, value)| Slot::leaf(*value));
        let mut region = std::mem::take(&mut self.region);
        region.clear();
        region.extend(routes.children(&place).map(Route::from).filter(|route| route.len > depth));
        let slot = self.grow(&region, depth, inherited);
        self.region = region;
        slot
    }
}
