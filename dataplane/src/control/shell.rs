//! The hands of the control thread: one task that owns the [`State`] and all devices, and does
//! what news from the agent, the kernel, the workers and the clock asks for.

mod routes;
mod told;
mod views;
mod watched;
mod wireguard;

pub use told::Lost;

use super::denials::Denials;
use super::desired::{EndpointId, ObjectError};
use super::flows::{Asked, Questions};
use super::kernel_routes::KernelRoutes;
use super::metrics::Timings;
use super::ports::Ports;
use super::staged::Differences;
use super::state::{Action, Purpose, State};
use super::wireguard::KeyFile;
use crate::io::af_xdp::Ours;
use crate::io::netlink::{Address, Event as KernelEvent, Events, Link, Neighbour, NeighbourState, Netlink};
use crate::net::{IfId, Nanos};
use crate::nodes::Event;
use crate::policy::{CompileError, Consolidated};
use crate::worker::ticks;
use margay_api::dataplane::v1 as pb;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use told::Losses;

/// How often workers' rings are looked at.
const PACE: Duration = Duration::from_millis(5);
/// How soon it is looked whether workers have adopted what was committed: agents wait for that.
const ADOPTION: Duration = Duration::from_millis(1);
/// How often time passes for neighbours, and failed interfaces are tried again.
const TICK: Duration = Duration::from_secs(1);

/// Events of the kernel that are followed before the rest has its turn.
const MAX_EVENTS: usize = 4096;

/// Something to be done on the control thread.
pub enum Request {
    /// A new agent's stream. Answers with its number and what was adopted before.
    Begin(oneshot::Sender<Begun>),
    /// A transaction of stream `session`.
    Commit {
        /// Its number.
        session: u64,
        /// What changes.
        changes: Vec<pb::Change>,
        /// How it ends.
        commit: pb::Commit,
        /// Whether it was applied.
        done: oneshot::Sender<Result<(), CommitError>>,
    },
    /// Stream `session` has ended.
    End(u64),
    /// Asks a worker about its flows. Without an answer where too many ask already.
    Flows(Asked),
    /// Looks at the shell.
    Look(Box<dyn FnOnce(&mut Shell) + Send>),
}

/// What a new stream is told.
pub struct Begun {
    /// Its number: the largest is the one in force.
    pub session: u64,
    /// Its first message.
    pub hello: pb::Hello,
    /// Every endpoint's status now, and changes from now on.
    pub statuses: (Vec<pb::EndpointStatus>, broadcast::Receiver<pb::EndpointStatus>),
    /// The generation adopted, as it grows.
    pub adopted: watch::Receiver<u64>,
    /// The number of the stream in force.
    pub sessions: watch::Receiver<u64>,
}

/// Why a transaction was not applied.
pub enum CommitError {
    /// A newer stream is in force.
    Superseded,
    /// Objects were refused.
    Refused(Vec<ObjectError>),
}

/// The shell.
pub struct Shell {
    state: State,
    ports: Ports,
    netlink: Netlink,
    links: BTreeMap<u32, Link>,
    addresses: Vec<Address>,
    kernel_routes: KernelRoutes,
    /// They are to be asked for anew.
    routes_unclear: bool,
    key_file: KeyFile,
    /// Why there is no key of WireGuard's, though there is need of one.
    keyless: String,
    /// Why an interface is not served.
    reasons: BTreeMap<IfId, String>,
    /// Interfaces that could not be opened are to be tried again.
    retry: bool,
    /// Something happened that interfaces may have to follow.
    unsettled: bool,
    denials: Denials,
    timings: Timings,
    differences: Differences,
    questions: Questions,
    /// None of the interfaces is up whose MTU was to count, and that was said.
    without_links: bool,
    /// Somebody traces or captures.
    watched: bool,
    /// The number of the newest reader of flows.
    flow_reader: watch::Sender<u64>,
    losses: Losses,
    statuses: BTreeMap<EndpointId, pb::EndpointStatus>,
    /// What uplinks were told to leave to us.
    ours: Ours,
    /// Tables of backends are being made.
    building: Option<JoinHandle<()>>,
    session: u64,
    agent_connected: bool,
    last_refused: Option<pb::Refused>,
    /// Rule lists in a slower form, because of the ceiling on memory.
    compact_lists: usize,
    tell_status: broadcast::Sender<pb::EndpointStatus>,
    tell_adopted: watch::Sender<u64>,
    tell_session: watch::Sender<u64>,
    started: Instant,
    started_ticks: u64,
}

