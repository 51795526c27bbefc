//! `ipam release`, `ipam configure` and `ipam split`.

use std::io::Write as _;

use margay_api::control::v1::{
    AddressToRelease, ApplyRequest, GetRequest, ReleaseAddressesRequest, SplitPoolRequest,
    apply_request::Mode,
};
use serde_json::{Value, json};

use super::check::Report;
use crate::{
    args::{Global, IpamConfigure, IpamRelease, IpamSplit},
    client,
    command::store::send,
    exit::{Code, Failure, Outcome},
    output::Output,
};

/// Takes addresses back, and prints those that were in use.
pub async fn release(global: &Global, args: &IpamRelease, out: &mut Output) -> Outcome {
    let any =
        |ip: &std::net::IpAddr| AddressToRelease { address: ip.to_string(), ..AddressToRelease::default() };
    let addresses = match &args.from_report {
        Some(path) => Report::read(path)?.leaked(),
        None => args.ip.iter().map(any).collect(),
    };
    let handle = args.handle.clone().unwrap_or_default();
    if handle.is_empty() && addresses.is_empty() {
        writeln!(out, "nothing to release")?;
        return Ok(Code::Ok);
    }
    let asked = addresses.len();
    let mut agent = client::agent(global).await?;
    let call = agent.release_addresses(ReleaseAddressesRequest { handle, addresses });
    let released = client::answer(global.timeout, "release the addresses", call).await?.into_inner().released;
    released.iter().try_for_each(|addr| writeln!(out, "{addr} released"))?;
    let others = asked.saturating_sub(released.len());
    if others > 0 {
        writeln!(out, "{others} were not in use, or are another's by now")?;
    } else if released.is_empty() {
        writeln!(out, "the handle has no address")?;
    }
    Ok(Code::Ok)
}

/// Changes the settings that are named.
pub async fn configure(global: &Global, args: &IpamConfigure, out: &mut Output) -> Outcome {
    let mut agent = client::agent(global).await?;
    let get =
        GetRequest { kind: "IPAMConfiguration".into(), name: "default".into(), ..GetRequest::default() };
    let found = client::answer(global.timeout, "read the settings", agent.get(get)).await;
    let (mut object, mode) = match found {
        Ok(answer) => {
            (parse(answer.into_inner().objects.first().map_or("", |object| &object.json))?, Mode::Replace)
        }
        Err(failure) if failure.code == Code::NotFound => {
            let object = json!({
                "apiVersion": "projectcalico.org/v3", "kind": "IPAMConfiguration",
                "metadata": {"name": "default"}, "spec": {},
            });
            (object, Mode::Create)
        }
        Err(failure) => return Err(failure),
    };
    let settings = [
        ("strictAffinity", args.strictaffinity.map(Value::from)),
        ("maxBlocksPerHost", args.max_blocks_per_host.map(Value::from)),
        ("autoAllocateBlocks", args.auto_allocate_blocks.map(Value::from)),
        ("ipCooldownSeconds", args.cooldown_seconds.map(Value::from)),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            object["spec"][name] = value;
        }
    }
    let objects = vec![object.to_string()];
    let request = ApplyRequest { objects, dry_run: false, wait: false, mode: mode.into(), agent: false };
    let answer = send(global, request, "change").await?;
    let outcome = answer.applied.first().map_or("unchanged", |applied| &applied.outcome);
    writeln!(out, "ipamconfiguration/default {outcome}")?;
    Ok(Code::Ok)
}

/// Puts smaller pools in the place of one, and prints their names.
pub async fn split(global: &Global, args: &IpamSplit, out: &mut Output) -> Outcome {
    let pool = args.cidr.clone().or_else(|| args.name.clone()).unwrap_or_default();
    let mut agent = client::agent(global).await?;
    let call = agent.split_pool(SplitPoolRequest { pool, parts: args.parts });
    let answer = client::answer(global.timeout, "split the pool", call).await?.into_inner();
    answer.pools.iter().try_for_each(|name| writeln!(out, "ippool/{name} created"))?;
    Ok(Code::Ok)
}

fn parse(text: &str) -> Outcome<Value> {
    serde_json::from_str(text).map_err(|error| {
        let next = "check that agent and margayctl are of one version";
        Failure::new(Code::Failed, "cannot read the settings", error.to_string(), next)
    })
}
