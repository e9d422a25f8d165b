//! The filter: BPF programs made from the table of system calls.
//!
//! The published seccompiler has neither a notify action nor more than two actions in one filter. So the calls to
//! refuse are compiled into one program for each error number and the calls to stop into another whose stand-in action
//! is rewritten to `RET_USER_NOTIF`; the kernel runs all and obeys the strictest, so a refusal never wakes the
//! supervisor. A prologue kills x32 calls, which seccompiler takes for unknown native ones.

use std::collections::BTreeMap;

use libc::sock_filter as Instruction;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Plan, Stops};
use crate::syscalls::{Arg, Family, LAST_KNOWN, Row, Rule, TABLE, Test, WRITE_FLAGS};

/// The programs, in the order they are installed.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Programs that refuse.
    pub refuse: Vec<Vec<Instruction>>,
    /// The program that stops calls for the supervisor; installed last, with a listener.
    pub notify: Option<Vec<Instruction>>,
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
    /// This architecture has no filter.
    #[error("there is no filter for the {0} architecture")]
    Architecture(&'static str),
}

/// Makes the programs of a plan.
pub fn compile(plan: &Plan) -> Result<Filter, FilterError> {
    let refuse = refusals().into_iter().map(|(errno, rules)| refusing(errno, rules)).collect::<Result<_, _>>()?;
    let notify = if plan.notify { Some(notifying(&plan.stops)?) } else { None };
    Ok(Filter { refuse, notify })
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn architecture() -> Result<TargetArch, FilterError> {
    std::env::consts::ARCH.try_into().map_err(|_| FilterError::Architecture(std::env::consts::ARCH))
}

/// The refused calls by error number.
fn refusals() -> BTreeMap<i32, Vec<&'static Row>> {
    let mut by_errno: BTreeMap<i32, Vec<&Row>> = BTreeMap::new();
    for row in TABLE {
        if let Rule::Refuse { errno, .. } = row.rule {
            by_errno.entry(errno).or_default().push(row);
        }
    }
    by_errno
}

fn refusing(errno: i32, rows: Vec<&Row>) -> Result<Vec<Instruction>, FilterError> {
    let mut rules = Rules::new();
    for row in rows {
        let (Some(number), Rule::Refuse { when, .. }) = (row.number.here(), &row.rule) else { continue };
        let entry = rules.entry(number.into()).or_default();
        for tests in *when {
            let conditions = tests.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
            entry.push(SeccompRule::new(conditions)?);
        }
    }
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), architecture()?)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(with_prologue(program, None))
}

fn condition(test: &Test) -> Result<SeccompCondition, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    match *test {
        Test::Is(arg, value) => SeccompCondition::new(arg, Dword, SeccompCmpOp::Eq, value.into()),
        Test::IsNot(arg, value) => SeccompCondition::new(arg, Dword, SeccompCmpOp::Ne, value.into()),
        Test::Has(arg, bits) => SeccompCondition::new(arg, Qword, SeccompCmpOp::MaskedEq(bits), bits),
    }
}

/// What seccompiler is told in place of the notify action; no other rule uses it.
const STAND_IN: u16 = 0x0bad;
const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

fn notifying(stops: &Stops) -> Result<Vec<Instruction>, FilterError> {
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
    Ok(with_prologue(program, Some(libc::SECCOMP_RET_USER_NOTIF)))
}

/// The rules under which a row's call stops; `None` if it does not, an empty list if always.
fn stopped_when(row: &Row, stops: &Stops) -> Result<Option<Vec<SeccompRule>>, BackendError> {
    let Rule::Stop { family, args, .. } = &row.rule else { return Ok(None) };
    Ok(match family {
        Family::Exec | Family::Connect | Family::Bind => Some(vec![]),
        Family::Open if stops.read_open.is_some() => Some(vec![]),
        Family::Open if stops.write_open.is_some() => match args.iter().position(|arg| *arg == Arg::OpenFlags) {
            Some(at) => Some(any_write_flag(at)?),
            // The flags are out of the filter's sight (openat2), or always write (creat).
            None => Some(vec![]),
        },
        Family::Open => None,
        _ => stops.change.is_some().then(Vec::new),
    })
}

/// One rule for each flag bit that makes an open more than reading.
fn any_write_flag(at: usize) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |flag: &u32| {
        let bits = u64::from(*flag);
        let has = SeccompCondition::new(at as u8, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits)?;
        SeccompRule::new(vec![has])
    };
    WRITE_FLAGS.iter().map(rule).collect()
}

/// How many instructions at the start of seccompiler's programs test the architecture.
const ARCHITECTURE_TEST: usize = 3;

/// Puts the tests that seccompiler lacks behind its test of the architecture: x32 calls are fatal, and calls newer than
/// the table get `newer`, if given.
fn with_prologue(program: BpfProgram, newer: Option<u32>) -> Vec<Instruction> {
    const X32_BIT: u32 = 0x4000_0000;
    let load_number = Instruction { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 };
    let jump = |test, k, jt, jf| Instruction { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k };
    let ret = |k| Instruction { code: RET, jt: 0, jf: 0, k };

    let mut prologue = vec![load_number, jump(libc::BPF_JGE, X32_BIT, 0, 1), ret(libc::SECCOMP_RET_KILL_PROCESS)];
    if let Some(action) = newer {
        prologue.extend([jump(libc::BPF_JGT, LAST_KNOWN, 0, 1), ret(action)]);
    }
    let own = program.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k });
    let (test, rest): (Vec<_>, Vec<_>) = own.enumerate().partition(|(at, _)| *at < ARCHITECTURE_TEST);
    let plain = |list: Vec<(usize, Instruction)>| list.into_iter().map(|(_, instruction)| instruction);
    plain(test).chain(prologue).chain(plain(rest)).collect()
}
