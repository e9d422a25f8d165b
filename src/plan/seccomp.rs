//! The filter: one BPF program made from the table of system calls.
//!
//! The published seccompiler has neither a notify action nor more than two actions in one filter. So the calls to
//! refuse are compiled into one part for each error number and the calls to stop into another whose stand-in action is
//! rewritten to `RET_USER_NOTIF`; the parts are then joined: where one would allow, the next goes on. A refusal comes
//! first, so it never wakes the supervisor. A prologue kills x32 calls, which seccompiler takes for unknown native ones.

use std::collections::BTreeMap;

use libc::sock_filter as Instruction;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Plan, Stops};
use crate::syscalls::{
    Arg, Family, HARMLESS_SIGNALS, INTERFACE_REQUESTS, JOINS, LAST_KNOWN, Row, Rule, TABLE, Test, UNIX_DATAGRAMS,
    WITHOUT_OWN_NETWORK, WITHOUT_SUPERVISOR, WRITE_FLAGS,
};

/// The program.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Its instructions.
    pub program: Vec<Instruction>,
    /// Whether it stops calls, so that it needs a listener.
    pub listens: bool,
}

/// The table and seccompiler disagree.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// seccompiler refused a rule.
    #[error("cannot compile the filter")]
    Compile(#[from] BackendError),
    /// The rewritten program does not have the returns it must have: the crate's output changed.
    #[error("the compiled filter has {found} places to stop a call where {expected} were expected; this is a bug")]
    Rewrite {
        /// How many there are.
        found: usize,
        /// How many there must be at least.
        expected: usize,
    },
    /// A program does not begin as it must to be joined: the crate's output changed.
    #[error("the compiled filter begins otherwise than expected; this is a bug")]
    Shape,
    /// This architecture has no filter.
    #[error("there is no filter for the {0} architecture")]
    Architecture(&'static str),
}

/// Makes the program of a plan.
pub fn compile(plan: &Plan) -> Result<Filter, FilterError> {
    let no_datagrams = if plan.datagrams { &[] } else { WITHOUT_OWN_NETWORK };
    let no_pairs = if plan.notify { &[] } else { WITHOUT_SUPERVISOR };
    let refused = refusals(TABLE.iter().chain(no_datagrams).chain(no_pairs));
    let mut parts = refused.into_iter().map(|(errno, rows)| refusing(errno, rows)).collect::<Result<Vec<_>, _>>()?;
    if plan.notify {
        parts.push(notifying(&plan.stops)?);
    }
    Ok(Filter { program: joined(&parts, plan.notify)?, listens: plan.notify })
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn architecture() -> Result<TargetArch, FilterError> {
    std::env::consts::ARCH.try_into().map_err(|_| FilterError::Architecture(std::env::consts::ARCH))
}

/// The refused calls by error number.
fn refusals(table: impl Iterator<Item = &'static Row>) -> BTreeMap<i32, Vec<&'static Row>> {
    let mut by_errno: BTreeMap<i32, Vec<&Row>> = BTreeMap::new();
    for row in table {
        if let Rule::Refuse { errno, .. } = row.rule {
            by_errno.entry(errno).or_default().push(row);
        }
    }
    by_errno
}

fn refusing(errno: i32, rows: Vec<&Row>) -> Result<BpfProgram, FilterError> {
    let mut rules = Rules::new();
    for row in rows {
        let (Some(number), Rule::Refuse { when, .. }) = (row.number.here(), &row.rule) else { continue };
        let entry = rules.entry(number.into()).or_default();
        for tests in *when {
            entry.push(all(tests)?);
        }
    }
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), architecture()?)?;
    Ok(filter.try_into()?)
}

fn condition(test: &Test) -> Result<SeccompCondition, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    match *test {
        Test::Is(arg, value) => SeccompCondition::new(arg, Dword, SeccompCmpOp::Eq, value.into()),
        Test::IsNot(arg, value) => SeccompCondition::new(arg, Dword, SeccompCmpOp::Ne, value.into()),
        Test::Masked(arg, mask, value) => {
            SeccompCondition::new(arg, Dword, SeccompCmpOp::MaskedEq(mask.into()), value.into())
        }
        Test::Given(arg) => SeccompCondition::new(arg, Qword, SeccompCmpOp::Ne, 0),
        Test::Has(arg, bits) => SeccompCondition::new(arg, Qword, SeccompCmpOp::MaskedEq(bits), bits),
    }
}

