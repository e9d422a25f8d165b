//! The box's side: pid 1, and the command it starts.
//!
//! Everything here runs between agentbox's fork and the command's exec, in processes with one thread and prepared data.
//! Order matters and is explained where it does. The command is forked first and prepares itself while init builds the
//! view; then it enters. init never returns to agentbox's code: it ends with the command, and the kernel ends the process
//! namespace with it.

use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use caps::CapSet;
use nix::errno::Errno;
use nix::pty::{PtyMaster, ptsname_r};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, execve, setsid};

use super::handshake::{Channel, Ended, Message};
use super::launch::Job;
use super::{landlock, mounts, seccomp};
use crate::sys;
use crate::sys::process::{Alone, Fork};

/// A step of init or of the command before its exec failed.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("cannot {0}")]
    Step(&'static str, #[source] Errno),
    #[error("cannot start in {dir}")]
    Workdir { dir: String, source: Errno },
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    #[error(transparent)]
    Landlock(#[from] landlock::LandlockError),
    #[error("cannot drop capabilities")]
    Capabilities(#[source] caps::errors::CapsError),
}

type Result<T> = std::result::Result<T, InitError>;

fn step<T>(doing: &'static str, result: nix::Result<T>) -> Result<T> {
    result.map_err(|errno| InitError::Step(doing, errno))
}

/// Becomes init of the box and never returns.
pub fn run(alone: &Alone, job: &Job<'_>, channel: Channel) -> ! {
    if let Err(error) = bring_up(alone, job, &channel) {
        fail(&channel, &error);
    }
    sys::process::exit_now(125)
}

/// Tells agentbox what failed, with the whole chain. If even that fails, agentbox is gone and so are we.
fn fail(channel: &Channel, error: &InitError) {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    let _ = channel.send(&Message::Failed { step: text }, None);
}

fn bring_up(alone: &Alone, job: &Job<'_>, channel: &Channel) -> Result<()> {
    let own = job.plan.namespaces.own;
    step("tie the box's life to agentbox's", sys::process::die_with_parent())?;
    wait_for(channel, &Message::Begin)?;
    step("leave the terminal's session", setsid())?;
    drop_inherited(alone, channel)?;
    if !own {
        step("take in orphans", sys::process::adopt_orphans())?;
    }
    close_the_way_back()?;
    // The command makes the network namespace, the dearest of them, while this process builds the view.
    let mut command = fork_command(alone, job, channel)?;
    let mut annotate = None;
    if let Some(view) = &job.plan.view {
        // Letting go of the old root takes the kernel a while, in which the command can confine itself.
        annotate = mounts::build(view, || command.show_view())?;
    } else {
        command.show_view();
    }
    if job.plan.namespaces.network {
        command.share_network()?;
    }
    if job.plan.namespaces.entered {
        report_network(channel)?;
    }
    if let Some(listener) = annotate {
        step("report the socket for annotations", channel.send(&Message::Annotate, Some(listener.as_fd())))?;
    }
    report_view(job, channel)?;
    wait_for(channel, &Message::Enter)?;
    let terminal = if job.terminal { Some(open_terminal(channel)?) } else { None };
    drop_privileges()?;
    step("report the command", channel.send(&Message::Command, Some(command.pidfd.as_fd())))?;
    command.let_in(terminal.as_ref())?;
    step("hide init", sys::process::hide())?;
    let_go_of_streams()?;
    let ended = reap_until(command.pid);
    if !own {
        end_descendants();
    }
    step("report the end", channel.send(&Message::Ended(ended), None))?;
    sys::process::exit_now(0)
}

/// Waits for a word from agentbox. Anything else means that it is gone, or gave up before anything was started.
fn wait_for(channel: &Channel, word: &Message) -> Result<()> {
    match step("wait for agentbox", channel.receive())? {
        Some((message, _)) if message == *word => Ok(()),
        _ => sys::process::exit_now(125),
    }
}

/// What init must not hold: agentbox's descriptors, and its environment in readable memory.
fn drop_inherited(alone: &Alone, channel: &Channel) -> Result<()> {
    step("close inherited descriptors", sys::file::close_all_but(alone, channel.fd().as_fd()))?;
    sys::process::scrub_environment(alone);
    Ok(())
}

/// Hands agentbox the mount namespace while init can still be looked into. This also proves that agentbox lived after
/// `die_with_parent`: a send to the dead fails.
fn report_view(job: &Job<'_>, channel: &Channel) -> Result<()> {
    let namespace = match &job.plan.view {
        Some(_) => Some(step("open the mount namespace", open("/proc/self/ns/mnt", OpenOptions::new().read(true)))?),
        None => None,
    };
    step("report the view", channel.send(&Message::View, namespace.as_ref().map(AsFd::as_fd)))
}

/// Hands agentbox the network namespace, while init can still be looked into.
fn report_network(channel: &Channel) -> Result<()> {
    let namespace = step("open the network namespace", open("/proc/self/ns/net", OpenOptions::new().read(true)))?;
    step("report the network", channel.send(&Message::Network, Some(namespace.as_fd())))
}

fn open(path: &str, how: &OpenOptions) -> nix::Result<OwnedFd> {
    how.open(path).map(OwnedFd::from).map_err(|_| Errno::last())
}

struct Terminal {
    _master: PtyMaster,
    slave: String,
}

/// Takes a terminal from the box's own devpts, so that its name is right inside.
fn open_terminal(channel: &Channel) -> Result<Terminal> {
    let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NOCTTY | nix::fcntl::OFlag::O_CLOEXEC;
    let master = step("open a terminal", nix::pty::posix_openpt(flags))?;
    step("unlock the terminal", nix::pty::unlockpt(&master))?;
    let slave = step("name the terminal", ptsname_r(&master))?;
    step("report the terminal", channel.send(&Message::Terminal, Some(master.as_fd())))?;
    Ok(Terminal { _master: master, slave })
}

/// Empties the bounding set, from which uid 0 would regain capabilities by an exec. Before the command is forked, which
/// inherits it empty; what is held already is not touched.
fn close_the_way_back() -> Result<()> {
    step("empty the bounding set", sys::process::empty_bounding_set())
}

/// Drops every capability.
fn drop_privileges() -> Result<()> {
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(InitError::Capabilities)?;
    }
    step("give up new privileges", sys::process::no_new_privileges())?;
    match sys::process::new_session_keyring() {
        // A kernel or an outer filter without keyrings has no keys to reach.
        Ok(()) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => Err(InitError::Step("leave the session's keyring", errno)),
    }
}

/// The command's process, as init holds it.
struct Forked {
    pid: Pid,
    pidfd: OwnedFd,
    /// Carries one byte here when the network namespace stands, one there when the view can be seen, and at last the
    /// terminal's name there.
    line: UnixStream,
}

fn fork_command(alone: &Alone, job: &Job<'_>, channel: &Channel) -> Result<Forked> {
    let (line, theirs) = UnixStream::pair().map_err(|_| InitError::Step("talk to the command", Errno::last()))?;
    match step("fork the command", sys::process::fork_into(alone, 0))? {
        Fork::Child => {
            drop(line);
            if let Err(error) = command(job, channel, theirs) {
                fail(channel, &error);
            }
            sys::process::exit_now(125)
        }
        Fork::Parent { pid, pidfd } => Ok(Forked { pid: Pid::from_raw(pid), pidfd, line }),
    }
}

impl Forked {
    /// Joins the network namespace that the command has made: what `/proc/1/net` shows must be the box's own.
    fn share_network(&mut self) -> Result<()> {
        let ready = self.line.read_exact(&mut [0]);
        ready.map_err(|_| InitError::Step("wait for the box's network", Errno::EPIPE))?;
        match setns(&self.pidfd, CloneFlags::CLONE_NEWNET) {
            // It found nothing to run, has said so and is gone; there is nothing to be init of.
            Err(Errno::ESRCH) => sys::process::exit_now(125),
            joined => step("join the box's network", joined),
        }
    }

    /// Tells the command that it sees the view.
    fn show_view(&mut self) {
        // A command that is gone is found out when it is let in.
        let _ = self.line.write_all(&[0]);
    }

    /// Lets the command go on in the view that stands now.
    fn let_in(&mut self, terminal: Option<&Terminal>) -> Result<()> {
        let name = terminal.map_or("", |terminal| &terminal.slave);
        let sent = self.line.write_all(format!("{GO}{name}").as_bytes());
        sent.and_then(|()| self.line.shutdown(Shutdown::Both))
            .map_err(|_| InitError::Step("let the command in", Errno::EPIPE))
    }
}

/// Tells a word from init apart from the end of it.
const GO: char = '>';

/// Waits for the view to be there, with the old root perhaps still behind it.
fn wait_for_view(line: &mut UnixStream) -> Result<()> {
    line.read_exact(&mut [0]).map_err(|_| InitError::Step("wait for the view", Errno::EPIPE))
}

/// Waits to be let in; returns the name of the box's terminal, if it has one.
fn wait_to_enter(line: &mut UnixStream) -> Result<Option<String>> {
    let mut word = String::new();
    let read = line.read_to_string(&mut word);
    match (read, word.strip_prefix(GO)) {
        (Ok(_), Some("")) => Ok(None),
        (Ok(_), Some(name)) => Ok(Some(name.to_string())),
        // init is gone, and so is this process in a moment.
        _ => Err(InitError::Step("wait to enter", Errno::EPIPE)),
    }
}

/// Becomes the command. Landlock and seccomp come last: from then on exec stops. Nothing of the user's runs before it is
/// let in, and by then the old root is gone.
fn command(job: &Job<'_>, channel: &Channel, mut line: UnixStream) -> Result<()> {
    if job.plan.namespaces.network {
        step("make the box's network", unshare(CloneFlags::CLONE_NEWNET))?;
        step("bring the box's loopback up", sys::socket::raise_loopback())?;
        name_loopback(&job.plan.loopback)?;
        line.write_all(&[0]).map_err(|_| InitError::Step("report the network", Errno::EPIPE))?;
    }
    step("open a session", setsid())?;
    restore_signals()?;
    let (soft, hard) = job.open_files;
    step("restore the limit of open files", setrlimit(Resource::RLIMIT_NOFILE, soft, hard))?;
    drop_privileges()?;
    wait_for_view(&mut line)?;
    // Its terminal, made last, is attached before Landlock would keep it from being opened.
    if job.terminal
        && let Some(terminal) = wait_to_enter(&mut line)?
    {
        attach(&terminal)?;
    }
    if job.plan.view.is_some() {
        own_null()?;
    }
    chdir(job.plan.workdir.as_path())
        .map_err(|source| InitError::Workdir { dir: job.plan.workdir.display().to_string(), source })?;
    let program = match find(&job.command.argv[0], &job.command.env) {
        Ok(program) => program,
        Err(errno) => return not_started(channel, &job.command.argv[0], errno),
    };
    if let Some(rules) = &job.plan.landlock {
        landlock::confine(rules)?;
    }
    let listener = step("install the filter", seccomp::install(job.filter, job.plan.wait_killable))?;
    if !job.terminal {
        wait_to_enter(&mut line)?;
    }
    if let Some(listener) = &listener {
        let number = listener.as_raw_fd();
        step("report the listener", channel.send(&Message::Listener { number }, None))?;
    }
    let errno = start(&program, &job.command.argv, &job.command.env);
    not_started(channel, &program, errno)
}

/// Gives the box's loopback the plan's addresses.
fn name_loopback(addresses: &[IpAddr]) -> Result<()> {
    for address in addresses {
        match sys::socket::add_loopback_address(*address) {
            // New network namespaces can be without IPv6 where the host has it; nobody looks for such addresses then.
            Err(_) if address.is_ipv6() => {}
            done => step("name the box's loopback", done)?,
        }
    }
    Ok(())
}

fn not_started(channel: &Channel, path: &CStr, errno: Errno) -> Result<()> {
    let message = Message::NotStarted { path: path.to_string_lossy().into_owned(), errno: errno as i32 };
    step("report the failed start", channel.send(&message, None))?;
    sys::process::exit_now(if errno == Errno::ENOENT { 127 } else { 126 })
}

/// Puts the terminal in place of those standard streams that were terminals.
fn attach(terminal: &str) -> Result<()> {
    let how = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).to_owned();
    let slave = step("open the terminal", open(terminal, &how))?;
    step("take the terminal", sys::process::take_terminal(slave.as_fd()))?;
    for number in 0..=2 {
        if is_terminal(number) {
            step("connect the terminal", sys::file::replace_standard(slave.as_fd(), number))?;
        }
    }
    Ok(())
}

