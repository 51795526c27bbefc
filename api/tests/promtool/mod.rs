//! What Prometheus' own tool says of a scrape. Tests of both processes ask it.
#![allow(missing_docs)]

use std::io::Write as _;
use std::process::{Command, Stdio};

pub fn lint(text: &str) {
    let Ok(mut tool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: promtool is not installed (Debian: prometheus)");
        return;
    };
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
}
