//! `agentbox run`: the whole walk, from flags to the line at the end.
//!
//! Runs in the main process. The order of the first half matters: whatever can fail for the user's reasons fails before
//! the command starts, and no thread is started before the fork.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signalfd::SignalFd;
use serde_json::{Value, json};

use super::export::beside::{Beside, Exporter};
use super::hear::OnRecord;
use crate::annotate::{self, Annotate};
use crate::audit::key::SigningKey;
use crate::audit::{
    Head, PolicyRef, RunDir, RunFile, RunId, RunResult, Start, Summary, WriteError, Writer, otlp, redact, report, run,
    text,
};
use crate::cli;
use crate::event::{Export, Mode, escape_bytes};
use crate::gate::Gate;
use crate::host::{HostFacts, apparmor_restricts_user_namespaces};
use crate::net::publish::{self, Published};
use crate::net::{self, Net};
use crate::plan::seccomp::{self, Filter};
use crate::plan::{self, Coverage, Layer, Plan, namespace_fix};
use crate::policy::{self, AuditKey, NetworkMode, Policy, Request};
use crate::sandbox::attend::{Door, Outcome, attend, collect_signals};
use crate::sandbox::handshake::Ended;
use crate::sandbox::launch::{Job, Starting};
use crate::sandbox::{self, Command, LaunchError, Running, terminal};
use crate::supervisor::{self, Supervisor, SupervisorError};
use crate::sys;
use crate::sys::process::{Alone, alone};

/// How long workers may take over what they were at when the box ended.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Exit statuses, as env(1), timeout(1) and docker have them.
mod status {
    pub const TIMED_OUT: u8 = 124;
    pub const FAILED: u8 = 125;
    pub const NOT_EXECUTABLE: u8 = 126;
    pub const NOT_FOUND: u8 = 127;
}

/// Runs a command in a box and returns its exit status.
pub fn run(args: &cli::Run) -> Result<u8> {
    start_diagnostics(args.verbose);
    refuse_directories()?;
    let alone = alone().context("agentbox has a thread already")?;
    let world = super::policy::world()?;
    // Devices and pipes take records, too, and belong to nobody.
    let own = [&args.log, &args.report].into_iter().flatten().filter(|path| path.is_file() || !path.exists());
    let request =
        Request { own: own.cloned().collect(), key: args.key.clone(), ..super::policy::request(&args.policy) };
    let loaded = policy::load(&request, &world)?;
    if !args.quiet {
        super::policy::print_notes(&loaded.notes);
    }
    refuse_denied_command(&loaded.policy, &args.command)?;
    let exporter = match loaded.policy.export {
        Export::None => None,
        Export::Otlp => Some(Exporter::prepare(args.log.as_deref())?),
    };
    if args.dry_run {
        return dry_run(args, loaded.policy);
    }
    let prepared = Prepared::new(loaded.policy.into(), HostFacts::probe(), args)?;
    let published = publish(args, &prepared.policy)?;
    let dir = RunDir::choose(&world.state, SystemTime::now());
    let trial = Trial { args, run: dir.id().clone(), outside: Outside::collect()? };
    let (prepared, starting) = trial.launch(&alone, prepared)?;
    // init builds the view and waits for a word: the last moment to find out that nothing can be written.
    let mut record = Record::open(args, &prepared, dir, &world.state)?;
    record.export = exporter.map(|exporter| exporter.of(&record.dir));
    if args.verbose > 0 {
        eprint!("{}", coverage_text(&prepared.coverage));
        if record.gate.mode() == Mode::Audit {
            eprintln!("agentbox: mode audit: {}", policy::walls::LET_THROUGH);
        }
    }
    let mut ended = trial.run(&prepared, starting, &record, published)?;
    note_repositories(&record.gate, &prepared.policy, &ended.repositories);
    let code = ended.exit_code();
    let export = record.export.take();
    let closed = record.close(args, &prepared.coverage, ended.result());
    if let Some(left) = export.and_then(|export| export.finish(&trial.outside.signals)) {
        eprintln!("agentbox: {left}");
    }
    closed.map(|()| code)
}