/// Puts the view's `/dev/null` in place of the host's: through a descriptor of that one its mode and times could be set.
fn own_null() -> Result<()> {
    for number in 0..=2 {
        let Ok(stat) = sys::file::fstatat(number, c"", libc::AT_EMPTY_PATH) else { continue };
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(1, 3) {
            continue;
        }
        let null = step("open /dev/null", open("/dev/null", OpenOptions::new().read(true).write(true)))?;
        step("connect /dev/null", sys::file::replace_standard(null.as_fd(), number))?;
    }
    Ok(())
}

fn is_terminal(number: i32) -> bool {
    use std::io::IsTerminal;
    match number {
        0 => std::io::stdin().is_terminal(),
        1 => std::io::stdout().is_terminal(),
        _ => std::io::stderr().is_terminal(),
    }
}

/// agentbox blocks the signals it forwards and Rust ignores SIGPIPE; the command starts with neither.
fn restore_signals() -> Result<()> {
    step("restore a signal's action", sys::process::restore_default(Signal::SIGPIPE))?;
    step("unblock signals", sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None))
}

/// Finds a program as execvp does: a name with a slash as it is, another along the command's own PATH.
fn find(name: &CStr, env: &[CString]) -> std::result::Result<CString, Errno> {
    if name.to_bytes().contains(&b'/') {
        return Ok(name.to_owned());
    }
    let path = env.iter().find_map(|var| var.to_bytes().strip_prefix(b"PATH=")).unwrap_or(b"/usr/bin:/bin");
    let mut refusal = Errno::ENOENT;
    for dir in path.split(|byte| *byte == b':') {
        let dir = if dir.is_empty() { &b"."[..] } else { dir };
        let full = Path::new(std::ffi::OsStr::from_bytes(dir)).join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        match nix::unistd::access(&full, nix::unistd::AccessFlags::X_OK) {
            Ok(()) if full.is_file() => {
                return CString::new(full.as_os_str().as_bytes()).map_err(|_| Errno::ENOENT);
            }
            Err(Errno::EACCES) => refusal = Errno::EACCES,
            _ => {}
        }
    }
    Err(refusal)
}

