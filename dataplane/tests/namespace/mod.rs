//! Network namespaces for tests: each test's is its own and vanishes with the test's thread, so
//! it touches nothing else and leaves nothing, however it ends.

use nix::sched::{CloneFlags, unshare};
use std::io::Write;
use std::process::Command;
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