/// Listens on the host for the published ports, and says where if the host chose. A visitor waits until the box is up.
fn publish(args: &cli::Run, policy: &Policy) -> Result<Vec<Published>> {
    let published = publish::listen(policy.network.publish.iter().map(|publish| (publish.host, publish.port)))?;
    for Published { port, at, .. } in published.iter().filter(|one| one.chosen && !args.quiet) {
        eprintln!("agentbox: port {port} of the box is at {at}");
    }
    Ok(published)
}

/// Prints what a run would do and whether it would start.
fn dry_run(args: &cli::Run, policy: Policy) -> Result<u8> {
    let host = super::doctor::examined_host()?;
    let (plan, coverage) = plan::compile(&policy, &host);
    print!("{}", plan_text(&plan, &coverage));
    check(&coverage, args)?;
    Ok(0)
}

/// A policy worked out for this host, down to the filter.
struct Prepared {
    host: HostFacts,
    policy: Arc<Policy>,
    plan: Plan,
    coverage: Coverage,
    filter: Filter,
}

impl Prepared {
    /// Fails if the host cannot hold what the policy needs and the user has not accepted that.
    fn new(policy: Arc<Policy>, host: HostFacts, args: &cli::Run) -> Result<Self> {
        let policy = match host.no_user_namespace {
            Some(_) => Arc::new(Arc::unwrap_or_clone(policy).without_view()),
            None => policy,
        };
        let (plan, coverage) = plan::compile(&policy, &host);
        check(&coverage, args)?;
        let filter = seccomp::compile(&plan)?;
        Ok(Self { host, policy, plan, coverage, filter })
    }
}

/// The plan and coverage of a policy on this host, for `policy show --plan`.
pub fn plan_of(policy: &Policy) -> Result<(String, Value)> {
    let (plan, coverage) = plan::compile(policy, &super::doctor::examined_host()?);
    Ok((plan_text(&plan, &coverage), json!({ "plan": plan, "coverage": coverage })))
}

fn start_diagnostics(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    // RUST_LOG asks for more or less; without either nothing is set up and nothing is paid for.
    if verbose < 2 && std::env::var_os("RUST_LOG").is_none() {
        return;
    }
    let default = if verbose >= 3 { "trace" } else { "debug" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

/// A directory handed in as a standard stream would be a way out of the view: paths can start from it.
fn refuse_directories() -> Result<()> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    for (name, fd) in [("input", input.as_fd()), ("output", output.as_fd()), ("error", error.as_fd())] {
        let stat = sys::file::fstatat(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH);
        if stat.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR) {
            bail!("standard {name} is a directory, through which the command could leave the box: redirect it");
        }
    }
    Ok(())
}

/// A rule that keeps the command's own file from being read leaves nothing to run.
///
/// What cannot be found here is left to the box, which says so.
fn refuse_denied_command(policy: &Policy, command: &[OsString]) -> Result<()> {
    let Some(program) = command.first().and_then(|name| find_program(policy, Path::new(name))) else { return Ok(()) };
    let Some(guard) = policy::kept_from_running(policy, &program) else { return Ok(()) };
    bail!(
        "{}: `{}` covers the command itself, {}, which could not be read to be run: deny less",
        guard.rule,
        guard.pattern.text(),
        program.display()
    )
}

/// The real path of the program that the command's own PATH leads to.
fn find_program(policy: &Policy, name: &Path) -> Option<PathBuf> {
    let found = candidates(policy, name).into_iter().find(|file| file.is_file())?;
    found.canonicalize().ok()
}

/// Where a program may be, in the order in which it is looked for: as written, or along the command's own PATH.
pub(super) fn candidates(policy: &Policy, name: &Path) -> Vec<PathBuf> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        return vec![policy.workdir.join(name)];
    }
    let path = policy.env.vars.get(OsStr::new("PATH")).map_or(OsStr::new("/usr/bin:/bin"), OsString::as_os_str);
    std::env::split_paths(path).map(|dir| policy.workdir.join(dir).join(name)).collect()
}

