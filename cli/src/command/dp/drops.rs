//! `dp drops`: why packets were dropped, and which rules decided it.

use std::io::{self, Write as _};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::{
    Counted, grown,
    interfaces::{Interfaces, Lost},
};
use crate::{
    command::explain::rule_name,
    output::{Cell, Output, Table, Tone, View},
};

/// Every reason that dropped something, and what was lost before.
#[derive(Debug, Serialize)]
pub struct Drops {
    drops: Vec<Drop>,
    lost: Vec<Lost>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Drop {
    reason: String,
    sentence: String,
    packets: u64,
    last_packet: String,
    rules: Vec<RuleDrops>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleDrops {
    endpoint: String,
    direction: String,
    tier: String,
    policy: String,
    /// Absent where no rule matched and the default decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    packets: u64,
    last_packet: String,
}

impl Counted for Drops {
    const WHAT: &'static str = "drops";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let answer = dataplane.list_drops(api::ListDropsRequest {}).await?.into_inner();
        let lost = Interfaces::fetch(dataplane).await?.lost();
        Ok(Self { drops: answer.drops.into_iter().map(Drop::from).collect(), lost })
    }

    fn since(&self, earlier: &Self) -> Self {
        let drop = |now: &Drop| {
            let Some(before) = earlier.drops.iter().find(|before| before.reason == now.reason) else {
                return now.clone();
            };
            let rule = |rule: &RuleDrops| {
                let counted = before.rules.iter().find(|old| old.is(rule)).map_or(0, |old| old.packets);
                RuleDrops { packets: grown(rule.packets, counted), ..rule.clone() }
            };
            let rules = now.rules.iter().map(rule).filter(|rule| rule.packets > 0);
            Drop { packets: grown(now.packets, before.packets), rules: rules.collect(), ..now.clone() }
        };
        let lost = |now: &Lost| {
            let before = earlier.lost.iter().find(|before| before.interface == now.interface);
            let (ring_full, no_frame) = before.map_or((0, 0), |before| (before.ring_full, before.no_frame));
            let (ring_full, no_frame) = (grown(now.ring_full, ring_full), grown(now.no_frame, no_frame));
            Lost { ring_full, no_frame, ..now.clone() }
        };
        Self {
            drops: self.drops.iter().map(drop).filter(|drop| drop.packets > 0).collect(),
            lost: self
                .lost
                .iter()
                .map(lost)
                .filter(|lost| (lost.ring_full, lost.no_frame) != (0, 0))
                .collect(),
        }
    }
}

impl From<api::Drop> for Drop {
    fn from(from: api::Drop) -> Self {
        let rule = |rule: api::RuleDrops| RuleDrops {
            endpoint: rule.endpoint,
            direction: rule.direction,
            tier: rule.tier,
            policy: rule.policy,
            rule: u32::try_from(rule.rule).ok(),
            packets: rule.packets,
            last_packet: rule.last_packet,
        };
        Self {
            reason: from.reason,
            sentence: from.sentence,
            packets: from.packets,
            last_packet: from.last_packet,
            rules: from.rules.into_iter().map(rule).collect(),
        }
    }
}

impl RuleDrops {
    fn is(&self, other: &Self) -> bool {
        let key = |rule: &Self| (rule.rule, rule.direction.clone(), rule.tier.clone(), rule.policy.clone());
        self.endpoint == other.endpoint && key(self) == key(other)
    }
}

impl View for Drops {
    const RECORDS: Option<&'static str> = Some("drops");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        if self.drops.is_empty() {
            writeln!(out, "No packet was dropped.")?;
            return self.lost(out);
        }
        let mut reasons = Table::new(["REASON", ">PACKETS", "LAST-PACKET", "MEANING"]);
        for drop in &self.drops {
            let reason = Cell::toned(&drop.reason, Tone::Bad);
            reasons.row(vec![
                reason,
                drop.packets.into(),
                (&drop.last_packet).into(),
                (&drop.sentence).into(),
            ]);
        }
        reasons.print(out)?;

        let mut rules =
            Table::new([">PACKETS", "DIRECTION", "ENDPOINT", "TIER", "POLICY", "RULE", "LAST-PACKET"]);
        for rule in self.drops.iter().flat_map(|drop| &drop.rules) {
            rules.row(vec![
                rule.packets.into(),
                (&rule.direction).into(),
                (&rule.endpoint).into(),
                (&rule.tier).into(),
                (&rule.policy).into(),
                rule_name(rule.rule).into(),
                (&rule.last_packet).into(),
            ]);
        }
        if !rules.is_empty() {
            writeln!(out)?;
            rules.print(out)?;
        }
        self.lost(out)
    }
}

impl Drops {
    fn lost(&self, out: &mut Output) -> io::Result<()> {
        if self.lost.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nLost in the kernel, before they were received:")?;
        let mut table = Table::new(["INTERFACE", "ENDPOINT", ">RING-FULL", ">NO-FRAME"]);
        for lost in &self.lost {
            table.row(vec![
                (&lost.interface).into(),
                (&lost.endpoint).into(),
                lost.ring_full.into(),
                lost.no_frame.into(),
            ]);
        }
        table.print(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(packets: u64, by_rule: u64) -> Drops {
        let rule =
            api::RuleDrops { endpoint: "shop/web".into(), rule: -1, packets: by_rule, ..Default::default() };
        let drop = api::Drop { reason: "policy".into(), packets, rules: vec![rule], ..Default::default() };
        Drops { drops: vec![drop.into()], lost: vec![lost(packets, 1)] }
    }

    fn lost(ring_full: u64, no_frame: u64) -> Lost {
        Lost { interface: "cali-web".into(), endpoint: "shop/web".into(), ring_full, no_frame }
    }

    #[test]
    fn an_interval_shows_only_what_it_dropped() {
        let interval = drops(9, 4).since(&drops(7, 4));
        assert_eq!(interval.drops[0].packets, 2);
        assert!(interval.drops[0].rules.is_empty());
        assert_eq!(interval.lost, [lost(2, 0)]);
        let nothing = drops(9, 4).since(&drops(9, 4));
        assert!(nothing.drops.is_empty() && nothing.lost.is_empty());
    }
}
