//! agentbox: the map.
pub mod audit;
pub mod cli;
pub mod event;
