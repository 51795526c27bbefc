#![doc = include_str!("README.md")]

mod audit;
mod certificate;
mod door;
mod own;
mod role;
mod tls;

pub use audit::{Audit, AuditError, Written};
pub use certificate::CertificateError;
pub use door::{Accepted, Door};
pub use role::{Caller, Refusal, Role};
pub use tls::{Files, TlsError};
