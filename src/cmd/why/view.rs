//! Questions as events: what a path, a program or an address comes to in the box that a policy makes.
//!
//! Main process, no box: the files are looked at from outside, as far as the box's view would show them. Nothing is
//! changed and nobody is asked outside of this machine.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, access};

use super::super::run::candidates;
use crate::event::{Access, BoxPath, Endpoint, Exec, FileOp, HOST_NAME, Place, Question, Transport, escape_bytes};
use crate::policy::network::{Destination, Host};
use crate::policy::{NetworkMode, Policy};
use crate::supervisor::{HEAD, MOST_INTERPRETERS, interpreter_of};

/// The kernel's own limit on links in one path: path_resolution(7).
const MOST_LINKS: usize = 40;
/// Stands for the address of a name that is not looked up: one for documentation, which no rule has a reason to name.
const SOME_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A policy, and the files as its box would see them.
pub struct View<'a> {
    policy: &'a Policy,
    /// Whether there is no view: everything outside can be seen.
    whole: bool,
}

/// A question as an event.
pub struct Asked {
    /// What is asked for.
    pub access: Access,
    /// What a grant would have to be about, where that is something else: a flag can only name what is there.
    pub wanted: Option<Access>,
    /// What it is aimed at, if not what the event says.
    pub target: Option<String>,
    /// The path that the box does not find though it is there outside.
    pub hidden: Option<BoxPath>,
    /// Whether there is nothing there outside either, so that no grant can name it.
    pub missing: bool,
    /// What there is to say if it is allowed.
    pub proviso: Option<&'static str>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

impl Asked {
    fn plain(access: Access) -> Self {
        Self { access, wanted: None, target: None, hidden: None, missing: false, proviso: None, notes: Vec::new() }
    }
}

/// Whether a symbolic link as the last name is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Followed,
    Itself,
}

/// What a path comes to in the view.
struct Spot {
    path: BoxPath,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Directory,
    Other,
    /// Its directory is there.
    Missing,
    /// Its directory is not.
    Nowhere,
}

impl<'a> View<'a> {
    /// Takes a policy as `run` has it; without a view, `whole`, everything outside can be seen.
    pub fn new(policy: &'a Policy, whole: bool) -> Self {
        Self { policy, whole }
    }

