//! The tester on a link with nothing in between: what is sent arrives, and is told apart from the rest.

use serde_json::Value;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Links so far: tests run side by side.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two network namespaces joined by a link, gone with this.
struct Link {
    name: String,
}

impl Link {
    fn new() -> Self {
        let link = Self { name: format!("mgw{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed)) };
        let [a, b] = link.ends();
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        ip(&format!("-n {a} link add eth0 type veth peer name eth0 netns {b}"));
        ip(&format!("-n {a} link set eth0 up"));
        ip(&format!("-n {b} link set eth0 up"));
        link
    }

    fn ends(&self) -> [String; 2] {
        ["a", "b"].map(|end| format!("{}{end}", self.name))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for end in self.ends() {
            let _ = Command::new("ip").args(["netns", "delete", &end]).status();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn bench(arguments: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_margay-bench")).args(arguments.split(' ')).output().unwrap()
}

/// The first line of the result.
fn wire(link: &Link, addresses: [&str; 2], arguments: &str) -> Value {
    let [a, b] = link.ends().map(|end| format!("{end}:eth0"));
    let [source, destination] = addresses;
    result(&format!(
        "wire --json --from {a} --to {b} --gateway 02:00:00:00:00:02 --source {source} --destination {destination} {arguments}"
    ))
}

fn result(arguments: &str) -> Value {
    let output = bench(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["results"][0].clone()
}

#[test]
fn every_packet_that_is_sent_at_a_low_rate_is_received() {
    let link = Link::new();
    for (addresses, size) in [(["10.0.0.1", "10.0.0.2"], "imix"), (["fd00::1", "fd00::2"], "64")] {
        let result =
            wire(&link, addresses, &format!("--rate 2000 --seconds 0.2 --flows 70000 --size {size}"));
        let count = |name: &str| result[name].as_u64().unwrap_or_else(|| panic!("no {name} in {result}"));
        assert!(count("sent") > 0, "{result}");
        assert_eq!((count("received"), count("lost")), (count("sent"), 0), "{result}");
        assert!(result["delays"]["max_us"].as_f64() >= result["delays"]["min_us"].as_f64(), "{result}");
    }
}

#[test]
fn what_is_generated_leaves_by_the_interfaces_own_counter() {
    let link = Link::new();
    let [a, b] = link.ends();
    let made =
        format!("generate --json --from {a}:eth0 --gateway 02:00:00:00:00:02 --rate 5000 --seconds 0.2");
    let addresses = "--source 10.0.0.1 --destination 10.0.0.2 --flows 1000 --zipf";
    let capture = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(capture.path(), pcap()).unwrap();
    for arguments in [
        format!("{made} {addresses} --to {b}:eth0"),
        format!("{made} {addresses}"),
        format!("{made} --replay {}", capture.path().display()),
    ] {
        let result = result(&arguments);
        let count = |name: &str| result[name].as_u64().unwrap_or_else(|| panic!("no {name} in {result}"));
        assert!(count("sent") > 0 && count("interface_sent") >= count("sent"), "{arguments}: {result}");
        if arguments.contains("--to") {
            assert_eq!((count("received"), count("lost")), (count("sent"), 0), "{result}");
        }
    }
}

/// A file of one packet.
fn pcap() -> Vec<u8> {
    let frame = [0x42; 60];
    let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    let record = [0, 0, 60, 60].map(u32::to_le_bytes).concat();
    [&header[..], &record, &frame].concat()
}

#[test]
fn what_cannot_be_generated_is_refused_with_the_reason() {
    for (arguments, reason) in [
        ("", "--source"),
        ("--source 10.0.0.1 --destination fd00::1", "different IP versions"),
        ("--replay no-such-file", "no-such-file"),
        ("--replay /dev/null", "neither pcap nor pcapng"),
        ("--replay /dev/null --flows 3", "cannot be used with"),
        ("--source 10.0.0.1 --destination 10.0.0.2 --rate 0", "--rate"),
    ] {
        let output = bench(format!("generate --from lo --gateway 02:00:00:00:00:02 {arguments}").trim());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(reason), "{arguments}: {error}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    for (arguments, reason) in [
        (
            "--from no-such-link --gateway 02:00:00:00:00:02 --source 10.0.0.1 --destination 10.0.0.2 --flat-out",
            "no-such-link",
        ),
        (
            "--from nowhere:eth0 --gateway 02:00:00:00:00:02 --source 10.0.0.1 --destination 10.0.0.2 --flat-out",
            "ip netns list",
        ),
        (
            "--from lo --gateway 02:00:00:00:00:02 --source 10.0.0.1 --destination fd00::1 --flat-out",
            "different IP versions",
        ),
        ("--from lo --gateway ff --source 10.0.0.1 --destination 10.0.0.2 --flat-out", "02:00:00:00:00:01"),
        ("--from lo --gateway 02:00:00:00:00:02 --source 10.0.0.1 --destination 10.0.0.2", "--flat-out"),
        ("--from lo --gateway 02:00:00:00:00:02 --source 10.0.0.1 --destination 10.0.0.2 --search", "--to"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_margay-bench"))
            .arg("wire")
            .args(arguments.split(' '))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(reason), "{arguments}: {error}");
    }
}
