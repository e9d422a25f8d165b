//! Which calls stop for the supervisor, and which rule makes them. Data only; `seccomp` turns it into a filter.
//!
//! A stop costs the caller some ten microseconds, so a family stops only where no kernel layer holds what the policy says
//! of it, or where the records want it.

use std::path::Path;

use serde::Serialize;

use crate::event::{Level, Transport};
use crate::host::HostFacts;
use crate::policy::{FileRules, Guard, GuardKind, NetworkMode, Policy};

/// Which groups of calls stop, each with the reason; `None` runs at native speed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stops {
    /// Opens that could change something.
    pub write_open: Option<String>,
    /// Opens that only read.
    pub read_open: Option<String>,
    /// Changes by path to what files hold and to names.
    pub change: Option<String>,
    /// Changes to modes, owners, times and attributes.
    pub metadata: Metadata,
    /// Programs and connections; always.
    pub act: String,
    /// Sends that name an address, listening, and what waits for events: where a socket of the host's network may take the
    /// place of one of the box's.
    pub sockets: Option<String>,
    /// Signals that could end, stop or disturb somebody.
    pub signals: Option<String>,
    /// Messages, which may name an address out of the filter's sight: where datagrams may leave the box.
    pub messages: Option<String>,
}

/// Which calls on metadata stop.
///
/// Landlock knows nothing of them, so where they run natively only mounts hold them: what may not be changed is read-only
/// or not there. That leaves what such a call can do inside a writable tree, to names that are guarded there, and through
/// descriptors that were handed in:
///
/// - A mode that lends rights (set-user-ID, set-group-ID) always stops: on a file it is refused, on a directory not.
/// - `deny` and `deny_write` keep a name from every change. A path that exists is covered or bound read-only; a pattern
///   no mount can hold, so it makes all four families stop.
/// - The protected list keeps what a name holds and what stands there. Owner and times put nothing there. A mode could
///   let others write, so one that does stops; so does every extended attribute, for the filter sees no attribute's name,
///   and an access control list could do the same.
/// - A standard stream with a name on the host could be changed through its descriptor, so all stop.
/// - Without a view no mount holds anything, so all stop.
/// - Root in the box is root to the kernel's own files, and `/proc` takes modes and owners from it for everybody: it is
///   mounted read-only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Modes, whichever is set.
    pub chmod: Option<String>,
    /// Modes that let others than the owner write.
    pub share: Option<String>,
    /// Owners.
    pub chown: Option<String>,
    /// Times.
    pub utime: Option<String>,
    /// Extended attributes.
    pub xattr: Option<String>,
}

impl Metadata {
    /// The reason for which all of it stops, if there is one.
    pub fn all(&self) -> Option<&str> {
        self.utime.as_deref()
    }
}

/// Works out what must stop, and says why.
pub fn stops(policy: &Policy, host: &HostFacts, view: bool) -> Stops {
    let change = changes(policy);
    let reads = reads(policy, view);
    let signals = signals(policy);
    Stops {
        write_open: change.clone().or_else(|| reads.clone()),
        read_open: reads,
        change,
        metadata: metadata(policy, host, view),
        act: "programs and connections are always decided".into(),
        signals,
        messages: datagrams(policy, host),
        sockets: sockets(policy, host, view),
    }
}

fn sockets(policy: &Policy, host: &HostFacts, view: bool) -> Option<String> {
    match policy.network.mode {
        NetworkMode::Rules => Some(format!("{} lets connections out", policy.network.rule)),
        NetworkMode::None if !view => Some("without a network namespace sockets are the host's".into()),
        NetworkMode::None => inherited(host),
        NetworkMode::Host => None,
    }
}

fn inherited(host: &HostFacts) -> Option<String> {
    host.socket_stream.map(|stream| format!("{stream} is a socket of the host"))
}

/// A datagram socket that may reach one host could send to any other, even when it is connected.
fn datagrams(policy: &Policy, host: &HostFacts) -> Option<String> {
    if policy.network.mode != NetworkMode::Host && host.socket_stream.is_some() {
        return inherited(host);
    }
    let rule = policy.network.allow.iter().find(|rule| rule.to.transport != Transport::Tcp)?;
    Some(format!("{} lets datagrams out", rule.rule))
}

