//! The commands, one a file, in the order in which their artifacts are made.
//!
//! A command is a module with `Args`, whose docs are its help, and `run(args, &output)`; a variant of [`Command`] here, and a
//! line in [`run`].
mod ask;
mod compare;
mod eval;
mod index;
mod model;
mod search;
mod world;

use crate::output::Output;

/// The commands in the order of `--help`.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    World(world::Args),
    Index(index::Args),
    Search(search::Args),
    Model(model::Args),
    Ask(ask::Args),
    // sample, weigh, pack, train: here.
    Eval(eval::Args),
    Compare(compare::Args),
    // run, quickstart, report: here.
}

/// Runs one.
pub(crate) fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::World(args) => world::run(args, output),
        Command::Index(args) => index::run(args, output),
        Command::Search(args) => search::run(args, output),
        Command::Model(args) => model::run(args, output),
        Command::Ask(args) => ask::run(args, output),
        Command::Eval(args) => eval::run(args, output),
        Command::Compare(args) => compare::run(args, output),
    }
}
