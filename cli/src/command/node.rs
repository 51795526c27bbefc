//! `node check`: whether this machine has what the dataplane needs, and the command that mends what it has not.
//!
//! Everything is read from `/proc` and `/sys`, or asked of the kernel; nothing is asked of Margay, which need not run, and
//! nothing is changed.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use margay_dataplane::{io::af_xdp::check_mtu, packet::HEADROOM};
use serde::Serialize;

use super::{
    interrupts::{self, members},
    netdev::{Features, features},
};
use crate::{
    args::NodeCheck,
    exit::{Code, Outcome},
    output::{Cell, Output, Table, Tone, View},
};

/// Looks, and says what it found. Problems if anything would keep the dataplane from working.
pub fn check(args: &NodeCheck, out: &mut Output) -> Outcome {
    let machine = Machine { root: PathBuf::from("/"), features };
    let cores = args.cores.as_ref().map_or(&[][..], |cores| &cores.0);
    let report = machine.check(&args.uplinks, args.frame_size, cores);
    out.show(&report, args.output)?;
    Ok(if report.checks.iter().any(|check| check.state == State::Fail) { Code::Problems } else { Code::Ok })
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    checks: Vec<Check>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    state: State,
    found: String,
    /// A command, or what else to do; empty where all is well.
    fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum State {
    Ok,
    /// It works, and not as it could.
    Warn,
    /// It does not work.
    Fail,
}

impl View for Report {
    const RECORDS: Option<&'static str> = Some("checks");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let mut table = Table::new(["CHECK", "STATE", "FOUND", "FIX"]);
        for check in &self.checks {
            let (state, tone) = match check.state {
                State::Ok => ("OK", Tone::Good),
                State::Warn => ("WARN", Tone::Warn),
                State::Fail => ("FAIL", Tone::Bad),
            };
            let fix = if check.fix.is_empty() { "-" } else { &check.fix };
            table.row(vec![
                (&check.name).into(),
                Cell::toned(state, tone),
                (&check.found).into(),
                fix.into(),
            ]);
        }
        table.print(out)?;
        let bad = self.checks.iter().filter(|check| check.state == State::Fail).count();
        let warned = self.checks.iter().filter(|check| check.state == State::Warn).count();
        writeln!(out, "\n{} checks, {warned} to mind, {bad} failed", self.checks.len())
    }
}

/// Bits of capabilities, as in capabilities(7).
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_NET_ADMIN", 12, "links, neighbours, XDP"),
    ("CAP_NET_RAW", 13, "AF_XDP sockets"),
    ("CAP_IPC_LOCK", CAP_IPC_LOCK, "packet memory"),
    ("CAP_BPF", CAP_BPF, "loading XDP programs"),
];
const CAP_IPC_LOCK: u32 = 14;
const CAP_BPF: u32 = 39;
const CAP_SYS_ADMIN: u32 = 21;

/// Where `/proc` and `/sys` are.
struct Machine {
    root: PathBuf,
    /// What the driver of the interface with this number says.
    features: fn(u32) -> io::Result<Features>,
}

impl Machine {
    fn check(&self, uplinks: &[String], frame_size: u32, cores: &[u32]) -> Report {
        let mut checks =
            vec![self.kernel(), self.jit(), self.hugepages(), self.capabilities(), self.memlock()];
        checks.push(self.tun());
        checks
            .extend([self.forwarding("ipv4", "ip_forward"), self.forwarding("ipv6", "conf/all/forwarding")]);
        for uplink in uplinks {
            checks.push(self.uplink(uplink, frame_size));
            let more = [self.xdp(uplink), self.numa(uplink, cores), self.interrupts(uplink, cores)];
            checks.extend(more.into_iter().flatten());
        }
        Report { checks }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn kernel(&self) -> Check {
        let release = self.read("proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        match version {
            (0..5, _) | (5, 0..9) => found("kernel", State::Fail, release, "boot Linux 5.9 or later"),
            (5, _) | (6, 0..6) => {
                let fix = "host endpoints and natOutgoing take Linux 6.6 (tcx)";
                found("kernel", State::Warn, release, fix)
            }
            _ => found("kernel", State::Ok, release, ""),
        }
    }

    fn jit(&self) -> Check {
        match self.read("proc/sys/net/core/bpf_jit_enable").as_deref() {
            Some("0") => found(
                "bpf jit",
                State::Warn,
                "XDP programs are interpreted",
                "sysctl net.core.bpf_jit_enable=1",
            ),
            Some(_) => found("bpf jit", State::Ok, "on", ""),
            // Kernels that always compile do not show it to everyone.
            None => found("bpf jit", State::Ok, "not shown here", ""),
        }
    }

    fn hugepages(&self) -> Check {
        let of = |text: &str, field: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
        };
        let meminfo = self.read("proc/meminfo").unwrap_or_default();
        let (free, kib) = (of(&meminfo, "HugePages_Free:"), of(&meminfo, "Hugepagesize:"));
        let mebibytes = free.unwrap_or(0) * kib.unwrap_or(0) / 1024;
        let what = format!("{} free, {mebibytes} MiB", free.unwrap_or(0));
        // 32,768 frames of 2,048 bytes, and a worker's flow table.
        if mebibytes >= 128 {
            found("huge pages", State::Ok, what, "")
        } else {
            found("huge pages", State::Warn, what, "sysctl vm.nr_hugepages=128")
        }
    }

