//! `policy matrix`: who may talk to whom.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use margay_dataplane::net::{Addr, Proto};
use serde::Serialize;

use crate::{
    args::{PolicyMatrix, PortAsked},
    cluster::{
        Cluster,
        between::{Budget, Ends, common},
        groups::{Group, groups},
        reach::{Region, describe},
    },
    exit::{Code, Failure, Outcome},
    output::{Cell, Output, Table, Tone, View},
};

/// Columns that a table for people has at most.
const COLUMNS: usize = 8;
/// Pairs that are judged at most: more is nothing that people read.
const PAIRS: usize = 40_000;
/// Letters of a cell in such a table.
const CELL: usize = 28;

/// Judges every pair that has an end in the namespace, or in any.
pub fn run(cluster: &Cluster, args: &PolicyMatrix, out: &mut Output) -> Outcome {
    let groups = groups(&[cluster])?;
    let inside = |group: &Group| match &args.namespace {
        Some(namespace) => group.namespace.as_ref() == Some(namespace),
        None => group.is_judged(),
    };
    if !groups.iter().any(inside) {
        return Err(nobody(args.namespace.as_deref()));
    }
    let pairs = pairs(&groups, inside);
    let ends = Ends::new(cluster, &groups)?;
    let mut budget = Budget::default();
    let mut cells = Vec::new();
    for (from, to, [src, dst]) in pairs.iter().take(PAIRS).copied() {
        let between = ends.between(from, to);
        let pieces = between.pieces(None, src, dst);
        if budget.spend(&pieces).is_err() {
            break;
        }
        let regions = pieces.judge(src, dst, |query| between.judge(query).0);
        let traffic = describe_asked(&regions, &args.ports);
        cells.push(Reach { from: groups[from].name.clone(), to: groups[to].name.clone(), traffic });
    }
    let left_out = pairs.len() - cells.len();
    if left_out > 0 {
        // Nobody may be listening, and there is nobody else to tell.
        let _ = writeln!(
            io::stderr(),
            "warning: only {} of {} pairs were judged; ask for one namespace at a time with -n",
            cells.len(),
            pairs.len()
        );
    }
    let matrix = Matrix { namespace: args.namespace.clone(), groups, cells, left_out };
    out.show(&matrix, args.output)?;
    Ok(Code::Ok)
}

fn nobody(namespace: Option<&str>) -> Failure {
    match namespace {
        Some(namespace) => Failure::new(
            Code::NotFound,
            format!("there is nobody in the namespace {namespace}"),
            "no endpoint is in it",
            "name another with -n; `margayctl get workloadendpoints -A` lists those that are live",
        ),
        None => Failure::new(
            Code::NotFound,
            "there is nobody to judge",
            "there is no endpoint in any namespace",
            "apply pods or workload endpoints, or name files that have some with --resources",
        ),
    }
}

/// Both ends of what is to be judged, by their places in the list, with an address of each.
fn pairs(groups: &[Group], inside: impl Fn(&Group) -> bool) -> Vec<(usize, usize, [Addr; 2])> {
    let mut pairs = Vec::new();
    for (from, source) in groups.iter().enumerate() {
        for (to, destination) in groups.iter().enumerate() {
            let itself = from == to && source.members.len() == 1;
            if itself || !(inside(source) || inside(destination)) {
                continue;
            }
            pairs.extend(common(source, destination).map(|(src, dst)| (from, to, [src, dst])));
        }
    }
    pairs
}

