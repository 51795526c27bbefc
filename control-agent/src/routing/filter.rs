//! BGPFilter's rules in BIRD's filter language.

use super::bird::{community, prefix_set, quoted};
use crate::model::{
    BgpFilterAction, BgpFilterOperation, BgpFilterRule, BgpFilterSpec, MatchOperator, PeerType, RouteOrigin,
};

/// Which way routes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the node.
    Import,
    /// From it.
    Export,
}

/// One line for each rule that a session can meet: the first that matches ends the filter.
pub(super) fn statements(filter: &BgpFilterSpec, v4: bool, way: Way, internal: bool) -> Vec<String> {
    match (v4, way) {
        (true, Way::Import) => rules(filter.import_v4.as_deref(), internal),
        (true, Way::Export) => rules(filter.export_v4.as_deref(), internal),
        (false, Way::Import) => rules(filter.import_v6.as_deref(), internal),
        (false, Way::Export) => rules(filter.export_v6.as_deref(), internal),
    }
}

fn rules<const MAX: i64>(rules: Option<&[BgpFilterRule<MAX>]>, internal: bool) -> Vec<String> {
    let of_session = |rule: &&BgpFilterRule<MAX>| match rule.peer_type {
        None => true,
        Some(PeerType::Internal) => internal,
        Some(PeerType::External) => !internal,
    };
    rules.unwrap_or_default().iter().filter(of_session).map(statement).collect()
}

fn statement<const MAX: i64>(rule: &BgpFilterRule<MAX>) -> String {
    let mut conditions = Vec::new();
    if let (Some(cidr), Some(operator)) = (rule.cidr, rule.match_operator) {
        let bound = |given: Option<i64>, or: i64| given.unwrap_or(or);
        let lengths = rule.prefix_length.unwrap_or_default();
        let least = bound(lengths.min.map(|n| n.get()), cidr.len().into());
        let most = bound(lengths.max.map(|n| n.get()), MAX);
        conditions.push(match operator {
            MatchOperator::Equal => format!("net = {cidr}"),
            MatchOperator::NotEqual => format!("net != {cidr}"),
            MatchOperator::In => format!("net ~ {}", prefix_set([(cidr, least, most)])),
            MatchOperator::NotIn => format!("net !~ {}", prefix_set([(cidr, least, most)])),
        });
    }
    if rule.source == Some(RouteOrigin::RemotePeers) {
        conditions.push("source = RTS_BGP".to_owned());
    }
    if let Some(interface) = &rule.interface {
        conditions.push(format!("ifname ~ {}", quoted(interface.as_str())));
    }
    for value in rule.communities.iter().flat_map(|communities| &communities.values) {
        let (list, value) = community(*value);
        conditions.push(format!("{value} ~ {list}"));
    }
    if !rule.as_path_prefix.is_empty() {
        let path: Vec<_> = rule.as_path_prefix.iter().map(|number| number.get().to_string()).collect();
        conditions.push(format!("bgp_path ~ [= {} * =]", path.join(" ")));
    }
    let action = match rule.action {
        BgpFilterAction::Reject => "reject;".to_owned(),
        BgpFilterAction::Accept => {
            let changes: String = rule.operations.iter().map(change).collect();
            format!("{changes}accept;")
        }
    };
    match conditions.is_empty() {
        true => action,
        false => format!("if {} then {{ {action} }}", conditions.join(" && ")),
    }
}

/// A new metric, which is refused when it is applied, changes nothing.
fn change(operation: &BgpFilterOperation) -> String {
    let mut text = String::new();
    if let Some(added) = &operation.add_community {
        let (list, value) = community(added.value);
        text.push_str(&format!("{list}.add({value}); "));
    }
    // What is prepended last stands first.
    for number in operation.prepend_as_path.iter().flat_map(|path| path.prefix.iter().rev()) {
        text.push_str(&format!("bgp_path.prepend({}); ", number.get()));
    }
    text
}
