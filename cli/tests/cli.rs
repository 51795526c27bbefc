//! The binary as its users meet it: what it prints in each format, and how it ends.
//!
//! The golden files show each command with all it printed. `UPDATE=1 cargo test` writes them anew.

mod fake;

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{self, Stdio},
};

use fake::{Fake, Ran, command, run};

/// Runs the lines against one pair of servers, and compares with `tests/golden/NAME.txt`.
fn golden(name: &str, lines: &[&str]) {
    let fake = Fake::start();
    let mut text = String::new();
    for line in lines {
        let Ran { code, stdout, stderr } = fake.run(line);
        text.push_str(&format!("$ margayctl {line}\n{stdout}"));
        if !stderr.is_empty() {
            text.push_str(&format!("--- standard error\n{stderr}"));
        }
        text.push_str(&format!("--- exit {code}\n\n"));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if env::var_os("UPDATE").is_some() {
        return fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{} differs (UPDATE=1 writes it anew); now it is\n{text}", path.display());
}

#[test]
fn get() {
    golden(
        "get",
        &[
            "get tiers",
            "get tiers -o wide",
            "get tiers -o json",
            "get tiers -o yaml",
            "get tiers -o jsonl",
            "get tiers -o name",
            "get tier security -o yaml",
            "get netpol",
            "get netpol -A",
            "get netpol,wep -n shop",
            "get wep -n shop -l 'role == \"web\"' -o wide",
            "get nodes",
            "get nodes -o json",
            "get tier security nobody",
            "get tier nobody",
            "get tierz",
        ],
    );
}

#[test]
fn watch() {
    golden("watch_table", &["get tiers --watch"]);
    golden("watch_jsonl", &["get tiers --watch -o jsonl"]);
    golden("watch_selected", &["get tiers --watch -l 'team == \"red\"'", "get tiers,nodes --watch"]);
}

#[test]
fn connectivity() {
    let of = "connectivity test --from shop/client --to shop/web --proto tcp";
    golden(
        "connectivity",
        &[
            &format!("{of} --port 80"),
            &format!("{of} --port 80 -o json"),
            &format!("{of} --port 23"),
            "connectivity test --from shop/client --to shop/web --proto spell",
        ],
    );
}

#[test]
fn waiting_for_health_ends_with_the_time_that_is_given() {
    let fake = Fake::start();
    let [once, waited] = ["status", "status --wait --timeout 600ms"].map(|line| fake.run(line));
    assert_eq!((once.code, waited.code), (6, 6));
    assert_eq!(once.stdout, waited.stdout);
}

#[test]
fn a_diagnosis_is_one_archive_without_keys() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("diag.tar");
    let line = format!("diag collect -f {}", file.display());
    let ran = fake.run(&line);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let mut archive = tar::Archive::new(fs::File::open(&file).unwrap());
    let mut files = std::collections::BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name, text);
    }
    assert_eq!(files.len(), 28, "{:?}", files.keys());
    assert!(files["margay-diag/status.json"].contains("\"healthy\": false"));
    assert!(files["margay-diag/flows/last.jsonl"].lines().count() == 3);
    for of in ["cycles", "vector", "latency"] {
        let hist = &files[&format!("margay-diag/dataplane/hist-{of}.json")];
        assert!(hist.contains("\"workers\"") && !hist.contains("redacted"), "{hist}");
    }
    let keys = &files["margay-diag/dataplane/wireguard.json"];
    assert!(keys.contains("<redacted>"), "{keys}");
    // What is there is not written over.
    assert_eq!(fake.run(&line).code, 1);
}

#[test]
fn flows() {
    golden(
        "flows",
        &[
            "flows observe",
            "flows observe --verdict allow -o wide",
            "flows observe --proto tcp --port 5432",
            "flows observe --proto tpc",
            "flows observe -o json",
            "flows observe -f --verdict drop",
            "flows top",
            "flows top -o wide",
            "flows top --by reason",
            "flows top -o jsonl",
        ],
    );
}

