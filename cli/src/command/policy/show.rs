//! `policy show`: what applies to an endpoint, and how it was compiled.

use std::io::{self, Write as _};

use margay_api::dataplane::v1 as dataplane;
use serde::Serialize;

use crate::{
    args::{Global, PolicyShow, Toward},
    client,
    cluster::Cluster,
    exit::{Code, Outcome},
    output::{Cell, Output, Table, Tone, View},
};

/// Asks the dataplane, or the trees made from files.
pub async fn run(global: &Global, args: &PolicyShow, out: &mut Output) -> Outcome {
    let request = dataplane::GetEndpointPolicyRequest { endpoint: args.endpoint.clone(), dot: args.dot };
    let from = match &args.resources {
        Some(path) => Cluster::read(path)?.show(&request)?,
        None => {
            let mut dataplane = client::dataplane(global).await?;
            let call = dataplane.get_endpoint_policy(request);
            client::answer(global.timeout, "show the policy", call).await?.into_inner()
        }
    };
    let wanted = |toward| args.direction.is_none_or(|wanted| wanted == toward);
    let (ingress, egress) = (wanted(Toward::Ingress), wanted(Toward::Egress));
    let asked = |of: dataplane::StagePolicy| dataplane::StagePolicy {
        ingress: of.ingress.filter(|_| ingress),
        egress: of.egress.filter(|_| egress),
        ..of
    };
    let own = dataplane::StagePolicy { stage: String::new(), ingress: from.ingress, egress: from.egress };
    let (stages, own) = (from.stages.into_iter().map(asked).collect::<Vec<_>>(), asked(own));
    if args.dot {
        for direction in stages.into_iter().chain([own]).flat_map(|of| [of.ingress, of.egress]).flatten() {
            write!(out, "{}", direction.dot)?;
        }
        return Ok(Code::Ok);
    }
    let live = args.resources.is_none();
    let shown = |direction: Option<dataplane::DirectionPolicy>| direction.map(|of| Direction::new(of, live));
    let stage = |of: dataplane::StagePolicy| Stage {
        stage: of.stage,
        ingress: shown(of.ingress),
        egress: shown(of.egress),
    };
    let shown = EndpointPolicy {
        endpoint: from.endpoint,
        generation: live.then_some(from.generation),
        active: from.active,
        host: from.host,
        stages: stages.into_iter().map(stage).collect(),
        ingress: shown(own.ingress),
        egress: shown(own.egress),
        compiled: args.compiled,
    };
    out.show(&shown, args.output)?;
    Ok(Code::Ok)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointPolicy {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    active: bool,
    /// It is a host endpoint.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    host: bool,
    /// What a host endpoint has besides, in the order in which it is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Direction>,
    #[serde(skip)]
    compiled: bool,
}

#[derive(Serialize)]
struct Stage {
    stage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<Direction>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Direction {
    tiers: Vec<Tier>,
    profiles: Vec<Rules>,
    default: Default,
    compiled: Compiled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tier {
    name: String,
    policies: Vec<Rules>,
    default: Default,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rules {
    kind: String,
    name: String,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    index: u32,
    action: String,
    r#match: String,
    /// Absent where nobody counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Default {
    action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compiled {
    bytes: u64,
    /// Endpoints and directions that have the same trees, this one too.
    sharers: u64,
    /// The trees are those of an earlier list of rules, with patches.
    patched: bool,
    /// Rules that are gone or new since they were grown.
    changes: u64,
    trees: Vec<Tree>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tree {
    /// Empty: the profiles.
    tier: String,
    /// Absent: the same for both.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_version: Option<u32>,
    /// Of rules that are new since the tier's tree was grown.
    patch: bool,
    boxes: u64,
    bit_nodes: u64,
    cut_nodes: u64,
    each_nodes: u64,
    set_nodes: u64,
    leaves: u64,
    longest_leaf: u64,
    depth: u64,
    bytes: u64,
}

impl Direction {
    fn new(from: dataplane::DirectionPolicy, live: bool) -> Self {
        let rules = |from: dataplane::ListedRules| Rules {
            kind: from.kind,
            name: from.name,
            rules: from.rules.into_iter().map(|rule| Rule::new(rule, live)).collect(),
        };
        let tier = |from: dataplane::TierPolicy| Tier {
            name: from.name,
            policies: from.policies.into_iter().map(rules).collect(),
            default: Default { action: from.default_action, hits: live.then_some(from.default_hits) },
        };
        let tree = |from: dataplane::TreeShape| Tree {
            tier: from.tier,
            ip_version: (from.ip_version != 0).then_some(from.ip_version),
            patch: from.patch,
            boxes: from.pieces,
            bit_nodes: from.bit_nodes,
            cut_nodes: from.cut_nodes,
            each_nodes: from.each_nodes,
            set_nodes: from.set_nodes,
            leaves: from.leaves,
            longest_leaf: from.longest_leaf,
            depth: from.depth,
            bytes: from.bytes,
        };
        Self {
            tiers: from.tiers.into_iter().map(tier).collect(),
            profiles: from.profiles.into_iter().map(rules).collect(),
            default: Default { action: from.otherwise, hits: live.then_some(from.otherwise_hits) },
            compiled: Compiled {
                bytes: from.bytes,
                sharers: from.sharers,
                patched: from.patched,
                changes: from.changes,
                trees: from.trees.into_iter().map(tree).collect(),
            },
        }
    }
}

impl Rule {
    fn new(from: dataplane::ListedRule, live: bool) -> Self {
        // What only notes packets decides none, and is not counted.
        let counted = live && from.action != "log";
        Self {
            index: from.index,
            action: from.action,
            r#match: from.r#match,
            hits: counted.then_some(from.hits),
        }
    }
}

impl View for EndpointPolicy {
    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        write!(out, "{}{}", if self.host { "host endpoint " } else { "" }, self.endpoint)?;
        match self.generation {
            Some(generation) => writeln!(out, ", policy generation {generation}")?,
            None => writeln!(out)?,
        }
        if !self.active {
            writeln!(out, "The endpoint is switched off: every packet of it is dropped.")?;
        }
        let stages = self.stages.iter().flat_map(|of| {
            let title = |direction: &str| format!("{direction}, {}", of.stage);
            [(title("Ingress"), &of.ingress), (title("Egress"), &of.egress)]
        });
        let of_host = if self.host { " of the host itself" } else { "" };
        let own = [(format!("Ingress{of_host}"), &self.ingress), (format!("Egress{of_host}"), &self.egress)];
        for (name, direction) in stages.chain(own) {
            let Some(direction) = direction else { continue };
            writeln!(out, "\n{name}:")?;
            direction.rules(out, self.generation.is_some())?;
            if self.compiled || wide {
                direction.compiled.text(out)?;
            }
        }
        Ok(())
    }
}

impl Direction {
    fn rules(&self, out: &mut Output, counted: bool) -> io::Result<()> {
        let titles = ["TIER", "POLICY", "RULE", "ACTION", ">HITS", "MATCH"];
        let mut table = Table::new(titles.into_iter().filter(|title| counted || *title != ">HITS"));
        let mut row =
            |tier: &str, policy: &str, rule: String, action: &str, hits: Option<u64>, what: &str| {
                let tone = match action {
                    "allow" => Tone::Good,
                    "deny" => Tone::Bad,
                    _ => Tone::Plain,
                };
                let hits = hits.map(|hits| hits.to_string()).unwrap_or_default();
                let mut cells: Vec<Cell> =
                    vec![tier.into(), policy.into(), rule.into(), Cell::toned(action, tone)];
                cells.extend(counted.then(|| hits.into()));
                cells.push(what.into());
                table.row(cells);
            };
        for tier in &self.tiers {
            for policy in &tier.policies {
                for rule in &policy.rules {
                    row(
                        &tier.name,
                        &policy.name,
                        rule.index.to_string(),
                        &rule.action,
                        rule.hits,
                        &rule.r#match,
                    );
                }
                if policy.rules.is_empty() {
                    row(&tier.name, &policy.name, "none".into(), "", None, "");
                }
            }
            let Default { action, hits } = &tier.default;
            row(&tier.name, "", "default".into(), action, *hits, "");
        }
        for profile in &self.profiles {
            let name = format!("profile {}", profile.name);
            for rule in &profile.rules {
                row("", &name, rule.index.to_string(), &rule.action, rule.hits, &rule.r#match);
            }
        }
        row("", "", "default".into(), &self.default.action, self.default.hits, "");
        table.print(out)
    }
}

impl Compiled {
    fn text(&self, out: &mut Output) -> io::Result<()> {
        let Self { bytes, sharers, .. } = self;
        writeln!(out, "Compiled: {bytes} bytes, shared by {sharers} of all endpoints' directions")?;
        if self.patched {
            writeln!(out, "Patched: {} rules are gone or new since the trees were grown", self.changes)?;
        }
        let titles = [
            "TREE", "IP", ">BOXES", ">BITS", ">CUTS", ">EACH", ">SETS", ">LEAVES", ">LONGEST", ">DEPTH",
            ">BYTES",
        ];
        let mut table = Table::new(titles);
        for tree in &self.trees {
            let name =
                if tree.tier.is_empty() { "profiles".to_owned() } else { format!("tier {}", tree.tier) };
            let name = if tree.patch { format!("{name}, new rules") } else { name };
            let version = tree.ip_version.map_or_else(|| "4,6".to_owned(), |version| version.to_string());
            let Tree { boxes, bit_nodes, cut_nodes, each_nodes, set_nodes, .. } = tree;
            let Tree { leaves, longest_leaf, depth, bytes, .. } = tree;
            let numbers =
                [boxes, bit_nodes, cut_nodes, each_nodes, set_nodes, leaves, longest_leaf, depth, bytes];
            let mut cells: Vec<Cell> = vec![name.into(), version.into()];
            cells.extend(numbers.map(Cell::from));
            table.row(cells);
        }
        table.print(out)
    }
}