fn changes(policy: &Policy) -> Option<String> {
    if policy.audit >= Level::Actions {
        return Some("audit.level records every change".into());
    }
    let guard = policy.files.guards.iter().next()?;
    Some(format!("{} guards names that may not exist yet", guard.rule))
}

/// Their reach is the kernel's to bound; what one action does to another is for the records and for `tiers`.
fn signals(policy: &Policy) -> Option<String> {
    if policy.audit >= Level::Actions {
        return Some("audit.level records those to other actions".into());
    }
    policy.tiers.is_some().then(|| "tiers weigh those to other actions".into())
}

/// A name that exists and has no wildcard is masked by a mount; a pattern is decided open by open.
fn reads(policy: &Policy, view: bool) -> Option<String> {
    if policy.audit == Level::All {
        return Some("audit.level: all records every open".into());
    }
    let files = &policy.files;
    let granted = files.read.iter().chain(&files.write).chain(&files.private).map(|root| root.path.as_path());
    let shown: Vec<&Path> = granted.chain(["/proc", "/dev"].map(Path::new)).collect();
    files.guards.iter().chain(policy.secrets.iter()).find_map(|guard| reads_for(files, guard, &shown, view))
}

fn reads_for(files: &FileRules, guard: &Guard, shown: &[&Path], view: bool) -> Option<String> {
    match guard.kind {
        GuardKind::Deny | GuardKind::DenyRead => {}
        GuardKind::DenyWrite | GuardKind::Protect => return None,
        // No mount can tell that a file was opened.
        GuardKind::Secret => {
            return guard
                .pattern
                .reaches(shown)
                .then(|| format!("{} names secrets: who opens one is told", guard.rule));
        }
    }
    let rule = &guard.rule;
    if !view {
        return guard.pattern.reaches(shown).then(|| format!("{rule} cannot be masked without a mount view"));
    }
    if guard.pattern.reaches_by_wildcard(shown) {
        return Some(format!("{rule} is a pattern, which no mount can mask"));
    }
    let mut written = guard.pattern.exacts().filter(|path| files.may_be_written(path));
    written.next().filter(|_| guard.kind == GuardKind::DenyRead)?;
    Some(format!("{rule} may be written to, which no mount can tell from reading: `deny` costs nothing"))
}

fn metadata(policy: &Policy, host: &HostFacts, view: bool) -> Metadata {
    let all = all_metadata(policy, host, view);
    // What a private tree holds goes when the run ends.
    let kept: Vec<&Path> = policy.files.write.iter().map(|root| root.path.as_path()).collect();
    let shared = policy.files.guards.of(GuardKind::Protect).iter().find(|guard| guard.pattern.reaches(&kept));
    let shared = shared.map(|guard| format!("{} names what others must not be let write to", guard.rule));
    Metadata {
        chmod: all.clone(),
        share: all.clone().or_else(|| shared.clone()),
        chown: all.clone(),
        utime: all.clone(),
        xattr: all.or(shared),
    }
}

