//! Signals from one action to another: `kill` and its kin.
//!
//! What a process sends to its own action is nobody else's concern and goes on unseen, and so does what reaches nobody.
//! The rest is judged and recorded, and the kernel delivers it: it alone knows who may signal whom, and tells the
//! receiver who sent it. A record says `ok` when the receiver was there; whether it took notice is its own affair. Not
//! seen are signals that no such call sends: from a terminal, for the owner of a descriptor (`F_SETOWN`), by a timer.
//! Nor are those of a sender that is not dumpable where the box has no user namespace: nobody then may look at it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::signal::Signal as Known;

use super::fs::reply;
use super::lineage::{Lineage, Status, Task};
use super::notification::{Because, Reply};
use super::target::Target;
use super::{Context, Handled, Stop};
use crate::event::{Access, ActionId, Receiver, Signal, Unjudged};
use crate::sys::process;
use crate::syscalls::Arg;

/// `kill`, `tkill`, `tgkill`, `rt_sigqueueinfo`, `rt_tgsigqueueinfo`, `pidfd_send_signal`.
pub fn signal(context: &Context<'_>) -> Handled {
    if context.call.has(Arg::Pidfd) && !has_its_descriptors_alone(context) {
        return by_copy(context);
    }
    let go_on = || Reply::Continue(Because::SignalStaysInTheBox);
    let number = context.call.int(Arg::Signal);
    let signal = match name(number) {
        Some(name) => across(context, aim(context)?, number, name),
        None => None,
    };
    let Some(signal) = signal else {
        // The kernel refuses it (`EINVAL`, `ESRCH`, `EBADF`), or it stays within the action.
        let _ = context.call.stopped.answer(go_on());
        return Ok(());
    };
    context.still_there()?;
    let judged = context.judge(Access::Signal(signal), None);
    let reply = if judged.allowed() { go_on() } else { Reply::Errno(Errno::EPERM) };
    context.conclude(judged, reply)
}

/// Whether nobody can put another descriptor in the place of one of the caller's while its call waits.
fn has_its_descriptors_alone(context: &Context<'_>) -> bool {
    let target = context.call.stopped.target;
    if Status::read(target).threads != 1 {
        return false;
    }
    let shares = |other: i32| other != context.task.subject.host && process::share_descriptors(target.tid, other);
    context.shared.lineage.processes_around(target).is_ok_and(|around| !around.into_iter().any(shares))
}

/// `pidfd_send_signal` where the descriptor could be another one by the time the kernel looks: judged by a copy, and sent
/// by it. The receiver is not told by whom.
fn by_copy(context: &Context<'_>) -> Handled {
    let (call, target) = (context.call, context.call.stopped.target);
    let copy = match target.copy_descriptor(call.int(Arg::Pidfd)) {
        Ok(copy) => copy,
        Err(Errno::ESRCH) => return Err(Stop::Gone),
        Err(Errno::EBADF) => return Err(Stop::Errno(Errno::EBADF)),
        Err(_) => return Err(Stop::Unjudged(Unjudged::Unreadable, Errno::EPERM)),
    };
    let info = match call.word(Arg::SignalInfo) {
        0 => None,
        address => Some(context.memory(target.bytes(address, process::SIGNAL_INFO))?),
    };
    context.still_there()?;
    let number = call.int(Arg::Signal);
    let flags = call.int(Arg::PidfdFlags) as u32;
    let send = |number: i32| process::signal_with(copy.as_fd(), number, info.as_deref(), flags);
    let aim = by_descriptor(context, told_of(target, &copy))?;
    let nobody = matches!(aim, Aim::Nobody);
    let Some(signal) = name(number).and_then(|name| across(context, aim, number, name)) else {
        // Whoever is not the box's to signal is not ours to signal for it: all there is to learn is what is wrong.
        let sent = if nobody {
            process::signal_with(copy.as_fd(), 0, None, flags).and(Err(Errno::EPERM))
        } else {
            send(number)
        };
        let _ = context.call.stopped.answer(reply(sent));
        return Ok(());
    };
    let judged = context.judge(Access::Signal(signal), None);
    let done = if judged.allowed() { reply(send(number)) } else { Reply::Errno(Errno::EPERM) };
    context.conclude(judged, done)
}

/// Names a signal; `None` if there is no such signal.
fn name(number: i32) -> Option<String> {
    const FIRST: i32 = 34; // SIGRTMIN of C libraries, which keep the two before it for themselves
    match number {
        1..32 => Known::try_from(number).ok().map(|signal| signal.as_str().into()),
        32 | 33 => Some(format!("signal {number}")),
        FIRST => Some("SIGRTMIN".into()),
        35..=64 => Some(format!("SIGRTMIN+{}", number - FIRST)),
        _ => None,
    }
}

