//! `exsearch train`: a training set to a checkpoint.
use super::run_config;
use crate::device::DeviceArgs;
use crate::output::Output;
use crate::progress::Unit;
use exsearch_run::{Policy, read_jsonl, train_checkpoint};
use exsearch_schema::Example;
use std::path::PathBuf;

/// Train on a training set (the M-step)
///
/// Writes a PEFT adapter, or a whole model where the configuration trains every parameter. Prints the last step.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The training set that `exsearch pack` wrote
    examples: PathBuf,
    /// A run configuration: model and training settings are taken from it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Use the settings of `warmup` instead of `train`
    #[arg(long)]
    warmup: bool,
    /// The checkpoint to go on from
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Where the checkpoint goes; its steps are written beside it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let config = run_config(&args.config)?;
    let settings = if args.warmup { &config.warmup } else { &config.train };
    let examples: Vec<Example> = read_jsonl(&args.examples)?;
    let device = args.device.or(config.device);
    let mut policy = Policy::open(&config.model, args.adapter.as_deref(), config.max_tokens, device)?;
    let mut bar = output.progress("training", Unit::Nothing, 0);
    let mut is_first = true;
    let steps = train_checkpoint(&mut policy, &examples, settings, &args.out, &mut |step| {
        if std::mem::take(&mut is_first) {
            bar = output.progress("training", Unit::Items, step.n_steps as u64);
        }
        bar.set(step.step as u64);
        bar.set_what(format!("training, loss {:.3}", step.nll));
    })?;
    drop(bar);
    if let Some(last) = steps.last() {
        output.json(last)?;
    }
    output.line(format_args!("{}", args.out.display()))
}
