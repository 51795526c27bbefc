#![doc = include_str!("README.md")]

mod convert;
mod denials;
mod desired;
mod difference;
mod dry_run;
mod explain;
mod flow_rpc;
mod flows;
mod host_endpoint;
mod judge;
mod passage;
mod ports;
mod server;
mod set_names;
mod shell;
mod show;
mod staged;
mod state;
mod tally;
mod view;
mod written;

pub use convert::FieldError;
pub use desired::{Desired, Endpoint, EndpointId, ObjectError, Target, Tier};
pub use difference::Difference;
pub use dry_run::judge_sessions;
pub use explain::explain;
pub use flows::{Asked, Names, Questions};
pub use host_endpoint::{Failsafe, FailsafePort, HostEndpoint, On};
pub use ports::{DeviceOptions, Ports, WorkerEnd};
pub use server::Service;
pub use set_names::SetNames;
pub use shell::{Request, Shell};
pub use show::{ShowError, show};
pub use staged::Differences;
pub use state::{Action, Facts, HostList, Purpose, Stage, State};
pub use written::{Policy, Profile, Written};
