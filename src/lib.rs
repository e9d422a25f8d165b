//! agentbox runs a command in a box and decides, one by one, the system calls that matter.
//!
//! # The walk
//!
//! Data goes one way, and a later room never edits an earlier value:
//!
//! ```text
//! args ─► cli ─► PolicyFile ─► Policy ─► Plan + Coverage ─► launch ─► Running ─► supervise ─► records ─► report
//!         text    as written    checked    one value per     init, then     every question:
//!                               immutable  kernel layer      the command    gate.judge(Event) ─► Verdict
//!                                                                           decide (pure) → act → settle → record
//! ```
//!
//! # The rooms
//!
//! | room | its job | may import | never |
//! |---|---|---|---|
//! | [`event`] | the nouns: who asks for what, and the answer | – | any other room |
//! | [`cli`] | flags as plain data | – | any other room |
//! | [`syscalls`] | the one table of system calls | – | any other room |
//! | [`sys`] | the only unsafe code: a wrapper a kernel call | – | any other room |
//! | [`host`] | asks the kernel what it can do | sys | policy, plan |
//! | [`policy`] | what a run may do; decides | event (`load`, `real`, `trust`, `worktree` alone read files) | sys, sandbox, clap |
//! | [`plan`] | the policy worked out for each kernel layer | policy, event, syscalls, host | sys, files, clocks |
//! | [`sandbox`] | obeys a plan: makes the box, starts the command, attends to it | plan, sys | policy, event |
//! | [`audit`] | records: schema, writer, reader, summary, page, exports | event | policy, supervisor |
//! | [`gate`] | the one door to a decision | policy, event, audit | sys, supervisor |
//! | [`net`] | names, connections on the box's behalf, published ports | event, gate, sys | policy |
//! | [`annotate`] | hears what programs in the box say of themselves | event, sys | policy, gate |
//! | [`supervisor`] | answers stopped calls | gate, syscalls, event, net, sys | `policy::decide`, audit |
//! | [`cmd`] | one file a subcommand; the only printers | everything | – |
//!
//! `tests/rooms.rs` holds the source to this table.
//!
//! # Processes and threads
//!
//! 1. **agentbox** has one thread until it has forked init into the new namespaces, mapped their ids and joined the user
//!    namespace. Main stays in the host's view: signals, terminal, files of the run.
//! 2. **init**, pid 1 of the box (`sandbox::init`): builds the view, drops every right, starts the command, reaps. It dies
//!    with agentbox, and the box's process namespace dies with it.
//! 3. **the command**: Landlock, then seccomp, then exec.
//! 4. **workers** (`supervisor`): threads of agentbox in the box's mount namespace, with the right to trace and no other.
//! 5. **audit**: one thread that writes records in batches.
//! 6. **net** and **inside** (`net`): two threads, only where the network has rules or ports are published. The first waits
//!    for names, connections and visitors in the host's network; the second makes sockets in the box's, with the right to
//!    take low ports there and no other.
//! 7. **annotate**: started when a program in the box first speaks of itself; hears what they all say, and answers.
//!
//! With `--export` there is one more process, `agentbox log export --follow`: it reads the log as it grows, sends it to a
//! collector, and has nothing to do with the box (`cmd::export::beside`).
#![deny(unsafe_code)]

pub mod annotate;
pub mod audit;
pub mod cli;
pub mod cmd;
pub mod event;
pub mod gate;
pub mod host;
pub mod net;
pub mod plan;
pub mod policy;
pub mod sandbox;
pub mod supervisor;
pub mod sys;
pub mod syscalls;
