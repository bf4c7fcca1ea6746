//! `exsearch compare`: two reports of the same questions to their differences.
use crate::output::Output;
use anyhow::Context;
use exsearch_evaluation::{compare, read_report};
use std::path::PathBuf;

/// Compare two reports of the same questions, question by question
///
/// Prints the second minus the first with intervals of a paired bootstrap: one that leaves out 0 is more than chance.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The first eval.json
    before: PathBuf,
    /// The second eval.json
    after: PathBuf,
    /// Print the differences as JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let (before, after) = (read_report(&args.before)?, read_report(&args.after)?);
    let difference = compare(&before, &after)
        .with_context(|| format!("cannot compare {} with {}", args.before.display(), args.after.display()))?;
    if args.json { output.json(&difference) } else { output.text(difference.table()) }
}
