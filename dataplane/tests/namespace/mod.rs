//! Network namespaces for tests: each test's is its own and vanishes with the test's thread, so
//! it touches nothing else and leaves nothing, however it ends.
#![allow(dead_code)]

use nix::sched::{CloneFlags, unshare};
use std::fmt::Display;
use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// How long a test waits for what must happen before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` on a thread with a network namespace of its own.
pub fn in_namespace(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        // Past the capture of the test's output: to be seen also where all pass.
        let _ = writeln!(std::io::stderr(), "SKIPPED: needs root for network namespaces and XDP");
        return;
    }
    let outcome = std::thread::scope(|scope| {
        let body = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            test();
        };
        scope.spawn(body).join()
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// `ip` in the namespace of this thread.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip (package iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A thread in a network namespace of its own, that does what it is told.
pub struct Station {
    tell: Sender<Box<dyn FnOnce() + Send>>,
    thread: nix::unistd::Pid,
}

impl Station {
    /// With nothing but a loopback device, which is down.
    pub fn alone() -> Self {
        let (tell, told) = channel::<Box<dyn FnOnce() + Send>>();
        let (ready, started) = channel();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ready.send(nix::unistd::gettid()).unwrap();
            for what in told {
                what();
            }
        });
        Self { tell, thread: started.recv().unwrap() }
    }

    /// With the far end of a new veth, `near` in this namespace and `far` in its own.
    pub fn at(near: &str, far: &str, addresses: &[&str]) -> Self {
        let station = Self::alone();
        ip(&format!("link add {near} type veth peer name {far}"));
        ip(&format!("link set {far} netns {}", station.thread));
        let far = far.to_owned();
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        station.there(move || {
            ip("link set lo up");
            for address in addresses {
                // An IPv6 address of which nobody else needs to be asked.
                let nodad = if address.contains(':') { " nodad" } else { "" };
                ip(&format!("addr add {address} dev {far}{nodad}"));
            }
            ip(&format!("link set {far} up"));
        });
        ip(&format!("link set {near} up"));
        station
    }

    /// Workload `n` at `cali<n>`: 10.65.0.n and fd65::n, and all else by the gateway that the dataplane is.
    pub fn workload(n: u8, mac: impl Display) -> Self {
        let mac = mac.to_string();
        let addresses = [format!("10.65.0.{n}/32"), format!("fd65::{n}/128")];
        let station = Self::at(&format!("cali{n}"), "eth0", &addresses.each_ref().map(String::as_str));
        station.there(move || {
            ip(&format!("link set eth0 address {mac}"));
            ip("route add 169.254.1.1 dev eth0");
            ip("route add default via 169.254.1.1 dev eth0");
            ip("-6 route add default via fe80::ecee:eeff:feee:eeee dev eth0");
        });
        station
    }

    /// The path of its namespace, which is gone when it is dropped.
    pub fn netns(&self) -> std::path::PathBuf {
        format!("/proc/{}/task/{}/ns/net", nix::unistd::getpid(), self.thread).into()
    }

    /// Does it there, and waits until it is done.
    pub fn there<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (give, take) = channel();
        let task = move || {
            // Nobody waits when the test has failed.
            let _ = give.send(what());
        };
        self.tell.send(Box::new(task)).unwrap();
        take.recv().expect("it does not panic there")
    }
}
