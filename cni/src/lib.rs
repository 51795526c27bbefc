#![doc = include_str!("../README.md")]

pub mod agent;
pub mod attachment;
pub mod commands;
pub mod config;
pub mod environment;
pub mod error;
pub mod install;
pub mod ipam;
pub mod kernel;
pub mod netns;
pub mod queue;
pub mod result;
