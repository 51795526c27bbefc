//! `ipam`: addresses, as the agents' books have them.

mod change;
mod check;
mod show;

use margay_api::control::v1::{ListAddressesRequest, ListAddressesResponse};

use crate::{
    args::{Global, Ipam},
    client,
    exit::Outcome,
    output::Output,
};

/// Runs one of the commands.
pub async fn run(global: &Global, command: &Ipam, out: &mut Output) -> Outcome {
    match command {
        Ipam::Show(args) => show::run(global, args, out).await,
        Ipam::Check(args) => check::run(global, args, out).await,
        Ipam::Release(args) => change::release(global, args, out).await,
        Ipam::Configure(args) => change::configure(global, args, out).await,
        Ipam::Split(args) => change::split(global, args, out).await,
    }
}

async fn list(global: &Global, request: ListAddressesRequest) -> Outcome<ListAddressesResponse> {
    let mut agent = client::agent(global).await?;
    let answer = client::answer(global.timeout, "read the addresses", agent.list_addresses(request)).await;
    answer.map(tonic::Response::into_inner)
}
