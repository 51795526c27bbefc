//! Packets watched for whoever asks: chosen by workers, put together here, told as they end.
//!
//! One at a time, and for as long as its stream is read. Workers' rings are looked at by a task of its own, which
//! asks the control thread only for words: names of rules and interfaces.

use super::server::Service;
use super::shell::Shell;
use super::story::Story;
use crate::net::{Instruction, Program};
use crate::nodes::{Interest, Sightings, Wanted, Watcher};
use margay_api::dataplane::v1 as pb;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How often workers' rings are looked at.
const PACE: Duration = Duration::from_millis(5);
/// Sightings that a worker may be ahead of the reader.
const SIGHTINGS: usize = 4096;
/// Of them where whole packets are kept: 4 MiB of the largest frames.
const FRAMES: usize = 1024;
/// Bytes of a packet that its story is told from: the headers of a tunnel's packet.
const HEADERS: usize = 160;
/// The largest frame.
const FRAME: u32 = 4096;
/// Messages that wait to be read.
const UNREAD: usize = 8;
/// A packet that is made up is told of by then, wherever it waits.
const PROBE: Duration = Duration::from_secs(5);
/// Stories that have not ended. The oldest are told as they are.
const OPEN: usize = 8192;

/// What workers are given, and what they see.
pub struct Watching {
    /// One for each worker.
    pub watchers: Vec<Watcher>,
    /// A packet that is made up.
    pub probe: Option<crate::nodes::Probe>,
    sightings: Vec<Arc<Sightings>>,
}

impl Watching {
    /// Of this many workers.
    pub fn new(workers: usize, wanted: Wanted, request: &pb::WatchRequest) -> Self {
        let frames = request.rx || request.tx || request.drop;
        let bytes = match request.snap_length {
            _ if !frames => HEADERS,
            0 => FRAME as usize,
            // The words of its story are in the headers.
            asked => (asked.min(FRAME) as usize).max(HEADERS),
        };
        let interest = Interest {
            steps: request.steps,
            rx: request.rx,
            tx: request.tx,
            // Some are dropped before anything is known of them.
            drop: request.drop || request.steps,
        };
        let most = match request.count {
            _ if request.probe.is_some() => 0,
            0 => u64::MAX,
            // Who knows which of them will be dropped?
            _ if request.dropped_only => u64::MAX,
            count => count,
        };
        let (wanted, numbers) = (Arc::new(wanted), Arc::new(AtomicU16::new(1)));
        let count = if frames { FRAMES } else { SIGHTINGS };
        let sightings: Vec<_> = (0..workers).map(|_| Sightings::new(count, bytes)).collect();
        let watcher = |sightings: &Arc<Sightings>| {
            Watcher::new(wanted.clone(), interest, most, numbers.clone(), sightings.clone())
        };
        Self { watchers: sightings.iter().map(watcher).collect(), probe: None, sightings }
    }

    /// The ends of the rings that are to be read, one for each worker.
    pub fn sightings(&self) -> &[Arc<Sightings>] {
        &self.sightings
    }
}

/// Stories that are being told, by their packets' numbers.
#[derive(Default)]
pub struct Stories {
    open: BTreeMap<u16, Story>,
    /// They had ended when the rings were last looked at: nothing of them is under way in another ring.
    over: Vec<u16>,
}

impl Stories {
    /// Takes what workers have seen; gives what has ended.
    pub fn collect(&mut self, sightings: &[Arc<Sightings>]) -> Vec<Story> {
        for ring in sightings {
            while let Some(seen) = ring.next() {
                self.open.entry(seen.packet).or_default().add((*seen).clone());
                ring.give_back(seen);
            }
        }
        let over = std::mem::take(&mut self.over);
        let mut told: Vec<Story> = over.iter().filter_map(|number| self.open.remove(number)).collect();
        while self.open.len() > OPEN {
            told.extend(self.open.pop_first().map(|(_, story)| story));
        }
        let ended = self.open.iter().filter(|(_, story)| story.is_over());
        self.over = ended.map(|(number, _)| *number).collect();
        told
    }

    /// What has not ended.
    pub fn rest(self) -> Vec<Story> {
        self.open.into_values().collect()
    }
}

