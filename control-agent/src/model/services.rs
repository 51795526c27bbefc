//! What of services and translation Kubernetes and Calico have no field for: annotations of a
//! FelixConfiguration.

use std::str::FromStr;

use super::Cidr;

/// Blocks, separated by commas: node ports are served at the node's addresses in these, and at all
/// of them where it is absent.
pub const NODE_PORT_ADDRESSES: &str = "margay.io/node-port-addresses";

/// What becomes of TCP connections to a backend that is gone.
pub const REMOVED_BACKENDS: &str = "margay.io/removed-backends";

/// Which port what leaves with an address of the node gets.
pub const NAT_MAPPING: &str = "margay.io/nat-mapping";

/// What becomes of TCP connections to a backend that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemovedBackends {
    /// They go on until they end.
    #[default]
    Drain,
    /// They are reset.
    Reset,
}

impl FromStr for RemovedBackends {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Drain" => Ok(Self::Drain),
            "Reset" => Ok(Self::Reset),
            other => Err(format!("{other:?} is not a valid value; use Drain or Reset")),
        }
    }
}

/// Which port what leaves with an address of the node gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatMapping {
    /// Any that is free towards its destination.
    #[default]
    AddressAndPort,
    /// The same towards every destination (RFC 4787, section 4.1).
    EndpointIndependent,
}

impl FromStr for NatMapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "AddressAndPort" => Ok(Self::AddressAndPort),
            "EndpointIndependent" => Ok(Self::EndpointIndependent),
            other => {
                Err(format!("{other:?} is not a valid value; use AddressAndPort or EndpointIndependent"))
            }
        }
    }
}

/// Reads [`NODE_PORT_ADDRESSES`].
///
/// # Errors
/// A block that is none.
pub fn node_port_addresses(text: &str) -> Result<Vec<Cidr>, String> {
    let block = |block: &str| {
        let block = block.trim();
        block.parse().map_err(|_| format!("{block:?} is no block of addresses; write one such as 10.0.0.0/8"))
    };
    text.split(',').map(block).collect()
}
