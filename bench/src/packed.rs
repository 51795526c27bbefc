//! Text in files that may be packed.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// A file as it is, or unpacked if its name ends in `.xz`.
pub fn text(path: &Path) -> Result<String> {
    if path.extension().is_none_or(|end| end != "xz") {
        return std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let xz = Command::new("xz").arg("-dc").arg(path).output().context("cannot run xz")?;
    if !xz.status.success() {
        bail!("{}: {}", path.display(), String::from_utf8_lossy(&xz.stderr).trim());
    }
    Ok(String::from_utf8(xz.stdout)?)
}
