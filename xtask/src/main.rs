//! The commands of this repository. It depends on none of its crates, so it builds when they do not.

mod bench;
mod ci;
mod command;
mod demos;
mod report;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;

use crate::demos::Profile;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demos                 run every program of the tutorial
  demos --dev           the same, compiled as tests are: sooner built, slower, their times say nothing
  demos NAME [ARG...]   run one of them
  demos --list          say which there are, and what each shows
  test                  run all tests: unit, integration, documentation
  bench                 measure everything beside its peers, and make a report with plots
  bench --quick         the same in less than five minutes; NAME... picks some of it
  ci                    everything that must pass before a change is merged
  help                  print this text";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = lexopt::Parser::from_env();
    match args.next()? {
        None | Some(Short('h') | Long("help")) => println!("{USAGE}"),
        Some(Value(command)) => match command.to_str() {
            Some("demos") => match args.next()? {
                None => demos::run_all(Profile::Release)?,
                Some(Long("dev")) => {
                    nothing_more(args)?;
                    demos::run_all(Profile::Dev)?;
                }
                Some(Long("list")) => {
                    nothing_more(args)?;
                    demos::list()?;
                }
                Some(Value(name)) => {
                    demos::run_one(&name.to_string_lossy(), args.raw_args()?.collect())?
                }
                Some(other) => return Err(other.unexpected().into()),
            },
            Some("test") => {
                nothing_more(args)?;
                test::run()?;
            }
            Some("bench") => bench::run(args.raw_args()?.collect())?,
            Some("ci") => {
                nothing_more(args)?;
                ci::run()?;
            }
            Some("help") => println!("{USAGE}"),
            _ => bail!("there is no command {command:?}\n\n{USAGE}"),
        },
        Some(other) => return Err(other.unexpected().into()),
    }
    Ok(())
}

fn nothing_more(mut args: lexopt::Parser) -> Result<()> {
    match args.next()? {
        None => Ok(()),
        Some(extra) => Err(extra.unexpected().into()),
    }
}