#[test]
fn store_and_delete() {
    golden(
        "store",
        &[
            "apply -f shop.yaml --dry-run=client",
            "apply -f shop.yaml --dry-run=server",
            "apply -f shop.yaml",
            "apply -f shop.yaml --wait=false -o json",
            "apply -f shop.yaml -o wide",
            "apply -f shop.yaml -o name",
            "create -f shop.yaml",
            "replace -f shop.yaml -o yaml",
            "delete -f shop.yaml",
            "replace -f shop.yaml",
            "delete tier platform nobody",
            "delete tier nobody --ignore-not-found",
            "delete tier nobody",
            "delete netpol deny -o json",
        ],
    );
}

#[test]
fn label() {
    golden(
        "label",
        &[
            "label tier platform team=blue",
            "label tier platform team=blue",
            "label tier platform team=red",
            "label tier platform team=red --overwrite",
            "label tier platform team-",
            "get tier platform -o yaml",
            "label tier nobody team=blue",
        ],
    );
}

#[test]
fn status() {
    golden("status", &["status", "status -o wide", "status -o json", "status -o yaml"]);
}

#[test]
fn datastore() {
    golden(
        "datastore",
        &["datastore confirm --dry-run", "datastore confirm", "datastore confirm -o json", "datastore"],
    );
}

#[test]
fn ipam() {
    golden(
        "ipam",
        &[
            "ipam show",
            "ipam show --show-blocks",
            "ipam show --show-blocks -o json",
            "ipam show --show-borrowed",
            "ipam show --show-borrowed -o yaml",
            "ipam show --show-configuration",
            "ipam show --ip 10.65.0.2",
            "ipam show --ip 10.65.0.2 -o json",
            "ipam show --ip 10.65.0.9",
            "ipam check",
            "ipam check -o json",
            "ipam release --ip 10.65.0.3 10.65.0.5",
            "ipam release --handle net.web",
            "ipam release --handle net.nobody",
            "ipam release --from-report ipam-report.json",
            "ipam release --from-report shop.yaml",
            "ipam configure --strictaffinity=true --max-blocks-per-host=4",
            "ipam configure --cooldown-seconds=60",
            "get ipamconfiguration default -o yaml",
            "ipam split 4 --cidr 10.65.0.0/16",
            "ipam split 3 --name four",
        ],
    );
}

#[test]
fn config() {
    golden(
        "config",
        &[
            "config show",
            "config show --origin",
            "config show -o json",
            "config set log info,margay_agent::sync=debug",
            "config set log debug --of dataplane",
            "config set log trace",
            "config unset log",
            "config unset log --of agent",
            "config set log loud",
            "config set log margay-agent=debug",
            "config set frames 65536",
        ],
    );
}

#[test]
fn bgp() {
    golden("bgp", &["bgp peers", "bgp peers -o wide", "bgp peers -o json"]);
}

#[test]
fn dp_runtime() {
    golden(
        "dp_runtime",
        &[
            "dp runtime",
            "dp runtime -o wide",
            "dp runtime -o json",
            "dp runtime -o yaml",
            "dp runtime -o jsonl",
            "dp runtime --worker 1",
            "dp runtime --worker 7",
        ],
    );
}

#[test]
fn dp_hist() {
    golden(
        "dp_hist",
        &[
            "dp hist cycles",
            "dp hist cycles -o wide --worker 0",
            "dp hist vector",
            "dp hist latency",
            "dp hist latency --worker 0 -o json",
            "dp hist vector -o jsonl",
            "dp hist cycles --worker 7",
            "dp hist weight",
        ],
    );
}

#[test]
fn dp_interfaces() {
    golden(
        "dp_interfaces",
        &["dp interfaces", "dp interfaces -o wide", "dp interfaces -o json", "dp interfaces -o yaml"],
    );
}

#[test]
fn dp_services() {
    golden(
        "dp_services",
        &["dp services", "dp services -o wide", "dp services -o json", "dp services -o yaml"],
    );
}

