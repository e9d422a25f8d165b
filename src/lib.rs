//! agentbox: the map.
#![deny(unsafe_code)]
pub mod audit;
pub mod cli;
pub mod cmd;
pub mod event;
pub mod gate;
pub mod host;
pub mod plan;
pub mod policy;
pub mod sandbox;
pub mod supervisor;
pub mod sys;
pub mod syscalls;
