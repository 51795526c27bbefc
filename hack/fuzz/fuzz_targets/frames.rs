//! Frames, time and changes in any order: nothing panics, no frame is lost, all is accounted for.
#![no_main]

#[path = "../../../dataplane/tests/build/mod.rs"]
mod build;

use arbitrary::Arbitrary;
use build::frames::{every_kind, mend};
use build::*;
use libfuzzer_sys::fuzz_target;
use margay_api::dataplane::v1 as pb;
use margay_dataplane::net::Nanos;
use margay_dataplane::packet::{DropReason, L4Checksum};
use margay_dataplane::simulation::{Setup, Simulation};
use pb::change::Change;
use std::sync::LazyLock;

const INTERFACES: [&str; 4] = ["eth0", "cali1", "cali2", "cali3"];

static KINDS: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(every_kind);

#[derive(Arbitrary, Debug)]
struct Input {
    four_workers: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Any bytes.
    Bytes { interface: u8, frame: Vec<u8> },
    /// A valid frame, with these bytes changed and then, if so, its IPv4 checksum mended.
    Frame { kind: u8, edits: Vec<(u8, u8)>, mend: bool, cut: Option<u16> },
    /// Everything that waits runs, and time passes.
    Run { milliseconds: u16 },
    /// A transaction.
    Commit { web_port: u8, recheck: bool, without_second: bool },
    /// An interface's wire.
    Wire { interface: u8, room: u8, partial: bool },
}

fuzz_target!(|input: Input| {
    let workers = if input.four_workers { 4 } else { 1 };
    let mut node = standard(Setup { workers, frames: 256, large: 4, flows: 64, ticks: || 0 });
    node.vlan("eth0", 100, UPLINK_MAC, &[(addr("172.16.0.1"), 24)]);
    for step in input.steps {
        take(&mut node, step);
        node.check();
    }
    for _ in 0..5 {
        node.step(Nanos::from_secs(1));
        node.check();
    }
    let unexplained = |worker: &margay_dataplane::worker::Worker| {
        worker.world().counters.dropped(DropReason::Unspecified).get()
    };
    assert_eq!(node.workers.iter().map(unexplained).sum::<u64>(), 0, "every drop has a reason");
});

fn take(node: &mut Simulation, step: Step) {
    match step {
        Step::Bytes { interface, frame } => push(node, INTERFACES[usize::from(interface) % 4], &frame),
        Step::Frame { kind, edits, mend: mended, cut } => {
            let (interface, frame) = &KINDS[usize::from(kind) % KINDS.len()];
            let mut frame = frame.clone();
            for (at, value) in edits {
                if let Some(byte) = frame.get_mut(usize::from(at)) {
                    *byte = value;
                }
            }
            if mended {
                mend(&mut frame);
            }
            frame.resize(cut.map_or(frame.len(), |len| usize::from(len) % 2048), 0);
            push(node, interface, &frame);
        }
        Step::Run { milliseconds } => node.step(Nanos::from_millis(milliseconds.into())),
        Step::Commit { web_port, recheck, without_second } => {
            let mut changes = standard_changes();
            let established = if recheck {
                pb::node_config::Established::Recheck
            } else {
                pb::node_config::Established::Keep
            };
            let config = pb::NodeConfig { established: established.into(), ..Default::default() };
            changes.extend([
                change(Change::Policy(policy("web", web_port.into()))),
                change(Change::Config(config)),
                via("10.66.0.0/16", "172.16.0.2"),
            ]);
            if without_second {
                changes.push(change(Change::WorkloadEndpointRemove(endpoint_id(2))));
            }
            node.commit(changes).expect("the changes are valid");
        }
        Step::Wire { interface, room, partial } => {
            let name = INTERFACES[usize::from(interface) % 4];
            if node.state.id(name).is_some() {
                let checksum = if partial { L4Checksum::MaybePartial } else { L4Checksum::Complete };
                node.wire(name).set_checksum(checksum);
                node.wire(name).set_tx_capacity(room.into());
            }
        }
    }
}

fn push(node: &Simulation, interface: &str, frame: &[u8]) {
    if node.state.id(interface).is_some() {
        node.wire(interface).push(frame);
    }
}
