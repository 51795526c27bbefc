//! What systemd is told by the process, and that it takes the units that ship.
#![allow(missing_docs)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[test]
fn the_service_manager_hears_of_start_life_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_margay-dataplane"))
        .args(["--hugepages", "off", "--log", "warn", "--frames", "1024", "--flows", "1024", "--listen"])
        .arg(folder.path().join("dataplane.sock"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .spawn()
        .unwrap();
    let told = || {
        let mut room = [0; 64];
        let len = manager.recv(&mut room).expect("told in time");
        String::from_utf8_lossy(&room[..len]).trim().to_owned()
    };
    assert_eq!(told(), "READY=1");
    assert_eq!(told(), "WATCHDOG=1");
    assert_eq!(told(), "WATCHDOG=1");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let end = std::iter::repeat_with(told).find(|told| told != "WATCHDOG=1");
    assert_eq!(end.as_deref(), Some("STOPPING=1"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn systemd_takes_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("SKIPPED: systemd-analyze is not installed");
        return;
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd");
    let folder = tempfile::tempdir().unwrap();
    let mut paths = vec![];
    for unit in ["margay-dataplane.service", "margay-agent.service"] {
        let text = std::fs::read_to_string(units.join(unit)).unwrap();
        let path = folder.path().join(unit);
        // Whether the programs are installed is not the question.
        std::fs::write(&path, text.replace("/usr/bin/margay-", "/bin/true margay-")).unwrap();
        paths.push(path);
    }
    let output = Command::new("systemd-analyze").arg("verify").args(&paths).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // The machine's own units may have faults of their own.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("margay-")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
