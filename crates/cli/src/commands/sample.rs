//! `exsearch sample`: questions to trajectories, many at once.
use super::run_config;
use crate::device::DeviceArgs;
use crate::output::{Output, thousands};
use crate::progress::Unit;
use crate::remote::{self, RemoteArgs};
use crate::retriever;
use anyhow::Context;
use exsearch_corpus::{BadLines, read_questions};
use exsearch_run::{LanguageModel, Policy, SampleProgress, SampleTask};
use exsearch_schema::Scorer;
use std::path::PathBuf;

/// Sample trajectories for the questions of a file (the E-step)
///
/// All trajectories are under way together, and what they share is computed once. Killed at any moment, the same command
/// goes on. Every trajectory is written, the failed ones too. With --scores the gold answers are scored after each. A server, by
/// --server or the table `remote` of the configuration, writes and scores in place of the model's weights.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A run configuration: model, index, agent and generator are taken from it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The questions
    #[arg(long, value_name = "FILE")]
    questions: PathBuf,
    /// Only the questions of this split
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Only the first N questions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Trajectories a question
    #[arg(long, value_name = "M", default_value_t = 1)]
    samples: u32,
    /// Take the most probable token always, as evaluations do, instead of sampling
    #[arg(long)]
    greedy: bool,
    /// What all draws come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// A checkpoint trained on the model
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Where the log-probs of the gold answers go (for `exsearch weigh`)
    #[arg(long, value_name = "FILE")]
    scores: Option<PathBuf>,
    /// Where the trajectories go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let config = run_config(&args.config)?;
    let agent = if args.greedy { config.evaluator()? } else { config.sampler()? };
    let mut questions = read_questions(&args.questions, args.split.as_deref(), BadLines::Stop)?.rows;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    anyhow::ensure!(!questions.is_empty(), "{} gives no questions", args.questions.display());
    let index = retriever::open(&config.data.index)?;
    let remote = args.remote.config().or(config.remote);
    anyhow::ensure!(
        remote.is_none() || args.adapter.is_none(),
        "a server cannot be given an adapter: serve the merged model (`exsearch model merge`) and leave --adapter out"
    );
    // A server may come back at another address.
    let served = remote.as_ref().map(|remote| (remote.protocol, &remote.model, &remote.extra));
    let device = args.device.or(config.device);
    let model = (&config.model, device, &args.adapter, config.generator.weights);
    let what = (model, &config.data.index, &config.protocol, agent.config(), &served);
    let task = SampleTask {
        agent: &agent,
        questions: &questions,
        n_samples: args.samples,
        plans: None,
        seed: args.seed,
        fingerprint: serde_json::to_string(&(what, &args.questions, args.samples, args.seed))
            .context("cannot name the task")?,
        trajectories: &args.out,
        scores: args.scores.as_deref(),
    };
    let mut bar = output.progress("sampling", Unit::Items, questions.len() as u64 * u64::from(args.samples));
    let mut is_first = true;
    let mut on_progress = |progress: SampleProgress| {
        if std::mem::take(&mut is_first) && progress.n_done > 0 {
            bar.resume_at(progress.n_done as u64);
        }
        bar.set(progress.n_done as u64);
    };
    let sampled = match &remote {
        None => {
            let policy = Policy::open(&config.model, args.adapter.as_deref(), config.max_tokens, device)?;
            exsearch_run::sample(&task, &policy, &config.generator, &*index, &mut on_progress)?
        }
        Some(remote) => {
            let remote = remote::open(remote, &config.model, config.max_tokens)?;
            let mut scorer = args.scores.is_some().then(|| remote.model.scorer()).transpose()?;
            let scorer = scorer.as_mut().map(|scorer| scorer as &mut dyn Scorer);
            let model = LanguageModel { chat: &*remote.chat, generator: &mut remote.model.generator(), scorer };
            exsearch_run::sample_with(&task, model, &*index, &mut on_progress)?
        }
    };
    drop(bar);
    let n_trajectories = thousands(sampled.trajectories.len() as u64);
    output.line(format_args!("{}: {n_trajectories} trajectories", args.out.display()))
}