/// What seccompiler is told in place of the notify action; no other rule uses it.
const STAND_IN: u16 = 0x0bad;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn notifying(stops: &Stops) -> Result<BpfProgram, FilterError> {
    let mut rules = Rules::new();
    for row in TABLE {
        let (Some(number), Some(when)) = (row.number.here(), stopped_when(row, stops)?) else { continue };
        rules.insert(number.into(), when);
    }
    let expected = rules.len();
    let stand_in = SeccompAction::Trace(STAND_IN.into());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, stand_in, architecture()?)?;
    let mut program: BpfProgram = filter.try_into()?;
    let stand_in = libc::SECCOMP_RET_TRACE | u32::from(STAND_IN);
    let mut found = 0;
    for instruction in program.iter_mut().filter(|i| i.code == RET && i.k == stand_in) {
        instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        found += 1;
    }
    if found < expected {
        return Err(FilterError::Rewrite { found, expected });
    }
    Ok(program)
}

/// The rules under which a row's call stops; `None` if it does not, an empty list if always.
fn stopped_when(row: &Row, stops: &Stops) -> Result<Option<Vec<SeccompRule>>, BackendError> {
    let Rule::Stop { family, args, .. } = &row.rule else { return Ok(None) };
    Ok(match family {
        // What every handler starts relative paths from must be known whenever anything stops.
        Family::Exec | Family::Connect | Family::Bind | Family::Surroundings => Some(vec![]),
        Family::Pair => Some(any(UNIX_DATAGRAMS)?),
        Family::Interface => Some(any(INTERFACE_REQUESTS)?),
        Family::Listen | Family::Epoll => stops.sockets.is_some().then(Vec::new),
        Family::SendMessage | Family::SendMessages => stops.messages.is_some().then(Vec::new),
        Family::SendTo | Family::Join if stops.sockets.is_none() => None,
        Family::Signal if stops.signals.is_none() => None,
        Family::Signal => Some(vec![harms(args)?]),
        Family::Join => Some(JOINS.iter().map(option_is).collect::<Result<_, _>>()?),
        Family::SendTo => Some(vec![given(args, Arg::Address)?]),
        Family::Open if stops.write_open.is_none() && stops.read_open.is_none() => None,
        Family::Open => match args.iter().position(|arg| *arg == Arg::OpenFlags) {
            Some(at) => Some(flags_that_stop(at, stops.read_open.is_some())?),
            // The flags are out of the filter's sight (openat2), or always write (creat).
            None => Some(vec![]),
        },
        Family::Chmod if stops.metadata.chmod.is_some() => Some(vec![]),
        Family::Chmod => match args.iter().position(|arg| *arg == Arg::Mode) {
            Some(at) => Some(any_bit(at, modes_that_stop(stops), 0)?),
            None => Some(vec![]),
        },
        Family::Chown => stops.metadata.chown.is_some().then(Vec::new),
        Family::Utime => stops.metadata.utime.is_some().then(Vec::new),
        Family::SetXattr | Family::RemoveXattr => stops.metadata.xattr.is_some().then(Vec::new),
        Family::Unlink
        | Family::Rename
        | Family::Link
        | Family::Symlink
        | Family::Mkdir
        | Family::Mknod
        | Family::Truncate => stops.change.is_some().then(Vec::new),
    })
}

/// A rule for each of these.
fn any(cases: &[&[Test]]) -> Result<Vec<SeccompRule>, BackendError> {
    cases.iter().map(|tests| all(tests)).collect()
}

/// The rule that all of these hold.
fn all(tests: &[Test]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(tests.iter().map(condition).collect::<Result<_, _>>()?)
}

/// The rule that a pointer is not null.
fn given(args: &[Arg], role: Arg) -> Result<SeccompRule, BackendError> {
    let at = args.iter().position(|arg| *arg == role).unwrap_or_default();
    SeccompRule::new(vec![SeccompCondition::new(at as u8, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?])
}

/// The rule that a signal is none of those that do no harm.
fn harms(args: &[Arg]) -> Result<SeccompRule, BackendError> {
    let at = args.iter().position(|arg| *arg == Arg::Signal).unwrap_or_default() as u8;
    let differs = HARMLESS_SIGNALS.iter().map(|signal| condition(&Test::IsNot(at, *signal)));
    SeccompRule::new(differs.collect::<Result<_, _>>()?)
}

/// The rule that a call sets this socket option.
fn option_is((level, name): &(u32, u32)) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition(&Test::Is(1, *level))?, condition(&Test::Is(2, *name))?])
}