/// Nothing weakens silently: a layer that the policy needs and the host lacks stops the run, unless the user accepts it.
fn check(coverage: &Coverage, args: &cli::Run) -> Result<()> {
    let accepted: Vec<Layer> = args.allow_degraded.iter().copied().map(layer).collect();
    let required: Vec<Layer> = args.require.iter().copied().map(layer).collect();
    let missing: Vec<String> = coverage.missing(&accepted).map(|entry| entry.layer.to_string()).collect();
    if let Some(first) = coverage.missing(&accepted).next() {
        let flags: Vec<String> = missing.iter().map(|layer| format!("--allow-degraded {layer}")).collect();
        bail!(
            "this host cannot hold what the policy needs\n  {first}\n  to run without it, and weaker: {}",
            flags.join(" ")
        );
    }
    if let Some(first) = coverage.unmet(&required).next() {
        bail!("--require {}: it is not fully enforced here\n  {first}", first.layer);
    }
    Ok(())
}

fn layer(layer: cli::Layer) -> Layer {
    match layer {
        cli::Layer::View => Layer::View,
        cli::Layer::Processes => Layer::Processes,
        cli::Layer::Network => Layer::Network,
        cli::Layer::Landlock => Layer::Landlock,
        cli::Layer::Seccomp => Layer::Seccomp,
        cli::Layer::Supervisor => Layer::Supervisor,
    }
}

fn mode(mode: cli::Mode) -> Mode {
    match mode {
        cli::Mode::Enforce => Mode::Enforce,
        cli::Mode::Audit => Mode::Audit,
    }
}

fn coverage_text(coverage: &Coverage) -> String {
    coverage.layers.iter().map(|entry| format!("agentbox: {entry}\n")).collect()
}

fn plan_text(plan: &Plan, coverage: &Coverage) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("plan\n");
    let steps = plan.view.iter().flat_map(|view| &view.steps);
    for step in steps {
        let _ = writeln!(text, "  view      {step}");
    }
    for tree in plan.landlock.iter().flat_map(|rules| &rules.trees) {
        let _ = writeln!(
            text,
            "  landlock  {:<6} {}",
            tree.rights.to_string(),
            text::printable(&tree.path.to_string_lossy())
        );
    }
    let stops = &plan.stops;
    let why =
        |stop: &Option<String>| stop.as_ref().map_or("run at native speed".to_string(), |why| format!("stop: {why}"));
    let _ = writeln!(text, "  calls     programs and connections stop: {}", stops.act);
    let _ = writeln!(text, "  calls     changes {}", why(&stops.change));
    let _ = writeln!(text, "  calls     signals {}", why(&stops.signals));
    let _ = writeln!(text, "  calls     opens for writing {}", why(&stops.write_open));
    let _ = writeln!(text, "  calls     opens for reading {}", why(&stops.read_open));
    let metadata = &stops.metadata;
    for (calls, stop) in [
        ("modes (chmod)", &metadata.chmod),
        ("modes that let others write", metadata.chmod.as_ref().map_or(&metadata.share, |_| &metadata.chmod)),
        ("owners (chown)", &metadata.chown),
        ("times (utime)", &metadata.utime),
        ("attributes (xattr)", &metadata.xattr),
    ] {
        let _ = writeln!(text, "  calls     {calls} {}", why(stop));
    }
    text.push_str("coverage\n");
    for entry in &coverage.layers {
        let _ = writeln!(text, "  {entry}");
    }
    text
}

/// The run's directory, its log and the gate to it.
struct Record {
    dir: RunDir,
    about: RunFile,
    /// What becomes of `about` at the end, opened while there is time.
    next: File,
    writer: Arc<Writer>,
    gate: Arc<Gate>,
    /// The report, opened before the command could put anything in its place.
    report: Option<(File, PathBuf)>,
    /// What sends the log to a collector.
    export: Option<Beside>,
}