    /// The policy.
    pub fn policy(&self) -> &'a Policy {
        self.policy
    }

    /// Asks whether a path may be written to, as an open does that makes what is missing.
    pub fn write(&self, path: &Path) -> Result<Asked> {
        let spot = self.walk(path, Last::Followed)?;
        let op = if spot.state == State::Missing { FileOp::Create } else { FileOp::Write };
        let mut asked = self.change(op, &spot);
        if self.policy.files.private.iter().any(|root| spot.path.as_path().starts_with(&root.path))
            && !self.policy.files.shows(spot.path.as_path())
        {
            asked.proviso = Some("it lies in a directory of the run's own, which vanishes with it");
        }
        Ok(asked)
    }

    /// Asks whether a name may come into being.
    pub fn create(&self, path: &Path) -> Result<Asked> {
        let spot = self.walk(path, Last::Followed)?;
        let mut asked = self.change(FileOp::Create, &spot);
        if matches!(spot.state, State::Directory | State::Other) {
            asked.notes.push("it is there already".into());
        }
        Ok(asked)
    }

    /// Asks whether a name may go.
    pub fn delete(&self, path: &Path) -> Result<Asked> {
        let spot = self.walk(path, Last::Itself)?;
        let op = if spot.state == State::Directory { FileOp::Rmdir } else { FileOp::Unlink };
        let mut asked = self.change(op, &spot);
        asked.proviso = (op == FileOp::Rmdir).then_some("what lies in it is judged name by name");
        self.say_hidden(&mut asked, &spot);
        Ok(asked)
    }

    fn change(&self, op: FileOp, spot: &Spot) -> Asked {
        let mut wanted = spot.path.as_path();
        let mut op_wanted = op;
        while wanted.symlink_metadata().is_err() {
            op_wanted = FileOp::Create;
            match wanted.parent() {
                Some(parent) if parent.symlink_metadata().is_err() => wanted = parent,
                _ => break,
            }
        }
        let wanted = BoxPath::new(wanted).map(|path| Access::File { op: op_wanted, at: Place::of(path) });
        let mut asked = Asked { wanted, ..Asked::plain(Access::File { op, at: place(spot) }) };
        let directory = spot.path.as_path().parent();
        if spot.state == State::Nowhere && directory.is_some_and(Path::is_dir) {
            asked.hidden = Some(spot.path.clone());
            asked.notes.push("its directory is not in the view: the box finds none".into());
        }
        asked
    }

    /// Asks whether a file may be read.
    pub fn read(&self, path: &Path) -> Result<Asked> {
        let spot = self.walk(path, Last::Followed)?;
        let mut asked = Asked::plain(Access::File { op: FileOp::Read, at: place(&spot) });
        self.say_hidden(&mut asked, &spot);
        Ok(asked)
    }

    /// A file that the box does not find leaves no record there: nothing is asked.
    fn say_hidden(&self, asked: &mut Asked, spot: &Spot) {
        if !matches!(spot.state, State::Missing | State::Nowhere) || asked.hidden.is_some() {
            return;
        }
        match spot.path.as_path().symlink_metadata() {
            Ok(_) => {
                asked.hidden = Some(spot.path.clone());
                asked.notes.push("it is not in the view: the box finds no such file, and nothing is recorded".into());
            }
            Err(error) => {
                asked.missing = true;
                asked.notes.push(match error.kind() {
                    ErrorKind::PermissionDenied => "it cannot be seen from here whether there is such a file".into(),
                    _ => "there is no such file".into(),
                });
            }
        }
    }

    /// Asks whether a program may be started, found and read as the kernel does it.
    pub fn exec(&self, argv: &[OsString]) -> Result<Asked> {
        let name = argv.first().filter(|name| !name.is_empty()).context("the command is an empty name")?;
        let Some((written, spot)) = self.program(Path::new(name))? else {
            bail!("there is no program {}, in the box or outside", escape_bytes(name.as_bytes()));
        };
        let called = written.file_name().unwrap_or(name);
        let mut asked = Asked::plain(Access::File { op: FileOp::Read, at: place(&spot) });
        self.say_hidden(&mut asked, &spot);
        if asked.hidden.is_none() && !may_run(&spot) {
            asked.notes.push("its mode does not let it be run".into());
        }
        let hidden = asked.hidden.is_some();
        let (interpreter, line) = match hidden {
            true => (None, Vec::new()),
            false => self.interpreter(&spot.path, &written, &mut asked.notes)?,
        };
        let read = std::mem::replace(
            &mut asked.access,
            Access::Exec(Exec {
                line,
                interpreter,
                ..Exec::of(
                    spot.path,
                    escape_bytes(called.as_bytes()),
                    argv.iter().map(|word| escape_bytes(word.as_bytes())).collect(),
                )
            }),
        );
        asked.wanted = hidden.then_some(read);
        Ok(asked)
    }

    /// The same for a machine that may lack the program: then it is taken for the system's program of that name.
    pub fn exec_anywhere(&self, argv: &[OsString]) -> Result<Asked> {
        let name = Path::new(argv.first().filter(|name| !name.is_empty()).context("the command is an empty name")?);
        let has_directory = name.as_os_str().as_bytes().contains(&b'/');
        if has_directory || self.program(name)?.is_some() {
            return self.exec(argv);
        }
        let words: Vec<String> = argv.iter().map(|word| escape_bytes(word.as_bytes())).collect();
        let program = BoxPath::new(Path::new("/usr/bin").join(name)).context("the command is no name")?;
        Ok(Asked::plain(Access::Exec(Exec::of(program, words[0].clone(), words))))
    }

    /// Finds a program as init does: the first that is in the view and may be run; else the first that is there at all.
    fn program(&self, name: &Path) -> Result<Option<(PathBuf, Spot)>> {
        let mut outside = None;
        for written in candidates(self.policy, name) {
            let spot = self.walk(&written, Last::Followed)?;
            let named = name.as_os_str().as_bytes().contains(&b'/') && spot.path.as_path().exists();
            match spot.state {
                State::Other if named || may_run(&spot) => return Ok(Some((written, spot))),
                _ if outside.is_none() && (named || may_run(&spot)) => outside = Some((written, spot)),
                _ => {}
            }
        }
        Ok(outside)
    }

    /// Follows `#!` lines from a program, called `written`, to the interpreter that runs; and what that is given before
    /// the program's own arguments.
    fn interpreter(
        &self,
        program: &BoxPath,
        written: &Path,
        notes: &mut Vec<String>,
    ) -> Result<(Option<BoxPath>, Vec<String>)> {
        let (mut last, mut line): (Option<BoxPath>, Vec<String>) = (None, Vec::new());
        let escaped = |path: &Path| escape_bytes(path.as_os_str().as_bytes());
        let mut name = written.to_path_buf();
        for depth in 0.. {
            let current = last.as_ref().unwrap_or(program);
            let Some((written, argument)) = script_line(current.as_path()) else { break };
            if depth == MOST_INTERPRETERS {
                notes.push("its `#!` lines name scripts deeper than the kernel follows them".into());
                break;
            }
            // As the kernel does it: each takes the place of what it was called by (`binfmt_script.c`).
            let given = [escaped(&written)].into_iter().chain(argument).chain([escaped(&name)]);
            line = given.chain(line.into_iter().skip(1)).collect();
            let spot = self.walk(&written, Last::Followed)?;
            if !matches!(spot.state, State::Other) {
                notes.push(format!("its interpreter {} is not in the view, so it does not start", spot.path));
                return Ok((Some(spot.path), line));
            }
            (last, name) = (Some(spot.path), written);
        }
        Ok((last, line))
    }

    /// Asks whether an address, a name or a socket may be connected to.
    pub fn connect(&self, text: &str) -> Result<Asked> {
        if let Some(path) = socket_path(text) {
            return self.socket(path);
        }
        if let Some(to) = loopback(text) {
            return Ok(self.own_loopback(to));
        }
        let to = Destination::parse(text)?;
        let port = match to.transport {
            Transport::Icmp => 0,
            _ => to.ports.single().context("name one port, as in example.org:443")?,
        };
        let inet = |ip, names| Endpoint::Inet {
            address: SocketAddr::new(ip, port),
            outside: true,
            transport: to.transport,
            names,
        };
        Ok(match &to.host {
            Host::Any | Host::Below(_) => bail!("{text}: name one host"),
            Host::Subnet(subnet) if subnet.prefix() == if subnet.is_ipv4() { 32 } else { 128 } => {
                Asked::plain(Access::Connect { to: inet(subnet.address(), Vec::new()) })
            }
            Host::Subnet(_) => bail!("{text}: name one address"),
            Host::Name(name) => {
                let is_host = name.as_str() == HOST_NAME;
                let ip = if is_host { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { SOME_ADDRESS };
                let access = Access::Connect { to: inet(ip, vec![name.as_str().into()]) };
                let rules = self.policy.network.mode == NetworkMode::Rules && !is_host;
                let proviso = rules.then_some("the address that the name leads to is judged, too");
                Asked { target: Some(to.to_string()), proviso, ..Asked::plain(access) }
            }
        })
    }

    /// With a network of its own the box's loopback is its own, without one it is the host's.
    fn own_loopback(&self, (transport, address): (Transport, SocketAddr)) -> Asked {
        let outside = self.policy.network.mode == NetworkMode::Host;
        let names = if outside { vec![HOST_NAME.into()] } else { Vec::new() };
        let asked = Asked::plain(Access::Connect { to: Endpoint::Inet { address, outside, transport, names } });
        let other = format!("that is the box's own loopback; this machine's is {HOST_NAME}:{}", address.port());
        Asked { notes: if outside { Vec::new() } else { vec![other] }, ..asked }
    }

    fn socket(&self, path: &Path) -> Result<Asked> {
        let spot = self.walk(path, Last::Followed)?;
        let mut asked = Asked::plain(Access::Connect { to: Endpoint::Unix { path: spot.path.clone(), own: false } });
        asked.notes.push("a socket that the box makes itself is always open to it".into());
        if spot.path.as_path().symlink_metadata().is_err() {
            asked.missing = true;
            asked.notes.push("there is no such socket".into());
        }
        Ok(asked)
    }

    /// Asks whether a name may be looked up.
    pub fn resolve(name: &str) -> Asked {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        Asked::plain(Access::Resolve(Question { name: escape_bytes(name.as_bytes()), record: "A".into() }))
    }

    /// Walks a path as the supervisor would in the box: what the view does not show is not there.
    fn walk(&self, path: &Path, last: Last) -> Result<Spot> {
        if path.as_os_str().is_empty() {
            bail!("the path is empty");
        }
        let mut names = names(&self.policy.workdir.join(path));
        let (mut done, mut state, mut links) = (PathBuf::from("/"), State::Directory, 0);
        while let Some(name) = names.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&name);
            let found = match state {
                State::Missing | State::Nowhere | State::Other => None,
                State::Directory => self.look(&next),
            };
            match found {
                Some(kind) if kind.is_symlink() && (last == Last::Followed || !names.is_empty()) => {
                    links += 1;
                    if links > MOST_LINKS {
                        bail!("{}: too many links", path.display());
                    }
                    let text =
                        fs::read_link(&next).with_context(|| format!("cannot read the link {}", next.display()))?;
                    if text.is_absolute() {
                        done = "/".into();
                    }
                    for name in self::names(&text).into_iter().rev() {
                        names.push_front(name);
                    }
                    continue;
                }
                Some(kind) if kind.is_dir() => state = State::Directory,
                Some(_) => state = State::Other,
                None if state == State::Directory => state = State::Missing,
                None => state = State::Nowhere,
            }
            done = next;
        }
        let path = BoxPath::new(&done).with_context(|| format!("{} is no path", done.display()))?;
        Ok(Spot { path, state })
    }

    /// What stands at one name, if the view shows it.
    fn look(&self, path: &Path) -> Option<fs::FileType> {
        let sockets = || self.policy.network.unix.iter().filter(|socket| socket.exists);
        let leads = || sockets().any(|one| one.link.iter().chain([&one.path]).any(|shown| shown.starts_with(path)));
        let shown = self.whole || self.policy.files.shows(path) || leads();
        shown.then(|| path.symlink_metadata().ok()).flatten().map(|found| found.file_type())
    }
}