    fn has(&self, capability: u32) -> bool {
        let status = self.read("proc/self/status").unwrap_or_default();
        let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let held = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()).unwrap_or(0);
        held >> capability & 1 == 1
    }

    fn capabilities(&self) -> Check {
        // Whoever has the last may load programs without the first.
        let held = |bit: u32| self.has(bit) || (bit == CAP_BPF && self.has(CAP_SYS_ADMIN));
        let missing = CAPABILITIES.iter().filter(|(_, bit, _)| !held(*bit));
        let missing: Vec<String> = missing.map(|(name, _, what)| format!("{name} ({what})")).collect();
        if missing.is_empty() {
            return found("capabilities", State::Ok, "all that the dataplane needs", "");
        }
        let fix = "run this, and the dataplane, as root, or with docker run --cap-add";
        found("capabilities", State::Fail, format!("without {}", missing.join(", ")), fix)
    }

    fn memlock(&self) -> Check {
        let limits = self.read("proc/self/limits").unwrap_or_default();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
        let limit = line.and_then(|line| line.split_whitespace().next()).unwrap_or("unknown").to_owned();
        let enough = limit == "unlimited" || limit.parse::<u64>().is_ok_and(|bytes| bytes >= 64 << 20);
        match (enough, self.has(CAP_IPC_LOCK)) {
            (true, _) => found("locked memory", State::Ok, limit, ""),
            (_, true) => found("locked memory", State::Ok, format!("{limit}; CAP_IPC_LOCK passes it"), ""),
            _ => found("locked memory", State::Warn, limit, "ulimit -l unlimited"),
        }
    }

    fn tun(&self) -> Check {
        match self.path("dev/net/tun").exists() {
            true => found("tun", State::Ok, "/dev/net/tun", ""),
            false => {
                let fix = "modprobe tun, or give the container --device /dev/net/tun";
                found("tun", State::Warn, "there is no /dev/net/tun: no host tap, no host endpoints", fix)
            }
        }
    }

    fn forwarding(&self, family: &str, key: &str) -> Check {
        let name = format!("{family} forwarding");
        match self.read(&format!("proc/sys/net/{family}/{key}")).as_deref() {
            Some("0") => found(&name, State::Ok, "off: nothing goes around the dataplane", ""),
            Some(_) => {
                let what = "on: the kernel would forward past policy while the dataplane is gone";
                let fix = format!("sysctl net.{family}.{}=0", key.replace('/', "."));
                found(&name, State::Warn, what, &fix)
            }
            None => found(&name, State::Ok, "the kernel has none", ""),
        }
    }

    /// What its driver can do. None where there is no such interface, or the kernel does not say (Linux 6.3).
    fn xdp(&self, name: &str) -> Option<Check> {
        let ifindex = self.read(&format!("sys/class/net/{name}/ifindex"))?.parse().ok()?;
        let features = (self.features)(ifindex).ok()?;
        let about = format!("uplink {name} XDP");
        Some(match (features.native() && features.redirect(), features.zero_copy()) {
            (true, true) => found(&about, State::Ok, "in the driver, zero-copy", ""),
            (true, false) => {
                let fix = format!(
                    "for zero-copy take a card whose driver has it, or a newer kernel: ethtool -i {name}"
                );
                found(&about, State::Warn, "in the driver; packets are copied", &fix)
            }
            (false, _) => {
                let fix = format!("take a card whose driver has XDP, or a newer kernel: ethtool -i {name}");
                found(&about, State::Warn, "in the network stack, which is slower", &fix)
            }
        })
    }

    /// Memory of another NUMA node is slower to reach for both the card and its workers. None where there is but one.
    fn numa(&self, name: &str, cores: &[u32]) -> Option<Check> {
        let node: u32 = self.read(&format!("sys/class/net/{name}/device/numa_node"))?.parse().ok()?;
        let near = self.read(&format!("sys/devices/system/node/node{node}/cpulist"))?;
        let all = self.read("sys/devices/system/node/online")?;
        if members(&all).len() < 2 {
            return None;
        }
        let about = format!("uplink {name} NUMA");
        let near_cores = members(&near);
        let far: Vec<u32> = cores.iter().copied().filter(|core| !near_cores.contains(core)).collect();
        Some(if far.is_empty() {
            found(&about, State::Ok, format!("the card is of node {node}, cores {near}"), "")
        } else {
            let what = format!("the card is of node {node}, cores {} are not", listed(&far));
            found(&about, State::Warn, what, &format!("margay-dataplane --cores, of {near}"))
        })
    }

    /// An interrupt on a worker's core takes its time from packets. None where the interface has none.
    fn interrupts(&self, name: &str, cores: &[u32]) -> Option<Check> {
        let all = interrupts::of(&self.root, name);
        let (first, last) = (all.first()?, all.last()?);
        let about = format!("uplink {name} interrupts");
        let on_workers =
            |irq: &&interrupts::Interrupt| members(&irq.cpus).iter().any(|cpu| cores.contains(cpu));
        let wrong: Vec<u32> = all.iter().filter(on_workers).map(|irq| irq.number).collect();
        if wrong.is_empty() {
            let what = match cores {
                [] => format!(
                    "{}, {} to {}; --cores says whether they suit",
                    all.len(),
                    first.number,
                    last.number
                ),
                _ => format!("{}, none on a worker's core", all.len()),
            };
            return Some(found(&about, State::Ok, what, ""));
        }
        let online = self.read("sys/devices/system/cpu/online").unwrap_or_default();
        let others: Vec<u32> = members(&online).into_iter().filter(|cpu| !cores.contains(cpu)).collect();
        let what = format!("{} of {} on workers' cores", wrong.len(), all.len());
        let fix = match others.as_slice() {
            [] => "leave a core to the kernel: fewer --cores".to_owned(),
            others => {
                let numbers: Vec<String> = wrong.iter().map(u32::to_string).collect();
                let (numbers, others) = (numbers.join(" "), listed(others));
                format!(
                    "for i in {numbers}; do echo {others} > /proc/irq/$i/smp_affinity_list; done, and no irqbalance"
                )
            }
        };
        Some(found(&about, State::Warn, what, &fix))
    }

    fn uplink(&self, name: &str, frame_size: u32) -> Check {
        let about = format!("uplink {name}");
        let of = |what: &str| self.read(&format!("sys/class/net/{name}/{what}"));
        if !self.path(&format!("sys/class/net/{name}")).exists() {
            return found(&about, State::Fail, "there is no such interface", "ip link");
        }
        let mtu: u32 = of("mtu").and_then(|mtu| mtu.parse().ok()).unwrap_or(0);
        let link = self.path(&format!("sys/class/net/{name}/device/driver"));
        let driver = fs::read_link(link).ok();
        let driver =
            driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let driver = driver.unwrap_or_else(|| "virtual".to_owned());
        let queues = self.path(&format!("sys/class/net/{name}/queues"));
        let rx = fs::read_dir(queues).into_iter().flatten().flatten();
        let rx = rx.filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-")).count();
        let what = format!("driver {driver}, {rx} receive queues, MTU {mtu}");
        if of("operstate").as_deref() == Some("down") {
            return found(&about, State::Fail, what, &format!("ip link set {name} up"));
        }
        match check_mtu(name, mtu, frame_size as usize - HEADROOM) {
            Ok(()) => found(&about, State::Ok, what, ""),
            Err(error) => found(&about, State::Fail, what, &error.to_string()),
        }
    }
}