/// A stream of stories.
pub(super) type Told = ReceiverStream<Result<pb::WatchResponse, Status>>;

pub(super) async fn watch(service: &Service, request: pb::WatchRequest) -> Result<Told, Status> {
    if !(request.steps || request.rx || request.tx || request.drop) {
        return Err(Status::invalid_argument("ask for steps, rx, tx or drop, or for several of them"));
    }
    let asked = request.clone();
    let sightings = service.look(move |shell| begin(shell, &asked)).await??;
    let (sender, told) = mpsc::channel(UNREAD);
    let service = service.clone();
    tokio::spawn(async move {
        let outcome = tell(&service, &sightings, request, &sender).await;
        // On its way out: whoever comes next finds it free.
        let _ = service.look(Shell::unwatch).await;
        if let Err(status) = outcome {
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(told))
}

fn begin(shell: &mut Shell, request: &pb::WatchRequest) -> Result<Vec<Arc<Sightings>>, Status> {
    let wrong = |what: String| Status::invalid_argument(what);
    let filter = shell.packet_filter(&request.filter).map_err(|error| match error.missing {
        true => Status::not_found(error.to_string()),
        false => wrong(format!("filter: {error}")),
    })?;
    let program = watch_program(&request.program).map_err(|error| wrong(format!("program: {error}")))?;
    let mut watching = Watching::new(shell.workers().len(), Wanted { filter, program }, request);
    if let Some(asked) = &request.probe {
        watching.probe = Some(shell.probe(asked).map_err(|error| wrong(error.to_string()))?);
    }
    let sightings = watching.sightings().to_vec();
    shell.watch(watching).map_err(Status::failed_precondition)?;
    Ok(sightings)
}

/// What a request asks of frames; nothing, where there is no instruction.
///
/// # Errors
/// What is wrong with which instruction.
pub fn watch_program(instructions: &[pb::BpfInstruction]) -> Result<Option<Program>, String> {
    if instructions.is_empty() {
        return Ok(None);
    }
    let read = |(at, asked): (usize, &pb::BpfInstruction)| {
        let [code, jt, jf] = [("code", asked.code), ("jt", asked.jt), ("jf", asked.jf)];
        let long =
            |(name, value): (&str, u32)| format!("{name} of instruction {at} is {value}, which is too large");
        Ok(Instruction {
            code: code.1.try_into().map_err(|_| long(code))?,
            jt: jt.1.try_into().map_err(|_| long(jt))?,
            jf: jf.1.try_into().map_err(|_| long(jf))?,
            k: asked.k,
        })
    };
    let instructions: Vec<Instruction> =
        instructions.iter().enumerate().map(read).collect::<Result<_, String>>()?;
    Program::check(&instructions).map(Some).map_err(|error| error.to_string())
}

async fn tell(
    service: &Service,
    sightings: &[Arc<Sightings>],
    request: pb::WatchRequest,
    sender: &mpsc::Sender<Result<pb::WatchResponse, Status>>,
) -> Result<(), Status> {
    let request = Arc::new(request);
    let (mut stories, mut left) =
        (Stories::default(), if request.count == 0 { u64::MAX } else { request.count });
    let end = request.probe.is_some().then(|| Instant::now() + PROBE);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = (0, 0);
    loop {
        tokio::select! {
            () = sender.closed() => return Ok(()),
            _ = pace.tick() => {}
        }
        let mut ended = stories.collect(sightings);
        let late = end.is_some_and(|end| Instant::now() >= end);
        if late {
            ended.extend(std::mem::take(&mut stories).rest());
        }
        ended.retain(|story| !request.dropped_only || story.is_drop());
        ended.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let sum = |of: fn(&Sightings) -> u64| sightings.iter().map(|ring| of(ring)).sum::<u64>();
        let lost = (sum(Sightings::lost), sum(Sightings::passed_over));
        if !ended.is_empty() || lost != said {
            said = lost;
            left -= ended.len() as u64;
            let asked = request.clone();
            let packets = service.look(move |shell| shell.tell(&ended, &asked)).await?;
            let response = pb::WatchResponse { packets, lost: lost.0, passed_over: lost.1 };
            if sender.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        if left == 0 || late {
            return Ok(());
        }
    }
}
