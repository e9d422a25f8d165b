//! Flags and subcommands as plain data. Touches nothing: no files, no environment, no policy.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs a command in a box: what it may read, change, start and reach is decided by a policy, and recorded.
#[derive(Debug, Parser)]
#[command(name = "agentbox", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a box
    Run(Box<Run>),
    /// Print, search, sum up or follow the trail of a run, list runs, or prove a log's chain
    #[command(args_conflicts_with_subcommands = true, after_help = LOG_EXAMPLES)]
    Log(Box<Log>),
    /// Write one page that tells people what a run was asked to do and what it did
    #[command(after_help = "Exit status: 0 written, 1 written of a log that is broken, 125 not written.")]
    Report(Report),
    /// Show, check and list policies
    Policy {
        /// Which of them.
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Say what the policy answers to an act, by which rule, and what would allow it
    #[command(after_help = "Exit status: 0 allowed, 1 denied, 125 no answer.")]
    Why(Box<Why>),
    /// Trust the exact content of a project's policy file
    Trust(Trust),
    /// In a box: say for the record what is begun, what has ended, or anything else; kept as a claim, unverified
    Annotate {
        /// What is said.
        #[command(subcommand)]
        command: AnnotateCommand,
        /// Who it is said of: the process that started this command, or this command itself
        #[arg(long = "for", value_enum, value_name = "WHO", default_value_t = SpeaksFor::Parent, global = true)]
        speaks_for: SpeaksFor,
    },
    /// Say what this host can hold, and how to mend what it cannot
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `agentbox annotate …`.
#[derive(Debug, Subcommand)]
pub enum AnnotateCommand {
    /// Something begins; prints the id of the action that it is on record as
    Begin {
        /// The tool that is used
        #[arg(long, value_name = "NAME")]
        tool: String,
        /// What the tool is given, as JSON; @FILE reads it from there, - from standard input
        #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
        params: Option<String>,
        /// Why
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: Option<String>,
        /// The step of a plan that this is
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        plan: Option<String>,
        /// The id of the action that this is part of
        #[arg(long, value_name = "ID")]
        parent: Option<String>,
    },
    /// Something has ended
    End {
        /// The id that `begin` has printed; without it, what was begun last
        #[arg(value_name = "ID")]
        action: Option<String>,
        /// How it ended
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        outcome: Option<String>,
    },
    /// Anything else
    Note {
        /// What is said
        #[arg(value_name = "TEXT", allow_hyphen_values = true)]
        text: String,
    },
}

/// Who an annotation is said of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpeaksFor {
    /// Who says it
    #[value(name = "self")]
    Oneself,
    /// The process that started who says it
    Parent,
}

/// Where the policy comes from: shared by `run` and `policy show`.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyArgs {
    /// Policy: a shipped profile's name or a file (repeatable; later ones add to earlier ones)
    #[arg(short = 'p', long = "policy", value_name = "NAME|FILE")]
    pub policy: Vec<String>,
    /// Let the command read PATH (repeatable)
    #[arg(short = 'r', long = "read", value_name = "PATH")]
    pub read: Vec<PathBuf>,
    /// Let the command read and change PATH (repeatable)
    #[arg(short = 'w', long = "write", value_name = "PATH")]
    pub write: Vec<PathBuf>,
    /// Keep the command from PATTERN, even inside what it may read or change (repeatable)
    #[arg(long = "deny", value_name = "PATTERN")]
    pub deny: Vec<String>,
    /// Keep the command from reading PATTERN; it may still be written to where that is allowed (repeatable)
    #[arg(long = "deny-read", value_name = "PATTERN")]
    pub deny_read: Vec<String>,
    /// Keep the command from changing PATTERN; it may still be read where that is allowed (repeatable)
    #[arg(long = "deny-write", value_name = "PATTERN")]
    pub deny_write: Vec<String>,
    /// Pass variable K, or set it to V (repeatable)
    #[arg(long = "env", value_name = "K[=V]")]
    pub env: Vec<String>,
    /// Pass no variable but those given with --env
    #[arg(long)]
    pub clean_env: bool,
    /// Start the command in DIR (default: the current directory)
    #[arg(short = 'C', long = "chdir", value_name = "DIR")]
    pub chdir: Option<PathBuf>,
    /// Network: none (own loopback only), rules (also what rules allow) or host
    #[arg(long, value_enum, value_name = "MODE")]
    pub net: Option<Net>,
    /// Let the command reach [tcp://|udp://|icmp://]HOST[:PORTS], such as '*.example.org:443' (repeatable)
    #[arg(long = "net-allow", value_name = "RULE")]
    pub net_allow: Vec<String>,
    /// Keep the command from reaching what RULE names, whatever is allowed (repeatable)
    #[arg(long = "net-deny", value_name = "RULE")]
    pub net_deny: Vec<String>,
    /// Let [ADDRESS:]PORT of this machine, of its loopback by default, lead to PORT in the box (repeatable)
    #[arg(long = "publish", value_name = "[ADDRESS:]PORT[:PORT]")]
    pub publish: Vec<String>,
    /// Let the command connect to the unix socket PATH (repeatable)
    #[arg(long = "net-unix", value_name = "PATH")]
    pub net_unix: Vec<PathBuf>,
    /// How much is recorded
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub audit_level: Option<AuditLevel>,
    /// Send the trace to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names, while the command runs: what `agentbox log
    /// export --follow` does, in a process beside the box
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub export: Option<ExportAs>,
}