#[test]
fn wg_show() {
    let fake = Fake::start();
    let ran = fake.run("wg show");
    assert_eq!(ran.code, 0);
    // How long ago the handshake was is another line each time.
    let steady = |line: &&str| !line.contains("latest handshake");
    let lines: Vec<&str> = ran.stdout.lines().filter(steady).collect();
    assert_eq!(lines.len() + 1, ran.stdout.lines().count());
    assert_eq!(lines[1], "  public key: BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
    assert!(lines.contains(&"  transfer: 4.88 KiB received, 3.00 MiB sent"), "{lines:?}");
    let dump = fake.run("wg show --dump").stdout;
    let own = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let far = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    let fields: Vec<Vec<&str>> = dump.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(fields[0], ["margay-wireguard", "(hidden)", own, "51820", "off"]);
    let peer = ["(none)", "10.0.0.2:51820", "10.65.1.0/26", "1700000000", "5000", "3145728", "25"];
    assert_eq!(fields[1], [&["margay-wireguard", far][..], &peer].concat());
    assert_eq!(fields[2][2..], ["(none)", "(none)", "(none)", "0", "0", "0", "off"]);
    let json: serde_json::Value = serde_json::from_str(&fake.run("wg show -o json").stdout).unwrap();
    let peers = &json["interfaces"][0]["peers"];
    assert_eq!((&peers[0]["latestHandshake"], &peers[0]["node"]), (&1_700_000_000.into(), &"node-b".into()));
    assert!(
        peers[1].get("endpoint").is_none() && peers[1]["problem"].as_str().unwrap().contains("private key")
    );
    assert_ne!(fake.run("wg show --dump -o json").code, 0);
    assert_eq!(fake.run("wg rotate").stdout, "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n");
}

#[test]
fn dp_tunnels() {
    golden("dp_tunnels", &["dp tunnels", "dp tunnels -o wide", "dp tunnels -o json", "dp tunnels -o jsonl"]);
}

#[test]
fn dp_fib() {
    golden(
        "dp_fib",
        &[
            "dp fib lookup 10.65.1.7",
            "dp fib lookup 10.65.1.7 -o json",
            "dp fib lookup 8.8.8.8 --from-workload",
            "dp fib lookup nowhere",
            "dp fib show",
            "dp fib show 10.65.0.0/16 -o jsonl",
            "dp fib show --origin kernel --limit 1",
            "dp fib show 10.65.0.0/x",
            "dp adjacencies",
            "dp adjacencies -o wide",
            "dp adjacencies -o json",
            "dp neighbours",
            "dp neighbours -o yaml",
        ],
    );
}

/// Runs the lines against one pair of servers: each ends well, and prints these words.
fn prints(expected: &[(&str, &[&str])]) {
    let fake = Fake::start();
    for (line, words) in expected {
        let ran = fake.run(line);
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
        words
            .iter()
            .for_each(|word| assert!(ran.stdout.contains(word), "{word:?} in {line}:\n{}", ran.stdout));
    }
}

#[test]
fn queues_and_buffers_have_their_workers() {
    prints(&[
        ("dp queues", &["INTERFACE", "eth0", "zero-copy native", "RING-FULL"]),
        ("dp queues -o wide", &["RX-BYTES", "INVALID"]),
        ("dp queues -o json", &["\"interface\": \"eth0\"", "\"core\": 2", "\"kernelRxRingFull\": 3"]),
        ("dp buffers", &["unaccounted", "91.6%", "65536 frames of 2048 bytes on hugepages"]),
        ("dp buffers -o jsonl", &["\"owner\":\"devices\"", "\"frames\":4096"]),
    ]);
}

#[test]
fn a_trace_tells_each_packets_story() {
    prints(&[
        (
            "dp trace",
            &[
                "tcp 10.0.0.1:4000 > 10.96.0.1:80  in by cali-web: sent",
                "becomes: tcp 10.0.0.1:4000 > 10.0.0.2:8080",
                "in by eth0: DROPPED",
                "reason: policy-denied; rule: ingress of shop/db, tier default, by default",
            ],
        ),
        ("dp trace --dropped-only tcp and not port 80", &["DROPPED"]),
        ("dp trace --inject 'tcp 10.0.0.1:4000 > 10.96.0.1:80'", &["-> conntrack", "120 cycles"]),
        ("dp trace --count 1 -o json", &["{\"number\":1,", "\"facts\":{\"packet\":", "\"outcome\":\"tx\""]),
    ]);
    let fake = Fake::start();
    let wrong = fake.run("dp trace tcp and prot 80");
    assert!(wrong.code == 2 && wrong.stderr.contains("^^^^"), "{}", wrong.stderr);
    assert_eq!(fake.run("dp trace --inject tcp").code, 2);
    assert_eq!(fake.run("dp capture -w /nowhere/x.pcapng").code, 1);
}

#[test]
fn libpcap_compiles_filters_where_tcpdump_is() {
    let fake = Fake::start();
    let mut without = fake.command("dp trace --pcap tcp");
    without.env("PATH", "/nowhere");
    let ran = run(without);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("apt install tcpdump"), "{}", ran.stderr);
    if std::process::Command::new("tcpdump").arg("--version").output().is_err() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: tcpdump is not installed");
        return;
    }
    let ran = fake.run("dp trace --count 1 -o json --pcap 'tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn'");
    // So the fake says that it was sent a program.
    assert!(ran.code == 0 && ran.stdout.contains("\"generation\":\"42\""), "{}{}", ran.stdout, ran.stderr);
    for wrong in ["--pcap 'tcp and'", "--pcap=-wx", "--pcap 'host 1.2.3.4 5'"] {
        let ran = fake.run(&format!("dp capture -w - {wrong}"));
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{wrong}: {}", ran.stderr);
        assert!(ran.stderr.contains("cause: tcpdump: "), "{wrong}: {}", ran.stderr);
    }
    assert_eq!(fake.run("dp trace --pcap tcp --inject 'icmp 10.0.0.1 > 10.0.0.2'").code, 2);
}

