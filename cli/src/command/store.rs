//! `apply`, `create` and `replace`: objects of files into the agent's store, all or none.

use margay_api::control::v1::{self as control, apply_request::Mode};

use super::done::{Done, Object};
use crate::{
    args::{DryRun, Global, Store},
    client,
    exit::{Code, Failure, Outcome},
    manifest::Manifest,
    output::{Output, Progress},
};

/// Creates, or replaces what is there.
pub async fn apply(global: &Global, args: &Store, out: &mut Output) -> Outcome {
    store(global, args, Mode::Apply, "apply", out).await
}

/// Creates, and refuses what is there.
pub async fn create(global: &Global, args: &Store, out: &mut Output) -> Outcome {
    store(global, args, Mode::Create, "create", out).await
}

/// Replaces, and refuses what is not there.
pub async fn replace(global: &Global, args: &Store, out: &mut Output) -> Outcome {
    store(global, args, Mode::Replace, "replace", out).await
}

/// Sends objects to the agent, and waits for the dataplane if asked to.
pub async fn send(
    global: &Global,
    request: control::ApplyRequest,
    verb: &str,
) -> Outcome<control::ApplyResponse> {
    let mut agent = client::agent(global).await?;
    let wait = request.wait;
    let attempt = format!("{verb} the objects");
    let _progress = wait.then(|| Progress::start("Waiting for the dataplane"));
    let answer = client::answer(global.timeout, &attempt, agent.apply(request)).await;
    answer.map(tonic::Response::into_inner).map_err(|failure| in_doubt(failure, wait))
}

/// Whoever waited in vain must know that the change itself may well be stored.
pub fn in_doubt(failure: Failure, wait: bool) -> Failure {
    match failure.code {
        Code::Unreachable if wait => failure.advise(
            "the change may be stored all the same: compare what is sent and adopted in `margayctl status`",
        ),
        _ => failure,
    }
}

async fn store(global: &Global, args: &Store, mode: Mode, verb: &str, out: &mut Output) -> Outcome {
    let manifest = Manifest::read(&args.source)?;
    manifest.check()?;
    let mut done = Done::default();
    match args.dry_run {
        DryRun::Client => {
            let object = |resource: &margay_agent::model::Resource| Object::new(&resource.key(), "valid");
            done.objects = manifest.resources().map(object).collect();
            done.dry_run = Some("client");
        }
        DryRun::None | DryRun::Server => {
            let dry_run = args.dry_run == DryRun::Server;
            let wait = args.adoption.wait && !dry_run;
            let (objects, mode) = (manifest.to_json(), mode.into());
            let request = control::ApplyRequest { objects, dry_run, wait, mode, agent: false };
            let answer = send(global, request, verb).await?;
            done.objects = answer.applied.into_iter().map(Object::from).collect();
            done.dry_run = dry_run.then_some("server");
            done.adopted(answer.adopted_generation);
        }
    }
    done.show(args.output, out)?;
    Ok(Code::Ok)
}
