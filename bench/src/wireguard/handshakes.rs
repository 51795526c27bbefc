//! Handshakes: how many can be answered, and what those cost that nobody wants.

use super::node::{Node, moment};
use super::other::Boringtun;
use crate::Common;
use crate::measure::{Figures, Sample, Spread, fill};
use crate::random::Random;
use anyhow::{Context, Result, ensure};
use margay_dataplane::net::Nanos;
use margay_dataplane::wireguard::{Event, Interface, KeyPair, PeerSettings, Refused, Secret};
use margay_dataplane::worker::ticks;
use std::net::SocketAddr;
use std::time::Duration;

/// Messages prepared at a time.
const LAP: usize = 64;
/// Bogus ones in a lap: so cheap to refuse that as many could not be prepared for each.
const FLOOD: usize = 2_048;

type Turn = Box<dyn FnMut() -> Result<Sample>>;

/// Measures all cases in turns.
pub fn run(common: &Common) -> Result<Vec<Figures>> {
    let mut cases: Vec<(&str, Turn)> = vec![];
    let [mut ours, mut theirs] = [Ours::new()?, Ours::new()?];
    let wrong = theirs.wrong()?;
    let (mut boringtun, mut refusing) = (Boringtun::strangers(), Boringtun::strangers());
    cases.push(("initiation answered", Box::new(move || ours.answers())));
    cases.push(("initiation answered, boringtun", Box::new(move || answers(&mut boringtun))));
    cases.push(("wrong first code", Box::new(move || theirs.refused(&wrong, Refused::NotForUs))));
    cases.push(("wrong first code, boringtun", Box::new(move || refuses(&mut refusing))));
    let mut flooded = Ours::new()?;
    cases.push(("cookie sent under load", Box::new(move || flooded.asks_for_proof())));
    for (name, right) in
        [("on the worker: bogus initiation", true), ("on the worker: wrong first code", false)]
    {
        let mut node = Node::new(1, 256, ticks)?;
        let lap = node.bogus(right, FLOOD)?;
        cases.push((
            name,
            Box::new(move || {
                let sample = Sample::of(|| node.take(&lap));
                ensure!(node.listen() > 0, "they are for the control side");
                Ok(sample)
            }),
        ));
    }
    let span = Duration::from_secs_f64(common.seconds / f64::from(common.rounds));
    let mut rounds: Vec<Vec<Sample>> = cases.iter().map(|_| vec![]).collect();
    for _ in 0..common.rounds {
        for ((_, turn), rounds) in cases.iter_mut().zip(&mut rounds) {
            rounds.push(fill(span, turn)?);
        }
    }
    let figures = |((case, _), rounds): ((&str, Turn), Vec<Sample>)| Figures {
        case: case.to_owned(),
        nanos: Spread::of(rounds.iter().map(Sample::nanos_each)),
        cycles: Spread::of(rounds.iter().map(Sample::cycles_each)),
    };
    Ok(cases.into_iter().zip(rounds).map(figures).collect())
}

/// One of ours that begins, and one that answers.
struct Ours {
    ends: [Interface; 2],
    random: Random,
    /// So much apart that there is no load.
    now: Nanos,
}

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 51_820);

impl Ours {
    fn new() -> Result<Self> {
        let mut ends = [3, 5].map(|key| Interface::new(KeyPair::new(&[key; 32])));
        let public = [ends[1].public(), ends[0].public()];
        for (end, public) in ends.iter_mut().zip(public) {
            let settings =
                PeerSettings { public, preshared: Secret::default(), endpoint: Some(HERE), keepalive: None };
            end.set_peer(&settings, Nanos(0))?;
        }
        Ok(Self { ends, random: Random::new(3), now: Nanos::from_secs(1) })
    }

    fn initiations(&mut self, count: usize) -> Result<Vec<(Nanos, Vec<u8>)>> {
        let to = self.ends[1].public();
        let mut all = vec![];
        while all.len() < count {
            self.now = self.now.plus(Nanos::from_secs(6));
            self.ends[0].want_session(to, moment(self.now), &mut self.random);
            let message = self.ends[0].events().find_map(sent).context("it begins")?;
            all.push((self.now, message));
        }
        Ok(all)
    }

    fn answers(&mut self) -> Result<Sample> {
        let initiations = self.initiations(LAP)?;
        let mut answered = 0;
        let sample = Sample::of(|| {
            for (now, initiation) in &initiations {
                let received = self.ends[1].receive(initiation, HERE, moment(*now), &mut self.random);
                answered += usize::from(received.is_ok() && self.ends[1].events().any(|e| sent(e).is_some()));
            }
            LAP as u64
        });
        ensure!(answered == LAP, "each is answered");
        Ok(sample)
    }

    /// Initiations that are for somebody else. They leave no trace: the same ones do for every lap.
    fn wrong(&mut self) -> Result<Vec<(Nanos, Vec<u8>)>> {
        let mut initiations = self.initiations(LAP)?;
        initiations.iter_mut().for_each(|(_, message)| message[116] ^= 1);
        Ok(initiations.into_iter().cycle().take(FLOOD).collect())
    }

    /// The first code is right, and there is load; the second code is missing.
    fn asks_for_proof(&mut self) -> Result<Sample> {
        let many = vec![self.initiations(1)?.remove(0); FLOOD];
        for (now, message) in &many {
            let _ = self.ends[1].receive(message, HERE, moment(*now), &mut self.random);
        }
        let _ = self.ends[1].events().count();
        self.refused(&many, Refused::Busy)
    }

    fn refused(&mut self, messages: &[(Nanos, Vec<u8>)], why: Refused) -> Result<Sample> {
        let mut refused = 0;
        let sample = Sample::of(|| {
            for (now, message) in messages {
                let received = self.ends[1].receive(message, HERE, moment(*now), &mut self.random);
                refused += usize::from(received == Err(why));
                let _ = self.ends[1].events().count();
            }
            messages.len() as u64
        });
        ensure!(refused == messages.len(), "all are refused as they should be");
        Ok(sample)
    }
}

fn sent(event: Event) -> Option<Vec<u8>> {
    if let Event::Send { message, .. } = event { Some(message) } else { None }
}

fn answers(pair: &mut Boringtun) -> Result<Sample> {
    let initiations = (0..LAP).map(|_| pair.initiation()).collect::<Result<Vec<_>>>()?;
    let mut outcome = Ok(vec![]);
    let sample = Sample::of(|| {
        for initiation in &initiations {
            outcome = pair.answer(initiation);
            if outcome.is_err() {
                break;
            }
        }
        LAP as u64
    });
    outcome.map(|_| sample)
}

fn refuses(pair: &mut Boringtun) -> Result<Sample> {
    let mut message = pair.initiation()?;
    message[116] ^= 1;
    let mut outcome = Ok(());
    let sample = Sample::of(|| {
        for _ in 0..FLOOD {
            outcome = pair.refuse(&message);
        }
        FLOOD as u64
    });
    outcome.map(|()| sample)
}
