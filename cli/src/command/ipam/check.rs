//! `ipam check`: what does not add up.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use margay_agent::ipam::report::FindingKind;
use margay_api::control::v1::{AddressFinding, AddressToRelease, ListAddressesRequest};
use serde::{Deserialize, Serialize};

use crate::{
    args::{Global, IpamCheck},
    exit::{Code, Failure, Outcome},
    output::{Cell, Output, Table, Tone, View},
};

/// Prints the report.
pub async fn run(global: &Global, args: &IpamCheck, out: &mut Output) -> Outcome {
    let request = ListAddressesRequest { findings: true, ..ListAddressesRequest::default() };
    let answer = super::list(global, request).await?;
    let findings = answer.findings.into_iter().map(Finding::from).collect();
    let report = Report { revision: answer.revision, findings };
    out.show(&report, args.output)?;
    Ok(if report.findings.is_empty() { Code::Ok } else { Code::Problems })
}

/// What does not add up, at one revision of the store.
#[derive(Debug, Deserialize, Serialize)]
pub struct Report {
    revision: u64,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Finding {
    /// leaked, double, out-of-pool, unallocated or unreadable
    kind: String,
    address: String,
    /// Of the one who has it.
    handle: String,
    /// Of this assignment.
    sequence: u64,
    message: String,
}

impl Report {
    /// As `ipam check -o json` wrote it.
    pub fn read(path: &Path) -> Outcome<Self> {
        let wrong = |cause: String| {
            let problem = format!("cannot read the report {}", path.display());
            Failure::usage(problem, cause, "write one with `margayctl ipam check -o json`")
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// The assignments of which nobody knows any more.
    pub fn leaked(self) -> Vec<AddressToRelease> {
        let leaked = self.findings.into_iter().filter(|one| one.kind == FindingKind::Leaked.name());
        leaked
            .map(|one| AddressToRelease { address: one.address, handle: one.handle, sequence: one.sequence })
            .collect()
    }
}

impl From<AddressFinding> for Finding {
    fn from(from: AddressFinding) -> Self {
        let AddressFinding { kind, address, handle, sequence, message } = from;
        Self { kind, address, handle, sequence, message }
    }
}

impl View for Report {
    const RECORDS: Option<&'static str> = Some("findings");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let mut table = Table::new(["CHECK", "RESULT", ">COUNT"]);
        for kind in FindingKind::ALL.map(FindingKind::name) {
            let count = self.findings.iter().filter(|one| one.kind == kind).count();
            let result = match count {
                0 => Cell::toned("ok", Tone::Good),
                _ => Cell::toned("FOUND", Tone::Bad),
            };
            table.row(vec![kind.into(), result, count.into()]);
        }
        table.print(out)?;
        if self.findings.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        let mut table = Table::new(["ADDRESS", "CHECK", "HANDLE", "WHY"]);
        for one in &self.findings {
            let cells = [&one.address, &one.kind, &one.handle, &one.message];
            table.row(cells.map(Cell::from).into());
        }
        table.print(out)
    }
}