fn all_metadata(policy: &Policy, host: &HostFacts, view: bool) -> Option<String> {
    if !view {
        return Some("without a mount view nothing else keeps them to the writable trees".into());
    }
    if policy.audit == Level::All {
        return Some("audit.level: all records every one".into());
    }
    if let Some(stream) = host.named_stream {
        return Some(format!("{stream} is a file or terminal of the host, which they could change"));
    }
    let closed =
        policy.files.guards.iter().filter(|guard| matches!(guard.kind, GuardKind::Deny | GuardKind::DenyWrite));
    let writable: Vec<&Path> = policy.files.writable().collect();
    let mut open = closed.filter(|guard| guard.pattern.reaches_by_wildcard(&writable));
    open.next().map(|guard| format!("{} is a pattern, which no mount can hold", guard.rule))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::plan::mounts::{self, Step};
    use crate::policy::{Request, World, load};

    /// The policy of a file in a project of its own, with the file's rules behind `version: 1`.
    fn policy(rules: &str) -> (Policy, tempfile::TempDir) {
        let top = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(top.path()).unwrap().join("home");
        let cwd = home.join("project");
        fs::create_dir_all(cwd.join("conf")).unwrap();
        fs::write(cwd.join("conf/app"), "").unwrap();
        fs::write(cwd.join("p.yaml"), format!("version: 1\n{rules}")).unwrap();
        let world = World { cwd, state: home.join("state"), home, vars: BTreeMap::new() };
        let request = Request { policies: vec!["./p.yaml".into()], ..Request::default() };
        (load(&request, &world).unwrap_or_else(|e| panic!("{e}")).policy, top)
    }

    fn host() -> HostFacts {
        HostFacts {
            uid: 1000,
            gid: 1000,
            landlock_abi: 6,
            notify: true,
            wait_killable: true,
            no_user_namespace: None,
            resolv_conf: None,
            ipv6: false,
            named_stream: None,
            socket_stream: None,
            program: None,
            filtered: false,
        }
    }

    const DEFAULT: &str = "extends: [default]\n";

    #[test]
    fn the_default_policy_reads_and_sets_modes_owners_and_times_at_native_speed() {
        let (policy, _top) = policy(DEFAULT);
        let stops = stops(&policy, &host(), true);
        assert_eq!(stops.read_open, None);
        assert!(stops.write_open.is_some() && stops.change.is_some());
        let Metadata { chmod, share, chown, utime, xattr } = stops.metadata;
        assert_eq!((chmod, chown, utime), (None, None, None));
        assert!(share.unwrap().starts_with("protected.yaml filesystem.protect["));
        assert!(xattr.unwrap().starts_with("protected.yaml filesystem.protect["));
    }

    #[test]
    fn signals_stop_where_they_are_recorded_or_weighed() {
        for (rules, expected) in [
            ("", Some("audit.level records those to other actions")),
            ("audit: {level: minimal}\n", None),
            ("audit: {level: minimal}\ntiers: {allow: 4, ask: 8}\n", Some("tiers weigh those to other actions")),
        ] {
            let (policy, _top) = policy(&format!("{DEFAULT}{rules}"));
            assert_eq!(stops(&policy, &host(), true).signals.as_deref(), expected, "{rules}");
        }
    }

    #[test]
    fn a_rule_makes_reads_stop_only_where_no_mount_can_hold_it() {
        for (rules, expected) in [
            ("{deny: [conf/app]}", None),
            ("{deny_read: [/usr/share/x]}", None),
            ("{deny_write: ['**/*.lock']}", None),
            ("{protect: ['**/*.lock']}", None),
            ("{deny: ['/nowhere/*.key']}", None),
            ("{deny: ['**/.env']}", Some("./p.yaml filesystem.deny[0] is a pattern, which no mount can mask")),
            ("{deny: [x, 'conf/*']}", Some("./p.yaml filesystem.deny[1] is a pattern, which no mount can mask")),
            (
                "{deny_read: ['**/.env']}",
                Some("./p.yaml filesystem.deny_read[0] is a pattern, which no mount can mask"),
            ),
            (
                "{deny_read: [conf/app]}",
                Some(
                    "./p.yaml filesystem.deny_read[0] may be written to, which no mount can tell from reading: `deny` \
                     costs nothing",
                ),
            ),
            ("{deny_read: [conf/app], deny_write: [conf]}", None),
        ] {
            let (policy, _top) = policy(&format!("{DEFAULT}filesystem: {rules}\n"));
            assert_eq!(stops(&policy, &host(), true).read_open.as_deref(), expected, "{rules}");
        }
        let (policy, _top) = policy(&format!("{DEFAULT}audit: {{level: all}}\n"));
        assert_eq!(stops(&policy, &host(), true).read_open.as_deref(), Some("audit.level: all records every open"));
    }

    #[test]
    fn without_a_view_nothing_masks_a_path_and_nothing_holds_metadata() {
        let (policy, _top) = policy(DEFAULT);
        let stops = stops(&policy.without_view(), &host(), false);
        assert!(stops.read_open.unwrap().ends_with("cannot be masked without a mount view"));
        assert!(stops.metadata.all().is_some());
    }

    #[test]
    fn sockets_stop_where_they_may_be_the_hosts_and_messages_where_datagrams_leave() {
        let stops_on = |host: &HostFacts, rules: &str, view: bool| {
            let (policy, _top) = policy(&format!("{DEFAULT}network: {rules}\n"));
            let Stops { sockets, messages, .. } = stops(&policy, host, view);
            (sockets, messages)
        };
        let stops = |rules: &str, view: bool| stops_on(&host(), rules, view);
        let handed_in = HostFacts { socket_stream: Some("standard input"), ..host() };
        let why = Some("standard input is a socket of the host".to_string());
        assert_eq!(stops_on(&handed_in, "none", true), (why.clone(), why.clone()));
        assert_eq!(stops_on(&handed_in, "rules", true).1, why);
        assert_eq!(stops_on(&handed_in, "host", true), (None, None));
        assert_eq!(stops("none", true), (None, None));
        assert_eq!(stops("host", true), (None, None));
        let without = "without a network namespace sockets are the host's".to_string();
        assert_eq!(stops("none", false), (Some(without), None));
        let (sockets, messages) = stops("{allow: ['a.example.org', 'udp://b.example.org']}", true);
        assert_eq!(sockets.as_deref(), Some("./p.yaml network.allow lets connections out"));
        assert_eq!(messages.as_deref(), Some("./p.yaml network.allow[1] lets datagrams out"));
        assert_eq!(stops("{allow: ['a.example.org']}", true).1, None);
    }

    #[test]
    fn metadata_stops_where_a_rule_the_level_or_a_stream_needs_it() {
        let metadata = |rules: &str, host: &HostFacts| {
            let (policy, _top) = policy(&format!("{DEFAULT}{rules}\n"));
            stops(&policy, host, true).metadata
        };
        assert_eq!(metadata("filesystem: {deny_write: [conf/app], deny: [conf]}", &host()).all(), None);
        assert_eq!(metadata("filesystem: {deny_write: ['/usr/*/x']}", &host()).all(), None);
        for key in ["deny", "deny_write"] {
            let stops = metadata(&format!("filesystem: {{{key}: ['conf/*.key']}}"), &host());
            let expected = format!("./p.yaml filesystem.{key}[0] is a pattern, which no mount can hold");
            assert_eq!(stops.all(), Some(expected.as_str()));
            assert!(stops.chmod.is_some() && stops.chown.is_some() && stops.xattr.is_some());
        }
        assert!(metadata("audit: {level: all}", &host()).all().is_some());
        let redirected = HostFacts { named_stream: Some("standard output"), ..host() };
        assert!(metadata("", &redirected).all().unwrap().starts_with("standard output is"));
        let root = metadata("network: {mode: host}", &HostFacts { uid: 0, ..host() });
        assert_eq!((root.chmod, root.chown), (None, None), "the kernel's files are on a read-only mount");
        let unprotected = metadata("filesystem: {protect: none}", &host()).xattr;
        assert!(unprotected.unwrap().starts_with("built-in policy file"), "the policy itself lies in the project");
    }

    #[test]
    fn exact_paths_are_covered_or_kept_read_only_and_what_may_be_written_is_neither() {
        let rules =
            "filesystem: {deny: [a], deny_read: [b, /usr/share/c], deny_write: [conf/app, /usr/share/d, '**/e']}";
        let (policy, _top) = policy(&format!("{DEFAULT}{rules}\n"));
        let steps = mounts::view(&policy, &host(), mounts::annotate(&policy)).steps;
        let at = |below: &str| policy.workdir.join(below);
        let has = |step: Step| steps.contains(&step);
        assert!(has(Step::Mask { at: at("a") }) && has(Step::Mask { at: "/usr/share/c".into() }));
        assert!(!has(Step::Mask { at: at("b") }), "it may be written to");
        assert!(has(Step::ReadOnly { at: at("conf/app") }));
        assert!(!has(Step::ReadOnly { at: "/usr/share/d".into() }), "it is read-only as it is");
    }
}