#[test]
fn what_is_captured_is_read_by_tshark_with_its_comments() {
    let fake = Fake::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.pcapng");
    let ran = fake.run(&format!("dp capture -w {}", file.display()));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{}", ran.stderr);
    assert!(ran.stderr.starts_with("4 packets captured\n3 packets were passed over"), "{}", ran.stderr);
    // As a pipe has it, byte for byte but for the time at which it ended.
    let mut piped = fake.command("dp capture -w - --bytes 600").stdout(Stdio::piped()).spawn().unwrap();
    let mut bytes = vec![];
    piped.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(piped.wait().unwrap().success());
    assert!(bytes.len() < 700, "no more than was asked for, and the end: {}", bytes.len());
    assert!(fs::read(&file).unwrap().starts_with(&bytes[..400]));

    let fields = ["frame.interface_name", "frame.time_epoch", "tcp.dstport", "frame.comment"];
    let mut tshark = process::Command::new("tshark");
    tshark.arg("-r").arg(&file).args(["-T", "fields"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let Ok(read) = tshark.output() else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: tshark is not installed");
        return;
    };
    let (text, said) = (String::from_utf8(read.stdout).unwrap(), String::from_utf8_lossy(&read.stderr));
    assert!(read.status.success() && !said.contains("appears to"), "{said}");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let first = [
        "cali-web",
        "1767225600.000000000",
        "80",
        "margay rx; number: 1; in: cali-web; verdict: pass; generation: 41",
    ];
    assert_eq!(rows[0], first);
    assert_eq!(rows[1][..2], ["cali-db", "1767225600.000002500"]);
    assert!(rows[3][3].starts_with(
        "margay drop; number: 2; in: eth0; verdict: drop; reason: policy-denied; rule: ingress"
    ));
    assert_eq!(rows.len(), 4);
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(command(&format!("man {}", folder.path().display()), folder.path()));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for page in ["margayctl.1", "margayctl-dp-trace.1", "margayctl-conntrack-list.1"] {
        let text = fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains("SYNOPSIS"), "{page}");
    }
    let nowhere = run(command("man /proc/nowhere", folder.path()));
    assert_eq!(nowhere.code, 1, "{}", nowhere.stderr);
}

#[test]
fn the_machine_is_checked_without_servers() {
    let nowhere = tempfile::tempdir().unwrap();
    let ran = run(command("node check --uplink no-such-link -o json", nowhere.path()));
    assert_eq!(ran.code, 6, "{}", ran.stderr);
    assert!(ran.stdout.contains("uplink no-such-link") && ran.stdout.contains("there is no such interface"));
    assert_eq!(run(command("node check --frame-size 1000", nowhere.path())).code, 2);
}

#[test]
fn dp_drops() {
    golden("dp_drops", &["dp drops", "dp drops -o json", "dp drops -o yaml", "dp drops --color=always"]);
}

