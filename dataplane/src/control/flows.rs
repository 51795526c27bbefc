//! What connection tracking holds of a packet's flow, asked of the workers, who are not stopped
//! for it: each answers when it has gone through its table, a few places a poll.

use super::explain::{judge_key, query};
use super::{FieldError, Ports, State};
use crate::conntrack::{Direction, Exchange, IcmpState, State as Tracked, TcpState};
use crate::net::WorkerId;
use crate::snapshot::Established;
use crate::worker::{FlowPage, FlowSeen, FlowsWanted};
use margay_api::dataplane::v1 as pb;
use tokio::sync::oneshot;

/// Questions that wait for an answer at most.
const MAX_QUESTIONS: usize = 16;

/// What all workers said.
#[derive(Debug, Default)]
pub struct Flows {
    /// Who has it, and what it is.
    pub found: Vec<(WorkerId, FlowSeen)>,
    /// There may be more.
    pub cut: bool,
}

/// Questions to workers that have not all answered.
#[derive(Default)]
pub struct Questions {
    open: Vec<Question>,
    asked: u64,
}

struct Question {
    number: u64,
    missing: usize,
    flows: Flows,
    reply: oneshot::Sender<Flows>,
}

impl Questions {
    /// Asks every worker. The reply is dropped where they cannot be asked now.
    pub fn ask(&mut self, ports: &Ports, wanted: FlowsWanted, reply: oneshot::Sender<Flows>) {
        self.open.retain(|question| !question.reply.is_closed());
        if self.open.len() == MAX_QUESTIONS || !ports.take_commands() {
            return;
        }
        self.asked += 1;
        let (number, missing) = (self.asked, ports.workers().len());
        ports.show_flows(|| FlowPage::new(number, wanted));
        self.open.push(Question { number, missing, flows: Flows::default(), reply });
    }

    /// A worker's answer.
    pub fn answered(&mut self, worker: WorkerId, page: &FlowPage) {
        let Some(at) = self.open.iter().position(|question| question.number == page.question) else { return };
        let question = &mut self.open[at];
        question.flows.found.extend(page.found.iter().map(|seen| (worker, *seen)));
        question.flows.cut |= page.is_cut();
        question.missing -= 1;
        if question.missing == 0 {
            let Question { reply, flows, .. } = self.open.swap_remove(at);
            // The asker may be gone by then.
            let _ = reply.send(flows);
        }
    }
}

/// The flows of packets like the one of a request: of any source port where it names none.
pub fn wanted(request: &pb::ExplainRequest) -> Result<FlowsWanted, FieldError> {
    let key = query(request)?.key;
    let port = |port: u16| (key.proto.has_ports() && port != 0).then_some(port);
    Ok(FlowsWanted {
        src: key.src,
        dst: key.dst,
        proto: key.proto,
        sport: port(key.sport),
        dport: key.proto.has_ports().then_some(key.dport),
    })
}

/// As the API has it, with what policy says today.
pub fn conntrack(state: &State, flows: &Flows) -> pb::Conntrack {
    let session = |(worker, seen): &(WorkerId, FlowSeen)| {
        let millis = |nanos: crate::net::Nanos| nanos.0 / 1_000_000;
        pb::Session {
            worker: u32::from(worker.0),
            flow: seen.key.to_string(),
            reply: seen.direction == Direction::Reply,
            state: state_name(seen.state).into(),
            idle_milliseconds: millis(seen.idle),
            remaining_milliseconds: millis(seen.remaining),
            judged_generation: u64::from(seen.judged.0),
            verdict_now: if judge_key(state, &seen.key) { "allow" } else { "deny" }.into(),
        }
    };
    pb::Conntrack {
        sessions: flows.found.iter().map(session).collect(),
        more: flows.cut,
        recheck: state.desired().established == Established::Recheck,
        generation: u64::from(state.publisher().current().generation.0),
    }
}

/// As `conntrack` would list it.
fn state_name(state: Tracked) -> &'static str {
    let exchange = |exchange| if exchange == Exchange::Replied { "replied" } else { "unreplied" };
    match state {
        Tracked::Tcp(tcp) => match tcp {
            TcpState::SynSent => "syn-sent",
            TcpState::SynCrossed | TcpState::SynCrossedAcked => "syn-crossed",
            TcpState::SynRecv => "syn-received",
            TcpState::PickedUp => "picked-up",
            TcpState::Established => "established",
            TcpState::FinWait(_) => "fin-wait",
            TcpState::Closing => "closing",
            TcpState::TimeWait => "time-wait",
            TcpState::Closed => "closed",
        },
        Tracked::Icmp(IcmpState::Message) => "message",
        Tracked::Udp(of) | Tracked::Other(of) | Tracked::Icmp(IcmpState::Echo(of)) => exchange(of),
    }
}
