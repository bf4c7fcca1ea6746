//! `exsearch report`: finished or unfinished run folders to their table and page.
use super::run as em;
use crate::environment;
use crate::output::Output;
use anyhow::Context;
use std::path::PathBuf;

/// Write the page of one run or of several side by side, from what is in their folders
///
/// The page is one HTML file that needs nothing but itself: scores with intervals, curves, weights and effective sample sizes, failures,
/// where the time went, and the trajectories of evaluations and E-steps. Of one run it is the report.html in its folder, and its table
/// is printed; of several it is written to --out.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page of several runs
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// The trajectories of at most this many questions of each set go into the page of a run
    #[arg(long, value_name = "N", default_value_t = exsearch_run::report::DEFAULT_MAX_QUESTIONS)]
    max_questions: usize,
    /// Also write trackers' files, and send to the servers of each run's configuration what they lack
    #[arg(long)]
    track: bool,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    if let [run] = &args.runs[..] {
        let outcome = exsearch_run::report_of(run, args.max_questions)?;
        em::show(&outcome, run, output)?;
    } else {
        exsearch_run::report_of_runs(&args.runs, args.max_questions, &args.out)?;
        output.line(format_args!("report      {}", args.out.display()))?;
    }
    if args.track {
        for run in &args.runs {
            exsearch_run::send_to_trackers(run, &environment::named)
                .with_context(|| format!("tracking {}", run.display()))?;
        }
    }
    Ok(())
}
