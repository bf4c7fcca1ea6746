//! `exsearch study`: a base configuration and named changes of it to runs at several seeds, a table and a figure.
use super::run as em;
use crate::device::DeviceArgs;
use crate::output::Output;
use anyhow::{Context, bail, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use exsearch_run::study::{Base, FailedRun, FinishedRun, Known, Study, StudyFolder, StudyResults, Variant};
use std::path::PathBuf;

/// Compare settings: run variants of a configuration at several seeds, and set their results side by side
///
/// The studies: `removals` (full, without thinking, search, recording, weights), `select` (without and with the select turn), `weights`
/// (posterior, uniform, reward, rejection, and what the published code computes), `warmup-size`, `samples` (M), `iterations` (N); or a
/// file of your own. Each variant changes a few settings of the base, at each seed one run. Parts that runs have in common, such as
/// the warm-up of those that differ in their weights, are computed once. Killed at any moment, the same command goes on; a run that
/// fails is told at the end and tried again by the next call. DIR/study.md, study.svg and study.json have the results, on the
/// first test set (on dev where there is none), and are there after the first run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The study
    #[arg(value_parser = name_parser(), required_unless_present = "variants", conflicts_with = "variants")]
    name: Option<Known>,
    /// The base configuration, as `exsearch run` takes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The folder of the study
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The seeds
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// A study of your own: a TOML file with a table of settings for each variant, by its name; its paths are relative to the base
    /// configuration. The first variant is what the others are compared with
    #[arg(long, value_name = "FILE")]
    variants: Option<PathBuf>,
    /// The numbers that `warmup-size`, `samples` and `iterations` try, in place of 0,12,24,48, 1,2,4,6,8 and 1,2,3,4,5
    #[arg(long, value_name = "N,..", value_delimiter = ',', conflicts_with = "variants")]
    values: Vec<u32>,
    /// Only these variants
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    only: Vec<String>,
    /// The folder in which runs share parts; several studies may use the same [default: DIR/shared]
    #[arg(long, value_name = "DIR")]
    shared: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let study = study(&args)?;
    let base = Base::open(&args.config)?;
    let folder = StudyFolder::open(&args.out)?;
    let runs: Vec<(u64, &Variant)> =
        args.seeds.iter().flat_map(|seed| study.variants.iter().map(move |variant| (*seed, variant))).collect();
    let (mut finished, mut failed) = (Vec::new(), Vec::new());
    for (idx, (seed, variant)) in runs.iter().enumerate() {
        output.note(format_args!("\n[{} of {}] {}, seed {seed}", idx + 1, runs.len(), variant.name));
        match one(&args, &base, &folder, (&study.name, variant, *seed), output) {
            Ok(run) => finished.push(run),
            Err(error) => {
                output.error(&error);
                let reason = format!("{error:#}");
                failed.push(FailedRun { variant: variant.name.clone(), seed: *seed, reason });
            }
        }
        folder.write(&StudyResults::new(&study, &finished, &failed)?)?;
    }
    output.text(StudyResults::new(&study, &finished, &failed)?.markdown())?;
    output.note(format_args!("\nstudy folder  {}", args.out.display()));
    match failed.len() {
        0 => Ok(()),
        n_failed => bail!("{n_failed} of {} runs failed; the same command tries them again", runs.len()),
    }
}

fn study(args: &Args) -> anyhow::Result<Study> {
    let mut study = match (args.name, &args.variants) {
        (Some(known), _) => {
            ensure!(
                args.values.is_empty() || !known.values().is_empty(),
                "the study {} takes no --values",
                known.name()
            );
            known.study(&args.values)
        }
        (None, path) => Study::open(path.as_ref().expect("clap asks for one of them"))?,
    };
    for name in &args.only {
        let is_there = study.variants.iter().any(|variant| variant.name == *name);
        ensure!(is_there, "the study {} has no variant {name}", study.name);
    }
    study.variants.retain(|variant| args.only.is_empty() || args.only.contains(&variant.name));
    Ok(study)
}

fn one(
    args: &Args,
    base: &Base,
    folder: &StudyFolder,
    (study, variant, seed): (&str, &Variant, u64),
    output: &Output,
) -> anyhow::Result<FinishedRun> {
    let mut config = base.with(study, variant, seed)?;
    config.device = args.device.or(config.device);
    config.device.check()?;
    let dir = folder.run(&variant.name, seed);
    let shared = args.shared.clone().unwrap_or_else(|| folder.shared());
    let outcome = em::execute(&config, &dir, Some(&shared), output)
        .with_context(|| format!("{}, seed {seed}, has no result", variant.name))?;
    Ok(FinishedRun::new(&variant.name, seed, &outcome))
}

fn name_parser() -> impl TypedValueParser<Value = Known> {
    let named = |name: String| Known::ALL.into_iter().find(|known| known.name() == name);
    PossibleValuesParser::new(Known::ALL.map(Known::name)).map(move |name| named(name).expect("one of these"))
}
