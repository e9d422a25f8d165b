//! The plan: a policy, worked out into one value for each kernel layer, and the coverage that says what each holds.
//!
//! Pure data from pure functions: no system call, no file, no clock. `sandbox` obeys a [`Plan`] and never looks at the
//! policy; `supervisor` takes from it only what stops.

pub mod landlock;
pub mod mounts;
pub mod seccomp;
pub mod stops;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::Serialize;

use crate::event::Transport;
use crate::host::HostFacts;
use crate::policy::{NetworkMode, Policy};

pub use stops::{Metadata, Stops};

/// What each kernel layer is told to do.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The namespaces the box gets.
    pub namespaces: Namespaces,
    /// What the loopback of a network with rules is called besides 127.0.0.1 and ::1.
    ///
    /// The C library looks for IPv4 and for IPv6 addresses of a name only where this host seems to have one
    /// (`AI_ADDRCONFIG`), and those two do not count. Nothing outside is reached through these.
    pub loopback: Vec<IpAddr>,
    /// What the box sees; `None` where there is no mount namespace.
    pub view: Option<mounts::View>,
    /// The directory of the view where agentbox listens for what programs say of themselves, and where its executable is.
    pub annotate: Option<PathBuf>,
    /// What it may do with it; `None` where the kernel lacks Landlock.
    pub landlock: Option<landlock::Rules>,
    /// Which calls stop.
    pub stops: Stops,
    /// Whether there are datagram sockets: not where they would be the host's and the policy does not give its network.
    pub datagrams: bool,
    /// Whether programs may have sockets that ping; each ping is still decided.
    pub ping: bool,
    /// Whether calls stop for the supervisor at all.
    pub notify: bool,
    /// Whether a stopped call waits through signals.
    pub wait_killable: bool,
    /// Where the command starts.
    pub workdir: PathBuf,
}

/// The namespaces of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    /// User, mount, pid, ipc, uts and cgroup: all or none.
    pub own: bool,
    /// Network.
    pub network: bool,
    /// Whether agentbox makes sockets in the box's network: to answer questions for names, and where ports are published.
    pub entered: bool,
}

/// The layers a box is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// User and mount namespace: what is not granted is not there.
    View,
    /// Process namespace.
    Processes,
    /// Network namespace.
    Network,
    /// Landlock.
    Landlock,
    /// Seccomp filter.
    Seccomp,
    /// The supervisor.
    Supervisor,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::View => "view",
            Self::Processes => "processes",
            Self::Network => "network",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Supervisor => "supervisor",
        })
    }
}

/// What a layer holds in this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// All of it.
    Enforced {
        /// What exactly.
        what: String,
    },
    /// Some of it.
    Partial {
        /// What is missing and why.
        why: String,
        /// How to mend it.
        fix: String,
    },
    /// Nothing.
    Absent {
        /// Why.
        why: String,
        /// How to mend it.
        fix: String,
    },
    /// The policy does not ask for it.
    NotAsked {
        /// Which rule.
        why: String,
    },
}

/// What every layer holds in this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// One entry a layer, outermost first.
    pub layers: Vec<LayerCoverage>,
}

/// One layer's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerCoverage {
    /// Which.
    pub layer: Layer,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
}

impl Coverage {
    /// The layers that a policy needs and this host cannot hold in full, except those in `accepted`.
    pub fn missing<'a>(&'a self, accepted: &'a [Layer]) -> impl Iterator<Item = &'a LayerCoverage> {
        self.layers.iter().filter(|entry| match entry.state {
            State::Absent { .. } => !accepted.contains(&entry.layer),
            _ => false,
        })
    }

    /// The layers in `required` that are not enforced in full.
    pub fn unmet<'a>(&'a self, required: &'a [Layer]) -> impl Iterator<Item = &'a LayerCoverage> {
        self.layers
            .iter()
            .filter(|entry| required.contains(&entry.layer) && !matches!(entry.state, State::Enforced { .. }))
    }
}

impl fmt::Display for LayerCoverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = self.layer.to_string();
        match &self.state {
            State::Enforced { what } => write!(f, "{layer:<11} enforced   {what}"),
            State::Partial { why, fix } => write!(f, "{layer:<11} partial    {why}; {fix}"),
            State::Absent { why, fix } => write!(f, "{layer:<11} absent     {why}; {fix}"),
            State::NotAsked { why } => write!(f, "{layer:<11} not asked  {why}"),
        }
    }
}

/// Works a policy out for a host.
pub fn compile(policy: &Policy, host: &HostFacts) -> (Plan, Coverage) {
    let own = host.no_user_namespace.is_none();
    let network = own && policy.network.mode != NetworkMode::Host;
    let entered = network && (policy.network.mode == NetworkMode::Rules || !policy.network.publish.is_empty());
    let annotate = own.then(|| mounts::annotate(policy).to_path_buf());
    let view = annotate.as_deref().map(|annotate| mounts::view(policy, host, annotate));
    let plan = Plan {
        namespaces: Namespaces { own, network, entered },
        loopback: if network { loopback(policy, host) } else { Vec::new() },
        landlock: (host.landlock_abi > 0).then(|| landlock::rules(policy, host, annotate.as_deref(), network)),
        view,
        annotate,
        stops: stops::stops(policy, host, own),
        datagrams: network || policy.network.mode == NetworkMode::Host,
        ping: network && policy.network.allow.iter().any(|rule| rule.to.transport == Transport::Icmp),
        notify: host.notify,
        wait_killable: host.wait_killable,
        workdir: policy.workdir.clone(),
    };
    let coverage = coverage(policy, host, &plan);
    (plan, coverage)
}

