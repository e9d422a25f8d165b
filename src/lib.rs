//! agentbox: the map.
pub mod cli;
pub mod event;
