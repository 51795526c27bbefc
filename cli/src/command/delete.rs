//! `delete`: objects by name, or as files list them.

use margay_agent::model::Key;
use margay_api::control::v1 as control;

use super::{
    done::{Done, Object},
    get::namespace,
    store::in_doubt,
};
use crate::{
    args::{Delete, Global, Source},
    client,
    exit::{Code, Failure, Outcome},
    manifest::Manifest,
    object,
    output::{Output, Progress},
};

/// Deletes one object after the other, and goes on when one cannot be deleted.
pub async fn run(global: &Global, args: &Delete, out: &mut Output) -> Outcome {
    let keys = keys(args)?;
    let mut agent = client::agent(global).await?;
    let mut done = Done::default();
    let mut failures = Vec::new();
    let progress = args.adoption.wait.then(|| Progress::start("Waiting for the dataplane"));
    for key in &keys {
        let attempt = format!("delete {}", object::path(key.kind.name(), &key.name));
        let call = agent.delete(control::DeleteRequest {
            kind: key.kind.name().to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            wait: args.adoption.wait,
            ..control::DeleteRequest::default()
        });
        match client::answer(global.timeout, &attempt, call).await {
            Ok(answer) => {
                done.objects.push(Object::new(key, "deleted"));
                done.adopted(answer.into_inner().adopted_generation);
            }
            Err(failure) if failure.code == Code::NotFound && args.ignore_not_found => {
                done.objects.push(Object::new(key, "not found"));
            }
            Err(failure) => failures.push(in_doubt(failure, args.adoption.wait)),
        }
        // Who did not answer once would keep us waiting for each of the others.
        if failures.last().is_some_and(|failure| failure.code == Code::Unreachable) {
            break;
        }
    }
    drop(progress);
    done.show(args.output, out)?;
    Failure::of_several("delete", failures, done.objects.len(), keys.len())
}

fn keys(args: &Delete) -> Outcome<Vec<Key>> {
    let Some(kind) = args.kind else {
        let source = Source { files: args.files.clone(), namespace: args.namespace.clone() };
        let manifest = Manifest::read(&source)?;
        let key = |key: Key| match key.namespace.as_str() {
            "" => Key { namespace: namespace(key.kind, None, false), ..key },
            _ => key,
        };
        // Files list what is referred to before what refers to it.
        return Ok(manifest.resources().rev().map(|resource| key(resource.key())).collect());
    };
    let namespace = namespace(kind, args.namespace.as_deref(), false);
    Ok(args.names.iter().map(|name| Key { kind, namespace: namespace.clone(), name: name.clone() }).collect())
}
