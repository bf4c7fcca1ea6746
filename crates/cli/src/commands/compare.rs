//! `exsearch compare`: two reports or runs about the same questions to their differences.
use crate::output::Output;
use anyhow::{Context, ensure};
use exsearch_evaluation::{PairedDifference, Report, compare, read_report};
use exsearch_run::stages_of;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Compare two reports, or two runs, of the same questions, question by question
///
/// Prints the second minus the first with intervals of a paired bootstrap: one that leaves out 0 is more than chance. `p` is of
/// the exact sign test over the questions that differ: McNemar's test, where each is right or wrong. Of run folders, the stages that
/// are best on dev are compared, on every set of questions that both have.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The first eval.json or run folder
    before: PathBuf,
    /// The second
    after: PathBuf,
    /// The stage of both run folders: best, last, or a stage's folder (untrained, warmup, iter-1, ...); two with a comma between
    /// them for one of each [default: best]
    #[arg(long, value_name = "STAGE[,STAGE]", value_delimiter = ',', num_args = 1..=2)]
    stage: Vec<String>,
    /// Print the differences as JSON instead of a table: one line for each set
    #[arg(long)]
    json: bool,
}

/// A line of `--json` for run folders.
#[derive(Serialize)]
struct OfSet<'a> {
    set: &'a str,
    before: &'a str,
    after: &'a str,
    #[serde(flatten)]
    difference: PairedDifference,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let between = || format!("cannot compare {} with {}", args.before.display(), args.after.display());
    ensure!(args.before.is_dir() == args.after.is_dir(), "{}: give two files or two run folders", between());
    if args.before.is_dir() {
        return runs(&args, output).with_context(between);
    }
    ensure!(args.stage.is_empty(), "--stage is for run folders");
    let (before, after) = (read_report(&args.before)?, read_report(&args.after)?);
    let difference = compare(&before, &after).with_context(between)?;
    if args.json { output.json(&difference) } else { output.text(difference.table()) }
}

fn runs(args: &Args, output: &Output) -> anyhow::Result<()> {
    ensure!(args.stage.len() <= 2, "--stage takes one stage, or one of each run");
    let stage_of = |idx: usize| args.stage.get(idx).or(args.stage.first()).map_or("best", String::as_str);
    let (before_name, before) = stage(&args.before, stage_of(0))?;
    let (after_name, after) = stage(&args.after, stage_of(1))?;
    let mut n_sets = 0;
    for (set, report) in &before {
        let Some((_, other)) = after.iter().find(|(name, _)| name == set) else { continue };
        n_sets += 1;
        let difference = compare(report, other)?;
        if args.json {
            output.json(&OfSet { set, before: &before_name, after: &after_name, difference })?;
        } else {
            let gap = if n_sets > 1 { "\n" } else { "" };
            output.line(format_args!("{gap}{set}: {before_name}, then {after_name}"))?;
            output.text(difference.table())?;
        }
    }
    ensure!(n_sets > 0, "the runs have no set of questions in common");
    Ok(())
}

/// A stage of a run by its folder's name, `best` or `last`: its name and its reports by set.
fn stage(run: &Path, wanted: &str) -> anyhow::Result<(String, Vec<(String, Report)>)> {
    let (stages, best_idx) = stages_of(run)?;
    ensure!(!stages.is_empty(), "{} has no stage that is evaluated", run.display());
    let idx = match wanted {
        "best" => Some(best_idx),
        "last" => Some(stages.len() - 1),
        name => stages.iter().position(|stage| stage.dir == name || stage.name == name),
    };
    let known: Vec<&str> = stages.iter().map(|stage| stage.dir.as_str()).collect();
    let idx = idx.with_context(|| format!("{} has no stage {wanted}; it has {}", run.display(), known.join(", ")))?;
    let stage = stages.into_iter().nth(idx).expect("found above");
    Ok((stage.name, stage.reports))
}
