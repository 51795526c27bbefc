//! WireGuard: its key, and what is sent for it.

use super::Shell;
use crate::control::wireguard::{SystemRandom, Wireguard};
use crate::net::Nanos;
use crate::wireguard::Moment;
use std::time::{Duration, SystemTime};

/// Keys that may follow one another while the first is good for something still.
const OLD_KEYS: usize = 4;

impl Shell {
    /// Finds the key, or makes one, when there is need of one for the first time. What fails is tried again.
    pub(super) fn find_key(&mut self) {
        if !self.state.wants_wireguard() {
            self.keyless.clear();
            return;
        }
        match self.key_file.key(&mut SystemRandom) {
            Ok(key) => {
                // No image of this process's memory is to be left on a disk.
                if let Err(error) = nix::sys::prctl::set_dumpable(false) {
                    tracing::warn!(%error, "W018 a core dump of this process would have WireGuard's keys in it");
                }
                let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let now = self.now();
                let wireguard = Wireguard::new(&key, Box::new(SystemRandom), Moment { now, unix });
                self.state.set_wireguard(wireguard, now);
                self.keyless.clear();
            }
            Err(error) => {
                let problem = error.to_string();
                if self.keyless != problem {
                    tracing::warn!(problem, "W016 without a key nothing goes through WireGuard's tunnels");
                }
                self.keyless = problem;
            }
        }
    }

    /// Makes another key, and takes it. The public one, or why there is none.
    pub fn rotate_key(&mut self) -> Result<Vec<u8>, String> {
        let Some(wireguard) = self.state.wireguard() else {
            return Err("WireGuard is off here, and has no key: set wireguardEnabled first".into());
        };
        if wireguard.old_keys() >= OLD_KEYS {
            return Err(format!("the key was changed {OLD_KEYS} times in three minutes; wait a while"));
        }
        let key = self.key_file.replace(&mut SystemRandom).map_err(|error| error.to_string())?;
        let now = self.now();
        self.state.rotate_key(&key, now);
        let public = self.state.wireguard().map_or(vec![], |wireguard| wireguard.public().0.to_vec());
        tracing::info!("took another key for WireGuard");
        Ok(public)
    }

    /// Hands over the messages that came, and sends what is to be sent.
    pub(super) async fn pass_wireguard(&mut self, now: Nanos) {
        for at in 0..self.ports.workers().len() {
            self.state.handshakes(&self.ports.workers()[at].handshakes, now);
        }
        let before = self.state.publisher().current().generation;
        let actions = self.state.pass_wireguard(now);
        if self.state.publisher().current().generation != before {
            self.ports.wake_all();
        }
        for action in actions {
            self.act(action).await;
        }
    }
}
