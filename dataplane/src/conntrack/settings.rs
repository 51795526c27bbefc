//! What a table is made with, and what may change while it lives.

use super::timeouts::Timeouts;

/// What a table is made with. It does not change afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most sessions at a time, 1 to [`Settings::MAX_SESSIONS`].
    pub sessions: u32,
    /// On hugepages, where enough are free.
    pub hugepages: bool,
}

impl Settings {
    /// A flow is 32 bits: a session's number and a direction.
    pub const MAX_SESSIONS: u32 = (1 << 31) - 1;
}

impl Default for Settings {
    fn default() -> Self {
        Self { sessions: 1 << 20, hugepages: false }
    }
}

/// Why a table could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// None, or more than a flow's 32 bits can tell apart.
    #[error("sessions: {0} is out of range; choose 1 to {max}", max = Settings::MAX_SESSIONS)]
    Sessions(u32),
}

/// How packets are held against their sessions. It may change while sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// Idle times.
    pub timeouts: Timeouts,
    /// TCP connections whose handshake was not seen are picked up (and judged by policy), so
    /// that they outlive a restart. Otherwise their packets are invalid.
    pub midstream: bool,
    /// TCP segments out of their window pass, and move nothing; but for resets, and while the
    /// handshake is not complete. For ends whose numbers somebody else rewrites on one way only.
    pub liberal: bool,
}

impl Default for Tracking {
    fn default() -> Self {
        Self { timeouts: Timeouts::default(), midstream: true, liberal: false }
    }
}
