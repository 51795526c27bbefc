//! A block of addresses as a value: who has which, and what may become of it.
//!
//! Nothing here reads a clock or a store. Every change counts the block's sequence number up, and an
//! address is known by the number it was given at: one that was given back and given again is another.

use crate::model::scalar::Timestamp;
use crate::model::{
    AffinityState, AllocationAttribute, BlockAffinity, BlockAffinitySpec, Cidr, IpamBlock, IpamBlockSpec,
    Metadata,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Before the node's name in a block's affinity.
const HOST: &str = IpamBlockSpec::HOST;

/// The largest block, in bits of the address: /20 or /116.
const MAX_BITS: u8 = 12;

/// A block whose books are right.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    cidr: Cidr,
    affinity: Option<String>,
    claimed: Option<Timestamp>,
    strict: bool,
    sequence: u64,
    given: BTreeMap<u32, Allocation>,
    /// Every other address, the one that was given back first at the front.
    free: VecDeque<u32>,
    /// Those of the free that were given back so recently that nobody may have them yet.
    resting: BTreeMap<u32, Timestamp>,
}

/// An address that somebody has.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// Who.
    pub owner: Arc<Owner>,
    /// The block's sequence number when it was given.
    pub sequence: u64,
}

/// Who has an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Under which it is given back.
    pub handle: String,
    /// What else was noted: `namespace`, `pod`, `node`, `type`.
    pub attributes: BTreeMap<String, String>,
}

impl Owner {
    /// The workload's namespace.
    pub const NAMESPACE: &str = "namespace";
    /// The workload's name. What has this lives as long as the workload's endpoint.
    pub const POD: &str = "pod";
    /// Where it is used.
    pub const NODE: &str = "node";
    /// What it is used for, if not for a workload: `tunnel`.
    pub const TYPE: &str = "type";

    /// An attribute; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Why an address was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is not in this block.
    Outside,
    /// Somebody has it.
    Taken(Arc<Owner>),
}

impl Block {
    /// A new block of `node`, all free. It must be within 4,096 addresses.
    ///
    /// Its sequence numbers go on from the time, so that they are none of an earlier block's there.
    pub fn claim(cidr: Cidr, node: &str, strict: bool, now: Timestamp) -> Self {
        Self {
            cidr,
            affinity: Some(format!("{HOST}{node}")),
            claimed: Some(now),
            strict,
            sequence: now.unix() << 20,
            given: BTreeMap::new(),
            free: (0..size(cidr)).collect(),
            resting: BTreeMap::new(),
        }
    }

    /// The block's prefix.
    pub const fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// The node whose block it is.
    pub fn node(&self) -> Option<&str> {
        self.affinity.as_deref()?.strip_prefix(HOST)
    }

    /// The block is somebody's: a node's, or one of Calico's virtual owners'.
    pub const fn is_owned(&self) -> bool {
        self.affinity.is_some()
    }

    /// Since when it is that node's.
    pub const fn claimed(&self) -> Option<Timestamp> {
        self.claimed
    }

    /// Counts changes.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Nobody has an address of it.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// How many addresses it has, given or free.
    pub fn size(&self) -> u32 {
        size(self.cidr)
    }

    /// The addresses that somebody has, ascending.
    pub fn allocations(&self) -> impl Iterator<Item = (IpAddr, &Allocation)> {
        self.given.iter().map(|(at, allocation)| (address(self.cidr, *at), allocation))
    }

    /// Who has the address.
    pub fn allocation(&self, addr: IpAddr) -> Option<&Allocation> {
        self.given.get(&ordinal(self.cidr, addr)?)
    }

    /// The addresses that may be given now, the next first.
    pub fn available(
        &self,
        now: Timestamp,
        rest: u64,
        may: impl Fn(IpAddr) -> bool,
    ) -> impl Iterator<Item = IpAddr> {
        let free = self.free.iter().filter(move |at| !self.rests(**at, now, rest));
        free.map(|at| address(self.cidr, *at)).filter(move |addr| may(*addr))
    }

    /// Whether an address rests still, having been given back less than `rest` seconds ago.
    pub fn has_resting(&self, now: Timestamp, rest: u64) -> bool {
        self.resting.keys().any(|at| self.rests(*at, now, rest))
    }

