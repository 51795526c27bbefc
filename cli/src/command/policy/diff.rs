//! `policy diff`: whose traffic would fare otherwise if the objects of a file were applied.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use serde::Serialize;

use super::live::Live;
use crate::{
    args::PolicyDiff,
    cluster::{
        Cluster,
        between::{Budget, By, Ends, common},
        groups::groups,
        reach::describe,
    },
    exit::{Code, Outcome},
    output::{Cell, Output, Table, Tone, View},
    readable::count,
};

/// Names of a list that are shown in a table.
const NAMED: usize = 4;

/// Judges all traffic twice.
pub fn run(
    before: &Cluster,
    after: &Cluster,
    live: Option<Outcome<Live>>,
    args: &PolicyDiff,
    out: &mut Output,
) -> Outcome {
    let mut diff = Diff::between(before, after)?;
    match live {
        Some(Ok(live)) => diff.live = Some(live),
        // What follows from the objects stands without it.
        Some(Err(failure)) => {
            diff.notes.push(format!("live sessions were not judged: {}", failure.one_line()))
        }
        None => {}
    }
    let cuts = diff.live.as_ref().is_some_and(|live| live.cut > 0);
    let code = if diff.changes.is_empty() && !cuts { Code::Ok } else { Code::Problems };
    out.show(&diff, args.output)?;
    Ok(code)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Diff {
    changes: Vec<Changed>,
    /// Absent: nobody was asked, or did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
    notes: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    from: Vec<String>,
    to: Vec<String>,
    traffic: String,
    before: &'static str,
    after: &'static str,
    rule_before: String,
    rule_after: String,
}

/// What a row has in common but for its ends: traffic, whether it was allowed, and the rules.
type Kind = (String, bool, String, String);

impl Diff {
    fn between(before: &Cluster, after: &Cluster) -> Outcome<Self> {
        let groups = groups(&[before, after])?;
        let (old, new) = (Ends::new(before, &groups)?, Ends::new(after, &groups)?);
        let mut budget = Budget::default();
        let mut by_pair: BTreeMap<(Kind, usize), Vec<usize>> = BTreeMap::new();
        for (from, source) in groups.iter().enumerate() {
            for (to, destination) in groups.iter().enumerate() {
                let judged = source.is_judged() || destination.is_judged();
                if !judged || from == to && source.members.len() == 1 {
                    continue;
                }
                let Some((src, dst)) = common(source, destination) else { continue };
                let (was, is) = (old.between(from, to), new.between(from, to));
                let pieces = was.pieces(Some(&is), src, dst);
                budget.spend(&pieces)?;
                let regions = pieces.judge(src, dst, |query| (was.judge(query), is.judge(query)));
                let mut seen = Vec::new();
                for region in &regions {
                    let (was, is) = region.value;
                    if was.0 != is.0 && !seen.contains(&region.value) {
                        seen.push(region.value);
                        let traffic = describe(&regions, |value| *value == region.value);
                        let kind = (traffic, was.0, rule(was.1), rule(is.1));
                        by_pair.entry((kind, to)).or_default().push(from);
                    }
                }
            }
        }
        // Destinations with the same sources are one row.
        let mut rows: BTreeMap<(Kind, Vec<usize>), Vec<usize>> = BTreeMap::new();
        for ((kind, to), from) in by_pair {
            rows.entry((kind, from)).or_default().push(to);
        }
        let names = |list: &[usize]| list.iter().map(|at| groups[*at].name.clone()).collect();
        let word = |allowed: bool| if allowed { "allow" } else { "deny" };
        let change =
            |(((traffic, allowed, rule_before, rule_after), from), to): ((Kind, Vec<usize>), Vec<usize>)| {
                Changed {
                    from: names(&from),
                    to: names(&to),
                    traffic,
                    before: word(allowed),
                    after: word(!allowed),
                    rule_before,
                    rule_after,
                }
            };
        let mut changes: Vec<Changed> = rows.into_iter().map(change).collect();
        changes.sort_by(|a, b| (&a.to, &a.from, &a.traffic).cmp(&(&b.to, &b.from, &b.traffic)));
        let mut notes = Vec::new();
        let (gone, new) = before.only_in_one(after);
        for (number, where_) in [(gone, "before"), (new, "after")] {
            if number > 0 {
                let endpoints = count(number as u64, "endpoint is", "endpoints are");
                notes.push(format!("{endpoints} only there {where_}: their traffic is not compared"));
            }
        }
        Ok(Self { changes, live: None, notes })
    }
}

fn rule(by: Option<By<'_>>) -> String {
    by.map_or_else(|| "no policy applies".to_owned(), |by| by.name())
}

impl View for Diff {
    const RECORDS: Option<&'static str> = Some("changes");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        if self.changes.is_empty() {
            writeln!(out, "No verdict changes.")?;
        } else {
            let names = |list: &[String]| {
                let shown = if wide { list.len() } else { NAMED };
                let more = list.len().saturating_sub(shown);
                let named = list.iter().take(shown).map(String::as_str).collect::<Vec<_>>().join(", ");
                if more == 0 { named } else { format!("{named} and {more} more") }
            };
            let tone = |verdict| if verdict == "allow" { Tone::Good } else { Tone::Bad };
            let titles = ["FROM", "TO", "TRAFFIC", "BEFORE", "AFTER", "RULE-BEFORE", "RULE-AFTER"];
            let mut table = Table::new(titles);
            for change in &self.changes {
                table.row(vec![
                    names(&change.from).into(),
                    names(&change.to).into(),
                    (&change.traffic).into(),
                    Cell::toned(change.before, tone(change.before)),
                    Cell::toned(change.after, tone(change.after)),
                    (&change.rule_before).into(),
                    (&change.rule_after).into(),
                ]);
            }
            table.print(out)?;
        }
        if let Some(live) = &self.live {
            live.text(out, wide)?;
        }
        for note in &self.notes {
            writeln!(out, "Note: {note}")?;
        }
        Ok(())
    }
}
