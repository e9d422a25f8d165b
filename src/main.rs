//! Parses, calls a command, prints the error chain once, and chooses the exit code.

use std::process::ExitCode;

use agentbox::cli::{Cli, Command, PolicyCommand};
use agentbox::{cmd, policy};
use anyhow::Result;
use clap::Parser;

/// agentbox itself failed, before or beside the command: as env(1), timeout(1) and docker say it.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no failure.
            let _ = error.print();
            return if error.use_stderr() { FAILED.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(&cli) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("agentbox: {error:#}");
            FAILED.into()
        }
    }
}

fn run(cli: &Cli) -> Result<u8> {
    match &cli.command {
        Command::Run(args) => cmd::run::run(args),
        Command::Log(args) => cmd::log::log(args),
        Command::Annotate { command, speaks_for } => cmd::annotate::annotate(command, *speaks_for),
        Command::Report(args) => cmd::report::report(args, &cmd::policy::world()?),
        Command::Doctor { json } => cmd::doctor::doctor(*json),
        Command::Why(args) => cmd::why::why(args, &cmd::policy::world()?),
        Command::Trust(args) => cmd::trust::run(args, &cmd::policy::world()?),
        Command::Policy { command } => policy_command(command, &cmd::policy::world()?),
    }
}

fn policy_command(command: &PolicyCommand, world: &policy::World) -> Result<u8> {
    match command {
        PolicyCommand::Show { policy, json, plan } => {
            let loaded = policy::load(&cmd::policy::request(policy), world)?;
            cmd::policy::print_notes(&loaded.notes);
            let plan = plan.then(|| cmd::run::plan_of(&loaded.policy)).transpose()?;
            Ok(cmd::policy::show(&loaded.policy, *json, plan))
        }
        PolicyCommand::Replay { run, policy, json } => cmd::replay::replay(run, policy, *json, world),
        PolicyCommand::Test { files } => cmd::cases::test(files, world),
        PolicyCommand::Diff { a, b, json } => cmd::diff::diff(a, b, *json, world),
        PolicyCommand::Check { files } => Ok(cmd::policy::check(files, world)),
        PolicyCommand::List { json } => Ok(cmd::policy::list(*json)),
    }
}