fn may_run(spot: &Spot) -> bool {
    access(spot.path.as_path(), AccessFlags::X_OK).is_ok() && spot.path.as_path().is_file()
}

fn place(spot: &Spot) -> Place {
    Place { directory: spot.state == State::Directory, ..Place::of(spot.path.clone()) }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// The interpreter that a file's `#!` line names, and the argument that it adds, escaped.
fn script_line(path: &Path) -> Option<(PathBuf, Option<String>)> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(HEAD as u64).read_to_end(&mut head).ok()?;
    let (interpreter, argument) = interpreter_of(&head)?;
    let interpreter = Path::new(OsStr::from_bytes(interpreter.to_bytes())).to_path_buf();
    Some((interpreter, argument.map(|argument| escape_bytes(argument.to_bytes()))))
}

/// `unix:PATH`, or what can only be a path.
fn socket_path(text: &str) -> Option<&Path> {
    let path = text.strip_prefix("unix:").or_else(|| text.starts_with(['/', '.']).then_some(text));
    path.filter(|path| !path.is_empty()).map(Path::new)
}

/// `localhost:80`, `127.0.0.1:80`, `udp://[::1]:53`: what no rule speaks of.
fn loopback(text: &str) -> Option<(Transport, SocketAddr)> {
    let (transport, rest) = match text.split_once("://") {
        None => (Transport::Tcp, text),
        Some(("tcp", rest)) => (Transport::Tcp, rest),
        Some(("udp", rest)) => (Transport::Udp, rest),
        Some(_) => return None,
    };
    let address = match rest.strip_prefix("localhost:") {
        Some(port) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.parse().ok()?),
        None => rest.parse().ok()?,
    };
    let ip = address.ip().to_canonical();
    (ip.is_loopback() || ip.is_unspecified()).then_some((transport, SocketAddr::new(ip, address.port())))
}
