//! Containers of a real engine: Debian's podman, whose networks are made by CNI plugins.
#![allow(missing_docs)]

#[path = "../../dataplane/tests/namespace/mod.rs"]
mod namespace;
mod node;

use namespace::in_namespace;
use node::{Node, links};
use serde_json::json;
use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

/// The engine, with everything it keeps in the node's own directory.
struct Podman<'a>(&'a Node);

impl Podman<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut podman = Command::new("podman");
        podman.env("CONTAINERS_CONF", self.0.path("containers.conf"));
        for (option, folder) in [
            ("--root", "store"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
            ("--network-config-dir", "net.d"),
        ] {
            podman.arg(option).arg(self.0.path(folder));
        }
        podman.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        podman.args(arguments).output().expect("podman")
    }

    #[track_caller]
    fn fine(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "podman {arguments:?}: {}", told(&output.stderr));
        told(&output.stdout)
    }

    /// Starts a container of this machine's own programs.
    fn start(&self, name: &str, command: &[&str]) -> Output {
        let root = self.0.path(name);
        for folder in ["proc", "sys", "dev", "etc", "tmp", "run", "usr"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(link), root.join(link)).unwrap();
        }
        let root = root.to_str().unwrap();
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--log-driver", "none"];
        let options = ["run", "--name", name, "--network", "net", "--volume", "/usr:/usr:ro"];
        self.run(
            &[
                &options[..],
                &limits,
                if command[0] == "sleep" { &["-d"] } else { &["--rm"] },
                &["--rootfs", root],
                command,
            ]
            .concat(),
        )
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.run(&["rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
fn containers_of_an_engine_talk_and_leave_nothing() {
    if ["podman", "runc"].iter().any(|program| Command::new(program).arg("--version").output().is_err()) {
        // Past the capture of the test's output.
        let _ = writeln!(std::io::stderr(), "SKIPPED: needs podman and runc");
        return;
    }
    in_namespace(|| {
        let node = Node::start();
        let plugins = Path::new(env!("CARGO_BIN_EXE_margay-cni")).parent().unwrap().display().to_string();
        let configuration = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [{plugins:?}, \"/usr/lib/cni\"]\n"
        );
        fs::write(node.path("containers.conf"), configuration).unwrap();
        let mut network = node.network();
        let plugin = network.as_object_mut().unwrap();
        plugin.remove("cniVersion");
        plugin.remove("name");
        // All that this podman knows.
        let list = json!({"cniVersion": "0.4.0", "name": "net", "plugins": [plugin]});
        fs::create_dir(node.path("net.d")).unwrap();
        fs::write(node.path("net.d/10-net.conflist"), list.to_string()).unwrap();

        let podman = Podman(&node);
        let started = podman.start("one", &["sleep", "100"]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let address =
            podman.fine(&["inspect", "--format", "{{.NetworkSettings.Networks.net.IPAddress}}", "one"]);
        assert!(address.starts_with("10.65.0."), "{address}");
        let pinged = podman.start("two", &["ping", "-c", "1", "-W", "1", &address]);
        assert!(pinged.status.success(), "{}", String::from_utf8_lossy(&pinged.stdout));
        podman.fine(&["rm", "--force", "--time", "0", "one"]);
        assert_eq!((links(), node.endpoints()), (vec![], vec![]));
    });
}
