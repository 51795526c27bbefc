//! Tables of routes, and changes of them, as text.

use anyhow::{Context, Result, bail};
use margay_dataplane::net::Prefix;
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// Hops that made-up numbers lead to.
const HOPS: u32 = 200;

/// Routes: a prefix a line, and perhaps a number behind it.
pub fn routes(path: &Path) -> Result<Vec<(Prefix, u32)>> {
    let mut routes = vec![];
    for (number, line) in (1..).zip(text(path)?.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let prefix = words.next().unwrap_or_default();
        let prefix = prefix.parse().with_context(|| format!("{}: line {number}", path.display()))?;
        let value = match words.next() {
            Some(word) => {
                word.parse().with_context(|| format!("{}: line {number}: {word:?}", path.display()))?
            }
            None => number % HOPS,
        };
        routes.push((prefix, value));
    }
    if routes.is_empty() {
        bail!("{}: no routes", path.display());
    }
    Ok(routes)
}

/// Changes: `A PREFIX` announces, to another hop each time; `W PREFIX` withdraws.
pub fn changes(path: &Path) -> Result<Vec<(Prefix, Option<u32>)>> {
    let mut changes = vec![];
    for (number, line) in (1..).zip(text(path)?.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let parse = |prefix: &str| {
            prefix.trim().parse::<Prefix>().with_context(|| format!("{}: line {number}", path.display()))
        };
        changes.push(match line.split_at_checked(2) {
            Some(("A ", prefix)) => (parse(prefix)?, Some(number % HOPS)),
            Some(("W ", prefix)) => (parse(prefix)?, None),
            _ => bail!("{}: line {number}: {line:?} begins with neither A nor W", path.display()),
        });
    }
    if changes.is_empty() {
        bail!("{}: no changes", path.display());
    }
    Ok(changes)
}

/// A file as it is, or unpacked if its name ends in .xz.
fn text(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    if path.extension().is_none_or(|end| end != "xz") {
        return std::fs::read_to_string(path).with_context(cannot);
    }
    let output = Command::new("xz").arg("-dc").arg(path).output().with_context(cannot)?;
    if !output.status.success() {
        bail!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(cannot)
}
