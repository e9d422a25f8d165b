//! Parses, calls a command, prints the error chain once, and chooses the exit code.

use std::process::ExitCode;

use agentbox::cli::{Cli, Command, PolicyCommand};
use agentbox::cmd;
use agentbox::policy;
use anyhow::{Result, bail};
use clap::Parser;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("agentbox: {error:#}");
            125.into()
        }
    }
}

fn run(cli: &Cli) -> Result<u8> {
    let world = cmd::policy::world()?;
    match &cli.command {
        Command::Policy { command } => policy_command(command, &world),
        Command::Trust(args) => cmd::trust::run(args, &world),
        Command::Run(_) | Command::Log(_) | Command::Doctor { .. } => bail!("this command is not there yet"),
    }
}

fn policy_command(command: &PolicyCommand, world: &policy::World) -> Result<u8> {
    match command {
        PolicyCommand::Show { policy, json, plan: _ } => {
            let loaded = policy::load(&cmd::policy::request(policy), world)?;
            cmd::policy::print_notes(&loaded.notes);
            Ok(cmd::policy::show(&loaded.policy, *json, None))
        }
        PolicyCommand::Check { files } => Ok(cmd::policy::check(files, world)),
        PolicyCommand::List { json } => Ok(cmd::policy::list(*json)),
    }
}
