//! The process that touches the cluster: it stores and watches resources, works out what this
//! node needs, and pushes that to the dataplane.
//!
//! Rooms, in import order. A room may import only rooms above it (`tests/layers.rs` holds that):
//!
//! | room | owns |
//! |---|---|
//! | [`backoff`], [`health`], [`task`] | pauses between attempts; what works and why not; work that ends with its owner |
//! | [`model`] | typed resources, validation, selectors |
//! | [`datastore`] | where objects live: a file, etcd, memory, another agent, a relay |
//! | [`relay`] | who needs which objects, and tells them: one store for a thousand agents |
//! | [`ipam`] | addresses: pools, blocks, who has which |
//! | [`calc`] | the desired state of one node |
//! | [`sync`] | desired state to the dataplane: difference, resend, adoption |
//! | [`flows`] | what becomes of flows: named, kept for an hour, written to a file |
//! | [`cni`] | containers' links become endpoints, for the CNI plugin |
//! | [`routing`] | BGP: the driver of BIRD |
//! | [`health_checks`] | `healthCheckNodePort` of services, asked by load balancers over HTTP |
//! | [`key_publication`] | the node's public key of WireGuard, on the Node for others |
//! | [`access`] | who may ask for what, and who did |
//! | [`control`] | the gRPC server for `margayctl` and for other agents |
//! | [`web`] | the page that shows the node to people |

pub mod access;
pub mod backoff;
pub mod calc;
pub mod cni;
pub mod control;
pub mod datastore;
pub mod flows;
pub mod health;
pub mod health_checks;
pub mod ipam;
pub mod key_publication;
pub mod model;
pub mod relay;
pub mod routing;
pub mod sync;
pub mod task;
pub mod web;
