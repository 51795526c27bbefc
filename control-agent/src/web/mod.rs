#![doc = include_str!("README.md")]

mod answer;
mod assets;
mod entrance;
mod figures;
mod query;
mod server;

pub use entrance::{Entrance, EntranceError};
pub use server::serve;
