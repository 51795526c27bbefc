//! `--pcap`: any filter that tcpdump takes, compiled by the libpcap that is on this machine.
//!
//! tcpdump prints programs for whoever runs them (`-ddd`, as for iptables' and tc's `bpf`), so margayctl needs no libpcap of its own,
//! and the dataplane no compiler. The crate that compiles the same language in Rust, pktbaffle 0.2, judged or refused half of 121
//! expressions otherwise than libpcap.

use std::{
    io::{Error, ErrorKind},
    process::Command,
};

use margay_api::dataplane::v1::BpfInstruction;

use crate::exit::{Code, Failure, Outcome};

/// Bytes of an expression at most.
const MAX_TEXT: usize = 4096;
/// Bytes of a frame that a program may be about: all of the largest.
const SNAP_LENGTH: &str = "262144";

/// The program of an expression; without one: none, which is true of every packet.
pub fn compile(expression: Option<&str>) -> Outcome<Vec<BpfInstruction>> {
    let Some(expression) = expression else { return Ok(vec![]) };
    let wrong = |cause: String| {
        Failure::usage(
            "the filter is not valid",
            cause,
            "write it as pcap-filter(7) says; `tcpdump -d 'FILTER'` tries one",
        )
    };
    if expression.len() > MAX_TEXT {
        return Err(wrong(format!("it has {} bytes, and {MAX_TEXT} may be", expression.len())));
    }
    // Workloads' interfaces and uplinks alike have Ethernet's frames.
    let ran =
        Command::new("tcpdump").args(["-ddd", "-y", "EN10MB", "-s", SNAP_LENGTH, "--", expression]).output();
    let ran = ran.map_err(|error| absent(&error))?;
    if !ran.status.success() {
        return Err(wrong(String::from_utf8_lossy(&ran.stderr).trim().to_owned()));
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    read(&text).ok_or_else(|| {
        let cause = format!("tcpdump -ddd did not print a program, but {text:?}");
        Failure::new(Code::Failed, "cannot compile the filter", cause, "look at which tcpdump is in PATH")
    })
}

fn absent(error: &Error) -> Failure {
    let next = match error.kind() {
        ErrorKind::NotFound => "install tcpdump (apt install tcpdump), or use the words of --filter",
        _ => "look at which tcpdump is in PATH",
    };
    Failure::new(Code::Failed, "cannot compile the filter", format!("tcpdump: {error}"), next)
}

/// How many there are, then one a line: code, jt, jf, k.
fn read(text: &str) -> Option<Vec<BpfInstruction>> {
    let mut lines = text.lines();
    let count: usize = lines.next()?.trim().parse().ok()?;
    let instruction = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(BpfInstruction { code: next()?, jt: next()?, jf: next()?, k: next()? })
    };
    let program: Vec<_> = lines.map(instruction).collect::<Option<_>>()?;
    (program.len() == count && count > 0).then_some(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_as_tcpdump_prints_them() {
        let ip = "4\n40 0 0 12\n21 0 1 2048\n6 0 0 262144\n6 0 0 0\n";
        let program = read(ip).unwrap();
        assert_eq!(program.len(), 4);
        assert_eq!(program[1], BpfInstruction { code: 21, jt: 0, jf: 1, k: 2048 });
        for wrong in ["", "0\n", "5\n6 0 0 0\n", "1\n6 0 0\n", "1\n6 0 0 x\n", "tcpdump: no\n"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
