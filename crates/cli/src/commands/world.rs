//! `exsearch world`: settings to a folder with an invented corpus and questions about it.
use crate::output::{Output, thousands};
use anyhow::{Context, bail};
use exsearch_corpus::{World, WorldConfig, WorldQuestion, WorldSummary};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Make a small fictional corpus with questions, to try everything without downloads
///
/// Everything in it is invented, so every answer must be searched for. Written are passages.tsv, train.jsonl, dev.jsonl,
/// test.jsonl, gold trajectories in warmup.jsonl and train_gold.jsonl, and world.json. The same settings make the same
/// bytes on every machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A TOML file with the settings of the world; the options below override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What everything is drawn from [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// People, 40 to 5000; cities, regions, companies and works follow [default: 400, which makes 622 passages]
    #[arg(long, value_name = "N")]
    people: Option<usize>,
    /// Training questions [default: 1000]
    #[arg(long, value_name = "N")]
    train: Option<usize>,
    /// Validation questions [default: 200]
    #[arg(long, value_name = "N")]
    dev: Option<usize>,
    /// Test questions [default: 300]
    #[arg(long, value_name = "N")]
    test: Option<usize>,
    /// Questions with gold trajectories for warm-up [default: 100]
    #[arg(long, value_name = "N")]
    warmup: Option<usize>,
    /// Write even into a folder that holds another world or other files, which stay where their names differ
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let config = config(&args)?;
    check_folder(&args.out, &config, args.force)?;
    let world = World::generate(&config)?;
    remove_manifest(&args.out)?;
    let summary = world.write(&args.out)?;
    output.text(describe(&args.out, &summary))?;
    output.line("\nExamples:")?;
    for WorldQuestion { record, .. } in examples(&world.test) {
        let hops =
            record.hops.map_or(String::new(), |hops| format!(" ({hops} hop{})", if hops == 1 { "" } else { "s" }));
        output.line(format_args!("  {}{hops}\n    {}", record.question, record.answers.canonical()))?;
    }
    Ok(())
}

/// The settings: the file's, overridden by options.
fn config(args: &Args) -> anyhow::Result<WorldConfig> {
    let mut config = match &args.config {
        None => WorldConfig::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            exsearch_run::parse(&text).map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?
        }
    };
    config.seed = args.seed.unwrap_or(config.seed);
    let counts = [
        (&mut config.n_people, args.people),
        (&mut config.n_train, args.train),
        (&mut config.n_dev, args.dev),
        (&mut config.n_test, args.test),
        (&mut config.n_warmup, args.warmup),
    ];
    for (setting, option) in counts {
        *setting = option.unwrap_or(*setting);
    }
    Ok(config)
}

/// Refuses to write into a folder that holds anything but this very world, whose files are the same bytes again.
fn check_folder(dir: &Path, config: &WorldConfig, force: bool) -> anyhow::Result<()> {
    if force {
        return Ok(());
    }
    match found(dir, config)? {
        Found::Nothing | Found::SameWorld => Ok(()),
        Found::NoWorld => bail!(
            "{} is not empty and holds no world; choose another folder, or write into it with --force",
            dir.display()
        ),
        Found::OtherWorld => {
            bail!("{} holds another world; choose another folder, or replace it with --force", dir.display())
        }
    }
}

/// What a folder holds where a world is to be written.
#[derive(PartialEq)]
pub(super) enum Found {
    /// It is not there, or empty.
    Nothing,
    /// Files, but no finished world.
    NoWorld,
    /// A world of the same settings.
    SameWorld,
    /// A world of other settings.
    OtherWorld,
}

/// What `dir` holds, as seen from the settings of the world that is to be written there.
pub(super) fn found(dir: &Path, config: &WorldConfig) -> anyhow::Result<Found> {
    #[derive(Deserialize)]
    struct Manifest {
        config: WorldConfig,
    }
    let cannot_read = || format!("cannot read {}", dir.display());
    if !dir.exists() || std::fs::read_dir(dir).with_context(cannot_read)?.next().is_none() {
        return Ok(Found::Nothing);
    }
    let Ok(manifest) = std::fs::read(dir.join("world.json")) else { return Ok(Found::NoWorld) };
    match serde_json::from_slice::<Manifest>(&manifest) {
        Ok(manifest) if manifest.config == *config => Ok(Found::SameWorld),
        _ => Ok(Found::OtherWorld),
    }
}

/// A folder that is being written is no world until its last file is there.
pub(super) fn remove_manifest(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join("world.json");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn describe(dir: &Path, summary: &WorldSummary) -> String {
    let mut text = format!(
        "{}: {} passages of at most {} words about {} people, {} cities, {} regions, {} companies and {} works\n",
        dir.display(),
        thousands(summary.n_passages as u64),
        summary.max_passage_words,
        thousands(summary.n_people as u64),
        summary.n_cities,
        summary.n_regions,
        summary.n_companies,
        summary.n_works,
    );
    for split in ["train", "dev", "test", "warmup"] {
        let Some(kinds) = summary.questions.get(split) else { continue };
        let of_kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let n_questions = kinds.values().sum::<usize>();
        text.push_str(&format!("{split:>7}: {:>5} questions ({})\n", n_questions, of_kinds.join(", ")));
    }
    text
}

/// Three questions, as different in their number of hops as there are.
fn examples(questions: &[WorldQuestion]) -> Vec<&WorldQuestion> {
    let mut examples: Vec<&WorldQuestion> = Vec::new();
    for question in questions {
        if examples.iter().all(|example| example.record.hops != question.record.hops) {
            examples.push(question);
        }
    }
    examples.sort_by_key(|example| example.record.hops);
    examples.truncate(3);
    examples
}