impl Record {
    /// Opens all that the run will write: if any of it cannot be written, nothing starts.
    fn open(args: &cli::Run, prepared: &Prepared, dir: RunDir, state: &Path) -> Result<Self> {
        let Prepared { policy, coverage, .. } = prepared;
        let key = signing_key(args, policy, state)?;
        dir.make()?;
        let now = SystemTime::now();
        let log = match &args.log {
            Some(log) => std::path::absolute(log).context("cannot find the current directory")?,
            None => dir.log_path(),
        };
        let reference = PolicyRef { name: policy.name.to_string(), digest: policy.digest.clone() };
        let start = Start {
            time: text::rfc3339(now),
            run: dir.id().clone(),
            agentbox: env!("CARGO_PKG_VERSION").into(),
            command: redact::argv(&run::escape_command(&args.command)),
            policy: reference.clone(),
            mode: mode(args.mode),
            coverage: json!(coverage.layers),
        };
        let writer = Arc::new(Writer::create(&log, &start)?);
        let public = key.as_ref().map(SigningKey::public);
        key.map(|key| writer.sign(key)).transpose()?;
        let about = RunFile {
            v: RunFile::VERSION,
            id: dir.id().clone(),
            agentbox: start.agentbox,
            command: start.command,
            cwd: escape_bytes(policy.workdir.as_os_str().as_bytes()),
            traceparent: std::env::var("TRACEPARENT").ok().filter(|text| otlp::TraceParent::parse(text).is_some()),
            policy: reference,
            mode: start.mode,
            sources: vec![policy.name.to_string()],
            coverage: start.coverage,
            log: escape_bytes(log.as_os_str().as_bytes()),
            started: start.time,
            ended: None,
            result: None,
            counts: None,
            destinations: Vec::new(),
            actions: Vec::new(),
            total: None,
            denied: None,
            let_through: 0,
            key: public,
            head: None,
        };
        dir.write(dir.open_next()?, &about)?;
        let next = dir.open_next()?;
        let gate = Gate::new(Arc::clone(policy), Arc::clone(&writer), dir.id().clone());
        let gate = Arc::new(gate.in_mode(start.mode));
        let report = args.report.clone().map(|path| open_report(&path).map(|file| (file, path))).transpose()?;
        Ok(Self { dir, about, next, writer, gate, report, export: None })
    }

    /// Ends the log, says what there is to say, and fails loudly if a record is missing.
    fn close(mut self, args: &cli::Run, coverage: &Coverage, result: RunResult) -> Result<()> {
        let summary = self.gate.summary();
        let finished = self.gate.finish(&result);
        let head: Option<Head> = match &finished {
            Ok(written) => Some(written.head.clone()),
            Err(error) => error.written().map(|written| written.head.clone()),
        };
        self.about.end(SystemTime::now(), result.clone(), &summary, head);
        let written = self.dir.write(self.next, &self.about);
        say(args, &summary, &self.about);
        if let Some((mut file, path)) = self.report {
            let report =
                report::report_json(&summary, &result, &json!(coverage.layers), (&self.about.log, self.about.key));
            let written = writeln!(file, "{report:#}");
            written.with_context(|| format!("cannot write the report to {}", path.display()))?;
        }
        finished.map_err(|error: WriteError| anyhow!(error)).context("the record of this run is incomplete")?;
        Ok(written?)
    }
}

/// The key that signs the log: the one that is named, else the policy's, else the user's own if it was ever made.
///
/// To be read after the fork: init goes on living in the box, and must not hold a copy.
fn signing_key(args: &cli::Run, policy: &Policy, state: &Path) -> Result<Option<SigningKey>> {
    if let Some(path) = &args.key {
        return SigningKey::read(path).context("--key").map(Some);
    }
    if let Some(AuditKey { path, at }) = &policy.audit_key {
        return SigningKey::read(path).with_context(|| format!("{at}: audit.key")).map(Some);
    }
    Ok(SigningKey::standard(state)?)
}

/// Opens the report. A link that an earlier run left there is not followed: it would choose what is overwritten.
fn open_report(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    if !path.starts_with("/dev") {
        options.custom_flags(libc::O_NOFOLLOW);
    }
    options.open(path).with_context(|| format!("cannot write the report to {}", path.display()))
}

/// What a person sees at the end: nothing when nothing was denied, unless more is asked for.
fn say(args: &cli::Run, summary: &Summary, about: &RunFile) {
    if args.quiet {
        return;
    }
    if args.verbose > 0 {
        eprint!("{}", report::verbose(summary));
        let signed = about.key.map_or("not signed".into(), |key| format!("signed by {}", key.short()));
        eprintln!("agentbox: log {} ({signed})", about.log);
        return;
    }
    if let Some(line) = report::summary_line(summary) {
        eprintln!("{line}");
    }
    for note in &summary.notes {
        eprintln!("agentbox: {}", text::printable(note));
    }
}

