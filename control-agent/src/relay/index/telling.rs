//! What views are told of changes.

use super::{Batch, Before, Index, Object};
use crate::relay::{
    facts::Block,
    view::{Gathered, Rule, View},
};
use margay_api::control::v1::watch_event::Type;
use std::collections::{BTreeMap, BTreeSet};

impl Index {
    /// Whether a view is to tell of the group.
    fn is_needed(&self, view: &View, id: u32) -> bool {
        let Some(group) = self.groups.get(id).filter(|group| !group.parts.is_empty()) else { return false };
        if group.is_policy() {
            return view.active.contains_key(&Rule::Policy(id));
        }
        let members = &group.members;
        members.is_wide
            || view.node.as_ref().is_some_and(|node| members.local.contains_key(node))
            || members.matched.iter().any(|selector| view.selectors.contains_key(selector))
    }

    /// Turns what is to be told, in one view. Returns the groups that turned, and what they were.
    pub(super) fn turn(&mut self, id: u32, batch: &Batch) -> BTreeMap<u32, bool> {
        let Some(checks) = batch.checks.get(&id) else { return BTreeMap::new() };
        let Some(view) = self.views.get(id).filter(|view| view.node.is_some()) else {
            return BTreeMap::new();
        };
        let checks: BTreeSet<u32> = checks.iter().copied().collect();
        let turned = checks.into_iter().filter_map(|group| {
            let (was, is) = (view.sent.has(group), self.is_needed(view, group));
            (was != is).then_some((group, was))
        });
        let turned: BTreeMap<u32, bool> = turned.collect();
        if let Some(view) = self.views.get_mut(id) {
            turned.iter().for_each(|(group, was)| view.sent.set(*group, !was));
        }
        turned
    }

    pub(super) fn tell(&mut self, batch: &Batch) {
        let views: Vec<u32> = self.views.iter().map(|(id, _)| id).collect();
        for id in views {
            let turned = self.turn(id, batch);
            let Some(view) = self.views.get(id) else { continue };
            let mut gathered = Gathered::default();
            let untouched = turned
                .keys()
                .filter_map(|group| self.groups.get(*group))
                .flat_map(|group| group.parts.keys())
                .filter(|object| !batch.objects.contains_key(object));
            for object in untouched {
                let Some(of) = self.objects.get(*object) else { continue };
                let was_told =
                    |group: &u32| turned.get(group).copied().unwrap_or_else(|| view.sent.has(*group));
                let was = of.groups.iter().any(was_told);
                let is = of.groups.iter().any(|group| view.sent.has(*group));
                match (was, is) {
                    (false, true) => gathered.note(*object, Type::Added, &of.encoded),
                    (true, false) => gathered.note(*object, Type::Deleted, &of.encoded),
                    _ => {}
                }
            }
            for (object, before) in &batch.objects {
                self.tell_one(view, &turned, *object, before, &mut gathered);
            }
            view.log.push(gathered.into_changes(), self.told(view));
        }
    }

    /// What becomes of an object that changed, in one view.
    fn tell_one(
        &self,
        view: &View,
        turned: &BTreeMap<u32, bool>,
        id: u32,
        before: &Before,
        gathered: &mut Gathered,
    ) {
        let Some(object) = self.objects.get(id) else { return };
        let is_all = view.node.is_none();
        let was_told = |group: &u32| turned.get(group).copied().unwrap_or_else(|| view.sent.has(*group));
        let was = before
            .encoded
            .as_ref()
            .filter(|_| is_all || before.groups.is_empty() || before.groups.iter().any(was_told));
        let is_there = self.is_there(id, object);
        let is = is_there
            && (is_all
                || object.groups.is_empty()
                || object.groups.iter().any(|group| view.sent.has(*group)));
        match (was, is) {
            (None, true) => gathered.note(id, Type::Added, &object.encoded),
            (Some(was), false) => gathered.note(id, Type::Deleted, was),
            (Some(was), true)
                if !was.is_same(&object.encoded)
                    && (is_all || concerns(view, before.block.as_ref(), object.block.as_ref())) =>
            {
                gathered.note(id, Type::Modified, &object.encoded);
            }
            _ => {}
        }
    }

    /// Not one that is only kept until everybody has been told that it is gone.
    pub(super) fn is_there(&self, id: u32, object: &Object) -> bool {
        !object.groups.is_empty() || self.common.contains(&id)
    }

    fn told(&self, view: &View) -> u64 {
        let groups = if view.node.is_some() { view.sent.len() } else { 0 };
        let rest = if view.node.is_some() { self.common.len() } else { self.by_key.len() };
        (groups + rest) as u64
    }

    pub(super) fn tell_objects(&self, id: u32) {
        if let Some(view) = self.views.get(id) {
            view.log.push(Vec::new(), self.told(view));
        }
    }
}

/// What changed of a block concerns the view's node: who has it, or an address of the node's.
fn concerns(view: &View, before: Option<&Block>, after: Option<&Block>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    let Some(node) = &view.node else { return true };
    let is_its = |block: &Block| block.node.as_ref() == Some(node) || block.users.contains(node);
    (before.cidr, &before.node) != (after.cidr, &after.node) || is_its(before) || is_its(after)
}
