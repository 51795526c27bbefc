//! Keeps BIRD's configuration like the store, and knows how its sessions are.

use super::{
    bird, socket,
    status::{SessionStatus, sessions},
};
use crate::{
    backoff::Backoff,
    calc::{Bgp, Calculated, Session},
    health::Health,
    task::Task,
};
use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

/// How often BIRD is asked how its sessions are.
const LOOK: Duration = Duration::from_secs(5);
/// How long BIRD may take to check a file.
const CHECK: Duration = Duration::from_secs(20);
/// Where the program may be, for an agent without system directories in its path.
const PROGRAMS: [&str; 2] = ["bird", "/usr/sbin/bird"];
/// From this code on an answer says that something is wrong.
const WRONG: u16 = 8000;

/// Which BIRD, and what it is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its configuration, which is written here.
    pub configuration: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
    /// The number of the kernel's table that its routes go to.
    pub table: u32,
}

/// A session: what it is for, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address at the other end.
    pub addr: IpAddr,
    /// The port at the other end.
    pub port: u16,
    /// What BIRD calls it.
    pub protocol: String,
    /// Who asks for it.
    pub session: Session,
    /// As BIRD has it; none: it has no such session.
    pub status: Option<SessionStatus>,
}

/// The driver of one BIRD. It ends when this is dropped; BIRD goes on.
pub struct Bird {
    settings: Settings,
    desired: watch::Receiver<Option<Calculated>>,
    health: Arc<Health>,
    _task: Task,
}

impl Bird {
    /// Follows what `desired` says of BGP. Must be called within a Tokio runtime.
    pub fn start(settings: Settings, desired: watch::Receiver<Option<Calculated>>, backoff: Backoff) -> Self {
        let health = Arc::new(Health::starting("bgp", "nothing has been calculated yet"));
        let driver = Driver {
            settings: settings.clone(),
            desired: desired.clone(),
            health: health.clone(),
            in_force: None,
        };
        let _task = Task::spawn(driver.run(backoff));
        Self { settings, desired, health, _task }
    }

    /// Whether BIRD does what it should, and which sessions are not established.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The number of the kernel's table that routes go to.
    pub fn table(&self) -> u32 {
        self.settings.table
    }

    /// How this node speaks BGP; none: it is not known.
    pub fn wanted(&self) -> Option<Arc<Bgp>> {
        wanted(&self.desired)
    }

    /// Every session, as it is now.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub async fn peers(&self) -> io::Result<Vec<Peer>> {
        let Some(bgp) = self.wanted() else { return Ok(Vec::new()) };
        look(&self.settings.socket, &bgp).await
    }
}

fn wanted(desired: &watch::Receiver<Option<Calculated>>) -> Option<Arc<Bgp>> {
    desired.borrow().as_ref().and_then(|latest| latest.desired.bgp.clone())
}

async fn look(socket: &Path, bgp: &Bgp) -> io::Result<Vec<Peer>> {
    let mut known = sessions(&socket::ask(socket, "show protocols all").await?);
    let peers = bgp.sessions.iter().map(|((addr, port), session)| {
        let protocol = bird::protocol_name(*addr, *port);
        let status = known.remove(&protocol);
        Peer { addr: *addr, port: *port, protocol, session: session.clone(), status }
    });
    Ok(peers.collect())
}

struct Driver {
    settings: Settings,
    desired: watch::Receiver<Option<Calculated>>,
    health: Arc<Health>,
    /// What BIRD was told and took. It reads the file itself when it starts.
    in_force: Option<String>,
}

impl Driver {
    async fn run(mut self, mut backoff: Backoff) {
        loop {
            self.desired.mark_unchanged();
            let done = self.turn().await;
            let again = match done {
                Ok(()) => {
                    backoff.reset();
                    LOOK
                }
                Err(why) => {
                    self.health.bad(why);
                    Duration::ZERO
                }
            };
            let changed = tokio::select! {
                changed = self.desired.changed() => changed,
                () = tokio::time::sleep(again), if !again.is_zero() => Ok(()),
                () = backoff.pause(), if again.is_zero() => Ok(()),
            };
            if changed.is_err() {
                // Nobody calculates any more: the agent is shutting down.
                return;
            }
        }
    }

