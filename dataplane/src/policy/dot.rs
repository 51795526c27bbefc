//! Compiled trees as a picture: Graphviz.

use super::compiled::CompiledPolicy;
use super::lower::Dim;
use super::patch::Patch;
use super::point::Layout;
use super::shape::versions;
use super::tree::{NONE_FOUND, Node, Ref, Tree};
use super::{IpVersion, SetId, SetTable};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Nodes and leaves that are drawn of one tree: more are no picture.
const DRAWN: usize = 250;
/// Rules, or labels of one arrow, that are named.
const NAMED: usize = 6;

impl CompiledPolicy {
    /// A `digraph` of all stages. Of a large tree the upper part is drawn, and what is not is counted.
    pub fn dot(&self, sets: &SetTable, title: &str) -> String {
        let mut text = format!("digraph {} {{\n", quoted(title));
        text.push_str("  node [shape=box fontname=monospace];\n  edge [fontname=monospace];\n");
        for (stage, of) in self.stages.iter().enumerate() {
            let name = match self.list.tiers.get(stage) {
                Some(tier) => format!("tier {}", tier.name),
                None => "profiles".to_owned(),
            };
            let grown = versions(&of.trees).into_iter().map(|(version, tree)| (version, tree, None));
            let patches = of.patch.iter().flat_map(|patch| {
                versions(&patch.trees).into_iter().map(move |(version, tree)| (version, tree, Some(patch)))
            });
            for (version, tree, patch) in grown.chain(patches) {
                let (mark, version) = match version {
                    None => ("", ""),
                    Some(IpVersion::V4) => ("v4", ", IPv4"),
                    Some(IpVersion::V6) => ("v6", ", IPv6"),
                };
                let (prefix, new) = if patch.is_some() { ("p", ", new rules") } else { ("s", "") };
                let drawing = Drawing {
                    policy: self,
                    sets,
                    tree,
                    patch,
                    stage,
                    name: format!("{prefix}{stage}{mark}"),
                };
                drawing.draw(&format!("{name}{version}{new}"), &mut text);
            }
        }
        text.push_str("}\n");
        text
    }
}

struct Drawing<'a> {
    policy: &'a CompiledPolicy,
    sets: &'a SetTable,
    tree: &'a Tree,
    /// Where the tree is of the rules that are new.
    patch: Option<&'a Patch>,
    stage: usize,
    /// Before the name of each node.
    name: String,
}

impl Drawing<'_> {
    fn draw(&self, label: &str, text: &mut String) {
        let Self { name, .. } = self;
        let _ = writeln!(text, "  subgraph cluster_{name} {{\n    label={};", quoted(label));
        let default = self.slot(self.policy.stages[self.stage].default);
        let _ =
            writeln!(text, "    {name}_end [shape=plaintext label={}];", quoted(&format!("else {default}")));
        let root = self.tree.root;
        let mut waiting: VecDeque<Ref> = (root.lowest != NONE_FOUND).then_some(root.to).into_iter().collect();
        let mut known: Vec<Ref> = waiting.iter().copied().collect();
        let mut drawn = 0;
        while let Some(at) = waiting.pop_front() {
            if drawn == DRAWN {
                let more = waiting.len() + 1;
                let note = quoted(&format!("{more} more subtrees are not drawn"));
                let _ = writeln!(text, "    {name}_more [shape=plaintext label={note}];");
                break;
            }
            drawn += 1;
            let id = self.id(at);
            match at.get() {
                Err(leaf) => {
                    let _ = writeln!(text, "    {id} [shape=note label={}];", quoted(&self.leaf(leaf)));
                }
                Ok(node) => {
                    let node = &self.tree.nodes[node];
                    let _ = writeln!(text, "    {id} [label={}];", quoted(&self.node(node)));
                    let mut arrows: BTreeMap<u32, (Ref, Vec<String>)> = BTreeMap::new();
                    for (order, (at, branch)) in (0..).zip(self.tree.below(node)) {
                        let same = arrows.values_mut().find(|(to, _)| *to == branch.to);
                        match same {
                            Some((_, labels)) => labels.push(self.arrow(node, at)),
                            None => drop(arrows.insert(order, (branch.to, vec![self.arrow(node, at)]))),
                        }
                    }
                    if let Some(more) = arrows.len().checked_sub(DRAWN).filter(|more| *more > 0) {
                        let note = quoted(&format!("{more} more subtrees are not drawn"));
                        let _ = writeln!(text, "    {id}_more [shape=plaintext label={note}];");
                        let _ = writeln!(text, "    {id} -> {id}_more;");
                    }
                    for (to, labels) in arrows.into_values().take(DRAWN) {
                        let label = quoted(&some(labels, ", "));
                        let _ = writeln!(text, "    {id} -> {} [label={label}];", self.id(to));
                        if !known.contains(&to) {
                            known.push(to);
                            waiting.push_back(to);
                        }
                    }
                }
            }
        }
        text.push_str("  }\n");
    }

    fn id(&self, at: Ref) -> String {
        match at.get() {
            Ok(node) => format!("{}_n{node}", self.name),
            Err(leaf) => format!("{}_l{leaf}", self.name),
        }
    }

    fn node(&self, node: &Node) -> String {
        match node {
            Node::Bits { words, masks, .. } => {
                let picked = self.tree.layout.picked(*words, *masks);
                let fields: Vec<String> =
                    picked.iter().map(|(dim, bits)| format!("{bits} of {}", dim_name(*dim))).collect();
                format!("bits: {}", fields.join(", "))
            }
            Node::Cut { dim, bound, .. } => format!("{} < {}", dim_name(*dim), bound.get()),
            Node::Each { .. } => "each".to_owned(),
            Node::BySet { space, .. } => format!("sets of {}", space.name()),
        }
    }

    fn arrow(&self, node: &Node, at: usize) -> String {
        match node {
            Node::Bits { .. } => at.to_string(),
            Node::Cut { .. } => if at == 0 { "yes" } else { "no" }.to_owned(),
            Node::Each { .. } => String::new(),
            Node::BySet { .. } if at == usize::MAX => "any".to_owned(),
            Node::BySet { .. } => self.sets.name(SetId(at as u32)),
        }
    }

    fn leaf(&self, leaf: usize) -> String {
        let mut ranks = self.tree.leaf(leaf);
        ranks.dedup();
        let stage = &self.policy.stages[self.stage];
        let rule = |rank: u32| match (self.patch, &stage.patch) {
            (Some(patch), _) => self.slot(patch.slots[rank as usize]),
            (None, Some(patch)) if patch.dead.holds(rank) => "gone".to_owned(),
            (None, _) => self.slot(stage.base + rank),
        };
        some(ranks.into_iter().map(rule).collect(), "\n")
    }

    fn slot(&self, slot: u32) -> String {
        let Some(decider) = self.policy.decider(slot) else { return "gone".to_owned() };
        match (decider.rule, decider.policy()) {
            (0.., policy) => format!("{} {policy}[{}]", decider.action, decider.rule),
            _ => decider.action.to_string(),
        }
    }
}