/// What is judged; `None` if the signal reaches nobody but processes of the sender's own action, or nobody at all.
fn across(context: &Context<'_>, aim: Aim, signal: i32, name: String) -> Option<Signal> {
    let (to, below) = match aim {
        Aim::Nobody => return None,
        Aim::Everybody => (Receiver::Everybody, false),
        Aim::Process(process) => match foreign(context, &process) {
            Foreign::No => return None,
            Foreign::Yes { action, below } => (Receiver::Process { pid: process.subject.pid, action }, below),
        },
        Aim::Group { pgid, of } => match foreign(context, &of) {
            Foreign::No => return None,
            Foreign::Yes { action, below } => (Receiver::Group { pgid, action }, below),
        },
    };
    Some(Signal { signal, name, to, below })
}

/// Whom a call is for.
enum Aim {
    /// Nobody is there.
    Nobody,
    Process(Task),
    /// A group, and the member by which it is judged.
    Group {
        pgid: i32,
        of: Task,
    },
    Everybody,
}

/// Whether a process belongs to another action.
enum Foreign {
    No,
    Yes {
        action: ActionId,
        /// Whether it descends from the sender.
        below: bool,
    },
}

fn foreign(context: &Context<'_>, receiver: &Task) -> Foreign {
    let (sender, receiver) = (&context.task.subject, &receiver.subject);
    if sender.mark == receiver.mark {
        return Foreign::No;
    }
    Foreign::Yes { action: receiver.mark, below: receiver.parents.contains(&sender.pid) }
}

fn aim(context: &Context<'_>) -> Result<Aim, Stop> {
    let call = context.call;
    if call.has(Arg::Pidfd) {
        return by_descriptor(context, described(call.stopped.target, call.int(Arg::Pidfd)));
    }
    if call.has(Arg::Receiver) {
        return Ok(match call.int(Arg::Receiver) {
            number @ 1.. => one(context, number),
            0 => group(context, Lineage::group(call.stopped.target)),
            -1 => everybody(context),
            // The kernel knows no group of the number i32::MIN.
            number => number.checked_neg().map_or(Aim::Nobody, |number| group(context, number)),
        });
    }
    // To its own threads: runtimes do so often.
    if call.has(Arg::Process) && call.int(Arg::Process) == context.task.subject.pid {
        return Ok(Aim::Process(context.task.clone()));
    }
    if !call.has(Arg::Thread) {
        return Ok(one(context, call.int(Arg::Process)));
    }
    Ok(match one(context, call.int(Arg::Thread)) {
        // The kernel refuses a thread of another process than the one that is named.
        Aim::Process(task) if call.has(Arg::Process) && call.int(Arg::Process) != task.subject.pid => Aim::Nobody,
        found => found,
    })
}

/// The process that has this number in the box, or whose thread has.
fn one(context: &Context<'_>, number: i32) -> Aim {
    if number <= 0 {
        return Aim::Nobody;
    }
    match context.shared.lineage.host_process_of(context.call.stopped.target, context.task, number) {
        Ok(host) => inside(context, host).map_or(Aim::Nobody, Aim::Process),
        Err(_) => Aim::Nobody,
    }
}

/// A process of the box by its number on the host. Nobody else is anybody's to signal: not init, which the kernel keeps
/// from harm, and not what may be around without a pid namespace, which Landlock keeps out of reach.
fn inside(context: &Context<'_>, host: i32) -> Option<Task> {
    if host == context.task.subject.host {
        return Some(context.task.clone());
    }
    let lineage = &context.shared.lineage;
    let task = lineage.task(at(context, host), Instant::now());
    (task.subject.pid > 0 && lineage.is_in_box(context.call.stopped.target, &task.subject)).then_some(task)
}

fn at(context: &Context<'_>, host: i32) -> Target {
    Target { tid: host, ..context.call.stopped.target }
}

/// A group is judged by the process that leads it, and where that is gone by the first member of another action.
///
/// An action's processes are in the group of whoever started it, unless that has job control. So the group of the
/// agent's own process may hold all of them, and it is still its own to signal; but an action that signals this group
/// (`kill 0` in a script) signals the agent.
fn group(context: &Context<'_>, pgid: i32) -> Aim {
    if pgid <= 0 {
        return Aim::Nobody;
    }
    let is_member = |task: &Task| Lineage::group(at(context, task.subject.host)) == pgid;
    if let Aim::Process(of) = one(context, pgid)
        && of.subject.pid == pgid
        && is_member(&of)
    {
        return Aim::Group { pgid, of };
    }
    let mut members = others(context).filter(is_member);
    let of = members.find(|task| matches!(foreign(context, task), Foreign::Yes { .. }));
    of.map_or(Aim::Nobody, |of| Aim::Group { pgid, of })
}