fn listed(cpus: &[u32]) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

fn found(name: &str, state: State, found: impl Into<String>, fix: &str) -> Check {
    Check { name: name.to_owned(), state, found: found.into(), fix: fix.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of files.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = folder.path().to_owned();
        // Interface 1 can do all, 2 nothing.
        let features = |ifindex: u32| -> io::Result<Features> {
            match ifindex {
                1 => Ok(Features(0b1011)),
                2 => Ok(Features(0)),
                3 => Ok(Features(0b0011)),
                _ => Err(io::Error::other("no netdev here")),
            }
        };
        (folder, Machine { root, features })
    }

    const FINE: [(&str, &str); 12] = [
        ("proc/sys/kernel/osrelease", "6.8.0-31-generic\n"),
        ("proc/sys/net/core/bpf_jit_enable", "1\n"),
        ("proc/meminfo", "MemTotal: 8 kB\nHugePages_Free:     128\nHugepagesize:       2048 kB\n"),
        ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
        ("proc/self/limits", "Max locked memory         8388608              8388608              bytes\n"),
        ("dev/net/tun", ""),
        ("proc/sys/net/ipv4/ip_forward", "0\n"),
        ("proc/sys/net/ipv6/conf/all/forwarding", "0\n"),
        ("sys/class/net/eth0/mtu", "1500\n"),
        ("sys/class/net/eth0/operstate", "up\n"),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", ""),
        ("sys/class/net/eth0/queues/tx-0/xps_cpus", ""),
    ];

    fn states(files: &[(&str, &str)], uplink: &str) -> Vec<(String, State, String)> {
        let (_folder, machine) = machine(files);
        let checks = machine.check(&[uplink.to_owned()], 2048, &[2, 3]).checks;
        checks.into_iter().map(|check| (check.name, check.state, check.fix)).collect()
    }

    #[test]
    fn a_machine_that_has_everything() {
        let all = states(&FINE, "eth0");
        assert_eq!(all.len(), 9);
        assert!(all.iter().all(|(_, state, fix)| *state == State::Ok && fix.is_empty()), "{all:?}");
    }

    #[test]
    fn what_is_missing_is_named_with_what_mends_it() {
        for (path, text, check, state, fix) in [
            ("proc/sys/kernel/osrelease", "5.4.0", "kernel", State::Fail, "5.9"),
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64", "kernel", State::Warn, "6.6"),
            ("proc/sys/net/core/bpf_jit_enable", "0", "bpf jit", State::Warn, "bpf_jit_enable=1"),
            (
                "proc/meminfo",
                "HugePages_Free: 0\nHugepagesize: 2048 kB",
                "huge pages",
                State::Warn,
                "nr_hugepages=128",
            ),
            ("proc/self/status", "CapEff:\t0000000000000000", "capabilities", State::Fail, "--cap-add"),
            ("proc/sys/net/ipv4/ip_forward", "1", "ipv4 forwarding", State::Warn, "net.ipv4.ip_forward=0"),
            ("sys/class/net/eth0/mtu", "9000", "uplink eth0", State::Fail, "MTU 9000"),
            ("sys/class/net/eth0/operstate", "down", "uplink eth0", State::Fail, "ip link set eth0 up"),
        ] {
            let mut files = FINE.to_vec();
            files.iter_mut().find(|(of, _)| *of == path).unwrap().1 = text;
            let all = states(&files, "eth0");
            let (_, is, said) = all.iter().find(|(name, ..)| name == check).unwrap();
            assert!(*is == state && said.contains(fix), "{check}: {is:?}, {said}");
        }
        assert_eq!(states(&FINE, "eth7").last().unwrap().1, State::Fail);
    }

    #[test]
    fn what_xdp_a_driver_has_is_told_where_the_kernel_tells() {
        for (ifindex, state) in
            [("1", Some(State::Ok)), ("2", Some(State::Warn)), ("3", Some(State::Warn)), ("4", None)]
        {
            let mut files = FINE.to_vec();
            files.push(("sys/class/net/eth0/ifindex", ifindex));
            let all = states(&files, "eth0");
            assert_eq!(
                all.iter().find(|(of, ..)| of == "uplink eth0 XDP").map(|(_, state, _)| *state),
                state
            );
        }
    }

    #[test]
    fn a_card_and_its_interrupts_suit_the_workers_cores_or_it_is_said_how() {
        let mut files = FINE.to_vec();
        files.extend([
            ("sys/class/net/eth0/device/numa_node", "0\n"),
            ("sys/class/net/eth0/device/msi_irqs/45", ""),
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/cpulist", "0-3\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("proc/interrupts", " 45: 1 IR-PCI-MSIX eth0-TxRx-0\n 46: 1 IR-PCI-MSIX eth0-TxRx-1\n"),
            ("proc/irq/45/effective_affinity_list", "0\n"),
            ("proc/irq/46/effective_affinity_list", "1\n"),
        ]);
        let all = states(&files, "eth0");
        assert_eq!(all.len(), 11);
        assert!(all.iter().all(|(_, state, _)| *state == State::Ok), "{all:?}");
        let last = files.len() - 1;
        files[last].1 = "2\n";
        files[last - 4].1 = "0,2\n";
        let all = states(&files, "eth0");
        let of =
            |name: &str| all.iter().find(|(of, ..)| of == name).map(|(_, state, fix)| (*state, fix.as_str()));
        assert_eq!(of("uplink eth0 NUMA"), Some((State::Warn, "margay-dataplane --cores, of 0,2")));
        let fix =
            "for i in 46; do echo 0,1,4,5,6,7 > /proc/irq/$i/smp_affinity_list; done, and no irqbalance";
        assert_eq!(of("uplink eth0 interrupts"), Some((State::Warn, fix)));
    }
}