impl Layout {
    /// How many bits of each number are picked.
    fn picked(self, words: [u8; 2], masks: [u64; 2]) -> Vec<(Dim, u32)> {
        let of = |dim: Dim| {
            let bits = self.places(dim).iter().map(|place| {
                let ones = (u64::MAX >> (64 - place.width)) << place.shift;
                let of_word = words.iter().zip(masks).filter(|(word, _)| usize::from(**word) == place.word);
                of_word.map(|(_, mask)| (mask & ones).count_ones()).sum::<u32>()
            });
            (dim, bits.sum::<u32>())
        };
        Dim::ALL.map(of).into_iter().filter(|(_, bits)| *bits > 0).collect()
    }
}

fn dim_name(dim: Dim) -> &'static str {
    match dim {
        Dim::Src => "src",
        Dim::Dst => "dst",
        Dim::Proto => "protocol",
        Dim::Sport => "src-port",
        Dim::Dport => "dst-port",
        Dim::Icmp => "icmp",
    }
}

/// The first of a list, and how many more there are.
fn some(mut list: Vec<String>, between: &str) -> String {
    let more = list.len().saturating_sub(NAMED);
    list.truncate(NAMED);
    if more > 0 {
        list.push(format!("{more} more"));
    }
    list.join(between)
}

/// A string of Graphviz' language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{PortRange, Proto};
    use crate::policy::*;
    use std::sync::Arc;

    fn policy(name: &str, rules: Vec<Rule>) -> ListedPolicy {
        let id = PolicyId { kind: "NetworkPolicy".into(), namespace: "shop".into(), name: name.into() };
        ListedPolicy { id, rules: rules.into() }
    }

    fn list(ports: u16) -> (RuleList, SetTable) {
        let names = ["s:web", "s:office"];
        let set = |name: &str| IpSet { name: name.into(), members: SetMembers::Net(vec![].into()) };
        let sets = SetTable::new(names.map(|name| Some(Arc::new(set(name)))).into()).unwrap();
        let tcp = Rule { protocol: Some(Proto::TCP), ..Rule::any(Action::Allow) };
        let from = |set: u32, port: u16| Rule {
            src_ip_sets: vec![SetId(set)],
            dst_ports: vec![PortRange::one(port)],
            ..tcp.clone()
        };
        let by_port =
            (0..ports).map(|port| Rule { dst_ports: vec![PortRange::one(port * 5)], ..tcp.clone() });
        let blocked = Rule { src_nets: vec!["10.9.0.0/16".parse().unwrap()], ..Rule::any(Action::Deny) };
        let policies = vec![
            policy("block", vec![blocked]),
            policy("web", vec![from(0, 80), from(1, 443)]),
            policy("ports", by_port.collect()),
        ];
        let tiers = vec![TierList { name: "default".into(), default: TierDefault::Deny, policies }];
        let rules = vec![Rule::any(Action::Allow)];
        let profiles = vec![ListedProfile { name: "kns.shop".into(), rules: rules.into() }];
        (RuleList { tiers, profiles, ..RuleList::default() }, sets)
    }

    #[test]
    fn every_stage_is_drawn_with_its_rules() {
        let (list, sets) = list(12);
        let dot = compile(list).unwrap().dot(&sets, "ingress of \"shop/web\"");
        assert!(
            dot.starts_with("digraph \"ingress of \\\"shop/web\\\"\" {\n") && dot.ends_with("}\n"),
            "{dot}"
        );
        for part in
            ["tier default", "profiles", "else deny", "deny shop/block[0]", "allow profile kns.shop[0]"]
        {
            assert!(dot.contains(part), "{part} is missing in\n{dot}");
        }
    }

    #[test]
    fn a_large_tree_is_drawn_in_part_and_says_so() {
        let (list, sets) = list(5_000);
        let compiled = compile(list).unwrap();
        let dot = compiled.dot(&sets, "large");
        assert!(dot.contains("more subtrees are not drawn"), "{}", dot.len());
        assert!(dot.lines().filter(|line| line.contains("label=")).count() < 20 * DRAWN);
        let shape = &compiled.shape()[0];
        assert!(shape.leaves > DRAWN && shape.pieces >= 5_000 && shape.depth >= 1, "{shape:?}");
    }
}
