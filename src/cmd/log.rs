//! `agentbox log`.