#[test]
fn host_endpoints() {
    let asked = [
        "eval --packets host-packets.jsonl",
        "explain --from 198.51.100.1 --to node-a-eth0 --proto tcp --port 9100",
        "explain --from shop/db --to node-b/node-b-all --proto tcp --port 5432",
        "explain --from shop/web --to 198.51.100.1 --proto tcp --port 25",
        "explain --from node-a-eth0 --to 198.51.100.1 --proto udp --port 53",
        "explain --from 203.0.113.9 --to node-a-eth0 --proto tcp --port metrics -o json",
        "explain --from 198.51.100.1 --to node-c/eth0 --proto tcp --port 80",
        "show node-a-eth0",
        "show node-c-eth0",
        "matrix -n shop",
        "diff -f host-change.yaml",
    ];
    let lines = asked.map(|asked| format!("policy {asked} --resources hosts.yaml"));
    golden("host_endpoints", &lines.each_ref().map(String::as_str));
}

#[test]
fn conntrack() {
    golden(
        "conntrack",
        &[
            "conntrack list",
            "conntrack list -o wide tcp and dst port 80",
            "conntrack list nat -o json",
            "conntrack list --filter 'ip and not (tcp or udp)' -o yaml",
            "conntrack list -o jsonl --limit 1",
            "conntrack list -o name",
            "conntrack list sctp",
            "conntrack list sctp -o json",
            "conntrack list sctp -o yaml",
            "conntrack list 'tcp and (port 80 or prot 443)'",
            "conntrack list host",
            "conntrack list endpoint shop/nobody",
            "conntrack get udp [fd00::1]:5353 [fd00::53]:53",
            "conntrack get tcp 10.0.0.2:80 10.0.0.1 -o jsonl",
            "conntrack get icmp 192.0.2.7 10.0.0.2",
            "conntrack get icmp 192.0.2.7:8 10.0.0.2",
            "conntrack get tcp 10.0.0.2:81 10.0.0.1",
            "conntrack count",
            "conntrack count tcp -o json",
            "conntrack count --by state -o yaml",
            "conntrack top",
            "conntrack top --by source --limit 1 host 10.0.0.2",
            "conntrack top -o jsonl tcp",
            "conntrack flush endpoint shop/web and icmp",
            "conntrack flush --all -o json",
            "conntrack flush --filter ''",
            "conntrack flush port http",
        ],
    );
}

#[test]
fn policy_staged() {
    golden(
        "staged",
        &[
            "policy staged",
            "policy staged shop/web",
            "policy staged -o wide",
            "policy staged web -o json",
            "policy staged -o jsonl",
            "policy staged nowhere",
        ],
    );
}

#[test]
fn policy_explain() {
    golden(
        "explain",
        &[
            "policy explain --from shop/client --to shop/web --proto tcp --port 80",
            "policy explain --from shop/client --to shop/web --proto tcp --port 23 --sport 4000 -o json",
            "policy explain --from 192.0.2.1 --to shop/web --proto tcp --port 23",
            "policy explain --from 192.0.2.1 --to shop/web --proto icmp --icmp-type 8 -o yaml",
            "policy explain --from 192.0.2.1 --to 192.0.2.2 --proto udp --port 53",
            "policy explain --from shop/client --to shop/nobody --proto udp --port 53",
            "policy explain --from shop/client --to 10.96.0.10 --proto udp --port 53",
            "policy explain --from shop/client --to 10.96.0.10 --proto udp --port 54",
            "policy explain --from shop/client --to 10.96.0.10 --proto udp --port 53 -o json",
            "policy explain --from lab/shell --to lab/db --proto tcp --port 5432",
            "policy explain --from lab/shell --to lab/db --proto tcp --port 5432 -o json",
        ],
    );
}

#[test]
fn policy_explain_offline() {
    let asked = [
        // A denied packet: an end, a label, a port, the protocol, a namespace would turn it.
        "--from test/client --to shop/db --proto tcp --port sql",
        "--from 203.0.113.9 --to shop/web --proto tcp --port 22",
        "--from 203.0.113.9 --to shop/web --proto udp --port http",
        "--from test/client --to 169.254.169.254 --proto tcp --port 80",
        // One that is allowed.
        "--from shop/web --to shop/db --proto tcp --port 5432",
        "--from shop/web --to shop/db --proto tcp --port 5432 -o json",
        "--from shop/web --to test/client --proto icmp --icmp-type 8 -o yaml",
        // No packet of this cluster.
        "--from shop/web --to shop/nobody --proto tcp --port 80",
        "--from shop/web --to shop/db --proto tcp --port web",
        "--from 192.0.2.1 --to 192.0.2.2 --proto tcp --port 80",
        "--from shop/web --to shop/db --proto tpc --port 80",
    ];
    let lines = asked.map(|asked| format!("policy explain --resources ../../../examples/eval {asked}"));
    golden("explain_offline", &lines.each_ref().map(String::as_str));
}