fn command(args: &cli::Run, prepared: &Prepared, run: &RunId) -> Result<Command> {
    let Prepared { policy, plan, .. } = prepared;
    let argv = args.command.iter().map(|argument| c_string(argument.clone())).collect::<Result<Vec<_>>>()?;
    if argv[0].is_empty() {
        bail!("the command is an empty name");
    }
    let mut vars = policy.env.vars.clone();
    if !args.policy.clean_env {
        vars.insert("AGENTBOX_RUN_ID".into(), run.as_str().into());
        plan.annotate.iter().for_each(|at| annotated(&mut vars, at));
    }
    let env = vars.into_iter().map(|(mut pair, value)| {
        pair.push("=");
        pair.push(value);
        c_string(pair)
    });
    Ok(Command { argv, env: env.collect::<Result<_>>()? })
}

/// Says where agentbox is spoken to, and lets its executable be found, behind all others.
fn annotated(vars: &mut BTreeMap<OsString, OsString>, at: &Path) {
    vars.insert(super::annotate::VARIABLE.into(), at.join(plan::mounts::SOCKET).into());
    if let Some(path) = vars.get_mut(OsStr::new("PATH")).filter(|path| !path.is_empty()) {
        path.push(":");
        path.push(at);
    }
}

fn c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).context("an argument or variable holds a NUL byte")
}

/// What is taken from the world outside before the fork.
struct Outside {
    signals: SignalFd,
    /// The host's `/proc`.
    proc: OwnedFd,
    /// Whether the command gets a terminal of its own.
    terminal: bool,
    /// The limit of open files that the command gets back.
    open_files: (u64, u64),
}

impl Outside {
    fn collect() -> Result<Self> {
        Ok(Self {
            signals: collect_signals().context("cannot collect signals")?,
            proc: open_proc()?,
            terminal: terminal::wanted(),
            open_files: raise_open_files()?,
        })
    }
}

/// One box, from fork to end.
struct Trial<'a> {
    args: &'a cli::Run,
    run: RunId,
    outside: Outside,
}

/// How a box ended.
struct EndOfBox {
    outcome: std::result::Result<Outcome, String>,
    failure: Option<SupervisorError>,
    repositories: Vec<PathBuf>,
}

