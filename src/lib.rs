//! agentbox: the map.
pub mod audit;
pub mod cli;
pub mod cmd;
pub mod event;
pub mod gate;
pub mod policy;
