//! The contract between `margay-agent`, `margay-dataplane` and `margayctl`.
//!
//! The messages are documented where they are defined, in `api/proto`. This crate is what
//! the compiler makes of them, so that any of the three can be replaced by something that speaks
//! the same protobuf; how they reach each other ([`unix`]); what they call a link ([`link`]); how
//! Prometheus reads them ([`metrics`]); and, with feature `settings`, how the two processes are told what to do, and what to
//! log.

pub mod link;
#[cfg(feature = "settings")]
pub mod log;
pub mod metrics;
#[cfg(feature = "settings")]
pub mod settings;
pub mod unix;

/// What the agent tells the dataplane, and what the dataplane shows.
pub mod dataplane {
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("margay.dataplane.v1");
    }
}

/// What `margayctl` says to the agent.
pub mod control {
    #[allow(missing_docs, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("margay.control.v1");
    }
}

/// The compiled descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