impl Trial<'_> {
    /// Forks the box's init. Where user namespaces turn out to be refused the policy is worked out again without them.
    fn launch(&self, alone: &Alone, prepared: Prepared) -> Result<(Prepared, Starting)> {
        let command = self::command(self.args, &prepared, &self.run)?;
        match sandbox::launch(alone, &self.job(&prepared, &command)) {
            Err(LaunchError::NoNamespaces(errno)) => {
                let mut host = prepared.host;
                host.no_user_namespace = Some(super::doctor::refusal(&host, errno));
                let prepared = Prepared::new(prepared.policy, host, self.args)?;
                let command = self::command(self.args, &prepared, &self.run)?;
                let starting = sandbox::launch(alone, &self.job(&prepared, &command))?;
                Ok((prepared, starting))
            }
            launched => Ok((prepared, launched?)),
        }
    }

    fn job<'a>(&'a self, prepared: &'a Prepared, command: &'a Command) -> Job<'a> {
        Job {
            plan: &prepared.plan,
            filter: &prepared.filter,
            command,
            terminal: self.outside.terminal,
            open_files: self.outside.open_files,
        }
    }

    fn run(
        &self,
        prepared: &Prepared,
        starting: Starting,
        record: &Record,
        published: Vec<Published>,
    ) -> Result<EndOfBox> {
        starting.enter()?;
        sys::process::share_one_arena();
        record.writer.start()?;
        let started = self.follow(prepared, starting, record, published);
        let Started { running, terminal, supervisor, net, annotate: listener } = match started {
            Ok(started) => started,
            Err(error) => return Ok(EndOfBox::not_started(error)),
        };
        if !self.outside.terminal {
            let_go_of_streams()?;
        }
        if let Some(export) = &record.export {
            export.start();
        }
        let failure: Mutex<Option<SupervisorError>> = Mutex::default();
        let tick = || {
            let Some(supervisor) = &supervisor else { return Duration::MAX };
            let next = supervisor.relieve();
            if let Some(error) = supervisor.failure() {
                // Nobody answers: the box must not go on half-supervised.
                let _ = sys::process::signal(running.init_fd.as_fd(), nix::sys::signal::Signal::SIGKILL);
                *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            }
            next
        };
        let annotate = OnceCell::new();
        let who = supervisor.as_ref().map(Supervisor::who);
        let door = listener.zip(who).map(|(listener, who)| {
            let hear = Arc::new(OnRecord::new(Arc::clone(&record.gate), Box::new(who)));
            Door::new(listener, |listener| listen(&annotate, &running, record, listener, hear))
        });
        let outcome = attend(&running, &self.outside.signals, terminal, self.args.timeout, door, tick)
            .context("cannot attend to the box")?;
        if let Some(annotate) = annotate.into_inner() {
            Annotate::finish(annotate);
        }
        let repositories = supervisor.as_ref().map(Supervisor::repositories).unwrap_or_default();
        if let Some(supervisor) = supervisor {
            supervisor.finish(LAST_CALLS);
        }
        if let Some(net) = net {
            net.finish(LAST_CALLS);
        }
        let failure = failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(EndOfBox { outcome: Ok(outcome), failure, repositories })
    }

    /// Follows the box as it comes up; the supervisor gets ready while the command is prepared.
    fn follow(
        &self,
        prepared: &Prepared,
        starting: Starting,
        record: &Record,
        published: Vec<Published>,
    ) -> Result<Started> {
        let supervisor = match prepared.plan.notify {
            true => Some(Supervisor::start(Arc::clone(&record.gate), self.target(prepared, &starting)?)?),
            false => None,
        };
        let net = start_net(prepared, &starting, record, published)?;
        let annotate = prepared.plan.annotate.as_ref().map(|_| starting.annotate()).transpose()?;
        let view = starting.view()?;
        if let Some(supervisor) = &supervisor {
            supervisor.enter(view);
        }
        let terminal = if self.outside.terminal { Some(starting.terminal()?) } else { None };
        if let Some(master) = &terminal {
            terminal::copy_settings(master);
            terminal::copy_window_size(master);
        }
        let (running, listener) = starting.command(supervisor.is_some())?;
        if let (Some(supervisor), Some(listener)) = (&supervisor, listener) {
            supervisor.listen(listener, net.clone());
        }
        Ok(Started { running, terminal, supervisor, net, annotate })
    }

    fn target(&self, prepared: &Prepared, starting: &Starting) -> Result<supervisor::Box> {
        let own_view = prepared.plan.view.is_some();
        let mut private: Vec<PathBuf> = prepared.policy.files.private.iter().map(|root| root.path.clone()).collect();
        if own_view {
            private.push("/dev/shm".into());
        }
        private.extend(prepared.plan.annotate.clone());
        let own_network = prepared.plan.namespaces.network;
        let host_proc = self.outside.proc.try_clone().context("cannot keep the host's /proc")?;
        Ok(supervisor::Box {
            init: starting.init().as_raw(),
            own_view,
            host_proc,
            private,
            own_network,
            wait_killable: prepared.plan.wait_killable,
        })
    }
}

/// Starts the box's way to and from the outside, if it has one.
fn start_net(
    prepared: &Prepared,
    starting: &Starting,
    record: &Record,
    published: Vec<Published>,
) -> Result<Option<Arc<Net>>> {
    if !prepared.plan.namespaces.entered {
        if !published.is_empty() {
            record.gate.note("no port is published: the box has no network of its own, its servers are on the host's");
        }
        return Ok(None);
    }
    let start = net::Start {
        gate: Arc::clone(&record.gate),
        box_network: starting.network()?,
        rules: prepared.policy.network.mode == NetworkMode::Rules,
        ping: prepared.plan.ping,
        published,
    };
    Ok(Some(Net::start(start)?))
}

/// Starts to listen to what programs in the box say of themselves: one of them is about to.
fn listen(annotate: &OnceCell<Annotate>, running: &Running, record: &Record, listener: OwnedFd, hear: Arc<OnRecord>) {
    match Annotate::start(annotate::Start { listener, init: running.init.as_raw(), hear }) {
        // The door opens once.
        Ok(started) => drop(annotate.set(started)),
        Err(error) => record.gate.note(format!("nobody hears what programs say of themselves: {:#}", anyhow!(error))),
    }
}

