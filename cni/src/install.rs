//! `margay-cni install`: from a container image to where runtimes look.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
};

/// As runtimes and Kubernetes have it.
const BIN_DIR: &str = "/opt/cni/bin";
const CONF_DIR: &str = "/etc/cni/net.d";

/// Where a runtime that knows several networks takes the first by name.
const CONFIGURATION: &str = "10-margay.conflist";

/// A runtime that knows `cniVersions` takes the newest that it speaks itself.
const CONTENT: &str = r#"{
  "cniVersion": "1.0.0",
  "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
  "name": "margay",
  "plugins": [
    {"type": "margay-cni", "ipam": {"type": "margay-ipam"}, "capabilities": {"mac": true, "ips": true}}
  ]
}
"#;

/// How it is used.
pub const USAGE: &str = "usage: margay-cni install [--bin-dir DIR] [--conf-dir DIR]

Copies this program to DIR (/opt/cni/bin), and writes 10-margay.conflist to DIR (/etc/cni/net.d) where
there is none.";

/// Does it. Returns what was done, a line each.
///
/// # Errors
/// An argument is not known, or a file cannot be written.
pub fn run(arguments: &[String]) -> Result<Vec<String>, String> {
    let (mut bin_dir, mut conf_dir) = (PathBuf::from(BIN_DIR), PathBuf::from(CONF_DIR));
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let to = match argument.as_str() {
            "--bin-dir" => &mut bin_dir,
            "--conf-dir" => &mut conf_dir,
            other => return Err(format!("unknown argument {other:?}\n{USAGE}")),
        };
        *to = arguments.next().ok_or_else(|| format!("{argument} needs a directory\n{USAGE}"))?.into();
    }
    let own = env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    let content = fs::read(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let program = bin_dir.join("margay-cni");
    put(&program, &content, 0o755).map_err(|error| format!("{}: {error}", program.display()))?;
    let mut done = vec![format!("installed {}", program.display())];
    // Last: a runtime takes the file as word that the network is there. One that is there is its owner's.
    let configuration = conf_dir.join(CONFIGURATION);
    if configuration.exists() {
        done.push(format!("left {} as it is", configuration.display()));
    } else {
        put(&configuration, CONTENT.as_bytes(), 0o644)
            .map_err(|error| format!("{}: {error}", configuration.display()))?;
        done.push(format!("wrote {}", configuration.display()));
    }
    Ok(done)
}

/// In one step: who looks sees the old file or the new one, also while the old one runs.
fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!(".margay-cni.{}", process::id()));
    let done = fs::write(&unfinished, content)
        .and_then(|()| fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&unfinished, path));
    if done.is_err() {
        // Perhaps it was never made.
        let _ = fs::remove_file(&unfinished);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::Value;

    #[test]
    fn installs_itself_and_leaves_what_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, conf) = (dir.path().join("opt/cni/bin"), dir.path().join("net.d"));
        let arguments =
            ["--bin-dir", bin.to_str().unwrap(), "--conf-dir", conf.to_str().unwrap()].map(str::to_owned);
        let done = run(&arguments).unwrap();
        assert!(done[0].starts_with("installed") && done[1].starts_with("wrote"), "{done:?}");
        assert_eq!(fs::metadata(bin.join("margay-cni")).unwrap().permissions().mode() & 0o777, 0o755);
        let written = conf.join(CONFIGURATION);
        // As a runtime takes it apart.
        let list: Value = serde_json::from_slice(&fs::read(&written).unwrap()).unwrap();
        let mut network = list["plugins"][0].clone();
        (network["name"], network["cniVersion"]) = (list["name"].clone(), list["cniVersion"].clone());
        assert!(Config::parse(network.to_string().as_bytes()).unwrap().network.ipam.is_ours());
        fs::write(&written, "mine").unwrap();
        assert!(run(&arguments).unwrap()[1].starts_with("left"));
        assert_eq!(fs::read_to_string(&written).unwrap(), "mine");
        assert_eq!(fs::read_dir(&bin).unwrap().count() + fs::read_dir(&conf).unwrap().count(), 2);
        for wrong in [&["--bindir".to_owned()][..], &["--bin-dir".to_owned()]] {
            assert!(run(wrong).unwrap_err().contains("usage"));
        }
    }
}
