//! `policy staged`: what staged policies would change, were they in force.

use std::io::{self, Write as _};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use crate::{
    args::{Global, StagedPolicies},
    command::{
        dp::{self, Counted, grown},
        explain::rule_name,
    },
    exit::{Code, Failure, Outcome},
    output::{Cell, Output, Table, Tone, View},
    readable::span,
};

/// Shows all of them, or one.
pub async fn run(global: &Global, args: &StagedPolicies, out: &mut Output) -> Outcome {
    let only = |staged: Staged| match &args.name {
        Some(name) => staged.of(name),
        None => Ok(staged),
    };
    dp::show_some(global, &args.look, only, out).await
}

/// Everything that is staged on this node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Staged {
    generation: u64,
    policies: Vec<Policy>,
    endpoints: Vec<Endpoint>,
    /// What would decide otherwise than now without being a rule of a staged policy.
    others: Vec<Rule>,
    /// One was asked for, by its name.
    #[serde(skip)]
    one: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
    tier: String,
    ingress_endpoints: Vec<String>,
    egress_endpoints: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    tier: String,
    policy: String,
    direction: String,
    /// Absent where no rule matches and the default decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<u32>,
    action: String,
    packets: u64,
    would_allow: u64,
    would_deny: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_packet: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_endpoint: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    endpoint: String,
    direction: String,
    judged: u64,
    would_allow: u64,
    would_deny: u64,
    seconds: u64,
}

impl Staged {
    /// The policy of this name, as `shop/web` or `web`, and what it selects.
    fn of(mut self, name: &str) -> Outcome<Self> {
        self.policies.retain(|policy| policy.title() == name || policy.name == name);
        if self.policies.is_empty() {
            return Err(Failure::new(
                Code::NotFound,
                format!("there is no staged policy {name:?} on this node"),
                "no endpoint of this node is selected by one of this name",
                "list them with `margayctl policy staged`",
            ));
        }
        let selected = |row: &Endpoint| self.policies.iter().any(|policy| policy.selects(row));
        self.endpoints.retain(selected);
        self.others.clear();
        self.one = true;
        Ok(self)
    }
}

impl Policy {
    fn title(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        }
    }

    fn selects(&self, row: &Endpoint) -> bool {
        let endpoints =
            if row.direction == "ingress" { &self.ingress_endpoints } else { &self.egress_endpoints };
        endpoints.contains(&row.endpoint)
    }

    fn sum(&self, of: fn(&Rule) -> u64) -> u64 {
        self.rules.iter().map(of).sum()
    }

    fn endpoints(&self) -> usize {
        let others = self.egress_endpoints.iter().filter(|name| !self.ingress_endpoints.contains(name));
        self.ingress_endpoints.len() + others.count()
    }
}

impl Rule {
    fn is(&self, other: &Self) -> bool {
        let key = |rule: &Self| (rule.rule, rule.direction.clone(), rule.tier.clone(), rule.policy.clone());
        key(self) == key(other)
    }

    fn since(&self, earlier: &[Self]) -> Self {
        let Some(before) = earlier.iter().find(|before| before.is(self)) else { return self.clone() };
        Self {
            packets: grown(self.packets, before.packets),
            would_allow: grown(self.would_allow, before.would_allow),
            would_deny: grown(self.would_deny, before.would_deny),
            ..self.clone()
        }
    }
}

impl Counted for Staged {
    const WHAT: &'static str = "staged policies";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        Ok(dataplane.list_staged(api::ListStagedRequest {}).await?.into_inner().into())
    }

    fn since(&self, earlier: &Self) -> Self {
        let policy = |now: &Policy| {
            let same = |old: &&Policy| old.kind == now.kind && old.title() == now.title();
            let before = earlier.policies.iter().find(same).map(|old| &old.rules[..]).unwrap_or_default();
            Policy { rules: now.rules.iter().map(|rule| rule.since(before)).collect(), ..now.clone() }
        };
        let endpoint = |now: &Endpoint| {
            let same = |old: &&Endpoint| old.endpoint == now.endpoint && old.direction == now.direction;
            let Some(before) = earlier.endpoints.iter().find(same) else { return now.clone() };
            Endpoint {
                judged: grown(now.judged, before.judged),
                would_allow: grown(now.would_allow, before.would_allow),
                would_deny: grown(now.would_deny, before.would_deny),
                ..now.clone()
            }
        };
        Self {
            policies: self.policies.iter().map(policy).collect(),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
            others: self.others.iter().map(|rule| rule.since(&earlier.others)).collect(),
            ..*self
        }
    }
}

impl From<api::ListStagedResponse> for Staged {
    fn from(from: api::ListStagedResponse) -> Self {
        let rule = |rule: api::StagedRule| Rule {
            tier: rule.tier,
            policy: rule.policy,
            direction: rule.direction,
            rule: u32::try_from(rule.rule).ok(),
            action: rule.action,
            packets: rule.packets,
            would_allow: rule.would_allow,
            would_deny: rule.would_deny,
            last_packet: rule.last_packet,
            last_endpoint: rule.last_endpoint,
        };
        let (staged, others): (Vec<_>, Vec<_>) = from.rules.into_iter().partition(|rule| rule.staged);
        let staged: Vec<Rule> = staged.into_iter().map(rule).collect();
        let policy = |policy: api::StagedPolicy| {
            let id = policy.id.unwrap_or_default();
            let mut made = Policy {
                kind: id.kind,
                namespace: id.namespace,
                name: id.name,
                tier: policy.tier,
                ingress_endpoints: policy.ingress_endpoints,
                egress_endpoints: policy.egress_endpoints,
                rules: vec![],
            };
            let title = made.title();
            let own = |rule: &&Rule| rule.policy == title && rule.tier == made.tier;
            made.rules = staged.iter().filter(own).cloned().collect();
            made
        };
        let endpoint = |row: api::StagedEndpoint| Endpoint {
            endpoint: row.endpoint,
            direction: row.direction,
            judged: row.judged,
            would_allow: row.would_allow,
            would_deny: row.would_deny,
            seconds: row.seconds,
        };
        Self {
            generation: from.generation,
            policies: from.policies.into_iter().map(policy).collect(),
            endpoints: from.endpoints.into_iter().map(endpoint).collect(),
            others: others.into_iter().map(rule).collect(),
            one: false,
        }
    }
}

