//! What a dataplane cannot know: what its sets stand for, and what a change of labels would do. It is
//! worked out here, by the same compiler, from the objects in the agent's store.

use std::collections::BTreeMap;

use margay_api::control::v1::control_client::ControlClient;
use tonic::transport::Channel;

use super::view::Explanation;
use crate::{
    args::Global,
    cluster::{Answer, Cluster, Judgement, Node, Packet, Written, objects},
    exit::{Code, Failure, Outcome},
};

/// The cluster of all that the agent's store holds.
pub async fn stored(global: &Global, agent: &mut ControlClient<Channel>) -> Outcome<Cluster> {
    Cluster::new(objects::stored(global, agent).await?)
}

/// Completes what the dataplane of `node` said, where what is stored leads to the same.
pub fn look(cluster: &Cluster, node: &str, written: &Written, explanation: &mut Explanation) -> Outcome<()> {
    let packet = Packet::written(written, cluster).map_err(|wrong| {
        Failure::usage("the packet is not one of the stored objects", wrong.to_string(), "try again")
    })?;
    let answer = cluster.judge(&packet)?;
    if !explanation.agrees(node, &answer) {
        return Err(Failure::new(
            Code::Failed,
            "what is stored leads to another verdict than what the dataplane has adopted",
            "a change is on its way, or was refused, or host endpoints are on other interfaces than the store tells",
            "look at `margayctl status`",
        ));
    }
    explanation.sets = sets(cluster, &packet, &answer);
    explanation.counterfactual = Some(cluster.counterfactual(&packet, &answer)?);
    Ok(())
}

/// What the sets stand for that the minimal matches name.
pub fn sets(cluster: &Cluster, packet: &Packet<'_>, answer: &Answer) -> BTreeMap<String, String> {
    let ends = [(&packet.from, &answer.egress), (&packet.to, &answer.ingress)];
    let mut sets = BTreeMap::new();
    for (end, judgement) in ends {
        let (Some(endpoint), Some(judgement)) = (end.endpoint, judgement) else { continue };
        name(cluster.node_of(endpoint), judgement, &mut sets);
    }
    for stage in &answer.host {
        if let Some(node) = cluster.node(&stage.node) {
            name(node, &stage.judgement, &mut sets);
        }
    }
    sets
}

fn name(node: &Node, judgement: &Judgement, sets: &mut BTreeMap<String, String>) {
    let words = judgement.explained.minimal_match.split(' ');
    sets.extend(words.filter_map(|word| Some((word.to_owned(), node.describe_set(word)?))));
}
