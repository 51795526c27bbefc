//! What a service makes of a packet, as it is shown.

use std::io::{self, Write as _};

use margay_api::dataplane::v1 as dataplane;
use serde::Serialize;

use crate::{
    output::{Output, Tone},
    readable::address,
};

/// A service, and who of it gets the packet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    port: String,
    /// What the packet's destination is to it.
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    backends: Vec<Backend>,
    local_only: bool,
    by_affinity: bool,
    by_source_port: bool,
    translates_source: bool,
    /// Whose answer it is, where the source does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

#[derive(Serialize)]
struct Refused {
    reason: String,
    sentence: String,
}

/// Where a service's packets may go.
#[derive(Clone, Serialize)]
pub struct Backend {
    pub address: String,
    pub port: u32,
    local: bool,
}

impl From<dataplane::ServiceChoice> for Service {
    fn from(from: dataplane::ServiceChoice) -> Self {
        let backend = |backend: dataplane::ServedBackend| Backend {
            address: address(&backend.address),
            port: backend.port,
            local: backend.local,
        };
        let dataplane::ServiceChoice { refused: reason, sentence, .. } = from;
        Self {
            name: from.service,
            port: from.port,
            address: from.kind,
            refused: (!reason.is_empty()).then_some(Refused { reason, sentence }),
            backend: from.backend.map(backend),
            backends: from.backends.into_iter().map(backend).collect(),
            local_only: from.local_only,
            by_affinity: from.by_affinity,
            by_source_port: from.by_source_port,
            translates_source: from.translates_source,
            node: None,
        }
    }
}

impl Service {
    /// As `node` of some files serves it, where the packet may come to any.
    pub fn of_files(choice: dataplane::ServiceChoice, node: Option<String>) -> Self {
        Self { node, ..choice.into() }
    }

    /// The packet goes to nobody.
    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    pub fn text(&self, out: &mut Output) -> io::Result<()> {
        let port = if self.port.is_empty() { String::new() } else { format!(", port {}", self.port) };
        writeln!(out, "\nService {}{port}: its {} address", self.name, self.address)?;
        if let Some(Refused { reason, sentence }) = &self.refused {
            writeln!(out, "  {}: {sentence}", out.paint(reason, Tone::Bad))?;
        }
        if let Some(backend) = &self.backend {
            let whose = if self.local_only { " of this node" } else { "" };
            let how = match (self.by_affinity, self.by_source_port) {
                (true, _) => ", where the client was sent before",
                (false, true) => "; with another source port (--sport) it may be another",
                (false, false) => "",
            };
            writeln!(out, "  Goes to {}, one of {}{whose}{how}", backend.socket(), self.backends.len())?;
        }
        if self.backends.len() > 1 {
            let all: Vec<_> = self.backends.iter().map(Backend::socket).collect();
            writeln!(out, "  Backends: {}", all.join(", "))?;
        }
        if let Some(node) = &self.node {
            writeln!(out, "  As node {node} serves it")?;
        }
        if self.translates_source {
            writeln!(out, "  It leaves with an address of this node, so that the answer comes back here")?;
        }
        Ok(())
    }
}

impl Backend {
    fn socket(&self) -> String {
        let Self { address, port, local } = self;
        let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        format!("{address}:{port}{}", if *local { " (here)" } else { "" })
    }
}
