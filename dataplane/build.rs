//! Compiles the XDP programs of `io/af_xdp` to an ELF object that the library embeds.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SOURCE: &str = "src/io/af_xdp/xdp.bpf.c";
const PACKAGES: &str = "on Debian: apt-get install clang libbpf-dev linux-libc-dev";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            for line in why.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?);
    let mut command = Command::new(&clang);
    // Debug information only for the types of the maps (BTF).
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-c", SOURCE, "-o"]);
    command.arg(out.join("xdp.bpf.o"));
    // <asm/types.h> lies in a folder that only the native target searches.
    for multiarch in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
        let include = Path::new("/usr/include").join(multiarch);
        if include.is_dir() {
            command.arg("-idirafter").arg(include);
        }
    }
    let ran = command.output().map_err(|e| {
        format!("cannot run `{clang}` to compile {SOURCE}: {e}. Install it ({PACKAGES}) or name it in CLANG")
    })?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{clang}` could not compile {SOURCE}; if a header is missing, install it ({PACKAGES})\n{}",
        String::from_utf8_lossy(&ran.stderr)
    ))
}
