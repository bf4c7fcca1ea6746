//! `exsearch quickstart`: the whole of ExSearch on a small fictional world, in one command.
use super::world::{Found, found, remove_manifest};
use super::{index, model, run as em};
use crate::device::DeviceArgs;
use crate::output::{Output, duration};
use anyhow::{Context, bail};
use exsearch_corpus::{World, WorldConfig};
use exsearch_run::{Device, RunConfig};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Watch a small model teach itself multi-hop search, from nothing but this command
///
/// Makes a fictional world and indexes it, fetches SmolLM2-135M, evaluates it untrained, warms it up on a few dozen gold
/// trajectories of one and two hops, and lets it learn longer searches from its own trajectories. Ends with a table over
/// held-out questions and a page with curves and trajectories. 10 to 20 minutes on 2 cores, below 6 GB of memory. Killed at
/// any moment, the same command goes on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder for all of it
    #[arg(long, value_name = "DIR", default_value = "exsearch-quickstart")]
    out: PathBuf,
    /// What world, draws and training come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The model to teach: a folder, a .gguf file, or organization/name on the Hugging Face hub
    #[arg(long, value_name = "MODEL", default_value = "smollm2-135m")]
    model: String,
    #[command(flatten)]
    device: DeviceArgs,
    /// A smaller world and less of everything: checks that all parts work, teaches little
    #[arg(long)]
    tiny: bool,
}

/// The settings, with paths relative to the quickstart's folder. `@MODEL@` and `@SEED@` are filled in.
const CONFIG: &str = include_str!("../quickstart.toml");
const TINY_CONFIG: &str = include_str!("../quickstart_tiny.toml");
const WORLD: &str = include_str!("../quickstart_world.toml");

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let device = args.device.or(Device::Cpu);
    device.check()?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let world_config = world_config(&args);
    let world = make_world(&args.out.join("world"), &world_config, output)?;
    let passages = args.out.join("world/passages.tsv");
    let index_dir = args.out.join("index");
    // The same world makes the same bytes, whose index is found complete.
    index::build_bm25(&passages, &index_dir, output)
        .with_context(|| format!("{} is of another world; give another --out", index_dir.display()))?;
    let model = model::fetch(&args.model, None, false, output)?;
    let model = std::path::absolute(&model).with_context(|| format!("cannot use {}", model.display()))?;
    let config_path = args.out.join("quickstart.toml");
    let text = if args.tiny { TINY_CONFIG } else { CONFIG };
    // TOML strings escape as JSON strings do.
    let quoted = serde_json::to_string(&model.display().to_string())?;
    let text = text.replace("\"@MODEL@\"", &quoted).replace("\"@SEED@\"", &args.seed.to_string());
    std::fs::write(&config_path, text).with_context(|| format!("cannot write {}", config_path.display()))?;
    let mut config = RunConfig::open(&config_path)?;
    config.device = device;
    let run_dir = args.out.join("run");
    let outcome = em::execute(&config, &run_dir, None, output)?;
    em::show(&outcome, &run_dir, output)?;
    output.note(format_args!("\ndone in {}", duration(started.elapsed().as_secs_f64())));
    if let Some(checkpoint) = &outcome.checkpoint {
        let question = &world.test[0].record.question;
        output.line("\nask it yourself:")?;
        output.line(format_args!(
            "  exsearch ask {question:?} --model {} --adapter {} --index {} -k {}",
            model.display(),
            checkpoint.display(),
            index_dir.display(),
            config.agent.top_k
        ))?;
    }
    Ok(())
}

fn world_config(args: &Args) -> WorldConfig {
    let mut config: WorldConfig = exsearch_run::parse(WORLD).expect("the built-in settings are valid");
    config.seed = args.seed;
    if args.tiny {
        (config.n_people, config.n_train, config.n_dev, config.n_test, config.n_warmup) = (60, 40, 10, 10, 10);
    }
    config
}

/// Writes the world; one that is there, or was being written, is written again with the same bytes. Another one stays.
fn make_world(dir: &Path, config: &WorldConfig, output: &Output) -> anyhow::Result<World> {
    if found(dir, config)? == Found::OtherWorld {
        bail!("{} holds the world of another --seed or size; give another --out", dir.display());
    }
    let world = World::generate(config)?;
    remove_manifest(dir)?;
    let summary = world.write(dir)?;
    output.note(format_args!("{}: a world of {} passages", dir.display(), summary.n_passages));
    Ok(world)
}