/// What is allowed, of the ports asked about, or of all.
fn describe_asked(regions: &[Region<bool>], asked: &[PortAsked]) -> String {
    if asked.is_empty() {
        return describe(regions, |allowed| *allowed);
    }
    let of = |port: &PortAsked| {
        let here = |region: &&Region<bool>| {
            let protocol = region.protocol == Some(Proto(port.protocol.number()));
            let other = !regions.iter().any(|one| one.protocol == Some(Proto(port.protocol.number())));
            let within = match (port.port, region.dports) {
                (Some(port), Some((first, last))) => first <= port && port <= last,
                _ => true,
            };
            (protocol || other && region.protocol.is_none()) && within
        };
        let verdicts: Vec<bool> = regions.iter().filter(here).map(|region| region.value).collect();
        match (verdicts.contains(&true), verdicts.contains(&false)) {
            (true, false) => Some(port.to_string()),
            (true, true) => Some(format!("{port} in part")),
            (false, _) => None,
        }
    };
    let allowed: Vec<String> = asked.iter().filter_map(of).collect();
    if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Matrix {
    /// Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    groups: Vec<Group>,
    cells: Vec<Reach>,
    /// Pairs that were too many to be judged.
    #[serde(skip_serializing_if = "is_none")]
    left_out: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_none(left_out: &usize) -> bool {
    *left_out == 0
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reach {
    from: String,
    to: String,
    /// all, none, or what of it.
    traffic: String,
}

impl View for Matrix {
    const RECORDS: Option<&'static str> = Some("cells");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        let folded = self.folded();
        let mut names: Vec<String> = Vec::new();
        for group in &self.groups {
            let name = self.fold(group);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if wide {
            list(out, self.cells.iter().map(|cell| (&*cell.from, &*cell.to, &*cell.traffic)))?;
        } else if names.len() > COLUMNS {
            list(
                out,
                folded.iter().map(|((from, to), traffic)| (from.as_str(), to.as_str(), traffic.as_str())),
            )?;
        } else {
            let titles = ["FROM \\ TO"].into_iter().chain(names.iter().map(String::as_str));
            let mut table = Table::new(titles);
            for from in &names {
                let mut row: Vec<Cell> = vec![from.into()];
                row.extend(names.iter().map(|to| match folded.get(&(from.clone(), to.clone())) {
                    None => "".into(),
                    Some(traffic) if traffic.chars().count() > CELL => "some".into(),
                    Some(traffic) => toned(traffic),
                }));
                table.row(row);
            }
            table.print(out)?;
        }
        let folds = self.groups.iter().any(|group| self.fold(group) != group.name);
        if folds && !wide {
            let which = if self.namespace.is_some() { "Other namespaces" } else { "Namespaces" };
            writeln!(out, "{which} are one row each; -o wide tells their groups apart.")?;
        }
        Ok(())
    }
}

impl Matrix {
    /// Other namespaces are one peer each; of all of them each, unless there are few groups.
    fn fold(&self, group: &Group) -> String {
        let folded = self.namespace.is_some() || self.groups.len() > COLUMNS;
        match &group.namespace {
            Some(namespace) if folded && Some(namespace) != self.namespace.as_ref() => {
                format!("namespace {namespace}")
            }
            _ => group.name.clone(),
        }
    }

    /// What each peer may, where all groups of it agree.
    fn folded(&self) -> BTreeMap<(String, String), String> {
        let names: BTreeMap<&str, String> =
            self.groups.iter().map(|group| (group.name.as_str(), self.fold(group))).collect();
        let mut folded: BTreeMap<(String, String), String> = BTreeMap::new();
        for Reach { from, to, traffic } in &self.cells {
            let key = (names[from.as_str()].clone(), names[to.as_str()].clone());
            let cell = folded.entry(key).or_insert_with(|| traffic.clone());
            if cell != traffic {
                "some".clone_into(cell);
            }
        }
        folded
    }
}

fn list<'a>(out: &mut Output, cells: impl Iterator<Item = (&'a str, &'a str, &'a str)>) -> io::Result<()> {
    let mut table = Table::new(["FROM", "TO", "ALLOWED"]);
    cells.for_each(|(from, to, traffic)| table.row(vec![from.into(), to.into(), toned(traffic)]));
    table.print(out)
}

fn toned(traffic: &str) -> Cell {
    let tone = match traffic {
        "all" => Tone::Good,
        "none" => Tone::Bad,
        _ => Tone::Plain,
    };
    Cell::toned(traffic, tone)
}