#[test]
fn policy_explain_of_services_offline() {
    let asked = [
        // A backend is chosen, and policy is asked about it.
        "--from shop/client --to 10.96.0.10 --proto tcp --port 80",
        "--from shop/client --to 10.96.0.10 --proto tcp --port 80 --sport 4001 -o json",
        "--from shop/stranger --to 10.96.0.10 --proto tcp --port 80",
        // From outside, by a load balancer and by a node's own port: there the host endpoint is asked first,
        // about the packet as it came.
        "--from 203.0.113.9 --to 198.51.100.80 --proto tcp --port 80",
        "--from 203.0.113.9 --to 192.0.2.11 --proto tcp --port 30080",
        "--from 203.0.113.129 --to 192.0.2.11 --proto tcp --port 30080",
        // Nobody has it.
        "--from shop/client --to 10.96.0.11 --proto tcp --port 80",
        "--from shop/client --to 10.96.0.10 --proto tcp --port 81",
        "--from 203.0.113.9 --to 192.0.2.12 --proto tcp --port 30080 -o json",
        // Nobody can tell.
        "--from shop/client --to 192.0.2.11 --proto tcp --port 30080",
        "--from 192.0.2.12 --to 10.96.0.10 --proto tcp --port 80",
        "--from 10.96.0.10 --to shop/client --proto tcp --port 80",
    ];
    let lines = asked.map(|asked| format!("policy explain --resources services.yaml {asked}"));
    golden("explain_services", &lines.each_ref().map(String::as_str));
}

#[test]
fn policy_show() {
    golden(
        "show",
        &[
            "policy show shop/web",
            "policy show shop/web --direction ingress --compiled",
            "policy show shop/web --direction egress -o json",
            "policy show shop/web --direction ingress --dot",
            "policy show node-a-eth0",
            "policy show node-a-eth0 --direction ingress -o yaml",
            "policy show shop/nobody",
            "policy show shop/db --resources ../../../examples/eval",
            "policy show shop/db --resources ../../../examples/eval --direction ingress --dot",
            "policy show shop/nobody --resources ../../../examples/eval",
            "policy show 192.0.2.1 --resources ../../../examples/eval",
        ],
    );
}

#[test]
fn policy_matrix() {
    golden(
        "matrix",
        &[
            "policy matrix -n shop --resources ../../../examples/eval",
            "policy matrix -n shop --resources ../../../examples/eval -o wide",
            "policy matrix -n shop --resources ../../../examples/eval --port tcp/5432 --port icmp",
            "policy matrix -n test --resources ../../../examples/eval -o json",
            "policy matrix -n nobody --resources ../../../examples/eval",
            "policy matrix -n lab",
            "policy matrix --resources ../../../examples/eval",
            "policy matrix -A --resources hosts.yaml --port tcp/80",
            "policy matrix -A -n shop --resources ../../../examples/eval",
        ],
    );
}

#[test]
fn policy_diff() {
    golden(
        "diff",
        &[
            "policy diff -f new-policy.yaml --resources ../../../examples/eval",
            "policy diff -f new-policy.yaml --resources ../../../examples/eval -o json",
            "policy diff -f ../../../examples/eval/policy.yaml --resources ../../../examples/eval",
            "policy diff -f lab-policy.yaml",
            "policy diff -f wrong-pod.yaml --resources ../../../examples/eval",
        ],
    );
}

#[test]
fn offline() {
    golden(
        "offline",
        &[
            "selector eval questions.jsonl",
            "selector eval missing.jsonl",
            "validate -f shop.yaml",
            "version",
            "version -o json",
            "version -o yaml",
        ],
    );
}

#[test]
fn policy_eval() {
    golden(
        "eval",
        &[
            "policy eval --resources ../../../examples/eval --packets ../../../examples/eval/packets.jsonl",
            "policy eval --resources ../../../examples/eval --packets bad-packets.jsonl",
            "policy eval --resources wrong-pod.yaml --packets bad-packets.jsonl",
            "policy eval --resources missing.yaml",
            "policy eval --raw cases.jsonl",
            "policy eval --raw missing.jsonl",
            "validate -f ../../../examples/eval",
            "apply -f ../../../examples/eval/cluster.yaml",
        ],
    );
}

