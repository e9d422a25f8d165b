//! The network in the making: mode, rules and published ports of each file and of the flags, one after the other.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::{FLAGS, flag_error, numbered, rule_error};
use crate::event::RuleId;
use crate::policy::file::{Entry, NetworkFile};
use crate::policy::load::{LoadError, Request, RuleError};
use crate::policy::network::{Destination, Destinations, NetworkRule};
use crate::policy::{Network, NetworkMode, Publish, Root};

/// A network in the making.
pub(super) struct Draft {
    mode: NetworkMode,
    rule: RuleId,
    allow: Vec<NetworkRule>,
    deny: Vec<NetworkRule>,
    publish: Vec<Publish>,
    /// Sockets of the host.
    pub unix: Vec<Root>,
}

impl Default for Draft {
    fn default() -> Self {
        let rule = RuleId::new("built-in", "network.mode");
        let (allow, deny, publish, unix) = Default::default();
        Self { mode: NetworkMode::None, rule, allow, deny, publish, unix }
    }
}

impl Draft {
    /// Adds one file's section. Without a mode, rules ask for the mode that has them.
    pub fn layer(&mut self, name: &Arc<str>, file: &NetworkFile) -> Result<(), LoadError> {
        if let Some(mode) = file.mode {
            self.choose(mode, RuleId::new(name, "network.mode"));
        } else if file.allow.is_some() {
            self.choose(NetworkMode::Rules, RuleId::new(name, "network.allow"));
        } else if !file.deny.is_empty() {
            self.choose(NetworkMode::Rules, RuleId::new(name, "network.deny"));
        }
        let allow = file.allow.as_deref().unwrap_or_default();
        self.allow.extend(rules(name, "network.allow", allow)?);
        self.deny.extend(rules(name, "network.deny", &file.deny)?);
        for (index, entry) in file.publish.iter().enumerate() {
            let publish = Publish::parse(&entry.text, numbered(name, "network.publish", index));
            self.publish(publish.map_err(|why| rule_error(name, "network.publish", entry, why))?)?;
        }
        Ok(())
    }

    /// Takes a mode. One without rules leaves none of those before it.
    fn choose(&mut self, mode: NetworkMode, rule: RuleId) {
        if mode != NetworkMode::Rules {
            self.allow.clear();
            self.deny.clear();
        }
        // What is the host's already needs no way in.
        if mode == NetworkMode::Host {
            self.publish.clear();
        }
        (self.mode, self.rule) = (mode, rule);
    }

    fn publish(&mut self, publish: Publish) -> Result<(), LoadError> {
        let same = |other: &&Publish| other.host == publish.host && publish.host.port() != 0;
        match self.publish.iter().find(same) {
            Some(other) if other.port == publish.port => Ok(()),
            Some(other) => Err(LoadError::PublishedTwice {
                rule: publish.rule,
                host: publish.host,
                other: other.rule.clone(),
                port: other.port,
            }),
            None => {
                self.publish.push(publish);
                Ok(())
            }
        }
    }

    /// Adds what the flags say, on top of every file.
    pub fn flags(&mut self, request: &Request) -> Result<(), LoadError> {
        let flags =
            [("--net-allow", &request.net_allow), ("--net-deny", &request.net_deny), ("--publish", &request.publish)];
        for (flag, texts) in flags {
            match request.net {
                Some(mode @ NetworkMode::Host) if !texts.is_empty() => return Err(excluded(flag, mode)),
                Some(mode @ NetworkMode::None) if !texts.is_empty() && flag != "--publish" => {
                    return Err(excluded(flag, mode));
                }
                _ => {}
            }
        }
        let rules_asked = !request.net_allow.is_empty() || !request.net_deny.is_empty();
        match request.net {
            Some(mode) => self.choose(mode, RuleId::new(FLAGS, &format!("--net {}", mode.name()))),
            None if rules_asked && self.mode != NetworkMode::Rules => {
                let flag = if request.net_allow.is_empty() { "--net-deny" } else { "--net-allow" };
                self.choose(NetworkMode::Rules, RuleId::new(FLAGS, flag));
            }
            None => {}
        }
        self.allow.extend(flag_rules("--net-allow", &request.net_allow)?);
        self.deny.extend(flag_rules("--net-deny", &request.net_deny)?);
        for text in &request.publish {
            let publish = Publish::parse(text, RuleId::new(FLAGS, &format!("--publish {text}")));
            self.publish(publish.map_err(|why| flag_error("--publish", text, why))?)?;
        }
        Ok(())
    }

    pub fn finish(self) -> Network {
        let (allow, deny) = (Destinations::new(self.allow), Destinations::new(self.deny));
        Network { mode: self.mode, rule: self.rule, allow, deny, unix: self.unix, publish: self.publish }
    }
}

fn excluded(flag: &'static str, mode: NetworkMode) -> LoadError {
    LoadError::NetFlags { flag, mode: mode.name() }
}

fn rules(name: &Arc<str>, key: &'static str, entries: &[Entry]) -> Result<Vec<NetworkRule>, LoadError> {
    let rule = |(index, entry): (usize, &Entry)| {
        let to = Destination::parse(&entry.text).map_err(|why| rule_error(name, key, entry, RuleError::from(why)))?;
        Ok(NetworkRule { to, rule: numbered(name, key, index), message: entry.message.clone() })
    };
    entries.iter().enumerate().map(rule).collect()
}

fn flag_rules(flag: &'static str, texts: &[String]) -> Result<Vec<NetworkRule>, LoadError> {
    let rule = |text: &String| {
        let to = Destination::parse(text).map_err(|why| flag_error(flag, text, why))?;
        Ok(NetworkRule { to, rule: RuleId::new(FLAGS, &format!("{flag} {text}")), message: None })
    };
    texts.iter().map(rule).collect()
}

/// Hands what decisions about the network depend on to a digest.
pub(super) fn digest(network: &Network, add: &mut impl FnMut(&str, &[u8])) {
    add("network", &[network.mode as u8]);
    for (key, rules) in [("network.allow", &network.allow), ("network.deny", &network.deny)] {
        rules.iter().for_each(|rule| add(key, rule.to.to_string().as_bytes()));
    }
    for publish in &network.publish {
        add("publish", format!("{}:{}", publish.host, publish.port).as_bytes());
    }
    for socket in &network.unix {
        add("unix", socket.path.as_os_str().as_bytes());
    }
}
