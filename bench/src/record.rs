//! Figures with all that is needed to judge and repeat them.

use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Where recorded figures are kept.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");

/// A run of the benchmark.
#[derive(Serialize)]
struct Record<'a, R> {
    date: String,
    command: String,
    commit: String,
    machine: Machine,
    results: &'a [R],
}

#[derive(Serialize)]
struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    /// What the kernel does about each weakness of the processor that it knows of: some of it costs system calls.
    mitigations: BTreeMap<String, String>,
    /// Of the last minute, when the run was over: above one, others were at work.
    load: String,
}

/// Prints the figures as JSON where asked to, and writes them to a new file where asked to.
pub fn finish<R: Serialize>(output: &crate::Output, results: &[R]) -> Result<()> {
    if !output.json && !output.record {
        return Ok(());
    }
    let record = Record { date: date()?, command: command(), commit: commit(), machine: machine()?, results };
    let text = serde_json::to_string_pretty(&record)?;
    if output.json {
        println!("{text}");
    }
    if output.record {
        let name: String = record.date.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let what = std::env::args().nth(1).unwrap_or_default();
        let path = Path::new(RESULTS).join(format!("{name}-{what}.json"));
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("recorded in {}", path.display());
    }
    Ok(())
}

fn command() -> String {
    std::env::args().skip(1).fold("margay-bench".into(), |command, argument| command + " " + &argument)
}

/// The commit of the sources, with `-dirty` where they differ from it.
fn commit() -> String {
    output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12"])
        .unwrap_or_else(|_| "unknown".into())
}

fn date() -> Result<String> {
    output("date", &["-u", "+%FT%TZ"])
}

fn machine() -> Result<Machine> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let cpuinfo = read("/proc/cpuinfo")?;
    let model =
        cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    Ok(Machine {
        cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        mitigations: mitigations(),
        load: read("/proc/loadavg")?.split(' ').next().unwrap_or_default().to_owned(),
    })
}

/// None where the kernel does not tell.
fn mitigations() -> BTreeMap<String, String> {
    let folder = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let told = folder.filter_map(|file| {
        let state = std::fs::read_to_string(file.path()).ok()?;
        Some((file.file_name().into_string().ok()?, state.trim().to_owned()))
    });
    // What the processor does not have costs nothing.
    told.filter(|(_, state)| state != "Not affected").collect()
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
