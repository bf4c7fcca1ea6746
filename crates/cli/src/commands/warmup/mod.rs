//! `exsearch warmup`: what a model learns to search from before it searches itself.
mod gold;
mod messages;
mod teacher;

use crate::output::Output;

/// Make warm-up data: of gold decompositions, by a teacher, or out of other programs' files
///
/// What `data.warmup` of a run configuration and `exsearch pack --gold` take: a line for each question with its queries, facts and
/// gold passages. Training plays them through the agent with what the index finds.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Gold(gold::Args),
    Teacher(Box<teacher::Args>),
    Export(messages::ExportArgs),
    Import(messages::ImportArgs),
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    match args.command {
        Command::Gold(args) => gold::run(&args, output),
        Command::Teacher(args) => teacher::run(&args, output),
        Command::Export(args) => messages::export(&args, output),
        Command::Import(args) => messages::import(&args, output),
    }
}