#[test]
fn objects_come_through_standard_input_too() {
    let fake = Fake::start();
    let mut child = fake.command("apply -f -");
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: piped}\nspec: {order: 3}\n";
    child.stdin.take().unwrap().write_all(tier.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "tier/piped created\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_is_got_can_be_changed_and_replaced_once() {
    let fake = Fake::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tier.yaml");
    fs::write(&file, fake.run("get tier platform -o yaml").stdout.replace("100.0", "150.0")).unwrap();
    let line = format!("replace -f {}", file.display());
    assert_eq!(fake.run(&line).code, 0);
    // The file still has the version that was read.
    assert_eq!(fake.run(&line).code, 4);
}

#[test]
fn nobody_there_is_5() {
    let nowhere = tempfile::tempdir().unwrap();
    for line in [
        "status",
        "get tiers",
        "get tiers -w",
        "apply -f shop.yaml",
        "delete tier a",
        "dp runtime",
        "dp interfaces",
        "dp drops --watch",
        "dp services",
        "dp tunnels",
        "wg show",
        "dp fib lookup 10.0.0.1",
        "dp fib show",
        "dp adjacencies",
        "dp neighbours",
        "dp queues",
        "dp buffers",
        "dp trace",
        "policy explain --from 10.0.0.1 --to 10.0.0.2 --proto tcp --port 80",
        "policy show shop/web",
        "policy matrix -n shop",
        "policy diff -f lab-policy.yaml",
    ] {
        let ran = run(command(line, nowhere.path()));
        assert_eq!((ran.code, ran.stdout.as_str()), (5, ""), "{line}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
        assert!(ran.stderr.contains("\ncause: No such file or directory"), "{}", ran.stderr);
    }
}

#[test]
fn no_answer_in_time_is_5_and_says_that_the_change_may_be_stored() {
    let ran = Fake::start().run("delete tier slow --timeout=50ms");
    assert_eq!(ran.code, 5);
    assert!(ran.stderr.contains("cause: there was no answer within 50ms\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the change may be stored all the same"), "{}", ran.stderr);
}

#[test]
fn what_is_not_valid_is_2() {
    let nowhere = tempfile::tempdir().unwrap();
    for (line, said) in [
        ("status --colour", "--color"),
        ("get tierz", "Tier"),
        ("get tiers -l 'a =='", "a =="),
        ("get", "KIND"),
        ("apply -f broken.yaml", "broken.yaml"),
        ("validate -f broken.yaml", "broken.yaml"),
        ("validate -f wrong-fields.yaml", "spec.order"),
        (
            "validate -f wrong-fields.yaml",
            "metadata.labels: projectcalico.org/namespace is set by the system",
        ),
        ("apply -f wrong-fields.yaml", "spec.order"),
        ("delete -f broken.yaml", "broken.yaml"),
        ("apply -f missing.yaml", "missing.yaml"),
        ("apply -f shop.yaml -n lab", "the namespace lab"),
    ] {
        let ran = run(command(line, nowhere.path()));
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{line}: {}", ran.stderr);
    }
}

#[test]
fn an_interval_follows_the_total_and_a_reader_that_leaves_is_no_failure() {
    let fake = Fake::start();
    let mut child = fake.command("dp drops --watch=1ms -o jsonl").stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line
    };
    assert!(next().contains(r#""packets":9,"#));
    assert!(next().contains(r#""packets":2,"#));
    // Of the second reason nothing more was dropped in the interval.
    for _ in 0..3 {
        let line = next();
        assert!(line.contains(r#""packets":9,"#) && line.contains(r#""packets":6,"#), "{line}");
    }
    drop(reader);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn each_shell_gets_a_script() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let ran = Fake::start().run(&format!("completion {shell}"));
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("margayctl") && ran.stdout.contains("interfaces"), "{shell}");
    }
}

#[test]
fn help_names_the_exit_codes() {
    let ran = run(command("--help", Path::new("/nonexistent")));
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("7  partial"), "{}", ran.stdout);
}
