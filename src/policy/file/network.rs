//! The section `network` of a policy file: a mode by itself, or keys.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_yaml::Spanned;

use super::{At, Entry, FileError, Item, ItemVisitor, Items, NotYet, entries, entry};

/// Network modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The box's own loopback and nothing else.
    None,
    /// The box's own loopback and what rules allow.
    Rules,
    /// The host's network.
    Host,
}

impl NetworkMode {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rules => "rules",
            Self::Host => "host",
        }
    }
}

/// The section as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkFile {
    /// `network.mode`.
    pub mode: Option<NetworkMode>,
    /// `network.allow`; an empty list says that nothing is allowed.
    pub allow: Option<Vec<Entry>>,
    /// `network.deny`.
    pub deny: Vec<Entry>,
    /// `network.publish`.
    pub publish: Vec<Entry>,
    /// `network.unix`.
    pub unix: Vec<Entry>,
}

/// The section before it is checked.
#[derive(Default)]
pub(super) struct Section(Keys);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, expecting = "the keys mode, allow, deny, publish and unix")]
struct Keys {
    mode: Option<NetworkMode>,
    allow: Option<Items>,
    #[serde(default)]
    deny: Items,
    #[serde(default)]
    publish: Vec<Spanned<Port>>,
    #[serde(default)]
    unix: Items,
    ask: NotYet,
}

impl<'de> Deserialize<'de> for Section {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SectionVisitor)
    }
}

struct SectionVisitor;

impl<'de> Visitor<'de> for SectionVisitor {
    type Value = Section;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`none`, `rules`, `host`, or the keys mode, allow, deny, publish and unix")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Section, E> {
        Ok(Section::default())
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Section, E> {
        let mode = NetworkMode::deserialize(de::value::StrDeserializer::new(word))?;
        Ok(Section(Keys { mode: Some(mode), ..Keys::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Section, A::Error> {
        Keys::deserialize(de::value::MapAccessDeserializer::new(map)).map(Section)
    }
}

/// One published port: what any list holds, or a bare number.
struct Port(Item);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor).map(Port)
    }
}

struct PortVisitor;

impl<'de> Visitor<'de> for PortVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port such as 8000, `8000:80` or `127.0.0.1:8000:80`")
    }

    fn visit_u64<E: de::Error>(self, port: u64) -> Result<Item, E> {
        ItemVisitor.visit_str(&port.to_string())
    }

    fn visit_i64<E: de::Error>(self, port: i64) -> Result<Item, E> {
        ItemVisitor.visit_str(&port.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
        ItemVisitor.visit_str(text)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Item, E> {
        ItemVisitor.visit_unit()
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        ItemVisitor.visit_map(map)
    }
}

impl Section {
    pub(super) fn ask(&self) -> &NotYet {
        &self.0.ask
    }

    /// Refuses rules that the mode beside them makes idle.
    pub(super) fn check(self, file: &Arc<str>) -> Result<NetworkFile, FileError> {
        let Keys { mode, allow, deny, publish, unix, ask: _ } = self.0;
        let ports = publish.into_iter().map(|port| Spanned {
            value: port.value.0,
            referenced: port.referenced,
            defined: port.defined,
        });
        let network = NetworkFile {
            mode,
            allow: allow.map(|items| entries(file, items)).transpose()?,
            deny: entries(file, deny)?,
            publish: ports.map(|port| entry(file, port)).collect::<Result<_, _>>()?,
            unix: entries(file, unix)?,
        };
        let lists = [
            (
                "network.allow",
                network.allow.as_deref().unwrap_or_default(),
                &[NetworkMode::None, NetworkMode::Host][..],
            ),
            ("network.deny", &network.deny, &[NetworkMode::None, NetworkMode::Host]),
            ("network.publish", &network.publish, &[NetworkMode::Host]),
        ];
        for (key, entries, idle) in lists {
            if let (Some(entry), Some(mode)) = (entries.first(), mode.filter(|mode| idle.contains(mode))) {
                let at = At { file: file.clone(), mark: Some(entry.mark) };
                return Err(FileError::Idle { at, key, mode: mode.name() });
            }
        }
        Ok(network)
    }
}