/// The rules on an open's flags, argument `at`: one for each bit that makes it more than reading, or a single one where
/// `reads` stop, too.
///
/// `O_PATH` never stops: the kernel then ignores all that would read or change, the descriptor gives no right to the file,
/// and the listener could not hand one over (`fget` in `seccomp_notify_addfd` takes no such descriptor).
fn flags_that_stop(at: usize, reads: bool) -> Result<Vec<SeccompRule>, BackendError> {
    any_bit(at, if reads { &[0] } else { &WRITE_FLAGS }, libc::O_PATH as u32)
}

/// The bits of a mode that lend out rights, and those that let others write where that is guarded.
fn modes_that_stop(stops: &Stops) -> &'static [u32] {
    const BITS: [u32; 4] = [libc::S_ISUID, libc::S_ISGID, libc::S_IWGRP, libc::S_IWOTH];
    if stops.metadata.share.is_some() { &BITS } else { &BITS[..2] }
}

/// One rule for each of `bits` that makes a call stop when it is set in an argument and none of `unless` is.
fn any_bit(at: usize, bits: &[u32], unless: u32) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |bit: &u32| {
        let test = SeccompCmpOp::MaskedEq((bit | unless).into());
        let has = SeccompCondition::new(at as u8, SeccompCmpArgLen::Dword, test, (*bit).into())?;
        SeccompRule::new(vec![has])
    };
    bits.iter().map(rule).collect()
}

/// What every program of seccompiler's begins with: load the architecture, go on if it is ours, else kill; load the number.
const PREAMBLE: usize = 4;

/// Joins programs into one: the preamble once, the tests that seccompiler lacks, then the parts in order, where each
/// place that would allow jumps to the next part.
///
/// Calls newer than the table stop, if `notify`, so that they can be refused on record; else they fail with `ENOSYS`.
fn joined(parts: &[BpfProgram], notify: bool) -> Result<Vec<Instruction>, FilterError> {
    const X32_BIT: u32 = 0x4000_0000;
    let newer = if notify { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 };
    let Some(first) = parts.first().filter(|_| parts.iter().all(begins_as_known)) else {
        return Err(FilterError::Shape);
    };

    let mut program: Vec<Instruction> = first[..PREAMBLE].iter().map(own).collect();
    program.extend([
        jump(libc::BPF_JGE, X32_BIT, 0, 1),
        ret(libc::SECCOMP_RET_KILL_PROCESS),
        jump(libc::BPF_JGT, LAST_KNOWN, 0, 1),
        ret(newer),
    ]);
    program.extend(allow_unlisted());
    for (at, part) in parts.iter().enumerate() {
        // The first instruction is kept: a part may leave an argument in the accumulator, the next needs the number.
        let body = &part[PREAMBLE - 1..];
        let last = at + 1 == parts.len();
        program.extend(body.iter().enumerate().map(|(place, instruction)| match own(instruction) {
            allow if allow.code == RET && allow.k == libc::SECCOMP_RET_ALLOW && !last => {
                jump(libc::BPF_JA, (body.len() - place - 1) as u32, 0, 0)
            }
            other => other,
        }));
    }
    Ok(program)
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k }
}

fn ret(k: u32) -> Instruction {
    Instruction { code: RET, jt: 0, jf: 0, k }
}

/// Allows every call that the table does not list, by a binary search; those that it lists go on behind these instructions.
///
/// The kernel walks a new filter for each number there is, to remember those that it always allows, and the parts test one
/// number after the other: without this, that walk is the dearest step of the command's start.
fn allow_unlisted() -> Vec<Instruction> {
    let listed = |number: u32| crate::syscalls::row(number).is_some();
    // Where listed numbers begin and end; between two of these all are alike.
    let mut bounds: Vec<u32> = (1..=LAST_KNOWN).filter(|number| listed(*number) != listed(number - 1)).collect();
    bounds.insert(0, 0);
    let mut program = search(&bounds, &listed);
    let length = program.len();
    for (at, instruction) in program.iter_mut().enumerate().filter(|(_, instruction)| instruction.k == BEHIND) {
        instruction.k = (length - at - 1) as u32;
    }
    program
}

/// In place of the way to the end of the search, until its length is known.
const BEHIND: u32 = u32::MAX;

