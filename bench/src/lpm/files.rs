//! Tables of routes, and changes of them, as text.

use crate::packed;
use anyhow::{Context, Result, bail};
use margay_dataplane::net::Prefix;
use std::io::Read;
use std::path::Path;

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

/// A file, packed or not, or standard input.
fn text(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return packed::text(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
