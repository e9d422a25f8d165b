//! agentbox: the map.
#![deny(unsafe_code)]
pub mod cli;
pub mod event;
pub mod host;
pub mod sandbox;
pub mod plan;
pub mod policy;
pub mod syscalls;
pub mod sys;