    /// Gives up to `count` addresses that rest no more and that `may` allows. Returns them.
    pub fn assign(
        &mut self,
        count: usize,
        owner: &Arc<Owner>,
        now: Timestamp,
        rest: u64,
        may: impl Fn(IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        let chosen: Vec<IpAddr> = self.available(now, rest, may).take(count).collect();
        for addr in &chosen {
            self.give(*addr, owner);
        }
        self.changed(!chosen.is_empty(), now, rest);
        chosen
    }

    /// Gives one address, also one that rests.
    ///
    /// # Errors
    /// Somebody has it, or it is of another block.
    pub fn assign_one(
        &mut self,
        addr: IpAddr,
        owner: &Arc<Owner>,
        now: Timestamp,
        rest: u64,
    ) -> Result<(), Denied> {
        let at = ordinal(self.cidr, addr).ok_or(Denied::Outside)?;
        if let Some(taken) = self.given.get(&at) {
            return Err(Denied::Taken(taken.owner.clone()));
        }
        self.give(addr, owner);
        self.changed(true, now, rest);
        Ok(())
    }

    /// Takes back what `is_over` says of. Returns it. It rests for `rest` seconds from now.
    pub fn release(
        &mut self,
        now: Timestamp,
        rest: u64,
        is_over: impl Fn(IpAddr, &Allocation) -> bool,
    ) -> Vec<IpAddr> {
        let over: Vec<u32> = self
            .given
            .iter()
            .filter(|(at, allocation)| is_over(address(self.cidr, **at), allocation))
            .map(|(at, _)| *at)
            .collect();
        for at in &over {
            self.given.remove(at);
            self.free.push_back(*at);
            if rest > 0 {
                self.resting.insert(*at, now);
            }
        }
        self.changed(!over.is_empty(), now, rest);
        over.into_iter().map(|at| address(self.cidr, at)).collect()
    }

    /// Makes it `node`'s block; of `None`, nobody's.
    pub fn hand_to(&mut self, node: Option<&str>, now: Timestamp) {
        self.affinity = node.map(|node| format!("{HOST}{node}"));
        self.claimed = node.map(|_| now);
        self.sequence += 1;
    }

    /// Changes nothing but the sequence number: whoever decided by an older one is told to look again.
    pub fn touch(&mut self) {
        self.sequence += 1;
    }

    /// As an object is read.
    ///
    /// # Errors
    /// What is wrong with its books: such a block gives and takes nothing.
    pub fn parse(object: &IpamBlock) -> Result<Self, String> {
        let spec = &object.spec;
        let cidr = spec.cidr;
        if width(cidr) - cidr.len() > MAX_BITS {
            return Err(format!("spec.cidr: {cidr} is larger than any block"));
        }
        let size = size(cidr);
        let places = spec.allocations.len();
        if places != size as usize {
            return Err(format!("spec.allocations: {places} places for {size} addresses"));
        }
        let owners: Vec<Arc<Owner>> =
            spec.attributes.iter().map(|attribute| Arc::new(owner(attribute))).collect();
        let mut given = BTreeMap::new();
        for (at, index) in (0..).zip(&spec.allocations) {
            let Some(index) = index else { continue };
            let owner = usize::try_from(*index).ok().and_then(|index| owners.get(index));
            let owner = owner.ok_or_else(|| {
                format!("spec.allocations[{at}]: {index} is none of the {} attributes", owners.len())
            })?;
            let sequence = spec.sequence_number_for_allocation.get(&at.to_string()).copied().unwrap_or(0);
            given.insert(at, Allocation { owner: owner.clone(), sequence });
        }
        let mut known = vec![false; size as usize];
        for at in &spec.unallocated {
            match known.get_mut(*at as usize) {
                Some(seen) if !*seen && !given.contains_key(at) => *seen = true,
                _ => {
                    return Err(format!(
                        "spec.unallocated: {at} is given, named twice, or outside of the block"
                    ));
                }
            }
        }
        if let Some(lost) = (0..size).find(|at| !known[*at as usize] && !given.contains_key(at)) {
            return Err(format!("spec.unallocated: {lost} is neither given nor free"));
        }
        let mut resting = BTreeMap::new();
        for (at, since) in &spec.released_at {
            let place = at.parse().ok().filter(|place| known.get(*place as usize) == Some(&true));
            let place: u32 = place.ok_or_else(|| format!("spec.releasedAt: {at:?} is no free address"))?;
            resting.insert(place, *since);
        }
        Ok(Self {
            cidr,
            affinity: spec.affinity.clone(),
            claimed: spec.affinity_claim_time,
            strict: spec.strict_affinity,
            sequence: spec.sequence_number,
            given,
            free: spec.unallocated.iter().copied().collect(),
            resting,
        })
    }

    /// As it is stored.
    pub fn to_object(&self) -> IpamBlock {
        let mut attributes: Vec<AllocationAttribute> = Vec::new();
        let mut known: HashMap<&Owner, u32> = HashMap::new();
        let mut allocations = vec![None; self.size() as usize];
        let mut sequences = BTreeMap::new();
        for (at, allocation) in &self.given {
            let index = *known.entry(&*allocation.owner).or_insert_with(|| {
                attributes.push(attribute(&allocation.owner));
                attributes.len() as u32 - 1
            });
            allocations[*at as usize] = Some(index);
            sequences.insert(at.to_string(), allocation.sequence);
        }
        IpamBlock {
            metadata: Metadata { name: name(self.cidr), ..Metadata::default() },
            spec: IpamBlockSpec {
                cidr: self.cidr,
                affinity: self.affinity.clone(),
                affinity_claim_time: self.claimed,
                strict_affinity: self.strict,
                allocations,
                unallocated: self.free.iter().copied().collect(),
                attributes,
                sequence_number: self.sequence,
                sequence_number_for_allocation: sequences,
                released_at: self.resting.iter().map(|(at, since)| (at.to_string(), *since)).collect(),
                deleted: false,
            },
        }
    }

    /// Whose it is, as users read it.
    pub fn affinity(&self) -> Option<BlockAffinity> {
        let (kind, node) = self.affinity.as_deref()?.split_once(':')?;
        Some(BlockAffinity {
            metadata: Metadata { name: format!("{node}-{}", name(self.cidr)), ..Metadata::default() },
            spec: BlockAffinitySpec {
                state: Some(AffinityState::Confirmed),
                node: node.to_owned(),
                kind: kind.to_owned(),
                cidr: self.cidr,
                deleted: false,
            },
        })
    }

    fn rests(&self, at: u32, now: Timestamp, rest: u64) -> bool {
        self.resting.get(&at).is_some_and(|since| now.since(*since) < rest)
    }

    /// The address is free, or the caller errs.
    fn give(&mut self, addr: IpAddr, owner: &Arc<Owner>) {
        let Some(at) = ordinal(self.cidr, addr) else { return };
        self.free.retain(|free| *free != at);
        self.resting.remove(&at);
        let allocation = Allocation { owner: owner.clone(), sequence: self.sequence + 1 };
        self.given.insert(at, allocation);
    }

    fn changed(&mut self, changed: bool, now: Timestamp, rest: u64) {
        if changed {
            self.sequence += 1;
            self.resting.retain(|_, since| now.since(*since) < rest);
        }
    }
}

/// What the block is called: its prefix, with what no name may have replaced by `-`, as in Calico.
pub fn name(cidr: Cidr) -> String {
    let name = cidr.to_string().replace(['.', ':', '/'], "-");
    // `::/122` would begin with what no name may begin with.
    if name.starts_with('-') { format!("0{name}") } else { name }
}

/// The prefix that a block of this name has.
pub fn prefix(name: &str) -> Option<Cidr> {
    let (addr, len) = name.rsplit_once('-')?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_v4 = addr.split('-').count() == 4 && addr.split('-').all(is_number);
    let addr = addr.replace('-', if is_v4 { "." } else { ":" });
    format!("{addr}/{len}").parse().ok()
}

fn owner(attribute: &AllocationAttribute) -> Owner {
    Owner {
        handle: attribute.handle_id.clone().unwrap_or_default(),
        attributes: attribute.secondary.clone().unwrap_or_default(),
    }
}

fn attribute(owner: &Owner) -> AllocationAttribute {
    AllocationAttribute {
        handle_id: Some(owner.handle.clone()),
        secondary: (!owner.attributes.is_empty()).then(|| owner.attributes.clone()),
    }
}

const fn width(cidr: Cidr) -> u8 {
    if cidr.is_v4() { 32 } else { 128 }
}

/// Of a block, which has at most 4,096.
const fn size(cidr: Cidr) -> u32 {
    1 << (width(cidr) - cidr.len())
}

fn address(cidr: Cidr, at: u32) -> IpAddr {
    match cidr.addr() {
        IpAddr::V4(first) => IpAddr::V4((first.to_bits() | at).into()),
        IpAddr::V6(first) => IpAddr::V6((first.to_bits() | u128::from(at)).into()),
    }
}

fn ordinal(cidr: Cidr, addr: IpAddr) -> Option<u32> {
    if !cidr.contains(addr) {
        return None;
    }
    match (cidr.addr(), addr) {
        (IpAddr::V4(first), IpAddr::V4(addr)) => Some(addr.to_bits() - first.to_bits()),
        (IpAddr::V6(first), IpAddr::V6(addr)) => u32::try_from(addr.to_bits() - first.to_bits()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