/// Becomes the program, or says why not. A file without a `#!` line is run by the shell, as execvp does.
fn start(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let Err(errno) = execve(path, argv, env);
    if errno != Errno::ENOEXEC {
        return errno;
    }
    let shell = [c"sh".to_owned(), path.to_owned()];
    let argv: Vec<&CStr> = shell.iter().chain(&argv[1..]).map(CString::as_c_str).collect();
    let Err(errno) = execve(c"/bin/sh", &argv, env);
    errno
}

/// The command holds the standard streams from now on: if init did, too, a reader would never see their end.
fn let_go_of_streams() -> Result<()> {
    let null = step("open /dev/null", open("/dev/null", OpenOptions::new().read(true).write(true)))?;
    for number in 0..=2 {
        step("let go of the standard streams", sys::file::replace_standard(null.as_fd(), number))?;
    }
    Ok(())
}

/// Reaps whatever ends until `command` does. `__WALL`: children made with an odd exit signal count, too.
fn reap_until(command: Pid) -> Ended {
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == command => return Ended::Exit(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => return Ended::Signal(signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            // Without children there is nothing to wait for; the command cannot have been missed.
            Err(_) => return Ended::Exit(125),
        }
    }
}

/// Without a process namespace the kernel does not end what the command left behind; so it is killed, again and again,
/// as orphans come to this process.
fn end_descendants() {
    loop {
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let children: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        for pid in &children {
            let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}
