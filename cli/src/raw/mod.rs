//! Rules as a dataplane gets them, with their IP sets and packets to judge: what implementations
//! of the policy model exchange to compare verdicts.
//!
//! [`case`] is the format, [`interface`] the order in which an interface asks its rules.

mod case;
#[cfg(test)]
mod conformance;
mod interface;
mod sets;
mod written;
mod wrong;

use serde::Serialize;

use crate::lines::Unanswered;
use interface::Interface;

/// The longest line that is taken, in bytes: a case of 100,000 rules fits.
pub const MAX_LINE: u64 = 64 << 20;

/// One word a packet, in their order.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    verdicts: Vec<&'static str>,
}

/// Judges the packets of a case.
pub fn answer(line: &[u8]) -> Result<Answer, Unanswered> {
    let case = case::read(line)?;
    let interface = Interface::new(case.rules, case.sets)?;
    let verdicts = case.packets.iter().map(|packet| interface.judge(packet).map(interface::Fate::word));
    Ok(Answer { verdicts: verdicts.collect::<Result<_, _>>().map_err(Unanswered::Broken)? })
}
