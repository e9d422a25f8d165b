//! agentbox: the map.
pub mod cli;
pub mod cmd;
pub mod event;
pub mod policy;
