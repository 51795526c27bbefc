//! What each command does: one file a group.

mod bgp;
mod completion;
mod config;
mod connectivity;
mod conntrack;
mod datastore;
mod delete;
mod diag;
mod done;
mod dp;
mod eval;
mod explain;
mod flows;
mod get;
mod interrupts;
mod ipam;
mod label;
mod man;
mod netdev;
mod node;
mod policy;
mod selector;
mod staged;
mod status;
mod store;
mod validate;
mod version;
mod watch;
mod wg;

use crate::{
    args::{Cli, Command, ConnectivityCommand, Datastore, Diag, Dp, Fib, Node, Policy, SelectorCommand, Wg},
    exit::Outcome,
    output::Output,
};

/// Does what the command line asks.
///
/// # Errors
/// Whatever went wrong, with the exit code that stands for it.
pub async fn run(cli: &Cli, out: &mut Output) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Apply(args) => store::apply(global, args, out).await,
        Command::Create(args) => store::create(global, args, out).await,
        Command::Replace(args) => store::replace(global, args, out).await,
        Command::Delete(args) => delete::run(global, args, out).await,
        Command::Get(args) if args.watch => watch::run(global, args, out).await,
        Command::Get(args) => get::run(global, args, out).await,
        Command::Validate(args) => validate::run(args, out),
        Command::Label(args) => label::run(global, args, out).await,
        Command::Status(args) => status::run(global, args, out).await,
        Command::Bgp(command) => bgp::run(global, command, out).await,
        Command::Config(command) => config::run(global, command, out).await,
        Command::Connectivity(ConnectivityCommand::Test(args)) => connectivity::run(global, args, out).await,
        Command::Diag(Diag::Collect(args)) => diag::collect(global, args, out),
        Command::Conntrack(command) => conntrack::run(global, command, out).await,
        Command::Flows(command) => flows::run(global, command, out).await,
        Command::Datastore(Datastore::Confirm(args)) => datastore::confirm(global, args, out).await,
        Command::Dp(Dp::Runtime(args)) => {
            let only = |runtime: dp::Runtime| runtime.only(args.worker);
            dp::show_some(global, &args.look, only, out).await
        }
        Command::Dp(Dp::Hist(args)) => {
            let only = |all: dp::Histograms| all.only(args.of, args.worker);
            dp::show_some(global, &args.look, only, out).await
        }
        Command::Dp(Dp::Interfaces(look)) => dp::show::<dp::Interfaces>(global, look, out).await,
        Command::Dp(Dp::Services(look)) => dp::show::<dp::Services>(global, look, out).await,
        Command::Dp(Dp::Tunnels(look)) => dp::show::<dp::Tunnels>(global, look, out).await,
        Command::Dp(Dp::Fib(Fib::Lookup(args))) => dp::lookup(global, args, out).await,
        Command::Dp(Dp::Fib(Fib::Show(args))) => dp::routes(global, args, out).await,
        Command::Dp(Dp::Adjacencies(look)) => dp::show::<dp::Adjacencies>(global, look, out).await,
        Command::Dp(Dp::Neighbours(look)) => dp::show::<dp::Neighbours>(global, look, out).await,
        Command::Dp(Dp::Trace(args)) => dp::trace(global, args, out).await,
        Command::Dp(Dp::Capture(args)) => dp::capture(global, args).await,
        Command::Dp(Dp::Queues(look)) => dp::show::<dp::Queues>(global, look, out).await,
        Command::Dp(Dp::Buffers(look)) => dp::show::<dp::Buffers>(global, look, out).await,
        Command::Dp(Dp::Drops(look)) => dp::show::<dp::Drops>(global, look, out).await,
        Command::Wg(Wg::Show(args)) => wg::show(global, args, out).await,
        Command::Wg(Wg::Rotate) => wg::rotate(global, out).await,
        Command::Ipam(command) => ipam::run(global, command, out).await,
        Command::Policy(Policy::Explain(args)) => explain::run(global, args, out).await,
        Command::Policy(Policy::Eval(args)) => eval::run(args, out),
        Command::Policy(Policy::Show(args)) => policy::show(global, args, out).await,
        Command::Policy(Policy::Matrix(args)) => policy::matrix(global, args, out).await,
        Command::Policy(Policy::Diff(args)) => policy::diff(global, args, out).await,
        Command::Policy(Policy::Staged(args)) => staged::run(global, args, out).await,
        Command::Selector(SelectorCommand::Eval { file }) => selector::eval(file, out),
        Command::Man(args) => man::run(args),
        Command::Node(Node::Check(args)) => node::check(args, out),
        Command::Completion { shell } => completion::run(*shell, out),
        Command::Version(args) => version::run(args, out),
    }
}