/// A box with its command, and what looks after it.
struct Started {
    running: Running,
    /// The master side of its terminal.
    terminal: Option<OwnedFd>,
    supervisor: Option<Supervisor>,
    net: Option<Arc<Net>>,
    /// Where its programs speak of themselves.
    annotate: Option<OwnedFd>,
}

impl EndOfBox {
    fn not_started(error: anyhow::Error) -> Self {
        let outcome = match error.downcast() {
            Ok(LaunchError::NotStarted { path, source }) => Ok(Outcome::NotStarted { path, errno: source }),
            Ok(other) => Err(format!("{:#}", anyhow!(other))),
            Err(other) => Err(format!("{other:#}")),
        };
        Self { outcome, failure: None, repositories: Vec::new() }
    }

    /// agentbox's exit status; says on stderr what the status alone would not.
    fn exit_code(&mut self) -> u8 {
        if let Some(error) = self.failure.take() {
            self.outcome = Err(format!("the supervisor failed: {:#}", anyhow!(error)));
        }
        match &self.outcome {
            Ok(Outcome::Ended { timed_out: true, .. }) => status::TIMED_OUT,
            Ok(Outcome::Ended { how, .. }) => how.status(),
            Ok(Outcome::NotStarted { path, errno }) => {
                eprintln!("agentbox: cannot run {}: {}", text::printable(path), errno.desc());
                if *errno == Errno::ENOENT { status::NOT_FOUND } else { status::NOT_EXECUTABLE }
            }
            Ok(Outcome::Failed { step }) | Err(step) => {
                eprintln!("agentbox: {}", text::printable(step));
                if apparmor_restricts_user_namespaces() {
                    eprintln!("agentbox: {}", namespace_fix("AppArmor"));
                }
                status::FAILED
            }
            Ok(Outcome::Lost) => {
                eprintln!("agentbox: the box's init was killed");
                status::FAILED
            }
        }
    }

    fn result(&self) -> RunResult {
        let mut result = RunResult::default();
        match &self.outcome {
            Ok(Outcome::Ended { how, timed_out }) => {
                result.timed_out = *timed_out;
                match how {
                    Ended::Exit(status) => result.exit = Some(*status),
                    Ended::Signal(signal) => result.signal = Some(*signal),
                }
            }
            Ok(Outcome::NotStarted { path, errno }) => {
                result.error = Some(format!("cannot run {path}: {}", errno.desc()));
            }
            Ok(Outcome::Failed { step }) | Err(step) => result.error = Some(step.clone()),
            Ok(Outcome::Lost) => result.error = Some("the box's init was killed".into()),
        }
        result
    }
}

/// Says of each git repository that this run made and left behind what in it runs programs when it is used outside.
fn note_repositories(gate: &Gate, policy: &Policy, repositories: &[PathBuf]) {
    for path in repositories {
        // What was made on a private file system is gone already.
        if policy.files.private.iter().any(|root| path.starts_with(&root.path)) && !is_written(policy, path) {
            continue;
        }
        let findings = supervisor::inspect(path);
        if !findings.is_empty() {
            let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
            gate.note(format!("new repository {} runs programs: {}", path.display(), list.join(", ")));
        }
    }
}

fn is_written(policy: &Policy, path: &Path) -> bool {
    policy.files.write.iter().any(|root| path.starts_with(&root.path))
}

fn open_proc() -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let proc = std::fs::OpenOptions::new().read(true).custom_flags(flags).open("/proc").context("cannot open /proc")?;
    Ok(proc.into())
}

/// Raises agentbox's own limit of open files; returns the old one for the command.
fn raise_open_files() -> Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    Ok((soft, hard))
}

/// The command holds the standard streams now; if agentbox did, too, a reader would never see their end.
fn let_go_of_streams() -> Result<()> {
    let null: OwnedFd = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into();
    for number in 0..=1 {
        sys::file::replace_standard(null.as_fd(), number).context("cannot let go of the standard streams")?;
    }
    Ok(())
}
