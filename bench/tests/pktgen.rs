//! What `hack/pktgen.sh` tells the kernel's packet generator, of which few kernels of today have one: files in
//! the place of its own.

use std::process::{Command, Output};

fn pktgen(dir: &std::path::Path, arguments: &str) -> Output {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../hack/pktgen.sh"))
        .env("PGDEV", dir)
        .args(arguments.split(' '))
        .output()
        .unwrap()
}

#[test]
fn the_kernel_is_told_all_that_was_asked_for_thread_by_thread() {
    let dir = tempfile::tempdir().unwrap();
    let output = pktgen(
        dir.path(),
        "-v -i lo -d 10.0.0.1-10.0.0.9 -m 02:00:00:00:00:02 -s 1496 -t 2 -f 3 -n 1000 -b 32 -c 8 -p 9-19 -w 5",
    );
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!((lines[0], lines[lines.len() - 1]), ("pgctrl: reset", "pgctrl: start"));
    for thread in [0, 1] {
        let core = 3 + thread;
        for wanted in [
            format!("kpktgend_{core}: add_device lo@{core}"),
            format!("lo@{core}: queue_map_min {thread}"),
            format!("lo@{core}: count 1000"),
            format!("lo@{core}: clone_skb 8"),
            format!("lo@{core}: pkt_size 1496"),
            format!("lo@{core}: delay 5"),
            format!("lo@{core}: burst 32"),
            format!("lo@{core}: dst_mac 02:00:00:00:00:02"),
            format!("lo@{core}: dst_min 10.0.0.1"),
            format!("lo@{core}: dst_max 10.0.0.9"),
            format!("lo@{core}: udp_dst_min 9"),
            format!("lo@{core}: udp_dst_max 19"),
        ] {
            assert!(lines.contains(&wanted.as_str()), "{wanted} is not in {told}");
        }
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("packets sent, by its own counter"));
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, reason) in [
        ("-i lo -d 10.0.0.1", "pktgen.sh -i DEV"),
        ("-i lo -d 10.0.0.1 -m 02", "-m 02 is not"),
        ("-i lo -d 10.0.0.1 -m 02:00:00:00:00:02 -s big", "-s big is not"),
        ("-i lo -d 10.0.0.1 -m 02:00:00:00:00:02 -p x", "-p x is not"),
        ("-i lo -d 10.0.0.1 -m 02:00:00:00:00:02 -t 0", "at least one thread"),
        ("-i lo -d 10.0.0.1 -m 02:00:00:00:00:02 -g trafgen", "-g trafgen"),
        ("-i lo -d 10.0.0.1 -m 02:00:00:00:00:02 -g dpdk:/no/pktgen", "not in Debian"),
    ] {
        let output = pktgen(dir.path(), arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(reason), "{arguments}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
