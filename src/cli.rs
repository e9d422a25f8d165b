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
    /// Print the readable trail of a run, list runs, or prove a log's chain
    #[command(args_conflicts_with_subcommands = true)]
    Log(Log),
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
    /// Say what this host can hold, and how to mend what it cannot
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
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
    /// Print the records as they are, one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Only what was denied
    #[arg(long)]
    pub denied: bool,
}

/// `agentbox log …`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Prove that no record was changed, removed, added or reordered
    Verify {
        /// The run: its id, the start of it, a file, or `last` (the default)
        #[arg(value_name = "RUN")]
        run: Option<String>,
    },
    /// List the runs on record
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a file of cases looks like.
const CASES: &str = "\
A file of cases:
  policy: [default, ./team.yaml, {version: 1, exec: {deny: [curl]}}]   # default: [default]
  workdir: .                  # from the file's directory; default: an empty directory
  cases:
    - {write: src/main.rs, expect: allow}
    - {write: .git/config, expect: deny, rule: \"./team.yaml filesystem.deny_write[0]\"}
    - {read: /etc/shadow, expect: deny}        # also create, delete
    - {connect: \"example.org:443\", expect: deny}
    - {resolve: example.org, expect: deny}
    - {exec: [curl, -s], expect: deny}
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
