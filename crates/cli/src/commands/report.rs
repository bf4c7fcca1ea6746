//! `exsearch report`: a finished or unfinished run folder to its table and page.
use super::run as em;
use crate::output::Output;
use std::path::PathBuf;

/// Write the table and the page of a run anew, from what is in its folder
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run folder
    run: PathBuf,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let outcome = exsearch_run::report_of(&args.run)?;
    em::show(&outcome, &args.run, output)
}
