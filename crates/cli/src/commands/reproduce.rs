//! `exsearch reproduce`: a run's manifest to the same run again, and whether the numbers agree.
use super::run as em;
use crate::output::Output;
use anyhow::{Context, bail, ensure};
use exsearch_run::{Agreement, Manifest, Places, agreement};
use std::path::PathBuf;

/// Run what a manifest describes again, and say number by number whether it comes out the same
///
/// The manifest of a finished run (RUN/manifest.json) is enough: it holds configuration, seeds, prompts, the hashes of all input and
/// what came out. Input that is missing or differs is named before anything is computed. The exit code is 0 only when every number
/// and every artifact agrees to the bit. Killed at any moment, the same command goes on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The manifest, or its run folder
    manifest: PathBuf,
    /// The folder of the new run
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where the model is now [default: where it was]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where the index is now [default: where it was]
    #[arg(long, value_name = "INDEX")]
    index: Option<PathBuf>,
    /// Where the files of questions and gold trajectories are now, by their names [default: where they were]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Go on with input that differs, such as an index built anew from the same passages
    #[arg(long)]
    anyway: bool,
    /// Print the comparison as JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let path = if args.manifest.is_dir() { args.manifest.join("manifest.json") } else { args.manifest.clone() };
    let before = Manifest::read(&path)?;
    ensure!(!before.results.is_empty(), "the run of {} has not come to its end: finish it first", path.display());
    let is_same =
        |dir: &std::path::Path| dir.canonicalize().ok().is_some_and(|dir| args.out.canonicalize().ok() == Some(dir));
    ensure!(!path.parent().is_some_and(is_same), "{} is the run itself; give another --out", args.out.display());
    let places = Places { model: args.model, index: args.index, data: args.data };
    let config = before.config_in(&places);
    let differing = before.differing_inputs(&config)?;
    differing.iter().for_each(|sentence| output.note(sentence));
    if !differing.is_empty() && !args.anyway {
        bail!("the input is not that of the run: {}", differing.join("; "));
    }
    if before.exsearch != env!("CARGO_PKG_VERSION") {
        output.note(format_args!(
            "the run was made by exsearch {}, this is {}",
            before.exsearch,
            env!("CARGO_PKG_VERSION")
        ));
    }
    config.device.check()?;
    em::execute(&config, &args.out, None, output)?;
    let now = Manifest::read(&args.out.join("manifest.json")).context("the new run has no manifest")?;
    let agreement = agreement(&before.results, &now.results);
    if args.json {
        output.json(&agreement)?
    } else {
        show(&agreement, output)?
    }
    match agreement.is_exact() {
        true => Ok(()),
        false => bail!("the numbers do not agree"),
    }
}

fn show(agreement: &Agreement, output: &Output) -> anyhow::Result<()> {
    output.line(format_args!("{:<14}{:<28}{:>10}{:>10}", "stage", "score, percent", "then", "now"))?;
    for stage in &agreement.stages {
        for (name, before, now) in &stage.scores {
            let number = |it: &Option<f64>| it.map_or("-".into(), |it| format!("{:.4}", 100.0 * it));
            let mark = if before == now { "" } else { "  differs" };
            let name = format!("{:<14}{name:<28}{:>10}{:>10}{mark}", stage.stage, number(before), number(now));
            output.line(name)?;
        }
        let (n_artifacts, n_differing) = (stage.n_artifacts, stage.differing_artifacts.len());
        let equal = format!("{} of {n_artifacts} artifacts are the same to the byte", n_artifacts - n_differing);
        output.line(format_args!("{:<14}{equal}", stage.stage))?;
    }
    match &agreement.first_difference {
        Some(name) => output.line(format_args!("\nthe first artifact that differs: {name}")),
        None => output.line("\neverything agrees"),
    }
}