    /// Has BIRD take what is wanted, and looks how its sessions are.
    async fn turn(&mut self) -> Result<(), String> {
        if self.desired.borrow().is_none() {
            return Ok(());
        }
        let Some(bgp) = wanted(&self.desired) else {
            return Err("this node has no Node object; what BIRD has stays".into());
        };
        let text = bird::configuration(&bgp, self.settings.table);
        if self.in_force.as_deref() != Some(&text) {
            self.write(&text).await?;
            self.reconfigure().await?;
            self.in_force = Some(text);
            tracing::info!(sessions = bgp.sessions.len(), "BIRD was configured");
        }
        let socket = &self.settings.socket;
        let peers = look(socket, &bgp).await.map_err(|error| unreachable(socket, &error))?;
        let down: Vec<_> = peers.iter().filter_map(trouble).collect();
        match (bgp.problems.as_slice(), down.as_slice()) {
            ([], []) => {
                self.health.good(format!("{} sessions established", peers.len()));
            }
            (problems, down) => {
                let all: Vec<_> = problems.iter().chain(down).map(String::as_str).collect();
                self.health.bad(all.join("; "));
            }
        }
        Ok(())
    }

    /// The file holds the old text or the new one, and the new one only if BIRD can read it.
    async fn write(&self, text: &str) -> Result<(), String> {
        let path = &self.settings.configuration;
        if fs::read_to_string(path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let failed = |what: &Path, error: io::Error| format!("{} cannot be written: {error}", what.display());
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let written = || {
            // BIRD may have given up being root; there is nothing secret in it.
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        written().map_err(|error| failed(&new, error))?;
        check(&new).await?;
        fs::rename(&new, path).map_err(|error| failed(path, error))
    }

    async fn reconfigure(&self) -> Result<(), String> {
        let socket = &self.settings.socket;
        let answer = socket::ask(socket, "configure").await.map_err(|error| unreachable(socket, &error))?;
        match answer.iter().find(|line| line.code >= WRONG) {
            Some(line) => Err(format!("BIRD refuses its configuration: {}", line.text)),
            None => Ok(()),
        }
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> String {
    format!(
        "BIRD cannot be reached at {}: {error}; is it running, and may we use its socket?",
        socket.display()
    )
}

/// A session that is not established, and why.
fn trouble(peer: &Peer) -> Option<String> {
    let who = format!("the session with {} ({})", peer.addr, peer.session.object);
    match &peer.status {
        Some(status) if status.is_established() => None,
        Some(SessionStatus { state, error, .. }) if error.is_empty() => Some(format!("{who} is {state}")),
        Some(SessionStatus { state, error, .. }) => Some(format!("{who} is {state}: {error}")),
        None => Some(format!("{who} is unknown to BIRD: does it read our file?")),
    }
}

/// Has BIRD's parser read the file, where there is one: BIRD may run elsewhere, with nothing here but its socket.
async fn check(file: &Path) -> Result<(), String> {
    for program in PROGRAMS {
        let path = file.to_owned();
        let run = move || Command::new(program).arg("-p").arg("-c").arg(path).stdin(Stdio::null()).output();
        let output = match timeout(CHECK, spawn_blocking(run)).await {
            Ok(Ok(Ok(output))) => output,
            Ok(Ok(Err(error))) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(Ok(Err(error))) => return Err(format!("{program} cannot be run: {error}")),
            Ok(Err(_)) | Err(_) => return Err(format!("{program} did not check {} in time", file.display())),
        };
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("BIRD cannot read {}, which is not used: {}", file.display(), said.trim()));
    }
    Ok(())
}