impl Shell {
    /// Asks the kernel for what is there. `state` already wants the uplinks and the host port.
    pub async fn new(
        state: State,
        ports: Ports,
        netlink: Netlink,
        kernel_routes: KernelRoutes,
        key_file: KeyFile,
    ) -> anyhow::Result<Self> {
        let mut shell = Self {
            state,
            ports,
            netlink,
            links: BTreeMap::new(),
            addresses: vec![],
            kernel_routes,
            routes_unclear: false,
            key_file,
            keyless: String::new(),
            reasons: BTreeMap::new(),
            retry: false,
            unsettled: true,
            denials: Denials::default(),
            timings: Timings::default(),
            differences: Differences::default(),
            questions: Questions::default(),
            without_links: false,
            watched: false,
            flow_reader: watch::Sender::new(0),
            losses: Losses::default(),
            statuses: BTreeMap::new(),
            ours: Ours::default(),
            building: None,
            session: 0,
            agent_connected: false,
            last_refused: None,
            compact_lists: 0,
            tell_status: broadcast::channel(1024).0,
            tell_adopted: watch::channel(0).0,
            tell_session: watch::channel(0).0,
            started: Instant::now(),
            started_ticks: ticks(),
        };
        shell.survey().await?;
        Ok(shell)
    }

    /// Works until the last sender of `requests` is gone.
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>, mut events: Events) {
        let mut pace = tokio::time::interval(PACE);
        let mut tick = tokio::time::interval(TICK);
        for interval in [&mut pace, &mut tick] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        }
        let mut following = true;
        // A list that is compiled whole beside.
        let mut compiling: Option<JoinHandle<Result<Consolidated, CompileError>>> = None;
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => break,
                },
                event = events.next(), if following => match event {
                    Some(event) => {
                        self.kernel(event).await;
                        // Thousands of routes come at once: they are published together.
                        for _ in 1..MAX_EVENTS {
                            let Some(event) = events.ready() else { break };
                            self.kernel(event).await;
                        }
                        self.catch_up().await;
                    }
                    None => {
                        tracing::error!("E001 the kernel's netlink socket is gone; links and neighbours are no longer followed");
                        // The rest goes on: what is forwarded stays forwarded.
                        following = false;
                    }
                },
                done = async { compiling.as_mut().expect("polled only where there is one").await }, if compiling.is_some() => {
                    compiling = None;
                    self.consolidated(done);
                }
                _ = pace.tick() => self.listen_to_workers().await,
                _ = tokio::time::sleep(ADOPTION), if self.state.committed() > *self.tell_adopted.borrow() => {}
                _ = tick.tick() => self.pass_time().await,
            }
            if compiling.is_none() {
                let work = self.state.consolidation(self.now());
                compiling = work.map(|work| tokio::task::spawn_blocking(move || work.run()));
            }
            self.settle().await;
        }
    }

    fn now(&self) -> Nanos {
        Nanos(self.started.elapsed().as_nanos() as u64)
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Begin(reply) => {
                self.session += 1;
                self.agent_connected = true;
                self.state.begin();
                self.tell_session.send_replace(self.session);
                let begun = Begun {
                    session: self.session,
                    hello: pb::Hello {
                        version: env!("CARGO_PKG_VERSION").into(),
                        adopted_generation: self.state.adopted(),
                        workers: self.ports.workers().len() as u32,
                    },
                    statuses: (self.statuses.values().cloned().collect(), self.tell_status.subscribe()),
                    adopted: self.tell_adopted.subscribe(),
                    sessions: self.tell_session.subscribe(),
                };
                // Gone already: its End follows.
                let _ = reply.send(begun);
            }
            Request::Commit { session, changes, commit, done } => {
                let outcome = if session == self.session {
                    self.commit(&changes, &commit)
                } else {
                    Err(CommitError::Superseded)
                };
                let _ = done.send(outcome);
            }
            Request::End(session) if session == self.session => self.agent_connected = false,
            Request::End(_) => {}
            Request::Flows(asked) => self.questions.ask(&self.ports, asked),
            Request::Look(look) => look(self),
        }
    }

    fn commit(&mut self, changes: &[pb::Change], commit: &pb::Commit) -> Result<(), CommitError> {
        let (now, from) = (self.now(), Instant::now());
        match self.state.commit(changes, commit, now) {
            Ok(()) => {
                self.timings.committed(commit.generation, from);
                tracing::debug!(generation = commit.generation, in_sync = commit.in_sync, "committed");
                self.warn_of_memory();
                self.ports.wake_all();
                Ok(())
            }
            Err(errors) => {
                for error in &errors {
                    tracing::warn!(object = error.object, error = %error.error, "W005 the transaction was refused; the last generation stays in force");
                }
                let refused = errors.iter().cloned().map(Into::into).collect();
                self.last_refused = Some(pb::Refused { generation: commit.generation, errors: refused });
                Err(CommitError::Refused(errors))
            }
        }
    }

    fn warn_of_memory(&mut self) {
        let (memory, ceiling) = (self.state.policy().memory(), self.state.policy().ceiling());
        if memory.compact > self.compact_lists {
            tracing::warn!(
                lists = memory.compact,
                bytes = memory.bytes,
                ceiling = ceiling.table,
                list_ceiling = ceiling.list,
                "W010 rule lists that would pass the ceiling on memory are compiled in a slower form; raise --policy-memory or --policy-list-memory"
            );
        }
        self.compact_lists = memory.compact;
    }

    fn consolidated(&mut self, done: Result<Result<Consolidated, CompileError>, JoinError>) {
        let done = match done {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) => {
                tracing::warn!(%error, "W009 a patched policy could not be compiled whole; its patches stay in force");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "W009 a patched policy could not be compiled whole; its patches stay in force");
                None
            }
        };
        self.state.consolidated(done.as_ref());
    }

    /// Brings the world in line with the state after any news.
    async fn settle(&mut self) {
        // Thousands of transactions a second may change members of sets, and nothing else.
        let unsettled = std::mem::take(&mut self.unsettled) | self.state.take_moved();
        if unsettled {
            self.reconcile();
        }
        if unsettled {
            self.find_key();
        }
        if self.state.publish() {
            self.ports.wake_all();
        }
        if self.ports.take_commands() {
            let forgotten = self.state.take_forgotten();
            if !forgotten.is_empty() {
                self.ports.forget_flows(&forgotten);
            }
        }
        if unsettled {
            let ours = self.state.ours();
            if ours != self.ours {
                self.ours = ours;
                self.leave_ours();
            }
            self.tell_statuses();
        }
        self.build_tables();
        let adopted = self.state.adopted();
        self.timings.adopted(adopted);
        self.tell_adopted.send_if_modified(|told| std::mem::replace(told, adopted) != adopted);
    }

    /// Has tables of backends made beside. They take effect by themselves.
    fn build_tables(&mut self) {
        if self.building.as_ref().is_some_and(|building| !building.is_finished()) {
            return;
        }
        let unbuilt = self.state.take_unbuilt();
        self.building = (!unbuilt.is_empty())
            .then(|| tokio::task::spawn_blocking(move || unbuilt.iter().for_each(|set| set.build())));
    }

    fn look_for_named_links(&mut self) {
        let lacks = self.state.lacks_named_links();
        if lacks && !self.without_links {
            tracing::warn!(
                "W017 no interface that is up has a name that mtuIfacePattern matches: 1460 is taken for their MTU"
            );
        }
        self.without_links = lacks;
    }

    fn leave_ours(&mut self) {
        self.ports.set_ours(&self.ours);
    }

    // ---- Interfaces.

    /// Opens what is wanted and there, closes what is not wanted or gone.
    fn reconcile(&mut self) {
        self.look_for_named_links();
        let retry = std::mem::take(&mut self.retry);
        let wanted: BTreeMap<IfId, (Arc<str>, Purpose, bool)> = self
            .state
            .wanted()
            .map(|(id, name, purpose, served)| (id, (name.clone(), purpose.clone(), served)))
            .collect();
        self.reasons.retain(|id, _| wanted.contains_key(id));
        for id in self.ports.ids() {
            let Some(served) = self.ports.served(id) else { continue };
            let there = self.links.get(&served.index).filter(|link| *link.name == *served.name);
            let guards = match wanted.get(&id) {
                Some((_, Purpose::Stack { uplink }, _)) => {
                    let uplink = self.ports.index(uplink);
                    uplink.is_some() && self.ports.guards(id) == uplink
                }
                _ => true,
            };
            let unchanged = |link: &Link, purpose: &Purpose| {
                // News of a tap that we just made may be from before it was ready.
                purpose.is_tap() || link.up && link.mtu == served.mtu && link.mac == served.mac
            };
            let keep = guards
                && wanted.get(&id).is_some_and(|(name, purpose, _)| {
                    *name == served.name && there.is_some_and(|link| unchanged(link, purpose))
                });
            if !keep {
                tracing::info!(interface = &*served.name, "closing");
                let guarded = self.ports.guards(id).is_some();
                self.ports.close(id);
                self.state.detached(id);
                if guarded {
                    self.leave_ours();
                }
            }
        }
        for (id, (name, purpose, served)) in wanted {
            if served || self.ports.ids().contains(&id) {
                continue;
            }
            let link = self.links.values().find(|link| *link.name == *name).cloned();
            let outcome = match link {
                // The host port is made by opening it.
                None if purpose.is_tap() => self.open(id, new_link(&name), &purpose),
                None => Err("there is no such interface".into()),
                Some(link) if !link.up && !purpose.is_tap() => {
                    Err("the interface is down; set it up, and its other end".into())
                }
                Some(_) if self.reasons.contains_key(&id) && !retry => continue,
                Some(link) => self.open(id, link, &purpose),
            };
            match outcome {
                Ok(()) => drop(self.reasons.remove(&id)),
                Err(reason) => {
                    if self.reasons.insert(id, reason.clone()).as_ref() != Some(&reason) {
                        tracing::warn!(interface = &*name, reason, "W006 the interface is not served");
                    }
                }
            }
        }
    }

    fn open(&mut self, id: IfId, link: Link, purpose: &Purpose) -> Result<(), String> {
        // May wait for the kernel to let go of an earlier socket.
        let link = tokio::task::block_in_place(|| self.ports.open(id, link, purpose))?;
        let mode = self.ports.served(id).map(|served| served.mode.clone()).unwrap_or_default();
        tracing::info!(interface = link.name, mode, "serving");
        // The kernel's word of it may come later; it is not gone meanwhile.
        self.links.insert(link.index, link);
        self.refresh_facts(id, purpose);
        if matches!(purpose, Purpose::Uplink { .. } | Purpose::Stack { .. }) {
            self.leave_ours();
        }
        Ok(())
    }

    fn refresh_facts(&mut self, id: IfId, purpose: &Purpose) {
        let now = self.now();
        if let Some(facts) = self.ports.facts(id, purpose, &self.addresses) {
            for (vlan, name) in self.state.vlans_on(id) {
                // The kernel's own VLAN interface has the addresses, and resolves the neighbours.
                let index = self.links.values().find(|link| *link.name == *name).map(|link| link.index);
                let of = |address: &&Address| Some(address.link) == index;
                let own = self.addresses.iter().filter(of).map(|a| (a.addr, a.prefix_len)).collect();
                self.state.attached(vlan, super::state::Facts { addresses: own, ..facts.clone() }, now);
            }
            self.state.attached(id, facts, now);
        }
    }

    fn refresh_uplinks(&mut self) {
        // A link-local address is the host's on its own link only: uplinks' are among their facts.
        let own = self.addresses.iter().map(|address| address.addr);
        self.state.set_host_addresses(own.filter(|addr| !addr.is_loopback() && !addr.is_link_local()));
        let uplinks: Vec<(IfId, Purpose)> = self
            .state
            .wanted()
            .filter(|(_, _, purpose, _)| matches!(purpose, Purpose::Uplink { .. }))
            .map(|(id, _, purpose, _)| (id, purpose.clone()))
            .collect();
        for (id, purpose) in uplinks {
            self.refresh_facts(id, &purpose);
        }
    }

    // ---- The kernel.

    /// Asks for everything: at the start, and when events were lost.
    async fn survey(&mut self) -> Result<(), crate::io::netlink::NetlinkError> {
        self.links = self.netlink.links().await?.into_iter().map(|link| (link.index, link)).collect();
        self.tell_links();
        self.addresses = self.netlink.addresses().await?;
        self.refresh_uplinks();
        for neighbour in self.netlink.neighbours().await? {
            self.neighbour(neighbour);
        }
        self.ask_routes();
        self.survey_routes().await
    }

    /// Asks for what events alone do not tell.
    async fn catch_up(&mut self) {
        if let Err(error) = self.survey_routes().await {
            tracing::warn!(%error, "W019 the kernel's routes could not be listed; what is known may be old");
        }
    }

    async fn kernel(&mut self, event: KernelEvent) {
        let of_route = matches!(event, KernelEvent::Route(_) | KernelEvent::RouteRemoved(_));
        self.unsettled |= !of_route;
        match event {
            KernelEvent::Link(link) => {
                // An interface that changed may open now.
                let before = self.links.insert(link.index, link.clone());
                self.retry |= before.as_ref() != Some(&link);
                self.link_moved(before.as_ref(), Some(&link));
            }
            KernelEvent::LinkRemoved(index) => {
                let before = self.links.remove(&index);
                self.link_moved(before.as_ref(), None);
            }
            KernelEvent::Address(address) => {
                self.addresses.retain(|known| (known.link, known.addr) != (address.link, address.addr));
                self.addresses.push(address);
                self.refresh_uplinks();
            }
            KernelEvent::AddressRemoved(address) => {
                self.addresses.retain(|known| (known.link, known.addr) != (address.link, address.addr));
                self.refresh_uplinks();
                self.ask_routes();
            }
            KernelEvent::Route(route) => {
                let follow = self.kernel_routes.there(route);
                self.follow_route(follow);
            }
            KernelEvent::RouteRemoved(route) => {
                let follow = self.kernel_routes.gone(&route);
                self.follow_route(follow);
            }
            KernelEvent::RouteAppended => self.ask_routes(),
            KernelEvent::Neighbour(neighbour) => self.neighbour(neighbour),
            KernelEvent::Lost => {
                if let Err(error) = self.survey().await {
                    tracing::warn!(%error, "W007 the kernel's links could not be listed; what is known may be old");
                }
            }
        }
    }

    fn neighbour(&mut self, neighbour: Neighbour) {
        let Some(link) = self.links.get(&neighbour.link) else { return };
        let Some(id) = self.state.uplink(&link.name) else { return };
        let now = self.now();
        match neighbour.state {
            NeighbourState::Resolved(mac) => self.state.kernel_neighbour(id, neighbour.addr, Some(mac), now),
            NeighbourState::Failed | NeighbourState::Unknown => {
                self.state.kernel_neighbour(id, neighbour.addr, None, now);
            }
            NeighbourState::Resolving => {}
        }
    }

    // ---- Workers and the clock.

    async fn listen_to_workers(&mut self) {
        let now = self.now();
        for at in 0..self.ports.workers().len() {
            while let Some(event) = self.ports.workers()[at].events.pop() {
                warn_of(&event);
                self.denials.note(&event, &self.state);
                self.differences.note(&event, &self.state);
                if let Some(action) = self.state.event(&event, now) {
                    self.act(action).await;
                }
            }
        }
        self.pass_wireguard(now).await;
        for id in self.ports.collect() {
            self.state.released(id, now);
        }
        for (worker, page) in self.ports.take_shown() {
            self.questions.answered(worker, page);
        }
        self.questions.go_on(&self.ports);
    }

    async fn pass_time(&mut self) {
        let now = self.now();
        for action in self.state.tick(now) {
            self.act(action).await;
        }
        self.denials.fold(self.state.take_retired_trees());
        self.retry = true;
        self.unsettled = true;
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Send { interface, frame } | Action::Announce { interface, frame } => {
                self.ports.send(interface, frame);
            }
            Action::Resolve { interface, addr } => {
                let Some(link) = self.links.values().find(|link| *link.name == *interface) else { return };
                if let Err(error) = self.netlink.resolve(link.index, addr).await {
                    tracing::warn!(%error, %addr, "W008 the kernel does not resolve a neighbour");
                }
            }
        }
    }

    fn tell_statuses(&mut self) {
        let mut statuses = BTreeMap::new();
        for (id, endpoint) in &self.state.desired().endpoints {
            let reason = self.state.id(&endpoint.interface).and_then(|id| self.reasons.get(&id));
            let (state, reason) = match (self.state.endpoint_up(id), reason) {
                (true, _) => (pb::endpoint_status::State::Up, ""),
                (false, Some(reason)) => (pb::endpoint_status::State::Down, reason.as_str()),
                (false, None) => (pb::endpoint_status::State::Down, "not served yet"),
            };
            let status = pb::EndpointStatus {
                id: Some(id.clone().into()),
                state: state.into(),
                reason: reason.to_owned(),
            };
            if self.statuses.get(id) != Some(&status) {
                // Nobody listens: they will ask when they come.
                let _ = self.tell_status.send(status.clone());
            }
            statuses.insert(id.clone(), status);
        }
        self.statuses = statuses;
    }
}

/// Says what an operator should know of at once.
fn warn_of(event: &Event) {
    match event {
        Event::TableFull { worker } => tracing::warn!(
            worker = worker.0,
            "W011 a worker's flow table is full of established flows and new ones are refused; raise --flows, or find who opens so many with margayctl dp drops"
        ),
        Event::NatExhausted { worker } => tracing::warn!(
            worker = worker.0,
            "W012 no port is free to leave the node with towards some server, and flows to it are refused; widen natPortRange, or find who opens so many with margayctl conntrack top"
        ),
        _ => {}
    }
}

/// A link that is made by opening it.
fn new_link(name: &str) -> Link {
    Link { index: 0, name: name.to_owned(), mac: Default::default(), mtu: 1500, up: true }
}
