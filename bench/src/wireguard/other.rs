//! boringtun beside ours: the whole of what it does with a packet, in memory.

use super::node::plain;
use anyhow::{Result, ensure};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use margay_dataplane::net::Mac;
use std::sync::Arc;

/// Room for a message.
const ROOM: usize = 2_048;

/// Two ends of tunnels that have shaken hands.
pub struct Boringtun {
    /// Of each tunnel.
    ends: Vec<[Tunn; 2]>,
    room: Vec<u8>,
}

impl Boringtun {
    /// So many tunnels, each with a session. Which one is next it is told: it need not find it.
    pub fn new(tunnels: usize) -> Result<Self> {
        let mut all = Self { ends: vec![], room: vec![] };
        for _ in 0..tunnels {
            let mut pair = Self::strangers();
            let initiation = pair.initiation()?;
            let response = pair.answer(&initiation)?;
            let TunnResult::WriteToNetwork(confirmation) =
                pair.ends[0][0].decapsulate(None, &response, &mut pair.room)
            else {
                anyhow::bail!("the response is genuine");
            };
            let confirmation = confirmation.to_vec();
            let done = pair.ends[0][1].decapsulate(None, &confirmation, &mut pair.room);
            ensure!(matches!(done, TunnResult::Done));
            all.ends.append(&mut pair.ends);
            all.room = pair.room;
        }
        Ok(all)
    }

    /// One without a session.
    pub fn strangers() -> Self {
        let keys = [StaticSecret::from([3; 32]), StaticSecret::from([5; 32])];
        let public = [PublicKey::from(&keys[0]), PublicKey::from(&keys[1])];
        let [a, b] = keys;
        // Never under load.
        let limiter = |own: usize| Some(Arc::new(RateLimiter::new(&public[own], u64::MAX)));
        let ends = [
            Tunn::new(a, public[1], None, None, 1, limiter(0)),
            Tunn::new(b, public[0], None, None, 2, limiter(1)),
        ];
        Self { ends: vec![ends], room: vec![0; ROOM] }
    }

    /// The first end begins a handshake.
    pub fn initiation(&mut self) -> Result<Vec<u8>> {
        match self.ends[0][0].format_handshake_initiation(&mut self.room, true) {
            TunnResult::WriteToNetwork(initiation) => Ok(initiation.to_vec()),
            other => anyhow::bail!("an initiation is sent when it is asked for: {other:?}"),
        }
    }

    /// The second end's answer.
    pub fn answer(&mut self, initiation: &[u8]) -> Result<Vec<u8>> {
        match self.ends[0][1].decapsulate(None, initiation, &mut self.room) {
            TunnResult::WriteToNetwork(response) => Ok(response.to_vec()),
            other => anyhow::bail!("the initiation is genuine: {other:?}"),
        }
    }

    /// The second end refuses a message.
    pub fn refuse(&mut self, message: &[u8]) -> Result<()> {
        ensure!(matches!(self.ends[0][1].decapsulate(None, message, &mut self.room), TunnResult::Err(_)));
        Ok(())
    }

    /// Packets of these lengths in turn.
    pub fn packets(lengths: &[usize], count: usize) -> Vec<Vec<u8>> {
        let packet =
            |at: usize| plain(Mac([0; 6]), [10, 0, 0, 1], [10, 0, 0, 2], 0, lengths[at % lengths.len()]);
        (0..count).map(|at| packet(at)[14..].to_vec()).collect()
    }

    /// The first ends seal all, in turn.
    pub fn seal(&mut self, packets: &[Vec<u8>], mut each: impl FnMut(&[u8])) -> Result<u64> {
        let tunnels = self.ends.len();
        for (at, packet) in packets.iter().enumerate() {
            match self.ends[at % tunnels][0].encapsulate(packet, &mut self.room) {
                TunnResult::WriteToNetwork(message) => each(message),
                other => anyhow::bail!("there is a session: {other:?}"),
            }
        }
        Ok(packets.len() as u64)
    }

    /// The second ends open all that was sealed.
    pub fn open(&mut self, messages: &[Vec<u8>]) -> Result<u64> {
        let tunnels = self.ends.len();
        for (at, message) in messages.iter().enumerate() {
            match self.ends[at % tunnels][1].decapsulate(None, message, &mut self.room) {
                TunnResult::WriteToTunnelV4(packet, _) => {
                    std::hint::black_box(packet);
                }
                other => anyhow::bail!("the message is genuine: {other:?}"),
            }
        }
        Ok(messages.len() as u64)
    }
}
