//! A chunk of a policy's rules, with what is asked of them again and again: worked out once, and
//! kept as long as a tree has them.

use super::{Action, Rule, SetId, SetKind};
use std::sync::Arc;

/// Rules, and what is known of them.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) rules: Arc<[Rule]>,
    /// Which of them decide: log rules do not.
    pub(super) deciding: Box<[u32]>,
    /// Of each rule that decides, a hash of all it says.
    pub(super) prints: Box<[u64]>,
    /// Of all rules together.
    pub(super) whole: Print,
    /// The sets they name, each once.
    pub(super) needs: Box<[(SetId, SetKind)]>,
    pub(super) size: Size,
}

/// A hash of rules in a row, the same however they are cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print {
    value: u64,
    /// What stands before these rules is multiplied with this.
    shift: u64,
}

impl Default for Print {
    fn default() -> Self {
        Self { value: 0, shift: 1 }
    }
}

impl Print {
    /// Of one rule with this hash.
    const fn of(rule: u64) -> Self {
        // Odd, so that no bit of what stands before is lost: that of PCG's generator.
        Self { value: rule, shift: 0x5851_f42d_4c95_7f2d }
    }

    /// Of these rules and those that follow.
    pub(super) const fn then(self, next: Self) -> Self {
        Self {
            value: self.value.wrapping_mul(next.shift).wrapping_add(next.value),
            shift: self.shift.wrapping_mul(next.shift),
        }
    }

    /// The hash.
    pub(super) const fn value(self) -> u64 {
        self.value
    }
}

/// What rules take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Prefixes, port ranges and set tests after lowering.
    pub(super) items: usize,
    /// Comparisons of the check.
    pub(super) work: usize,
}

impl Size {
    /// Both together.
    pub(super) const fn and(self, other: Self) -> Self {
        Self { items: self.items.saturating_add(other.items), work: self.work.saturating_add(other.work) }
    }

    /// Of one rule.
    pub(super) fn of(rule: &Rule) -> Self {
        let src = rule.src_nets.len() + rule.not_src_nets.len();
        let dst = rule.dst_nets.len() + rule.not_dst_nets.len();
        let sports = rule.src_ports.len() + rule.not_src_ports.len();
        let dports = rule.dst_ports.len() + rule.not_dst_ports.len();
        let products = (1 + rule.src_named_ports.len()) * (1 + rule.dst_named_ports.len());
        let one = 8 + src + dst + sports + dports + rule.address_sets().count() + rule.port_sets().count();
        let squares = [src, dst, sports, dports].map(|n| 4 * n * n).iter().sum::<usize>();
        Self { items: products.saturating_mul(one), work: products.saturating_mul(squares) }
    }
}

impl Slice {
    /// Reads the rules once.
    pub(super) fn new(rules: Arc<[Rule]>) -> Self {
        // Fixed seeds: a tree must not depend on chance.
        let state = ahash::RandomState::with_seeds(9, 10, 11, 12);
        let mut whole = Print::default();
        let (mut deciding, mut prints) = (Vec::with_capacity(rules.len()), Vec::with_capacity(rules.len()));
        let (mut needs, mut size) = (Vec::new(), Size::default());
        for (index, rule) in (0u32..).zip(&rules[..]) {
            let print = state.hash_one(rule);
            whole = whole.then(Print::of(print));
            if rule.action != Action::Log {
                deciding.push(index);
                prints.push(print);
            }
            needs.extend(rule.address_sets().map(|set| (set, SetKind::Address)));
            needs.extend(rule.port_sets().map(|set| (set, SetKind::AddressAndPort)));
            size = size.and(Size::of(rule));
        }
        needs.sort_unstable_by_key(|(set, kind)| (*set, *kind as u8));
        needs.dedup();
        Self { rules, deciding: deciding.into(), prints: prints.into(), whole, needs: needs.into(), size }
    }

    /// The rules that decide, in order.
    pub(super) fn ranked(&self) -> impl Iterator<Item = &Rule> {
        self.deciding.iter().map(|index| &self.rules[*index as usize])
    }

    /// One of those.
    pub(super) fn at(&self, place: usize) -> &Rule {
        &self.rules[self.deciding[place] as usize]
    }

    /// How many those are.
    pub(super) fn len(&self) -> usize {
        self.deciding.len()
    }

    /// The very same rules, by where they are.
    pub(super) fn is(&self, rules: &Arc<[Rule]>) -> bool {
        Arc::ptr_eq(&self.rules, rules)
    }
}