/// Addresses that nobody outside has: of the IPv4 service continuity prefix (RFC 7335), and a unique local one.
fn loopback(policy: &Policy, host: &HostFacts) -> Vec<IpAddr> {
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 2));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xa9e, 0, 0, 0, 0, 0, 2));
    match policy.network.mode {
        NetworkMode::None | NetworkMode::Host => Vec::new(),
        NetworkMode::Rules => [v4].into_iter().chain(host.ipv6.then_some(v6)).collect(),
    }
}

fn coverage(policy: &Policy, host: &HostFacts, plan: &Plan) -> Coverage {
    let layers = [
        (Layer::View, view_state(host, plan)),
        (Layer::Processes, namespace_state(host, plan.namespaces.own, "own process namespace; it ends with the run")),
        (Layer::Network, network_state(policy, host, plan)),
        (Layer::Landlock, landlock_state(host)),
        (Layer::Seccomp, State::Enforced { what: "filter of system calls; foreign entry points are fatal".into() }),
        (Layer::Supervisor, supervisor_state(host, plan)),
    ];
    Coverage { layers: layers.into_iter().map(|(layer, state)| LayerCoverage { layer, state }).collect() }
}

fn view_state(host: &HostFacts, plan: &Plan) -> State {
    match &plan.view {
        Some(view) => {
            State::Enforced { what: format!("own root of {} mounts; the rest is not there", view.steps.len()) }
        }
        None => without_namespaces(host),
    }
}

fn namespace_state(host: &HostFacts, has: bool, what: &str) -> State {
    if has { State::Enforced { what: what.into() } } else { without_namespaces(host) }
}

fn network_state(policy: &Policy, host: &HostFacts, plan: &Plan) -> State {
    match policy.network.mode {
        NetworkMode::Host => State::NotAsked { why: format!("{} gives the host's network", policy.network.rule) },
        NetworkMode::None => {
            namespace_state(host, plan.namespaces.network, "own network namespace with loopback only")
        }
        NetworkMode::Rules if !plan.namespaces.network => State::Absent {
            why: "user namespaces cannot be had, so there is no resolver and there are no datagrams: only connections to \
                  addresses that rules list are let out"
                .into(),
            fix: namespace_fix(host.no_user_namespace.as_deref().unwrap_or_default()),
        },
        NetworkMode::Rules => State::Enforced {
            what: "own network namespace with loopback only; connections that rules let out are made on its behalf".into(),
        },
    }
}

fn without_namespaces(host: &HostFacts) -> State {
    let why = host.no_user_namespace.clone().unwrap_or_default();
    State::Absent { fix: namespace_fix(&why), why: format!("user namespaces cannot be had: {why}") }
}

/// The exact step that gives this host user namespaces.
pub fn namespace_fix(why: &str) -> String {
    if why.contains("AppArmor") {
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give agentbox an AppArmor profile with `userns,`"
            .into()
    } else if why.contains("max_user_namespaces") {
        "as root: sysctl user.max_user_namespaces=10000".into()
    } else if why.contains("unprivileged_userns_clone") {
        "as root: sysctl kernel.unprivileged_userns_clone=1".into()
    } else if why.contains("filter") {
        "start the container with a seccomp profile that allows unshare (docker: --security-opt seccomp=unconfined)"
            .into()
    } else {
        "run on a kernel with CONFIG_USER_NS, outside a container that forbids unshare".into()
    }
}

fn landlock_state(host: &HostFacts) -> State {
    match host.landlock_abi {
        0 => State::Absent {
            why: "the kernel has no Landlock, or it is switched off".into(),
            fix: "use Linux 5.13 or later with `landlock` in the lsm= boot parameter".into(),
        },
        abi @ 1..6 => State::Partial {
            why: format!("ABI {abi} lacks {}", landlock::lacks(abi)),
            fix: "Linux 6.12 brings ABI 6".into(),
        },
        abi => State::Enforced { what: format!("ABI {abi}: files, devices, abstract sockets and signals scoped") },
    }
}

fn supervisor_state(host: &HostFacts, plan: &Plan) -> State {
    if !host.notify {
        return State::Absent {
            why: "the kernel cannot stop calls for a supervisor".into(),
            fix: "use Linux 5.19 or later".into(),
        };
    }
    if !host.wait_killable {
        return State::Partial {
            why: "signals can interrupt and repeat a stopped call".into(),
            fix: "use Linux 5.19 or later".into(),
        };
    }
    let stops = &plan.stops;
    let reads = if stops.read_open.is_some() { ", reads" } else { "" };
    let changes = if stops.change.is_some() { ", changes" } else { "" };
    let metadata = if stops.metadata.all().is_some() { ", modes, owners, times" } else { "" };
    State::Enforced { what: format!("programs, connections{changes}{metadata}{reads} are decided one by one") }
}