/// `agentbox run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The policy and what is added to it.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// What becomes of denials: enforce, or audit, which records all and lets some through: those by rules for programs,
    /// by deny patterns inside granted trees, and by tiers
    #[arg(long, value_enum, value_name = "MODE", default_value = "enforce")]
    pub mode: Mode,
    /// End the command after DURATION such as 90s, 10m, 1h (TERM, then KILL 5s later); exit status 124
    #[arg(short = 't', long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Write the records to FILE instead of the run's own directory
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Sign the records with the private key in FILE (default: the policy's, or the one that `agentbox log key` made)
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Write the end-of-run summary to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Refuse to start unless LAYER is fully enforced (repeatable)
    #[arg(long, value_enum, value_name = "LAYER")]
    pub require: Vec<Layer>,
    /// Start even if LAYER cannot be held on this host (repeatable)
    #[arg(long, value_enum, value_name = "LAYER")]
    pub allow_degraded: Vec<Layer>,
    /// Say nothing at the end but errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more: coverage at the start, a summary at the end (twice: agentbox's own diagnostics)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print the plan and the coverage, run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// See [`crate::event::Mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// What is denied does not happen
    Enforce,
    /// What is denied is recorded, and happens where the box holds without that
    Audit,
}

/// The network modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Net {
    /// The box's own loopback, nothing else
    None,
    /// The box's own loopback and what rules allow
    Rules,
    /// The host's network
    Host,
}

/// See [`crate::event::Level`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditLevel {
    /// Programs, connections and denials
    Minimal,
    /// Also every change to what files hold and to names
    Actions,
    /// Also every open for reading and every change to modes, owners and times
    All,
}

/// See [`crate::event::Export`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportAs {
    /// Not while it runs
    None,
    /// A trace of OpenTelemetry, by OTLP over HTTP
    Otlp,
}

/// The layers a run is made of, as `--require` and `--allow-degraded` name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Layer {
    /// The mount view (user and mount namespace)
    View,
    /// The process namespace: nothing outside is seen, nothing is left behind
    Processes,
    /// The network namespace
    Network,
    /// Landlock
    Landlock,
    /// The seccomp filter
    Seccomp,
    /// The supervisor that answers stopped calls
    Supervisor,
}

/// `agentbox log`.
#[derive(Debug, Args)]
pub struct Log {
    /// What to do instead of printing.
    #[command(subcommand)]
    pub command: Option<LogCommand>,
    /// The run: its id, the start of it, a file, or `last` (the default)
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Which records.
    #[command(flatten)]
    pub filter: LogFilter,
    /// How they are printed.
    #[command(flatten)]
    pub print: LogPrint,
    /// Go on printing what is written, until the run ends
    #[arg(short = 'f', long)]
    pub follow: bool,
}

