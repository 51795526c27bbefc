#![doc = include_str!("README.md")]

mod convert;
mod denials;
mod desired;
mod explain;
mod ports;
mod server;
mod shell;
mod state;
mod view;

pub use convert::FieldError;
pub use desired::{Desired, Endpoint, EndpointId, ObjectError, SetNames, Target, Tier};
pub use ports::{DeviceOptions, Ports, WorkerEnd};
pub use server::Service;
pub use shell::{Request, Shell};
pub use state::{Action, Facts, Purpose, State};
