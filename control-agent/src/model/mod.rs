#![doc = include_str!("README.md")]

mod defaults;
mod encryption;
mod kind;
mod kinds;
pub mod kubernetes;
mod load;
mod metadata;
mod net;
mod resource;
mod rule;
pub mod scalar;
#[cfg(test)]
mod schema;
mod scope;
pub mod selector;
mod services;
mod supported;
mod tracking;
mod validate;

pub use encryption::{ENCRYPTION, is_required};
pub use kind::{Key, Kind, UnknownKind};
pub use kinds::*;
pub use load::{LoadError, MAX_INPUT, load, sift};
pub use metadata::Metadata;
pub use net::{Cidr, CidrError, IpVersion, Port, Protocol, SubnetAddr};
pub use resource::{Object, Resource};
pub use rule::{
    Action, EntityRule, HttpMatch, HttpPath, Icmp, PerformanceHint, PolicyType, Rule, RuleMetadata,
    ServiceAccountMatch, ServiceMatch,
};
pub use scope::{
    LABEL_NAMESPACE, LABEL_ORCHESTRATOR, LABEL_SERVICE_ACCOUNT, NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX,
    namespace_profile,
};
pub use selector::{Labels, Selector, SelectorError};
pub use services::{
    NAT_MAPPING, NODE_PORT_ADDRESSES, NatMapping, REMOVED_BACKENDS, RemovedBackends, node_port_addresses,
};
pub use tracking::{MIDSTREAM, TCP_WINDOWS, is_strict, milliseconds, picks_up};
pub use validate::FieldError;

/// The text of a file of the data that the project's tests share, if it is there.
#[cfg(test)]
fn shared_data(name: &str) -> Option<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        // Straight to the terminal: the test runner would swallow what is printed.
        let line = format!("SKIPPED: {}: shared data not found\n", path.display());
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error is open");
    }
    text
}