impl View for Staged {
    const RECORDS: Option<&'static str> = Some("policies");

    fn text(&self, out: &mut Output, wide: bool) -> io::Result<()> {
        if self.policies.is_empty() && self.endpoints.is_empty() {
            return writeln!(out, "No policy is staged on this node.");
        }
        let mut policies =
            Table::new(["POLICY", "KIND", "TIER", ">ENDPOINTS", ">PACKETS", ">WOULD-ALLOW", ">WOULD-DENY"]);
        for policy in &self.policies {
            policies.row(vec![
                policy.title().into(),
                (&policy.kind).into(),
                (&policy.tier).into(),
                policy.endpoints().into(),
                policy.sum(|rule| rule.packets).into(),
                counted(policy.sum(|rule| rule.would_allow), Tone::Good),
                counted(policy.sum(|rule| rule.would_deny), Tone::Bad),
            ]);
        }
        policies.print(out)?;

        if !self.endpoints.is_empty() {
            writeln!(out)?;
        }
        let mut endpoints =
            Table::new(["ENDPOINT", "DIRECTION", ">JUDGED", ">WOULD-ALLOW", ">WOULD-DENY", ">FOR"]);
        for row in &self.endpoints {
            endpoints.row(vec![
                (&row.endpoint).into(),
                (&row.direction).into(),
                row.judged.into(),
                counted(row.would_allow, Tone::Good),
                counted(row.would_deny, Tone::Bad),
                span(row.seconds).into(),
            ]);
        }
        if !endpoints.is_empty() {
            endpoints.print(out)?;
        }

        let mut rules = Table::new([
            "DIRECTION",
            "TIER",
            "POLICY",
            "RULE",
            "ACTION",
            ">PACKETS",
            ">WOULD-ALLOW",
            ">WOULD-DENY",
            "LAST-PACKET",
        ]);
        let all = wide || self.one;
        let of_policies = self.policies.iter().flat_map(|policy| &policy.rules);
        for rule in
            of_policies.filter(|rule| all || rule.would_allow + rule.would_deny > 0).chain(&self.others)
        {
            rules.row(vec![
                (&rule.direction).into(),
                (&rule.tier).into(),
                (&rule.policy).into(),
                rule_name(rule.rule).into(),
                (&rule.action).into(),
                rule.packets.into(),
                counted(rule.would_allow, Tone::Good),
                counted(rule.would_deny, Tone::Bad),
                (&rule.last_packet).into(),
            ]);
        }
        if !rules.is_empty() {
            writeln!(out)?;
            rules.print(out)?;
        }
        Ok(())
    }
}

fn counted(packets: u64, tone: Tone) -> Cell {
    if packets == 0 { packets.into() } else { Cell::toned(packets.to_string(), tone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(would_deny: u64) -> Staged {
        let rule = |policy: &str, staged, rule| api::StagedRule {
            tier: "default".into(),
            policy: policy.into(),
            staged,
            direction: "ingress".into(),
            rule,
            action: "deny".into(),
            packets: would_deny + 1,
            would_deny,
            ..Default::default()
        };
        let id = |namespace: &str, name: &str| {
            Some(api::PolicyId { kind: "Staged".into(), namespace: namespace.into(), name: name.into() })
        };
        let policy = |id| api::StagedPolicy {
            id,
            tier: "default".into(),
            ingress_endpoints: vec!["shop/a".into()],
            ..Default::default()
        };
        let endpoint = |endpoint: &str| api::StagedEndpoint {
            endpoint: endpoint.into(),
            direction: "ingress".into(),
            judged: 10,
            would_deny,
            ..Default::default()
        };
        let response = api::ListStagedResponse {
            generation: 1,
            policies: vec![policy(id("shop", "web")), policy(id("", "all"))],
            endpoints: vec![endpoint("shop/a"), endpoint("shop/b")],
            rules: vec![rule("shop/web", true, 0), rule("all", true, 3), rule("", false, -1)],
        };
        response.into()
    }

    #[test]
    fn rules_stand_with_their_policies() {
        let staged = staged(2);
        assert_eq!(staged.policies.iter().map(|p| p.rules.len()).collect::<Vec<_>>(), [1, 1]);
        assert_eq!((staged.others.len(), staged.others[0].rule), (1, None));
    }

    #[test]
    fn one_is_found_by_either_name_or_not() {
        let one = staged(2).of("web").unwrap();
        assert_eq!((one.policies.len(), one.endpoints.len()), (1, 1));
        assert_eq!(staged(2).of("shop/web").unwrap().policies[0].title(), "shop/web");
        assert_eq!(staged(2).of("nowhere").unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn an_interval_shows_only_what_it_counted() {
        let interval = staged(9).since(&staged(7));
        assert_eq!(interval.policies[0].rules[0].would_deny, 2);
        assert_eq!((interval.endpoints[0].judged, interval.endpoints[0].would_deny), (0, 2));
        assert_eq!(interval.others[0].packets, 2);
    }
}
