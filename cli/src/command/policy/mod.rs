//! What commands about policy have in common: where the cluster is read from.

mod diff;
mod live;
mod matrix;
mod show;

use margay_agent::model::Resource;

use crate::{
    args::{Global, PolicyDiff, PolicyMatrix},
    client,
    cluster::{
        Cluster,
        objects::{applied, stored},
        open_hosts,
    },
    exit::Outcome,
    manifest::Manifest,
    output::{Output, Progress},
};

pub use show::run as show;

/// `policy matrix`.
pub async fn matrix(global: &Global, args: &PolicyMatrix, out: &mut Output) -> Outcome {
    let objects = objects(global, args.resources.as_ref()).await?;
    let cluster = Cluster::told(objects)?;
    let _progress = Progress::start("judging");
    matrix::run(&cluster, args, out)
}

/// `policy diff`.
pub async fn diff(global: &Global, args: &PolicyDiff, out: &mut Output) -> Outcome {
    let manifest = Manifest::read(&args.source)?;
    manifest.check()?;
    let before = objects(global, args.resources.as_ref()).await?;
    let after = applied(before.clone(), manifest.resources().cloned().collect());
    let _progress = Progress::start("judging");
    let (before, after) = (Cluster::new(before)?, Cluster::told(after)?);
    let live = match &args.resources {
        Some(_) => None,
        None => Some(live::ask(global, &after).await),
    };
    diff::run(&before, &after, live, args, out)
}

/// Those of files, or what the agent has stored.
async fn objects(global: &Global, path: Option<&std::path::PathBuf>) -> Outcome<Vec<Resource>> {
    match path {
        Some(path) => {
            let manifest = Manifest::read_cluster(path)?;
            manifest.check()?;
            let mut objects = manifest.resources().cloned().collect();
            open_hosts(&mut objects);
            Ok(objects)
        }
        None => stored(global, &mut client::agent(global).await?).await,
    }
}
