//! Compiles the kernel programs of `io/af_xdp` to ELF objects that the library embeds.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const FOLDER: &str = "src/io/af_xdp";
const SOURCES: [&str; 3] = ["xdp.bpf", "guard.bpf", "lead.bpf"];
const PACKAGES: &str = "on Debian: apt-get install clang libbpf-dev linux-libc-dev";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={FOLDER}/kernels.h");
    println!("cargo::rerun-if-env-changed=CLANG");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={FOLDER}/{source}.c");
        if let Err(why) = compile(source) {
            for line in why.lines() {
                println!("cargo::error={line}");
            }
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn compile(source: &str) -> Result<(), String> {
    let file = format!("{FOLDER}/{source}.c");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?);
    let mut command = Command::new(&clang);
    // Debug information only for the types of the maps (BTF).
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-c", &file, "-o"]);
    command.arg(out.join(format!("{source}.o")));
    // Which says where the sources are: from here, so that the object is the same wherever that is.
    let here = std::env::var("CARGO_MANIFEST_DIR").map_err(|e| format!("CARGO_MANIFEST_DIR: {e}"))?;
    command.arg(format!("-ffile-prefix-map={here}=dataplane"));
    // <asm/types.h> lies in a folder that only the native target searches.
    for multiarch in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
        let include = Path::new("/usr/include").join(multiarch);
        if include.is_dir() {
            command.arg("-idirafter").arg(include);
        }
    }
    let ran = command.output().map_err(|e| {
        format!("cannot run `{clang}` to compile {file}: {e}. Install it ({PACKAGES}) or name it in CLANG")
    })?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{clang}` could not compile {file}; if a header is missing, install it ({PACKAGES})\n{}",
        String::from_utf8_lossy(&ran.stderr)
    ))
}