/// Everybody, unless the sender is alone in the box.
fn everybody(context: &Context<'_>) -> Aim {
    if others(context).next().is_some() { Aim::Everybody } else { Aim::Nobody }
}

/// The processes of the box but init and the sender.
fn others<'a>(context: &'a Context<'_>) -> impl Iterator<Item = Task> + 'a {
    let around = context.shared.lineage.processes_around(context.call.stopped.target).unwrap_or_default();
    let others = around.into_iter().filter(|host| *host != context.task.subject.host);
    others.filter_map(|host| inside(context, host))
}

/// The process, or its group, that a descriptor stands for: one of `pidfd_open`, or a process's directory in `/proc`.
fn by_descriptor(context: &Context<'_>, told: Result<Told, Errno>) -> Result<Aim, Stop> {
    const GROUP: i32 = 1 << 2; // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
    let Told { info, link } = match told {
        Ok(told) => told,
        Err(Errno::ENOENT | Errno::EBADF) => return Ok(Aim::Nobody),
        Err(_) => return Err(Stop::Unjudged(Unjudged::Unreadable, Errno::EPERM)),
    };
    let process = match process_of(&info, &link) {
        Some(Names::OnHost(host)) => inside(context, host).map_or(Aim::Nobody, Aim::Process),
        Some(Names::InBox(number)) => one(context, number),
        None => Aim::Nobody,
    };
    Ok(match process {
        Aim::Process(task) if context.call.int(Arg::PidfdFlags) & GROUP != 0 => group(context, task.subject.pid),
        process => process,
    })
}

/// What `/proc` tells of a descriptor: its `fdinfo`, and what its link reads.
struct Told {
    info: String,
    link: Vec<u8>,
}

/// What `/proc` tells of a task's descriptor.
fn described(target: Target, number: i32) -> Result<Told, Errno> {
    let link = match target.link(&format!("fd/{number}")) {
        // A process that is not dumpable hides them, but who may trace it may copy them.
        Err(Errno::EACCES) => return told_of(target, &target.copy_descriptor(number)?),
        link => link?,
    };
    Ok(Told { info: target.text(&format!("fdinfo/{number}")), link })
}

/// What `/proc` tells of a copy of a task's descriptor.
fn told_of(target: Target, copy: &OwnedFd) -> Result<Told, Errno> {
    let own = Target { tid: std::process::id() as i32, ..target };
    let number = copy.as_raw_fd();
    Ok(Told { link: own.link(&format!("fd/{number}"))?, info: own.text(&format!("fdinfo/{number}")) })
}

/// How a descriptor names a process.
#[derive(Debug, PartialEq, Eq)]
enum Names {
    OnHost(i32),
    InBox(i32),
}

/// Reads what `/proc` tells of a descriptor; `None` if it stands for no process, or for one that is gone.
fn process_of(info: &str, link: &[u8]) -> Option<Names> {
    if let Some(pid) = info.lines().find_map(|line| line.strip_prefix("Pid:")) {
        return pid.trim().parse().ok().filter(|pid| *pid > 0).map(Names::OnHost);
    }
    let number = std::str::from_utf8(link).ok()?.strip_prefix("/proc/")?.parse().ok()?;
    Some(Names::InBox(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_a_name_and_nothing_else_has() {
        let named = |number| name(number).unwrap();
        assert_eq!((named(1).as_str(), named(15).as_str(), named(31).as_str()), ("SIGHUP", "SIGTERM", "SIGSYS"));
        assert_eq!(
            (named(32).as_str(), named(34).as_str(), named(64).as_str()),
            ("signal 32", "SIGRTMIN", "SIGRTMIN+30")
        );
        assert!((1..=64).all(|number| name(number).is_some()));
        assert!([0, -1, 65, i32::MAX, i32::MIN].into_iter().all(|number| name(number).is_none()));
    }

    #[test]
    fn a_descriptor_of_a_process_is_told_from_others() {
        let link = b"anon_inode:[pidfd]";
        assert_eq!(
            process_of("pos:\t0\nflags:\t02000002\nPid:\t812\nNSpid:\t812\t5\n", link),
            Some(Names::OnHost(812))
        );
        assert_eq!(process_of("pos:\t0\nPid:\t-1\nNSpid:\t-1\n", link), None, "it is gone");
        assert_eq!(process_of("pos:\t0\nPid:\t0\n", link), None);
        assert_eq!(process_of("pos:\t0\nflags:\t0200000\n", b"/proc/7"), Some(Names::InBox(7)));
        for link in ["/proc/7/task/7", "/proc/self", "/proc", "/home/7", "socket:[7]"] {
            assert_eq!(process_of("pos:\t0\n", link.as_bytes()), None, "{link}");
        }
    }
}
