//! `datastore confirm`: what the store has lost is meant to be gone.

use margay_agent::model::{Key, Kind};
use margay_api::control::v1::{ConfirmLostRequest, ListLostRequest, LostObject};

use super::done::{Done, Object};
use crate::{
    args::{Confirm, Global},
    client,
    exit::{Code, Failure, Outcome},
    output::Output,
};

/// Lets go of all that is lost, or shows it.
pub async fn confirm(global: &Global, args: &Confirm, out: &mut Output) -> Outcome {
    let mut agent = client::agent(global).await?;
    let call = agent.list_lost(ListLostRequest {});
    let lost = client::answer(global.timeout, "read what is lost", call).await?.into_inner().objects;
    let outcome = if args.dry_run { "lost" } else { "let go" };
    let objects = lost.iter().map(|lost| Ok(Object::new(&key(lost)?, outcome)));
    let mut done = Done { objects: objects.collect::<Outcome<_>>()?, ..Done::default() };
    if args.dry_run {
        done.dry_run = Some("server");
    } else if !lost.is_empty() {
        // Those that were seen, and none that is lost meanwhile.
        let call = agent.confirm_lost(ConfirmLostRequest { objects: lost });
        client::answer(global.timeout, "let go of what is lost", call).await?;
    }
    done.show(args.output, out)?;
    Ok(Code::Ok)
}

fn key(lost: &LostObject) -> Outcome<Key> {
    let kind = Kind::parse(&lost.kind).map_err(|error| {
        let next = "check that agent and margayctl are of one version";
        Failure::new(Code::Failed, "cannot read what is lost", error.to_string(), next)
    })?;
    Ok(Key { kind, namespace: lost.namespace.clone(), name: lost.name.clone() })
}