/// Searches the stretch that a number lies in: one begins at each of `bounds`.
fn search(bounds: &[u32], listed: &impl Fn(u32) -> bool) -> Vec<Instruction> {
    if let [start] = bounds {
        return vec![if listed(*start) { jump(libc::BPF_JA, BEHIND, 0, 0) } else { ret(libc::SECCOMP_RET_ALLOW) }];
    }
    let (low, high) = bounds.split_at(bounds.len() / 2);
    let (below, above) = (search(low, listed), search(high, listed));
    let mut program = vec![jump(libc::BPF_JGE, high[0], 0, 1), jump(libc::BPF_JA, below.len() as u32, 0, 0)];
    program.extend(below);
    program.extend(above);
    program
}

fn own(instruction: &seccompiler::sock_filter) -> Instruction {
    Instruction { code: instruction.code, jt: instruction.jt, jf: instruction.jf, k: instruction.k }
}

/// Whether a program has the preamble that joining relies on.
fn begins_as_known(program: &BpfProgram) -> bool {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    matches!(program.get(..PREAMBLE), Some([arch, test, kill, number])
        if (arch.code, arch.k) == (LOAD, 4)
            && (test.code, test.jt, test.jf) == (EQUAL, 1, 0)
            && (kill.code, kill.k) == (RET, libc::SECCOMP_RET_KILL_PROCESS)
            && (number.code, number.k) == (LOAD, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Metadata;
    use crate::syscalls::row;

    fn filter(reads: bool, notify: bool) -> Vec<Instruction> {
        let why = Some(String::new());
        let all = Metadata {
            chmod: why.clone(),
            share: why.clone(),
            chown: why.clone(),
            utime: why.clone(),
            xattr: why.clone(),
        };
        with_metadata(reads, notify, all)
    }

    fn with_metadata(reads: bool, notify: bool, metadata: Metadata) -> Vec<Instruction> {
        let why = Some(String::new());
        let plan = Plan {
            namespaces: crate::plan::Namespaces { own: true, network: true, entered: true },
            loopback: Vec::new(),
            view: None,
            annotate: None,
            landlock: None,
            stops: Stops {
                write_open: why.clone(),
                read_open: if reads { why.clone() } else { None },
                change: why,
                metadata,
                act: String::new(),
                sockets: Some(String::new()),
                signals: Some(String::new()),
                messages: Some(String::new()),
            },
            notify,
            datagrams: true,
            ping: false,
            wait_killable: true,
            workdir: "/".into(),
        };
        compile(&plan).unwrap().program
    }

    /// Runs a program as the kernel would, on the few instructions that filters use.
    fn run(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let mut data = [number, arch, 0, 0].map(u32::to_ne_bytes).concat();
        data.extend(args.iter().flat_map(|arg| arg.to_ne_bytes()));
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let i = program[at];
            at += 1;
            let class = u32::from(i.code) & 0x07;
            match class {
                libc::BPF_LD => a = u32::from_ne_bytes(data[i.k as usize..][..4].try_into().unwrap()),
                libc::BPF_ALU => a &= i.k,
                libc::BPF_RET => return i.k,
                libc::BPF_JMP => {
                    let holds = match u32::from(i.code) & 0xf0 {
                        libc::BPF_JA => {
                            at += i.k as usize;
                            continue;
                        }
                        libc::BPF_JEQ => a == i.k,
                        libc::BPF_JGE => a >= i.k,
                        libc::BPF_JGT => a > i.k,
                        libc::BPF_JSET => a & i.k != 0,
                        other => panic!("jump {other:#x}"),
                    };
                    at += usize::from(if holds { i.jt } else { i.jf });
                }
                other => panic!("class {other:#x}"),
            }
        }
    }

    const X86_64: u32 = 0xc000_003e;
    const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    fn refuse(errno: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno as u32
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn each_call_meets_its_row_and_foreign_ones_are_fatal() {
        let program = filter(false, true);
        let call = |number: i64, args| run(&program, X86_64, number as u32, args);
        assert_eq!(call(libc::SYS_read, [0; 6]), ALLOW);
        assert_eq!(call(libc::SYS_openat, [0; 6]), ALLOW);
        for flag in WRITE_FLAGS {
            assert_eq!(call(libc::SYS_openat, [0, 0, flag.into(), 0, 0, 0]), NOTIFY, "{flag:#o}");
            assert_eq!(call(libc::SYS_open, [0, (flag | 0o2000000).into(), 0, 0, 0, 0]), NOTIFY, "{flag:#o}");
        }
        // With O_PATH the kernel takes no notice of them.
        let path_only = (libc::O_PATH | libc::O_CREAT | libc::O_RDWR) as u64;
        assert_eq!(call(libc::SYS_openat, [0, 0, path_only, 0, 0, 0]), ALLOW);
        // The kernel takes an int: high bits must not hide a flag.
        assert_eq!(call(libc::SYS_openat, [0, 0, 0xffff_ffff_0000_0001, 0, 0, 0]), NOTIFY);
        assert_eq!(call(libc::SYS_openat2, [0; 6]), NOTIFY);
        assert_eq!(call(libc::SYS_unlinkat, [0; 6]), NOTIFY);
        assert_eq!(call(libc::SYS_execve, [0; 6]), NOTIFY);
        assert_eq!(call(libc::SYS_clone3, [0; 6]), refuse(libc::ENOSYS));
        assert_eq!(call(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_clone, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]), refuse(libc::EPERM));
        assert_eq!(call(libc::SYS_mount, [0; 6]), refuse(libc::EPERM));
        assert_eq!(call(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), refuse(libc::EPERM));
        assert_eq!(call(libc::SYS_ioctl, [0, 0xffff_ffff_0000_5412, 0, 0, 0, 0]), refuse(libc::EPERM));
        assert_eq!(call(libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_socket, [2, 1, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_socket, [17, 3, 0, 0, 0, 0]), refuse(libc::EAFNOSUPPORT));
        assert_eq!(call(libc::SYS_socket, [1, 1 | 0o2000000, 0, 0, 0, 0]), ALLOW);
        for kind in [2, 3, 2 | 0o2000000, 2 | 0o4000] {
            assert_eq!(call(libc::SYS_socket, [1, kind, 0, 0, 0, 0]), refuse(libc::EAFNOSUPPORT));
            assert_eq!(call(libc::SYS_socketpair, [1, kind, 0, 0, 0, 0]), NOTIFY);
        }
        assert_eq!(call(libc::SYS_socketpair, [1, 5, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_socket, [16, 3, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_socket, [16, 3, 12, 0, 0, 0]), refuse(libc::EAFNOSUPPORT));
        for (family, kind, protocol) in [(2, 1, 262), (2, 1, 132), (2, 5, 132), (10, 6, 33), (2, 2, 136), (10, 1, 132)]
        {
            let flagged = kind | 0o2000000;
            assert_eq!(call(libc::SYS_socket, [family, flagged, protocol, 0, 0, 0]), refuse(libc::EPROTONOSUPPORT));
        }
        for (family, kind, protocol) in [(2, 1, 6), (2, 2, 17), (10, 2, 0), (2, 2, 1), (10, 2, 58)] {
            assert_eq!(call(libc::SYS_socket, [family, kind | 0o4000, protocol, 0, 0, 0]), ALLOW);
        }
        assert_eq!(call(libc::SYS_socket, [2, 3, 1, 0, 0, 0]), refuse(libc::EPERM));
        let fast_open = libc::MSG_FASTOPEN as u64 | libc::MSG_NOSIGNAL as u64;
        assert_eq!(call(libc::SYS_sendto, [3, 1, 1, fast_open, 1, 16]), refuse(libc::EOPNOTSUPP));
        assert_eq!(call(libc::SYS_sendto, [3, 1, 1, 0, 1, 16]), NOTIFY);
        assert_eq!(call(libc::SYS_sendto, [3, 1, 1, 0, 1 << 32, 16]), NOTIFY);
        assert_eq!(call(libc::SYS_sendto, [3, 1, 1, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_sendmsg, [3, 1, fast_open, 0, 0, 0]), refuse(libc::EOPNOTSUPP));
        assert_eq!(call(libc::SYS_sendmmsg, [3, 1, 1, fast_open, 0, 0]), refuse(libc::EOPNOTSUPP));
        for (level, option) in [(0, 4), (41, 57), (41, 5), (41, 6)] {
            assert_eq!(call(libc::SYS_setsockopt, [3, level, option, 1, 4, 0]), refuse(libc::EPERM));
        }
        assert_eq!(call(libc::SYS_setsockopt, [3, 0, 1, 1, 4, 0]), ALLOW);
        for (level, option) in [(0, 35), (0, 39), (0, 42), (0, 46), (41, 20), (41, 42), (41, 46)] {
            assert_eq!(call(libc::SYS_setsockopt, [3, level, option | 1 << 32, 1, 8, 0]), NOTIFY);
        }
        let with_high_bits = |signal: i32| signal as u64 | 0xffff_ffff_0000_0000;
        for signal in [0, libc::SIGCONT, libc::SIGCHLD, libc::SIGWINCH, libc::SIGURG] {
            assert_eq!(call(libc::SYS_kill, [7, with_high_bits(signal), 0, 0, 0, 0]), ALLOW);
            assert_eq!(call(libc::SYS_tgkill, [7, 7, with_high_bits(signal), 0, 0, 0]), ALLOW);
        }
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSTOP, 32, 33, 34, 64, 65, -1] {
            let signal = with_high_bits(signal);
            assert_eq!(call(libc::SYS_kill, [u64::MAX, signal, 0, 0, 0, 0]), NOTIFY);
            assert_eq!(call(libc::SYS_tkill, [7, signal, 0, 0, 0, 0]), NOTIFY);
            assert_eq!(call(libc::SYS_tgkill, [7, 7, signal, 0, 0, 0]), NOTIFY);
            assert_eq!(call(libc::SYS_rt_sigqueueinfo, [7, signal, 0, 0, 0, 0]), NOTIFY);
            assert_eq!(call(libc::SYS_rt_tgsigqueueinfo, [7, 7, signal, 0, 0, 0]), NOTIFY);
            assert_eq!(call(libc::SYS_pidfd_send_signal, [3, signal, 0, 0, 0, 0]), NOTIFY);
        }
        assert_eq!(call(libc::SYS_personality, [0; 6]), ALLOW);
        assert_eq!(call(libc::SYS_personality, [0x0040_0000, 0, 0, 0, 0, 0]), refuse(libc::EPERM));
        assert_eq!(call(i64::from(LAST_KNOWN) + 1, [0; 6]), NOTIFY);
        assert_eq!(call(libc::SYS_read | 0x4000_0000, [0; 6]), KILL);
        assert_eq!(run(&program, 0x4000_0003, libc::SYS_read as u32, [0; 6]), KILL);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn every_row_of_the_table_is_in_the_filter() {
        let program = filter(true, true);
        for (number, row) in (0..=LAST_KNOWN).filter_map(|number| Some((number, row(number)?))) {
            let meets = run(&program, X86_64, number, [0; 6]);
            match row.rule {
                // With no address it is a plain send, and this is another option.
                // The same for a signal that only asks whether somebody is there.
                Rule::Stop {
                    family: Family::SendTo | Family::Join | Family::Signal | Family::Pair | Family::Interface,
                    ..
                } => {
                    assert_eq!(meets, ALLOW);
                }
                Rule::Stop { .. } => assert_eq!(meets, NOTIFY, "{}", row.name),
                Rule::Refuse { errno, when: [] } => assert_eq!(meets, refuse(errno), "{}", row.name),
                Rule::Refuse { .. } => {}
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn metadata_runs_natively_but_for_modes_that_lend_or_share() {
        let modes = [0o644, 0o755, 0o600, 0o1777 & !0o22, 0o4755, 0o2755, 0o664, 0o666];
        let met = |share: Option<String>| {
            let program = with_metadata(false, true, Metadata { share, ..Metadata::default() });
            let call = |number: i64, args| run(&program, X86_64, number as u32, args);
            for number in [libc::SYS_fchownat, libc::SYS_utimensat, libc::SYS_fsetxattr, libc::SYS_removexattr] {
                assert_eq!(call(number, [0; 6]), ALLOW, "{number}");
            }
            assert_eq!(call(libc::SYS_unlinkat, [0; 6]), NOTIFY);
            let each = modes.map(|mode| {
                let stops = [
                    call(libc::SYS_chmod, [0, mode, 0, 0, 0, 0]),
                    call(libc::SYS_fchmod, [0, mode | 0xffff_ffff_0000_0000, 0, 0, 0, 0]),
                    call(libc::SYS_fchmodat, [0, 0, mode, 0, 0, 0]),
                    call(452, [0, 0, mode, 0, 0, 0]),
                ];
                assert!(stops.iter().all(|stop| *stop == stops[0]), "{mode:o}");
                stops[0] == NOTIFY
            });
            each.to_vec()
        };
        assert_eq!(met(None), [false, false, false, false, true, true, false, false]);
        assert_eq!(met(Some(String::new())), [false, false, false, false, true, true, true, true]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn without_a_supervisor_nothing_stops_and_unknown_calls_do_not_exist() {
        let program = filter(true, false);
        assert!(program.iter().all(|i| !(i.code == RET && i.k == NOTIFY)));
        assert_eq!(run(&program, X86_64, LAST_KNOWN + 1, [0; 6]), refuse(libc::ENOSYS));
        assert_eq!(run(&program, X86_64, libc::SYS_mount as u32, [0; 6]), refuse(libc::EPERM));
    }
}
