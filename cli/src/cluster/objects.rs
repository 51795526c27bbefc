//! The objects that a cluster is made of, as the agent's store has them.

use margay_agent::model::{Kind, Resource};
use margay_api::control::v1::{GetRequest, control_client::ControlClient};
use tonic::transport::Channel;

use crate::{
    args::Global,
    client,
    exit::{Code, Failure, Outcome},
};

/// All that is stored.
pub async fn stored(global: &Global, agent: &mut ControlClient<Channel>) -> Outcome<Vec<Resource>> {
    let mut objects = Vec::new();
    for kind in Kind::ALL {
        let request = GetRequest { kind: kind.to_string(), ..GetRequest::default() };
        let call = agent.get(request);
        let answer = client::answer(global.timeout, &format!("get the {}", kind.plural()), call).await?;
        for object in answer.into_inner().objects {
            let resource = Resource::from_json(&object.json).map_err(|errors| {
                let problem = format!("the store holds a {kind} that this release cannot read");
                let cause = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
                Failure::new(Code::Failed, problem, cause, "use the margayctl of the agent's release")
            })?;
            objects.push(resource);
        }
    }
    Ok(objects)
}

/// The objects of a cluster after `others` were applied: those take the place of what has their kind and name.
pub fn applied(mut objects: Vec<Resource>, others: Vec<Resource>) -> Vec<Resource> {
    for object in others {
        let key = object.key();
        objects.retain(|known| known.key() != key);
        objects.push(object);
    }
    objects
}
