//! The room against its twin, against other people's verdicts, and against itself broken.

mod cases;
mod ceiling;
mod conformance;
mod faults;
pub(super) mod generate;
mod patches;
mod shared;
mod twin;
mod updates;