/// How records are printed.
#[derive(Debug, Clone, Default, Args)]
pub struct LogPrint {
    /// Print the records as they are, one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Stop after N records
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// The heading of the flags that choose records.
const WHICH: &str = "Which records";

/// Which records are of interest: those that all of these hold for.
#[derive(Debug, Clone, Default, Args)]
pub struct LogFilter {
    /// Only what was denied
    #[arg(help_heading = WHICH, long)]
    pub denied: bool,
    /// Only these operations, such as `write`, `exec`, `connect` (repeatable, or with commas)
    #[arg(help_heading = WHICH, long, value_name = "OP", value_delimiter = ',')]
    pub op: Vec<String>,
    /// Only what names a path below or matching GLOB, a policy pattern: `src`, `**/.env`, `/etc/**`
    #[arg(help_heading = WHICH, long, value_name = "GLOB")]
    pub path: Option<String>,
    /// Only what a rule decided whose name contains TEXT
    #[arg(help_heading = WHICH, long, value_name = "TEXT")]
    pub rule: Option<String>,
    /// Only what belongs to this action: `session`, `a7`
    #[arg(help_heading = WHICH, long, value_name = "ID")]
    pub action: Option<String>,
    /// Only what the process N asked for (its number in the box)
    #[arg(help_heading = WHICH, long, value_name = "N")]
    pub pid: Option<i32>,
    /// Not before WHEN: `15:46[:27]` of the run's day (UTC), RFC 3339, or `10m`: that long before the log's end
    #[arg(help_heading = WHICH, long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Not after WHEN
    #[arg(help_heading = WHICH, long, value_name = "WHEN")]
    pub until: Option<String>,
}

/// What `agentbox log` can be asked.
pub const LOG_EXAMPLES: &str = "\
Examples:
  agentbox log                                   the last run, one line a record
  agentbox log --denied                          what was refused, and by which rule
  agentbox log --op unlink,rmdir --path src      what was deleted below src/ of the run's directory
  agentbox log --op connect --since 10m          connections in the last ten minutes of the log
  agentbox log 2026 --action a7 --json | jq .    everything about an action, for a program
  agentbox log -f                                watch a run; `-f next` waits for one to start
  agentbox log show last:17                      one record, everything in it
  agentbox log tree                              actions, their processes, what each did
  agentbox log stats                             counts, latencies, rules, programs
  agentbox log verify                            prove that nothing was changed or removed
  agentbox log verify --key ed25519:…            nor written anew by somebody without the key

Exit status:
  0    read to its end
  1    broken, or of a newer agentbox: it is said where, the rest is read all the same;
       verify and follow: also a log that no end record ends
  125  no such run, or a bad question";

/// `agentbox log …`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print one record with everything in it
    Show {
        /// The record: RUN:SEQ, such as `last:17`; SEQ alone is one of the last run
        #[arg(value_name = "RUN:SEQ")]
        record: String,
        /// Print the record as it is
        #[arg(long)]
        json: bool,
    },
    /// Print the actions of a run, their processes, and what each of them did
    Tree {
        /// The run: its id, the start of it, a file, or `last` (the default)
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Which records.
        #[command(flatten)]
        filter: LogFilter,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Count what was asked, by operation, rule and program, with latencies
    Stats {
        /// The run: its id, the start of it, a file, or `last` (the default)
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Which records.
        #[command(flatten)]
        filter: LogFilter,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what is there and what is written, until the run ends
    Follow {
        /// The run: its id, the start of it, a file, `last` (the default), or `next`: the one that starts next
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Which records.
        #[command(flatten)]
        filter: LogFilter,
        /// How they are printed.
        #[command(flatten)]
        print: LogPrint,
    },
    /// Prove that no record was changed, removed, added or reordered
    Verify {
        /// The run: its id, the start of it, a file, or `last` (the default)
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Prove also that the holder of KEY has signed it: `ed25519:…`, or a file that holds such a key
        #[arg(long, value_name = "KEY|FILE")]
        key: Option<String>,
    },
    /// Print the public key that proves what is signed; make the key if there is none
    Key {
        /// The file of the private key (default: the one in agentbox's state, with which every run signs)
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Print the public key as a PEM file, for other tools, and nothing else
        #[arg(long)]
        pem: bool,
    },
    /// List the runs on record
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a log as other tools read it, or send it to a collector of traces
    Export(Export),
}

/// `agentbox log export`.
#[derive(Debug, Args)]
#[command(after_help = EXPORT)]
pub struct Export {
    /// The run: its id, the start of it, a file, or `last` (the default)
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// What to make of it
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub format: Format,
    /// Write to FILE; `-` is the standard output, which is also the default
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Go on with what is written, until the run ends; RUN may be `next`: the one that starts next
    #[arg(long)]
    pub follow: bool,
    /// Send all of it, also what the collector has taken before
    #[arg(long)]
    pub again: bool,
}

const EXPORT: &str = "\
With --format otlp and without -o the trace is sent to the collector that
OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT names, by
HTTP or HTTPS with JSON. Also read: OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT and
_CERTIFICATE, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES. What it has taken is
kept beside the log, and is not sent again. With --follow a collector that is
down is tried until 30 seconds after the run has ended.
Exit status: 0 all of it, 1 the log is broken in places, 125 not written or not
all sent; with --follow 128 and its number if a signal has ended it.";

/// The formats of `agentbox log export`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Security events of the Open Cybersecurity Schema Framework, one JSON object a line
    Ocsf,
    /// A trace of OpenTelemetry in OTLP's JSON: a span for the run and one for each action
    Otlp,
    /// The records as they are
    Jsonl,
}

/// `agentbox report`.
#[derive(Debug, Args)]
pub struct Report {
    /// The run: its id, the start of it, a file, or `last` (the default)
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
    /// Write to FILE, `-` for the standard output (default: agentbox-report-RUN.html in the current directory)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace FILE even if it is no report
    #[arg(long)]
    pub force: bool,
}

/// What a file of cases looks like.
const CASES: &str = "\
A file of cases:
  policy: [default, ./team.yaml, {version: 1, exec: {deny: [curl]}}]   # default: [default]
  workdir: .                  # from the file's directory; default: an empty directory
  cases:
    - {write: src/main.rs, expect: allow}
    - {write: .git/config, expect: deny, rule: \"./team.yaml filesystem.deny_write[0]\"}
    - {read: /etc/shadow, expect: deny}        # also create, delete; `~/` is the home
    - {connect: \"example.org:443\", expect: deny}
    - {resolve: example.org, expect: deny}
    - {exec: [curl, -s], expect: deny}         # one that is not installed: as if in /usr/bin
Exit status: 0 all as expected, 1 some not, 125 bad input.";

/// `agentbox policy …`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print the policy that a run here would have, with the origin of each rule
    Show {
        /// The policy and what is added to it.
        #[command(flatten)]
        policy: Box<PolicyArgs>,
        /// Also the plan: mounts, Landlock rules, stopped calls and why, and the coverage
        #[arg(long)]
        plan: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put every decision of a log to the policy of now, and print those that would change
    #[command(
        after_help = "Exit status: 0 none would change, 1 some would or the log is broken in places, 125 no answer."
    )]
    Replay {
        /// The run: its id, the start of it, a file, or `last`
        #[arg(value_name = "LOG|RUN")]
        run: String,
        /// The policy and what is added to it.
        #[command(flatten)]
        policy: Box<PolicyArgs>,
        /// Print JSON, one object a line; the last one counts
        #[arg(long)]
        json: bool,
    },
    /// Put the cases in YAML files to policies: what is expected, and what the policy answers
    #[command(after_help = CASES)]
    Test {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what policy B permits more and less than policy A
    #[command(after_help = "Exit status: 0 they permit the same, 1 they differ, 125 bad input.")]
    Diff {
        /// The one: a shipped profile's name or a file
        #[arg(value_name = "A")]
        a: String,
        /// The other
        #[arg(value_name = "B")]
        b: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check policy files
    Check {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the shipped profiles
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `agentbox why`: the policy flags of `run`, and one question.
#[derive(Debug, Args)]
pub struct Why {
    /// What is asked.
    #[command(flatten)]
    pub question: Question,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The policy and what is added to it; here its grants have their short names alone.
    #[command(flatten)]
    pub policy: WhyPolicy,
}

/// One question.
#[derive(Debug, Clone, Default, Args)]
#[group(required = true, multiple = false)]
pub struct Question {
    /// May PATH be written to, or made if it is not there?
    #[arg(long = "write", id = "ask_write", value_name = "PATH", help_heading = "Questions")]
    pub write: Option<PathBuf>,
    /// May PATH be read?
    #[arg(long = "read", id = "ask_read", value_name = "PATH", help_heading = "Questions")]
    pub read: Option<PathBuf>,
    /// May PATH be made?
    #[arg(long, value_name = "PATH", help_heading = "Questions")]
    pub create: Option<PathBuf>,
    /// May PATH be removed?
    #[arg(long, value_name = "PATH", help_heading = "Questions")]
    pub delete: Option<PathBuf>,
    /// May [tcp://|udp://|icmp://]HOST:PORT be reached, or the unix socket unix:PATH?
    #[arg(long, value_name = "HOST:PORT", help_heading = "Questions")]
    pub connect: Option<String>,
    /// May NAME be looked up?
    #[arg(long, value_name = "NAME", help_heading = "Questions")]
    pub resolve: Option<String>,
    /// May this program be started with these arguments? Takes all that follows
    #[arg(long, value_name = "ARGV", num_args = 1.., allow_hyphen_values = true, help_heading = "Questions")]
    pub exec: Option<Vec<std::ffi::OsString>>,
    /// What was decided in record SEQ of RUN, and what would be now? (`agentbox log --json` shows numbers)
    #[arg(long, value_name = "RUN:SEQ", help_heading = "Questions")]
    pub event: Option<String>,
    /// The same for the last denial of the last run
    #[arg(long, help_heading = "Questions")]
    pub last: bool,
}

/// The flags of [`PolicyArgs`], where `--read` and `--write` are questions.
#[derive(Debug, Clone, Default)]
pub struct WhyPolicy(pub PolicyArgs);

impl clap::FromArgMatches for WhyPolicy {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        PolicyArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Args for WhyPolicy {
    fn augment_args(command: clap::Command) -> clap::Command {
        let short = |arg: clap::Arg| arg.long(None::<&str>);
        PolicyArgs::augment_args(command).mut_arg("read", short).mut_arg("write", short)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// `agentbox trust`.
#[derive(Debug, Args)]
pub struct Trust {
    /// The policy file (default: the project's agentbox.yaml)
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Take the trust back
    #[arg(long)]
    pub revoke: bool,
}

/// Reads `90s`, `10m`, `1.5h`, `500ms` or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return Err(format!("`{unit}` is no unit of time: use ms, s, m, h or d")),
    };
    let number: f64 = number.parse().map_err(|_| "expected a number with a unit, such as 90s or 10m".to_string())?;
    match Duration::try_from_secs_f64(number * factor) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("the time must be more than zero".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_after_the_command_belong_to_the_command() {
        let cli = Cli::try_parse_from(["agentbox", "run", "-q", "ls", "-v", "--", "-x"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert!(run.quiet);
        assert_eq!(run.verbose, 0);
        assert_eq!(run.command, ["ls", "-v", "--", "-x"]);
    }

    #[test]
    fn an_unknown_flag_is_not_taken_for_the_command() {
        assert!(Cli::try_parse_from(["agentbox", "run", "--no-such-flag", "ls"]).is_err());
        assert!(Cli::try_parse_from(["agentbox", "run", "--", "--odd-name"]).is_ok());
    }

    #[test]
    fn the_questions_of_why_take_the_long_names_of_grants() {
        let why = |args: &[&str]| {
            let cli = Cli::try_parse_from([&["agentbox", "why"], args].concat()).ok()?;
            let Command::Why(why) = cli.command else { panic!("not why") };
            Some(why)
        };
        let asked = why(&["-w", "out", "--write", "x", "--net", "host"]).unwrap();
        assert_eq!(asked.question.write, Some("x".into()));
        assert_eq!((asked.policy.0.write, asked.policy.0.net), (vec!["out".into()], Some(Net::Host)));
        let asked = why(&["--json", "--exec", "git", "push", "--force", "--json"]).unwrap();
        assert_eq!(asked.question.exec.unwrap(), ["git", "push", "--force", "--json"]);
        for bad in [&[][..], &["-w", "x"], &["--write", "x", "--read", "y"], &["--write", "x", "--last"]] {
            assert!(why(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for bad in ["", "x", "5 parsecs", "0", "-1s", "1e999s", "."] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
