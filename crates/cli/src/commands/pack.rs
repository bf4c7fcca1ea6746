//! `exsearch pack`: trajectories to training examples.
use super::run_config;
use crate::output::Output;
use crate::retriever;
use anyhow::{Context, bail};
use exsearch_corpus::{BadLines, read_questions};
use exsearch_model::chat::HfChat;
use exsearch_run::{pack, read_gold, read_jsonl, replay, write_jsonl};
use exsearch_schema::Trajectory;
use exsearch_trainset::Weight;
use std::collections::HashMap;
use std::path::PathBuf;

/// Make a training set: token ids, which of them to learn, and how much they count
///
/// Either of sampled trajectories and their weights, or with --gold of gold decompositions (warm-up), each played through the
/// agent with the index's own passages.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A run configuration: model, index, agent and `pack` are taken from it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Gold trajectories for warm-up, instead of sampled ones
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trajectories", "weights", "questions"])]
    gold: Option<PathBuf>,
    /// Only so many gold trajectories, drawn by the configuration's seed
    #[arg(long, value_name = "N", requires = "gold")]
    limit: Option<usize>,
    /// Sampled trajectories
    #[arg(long, value_name = "FILE", requires_all = ["weights", "questions"])]
    trajectories: Option<PathBuf>,
    /// Their weights
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The questions that they answer, with gold answers
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// Where the training set goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let config = run_config(&args.config)?;
    let chat = HfChat::open(&config.model, None)?;
    if let Some(path) = &args.gold {
        let gold = read_gold(path, &config.data.warmup_datasets, args.limit, config.seed)?;
        let index = retriever::open(&config.data.index)?;
        let (_, examples, stats) = replay(&gold, &config.sampler()?, &chat, &*index, &config.pack)?;
        write_jsonl(&args.out, &examples)?;
        return output.line(serde_json::to_string_pretty(&stats)?);
    }
    let (Some(trajectories), Some(weights), Some(questions)) = (&args.trajectories, &args.weights, &args.questions)
    else {
        bail!("give --gold, or --trajectories with --weights and --questions");
    };
    let trajectories: Vec<Trajectory> = read_jsonl(trajectories)?;
    let questions = read_questions(questions, None, BadLines::Stop)?.rows;
    let weights: Vec<Weight> = read_jsonl(weights)?;
    let by_sample: HashMap<(&str, u32), &Weight> =
        weights.iter().map(|weight| ((weight.question_id.as_str(), weight.sample_idx), weight)).collect();
    let weight_of = |trajectory: &Trajectory| {
        let (id, sample_idx) = (trajectory.question_id.as_str(), trajectory.sample_idx);
        let known = questions.iter().any(|question| question.id == id);
        anyhow::ensure!(known, "question {id} of the trajectories is not in the file of questions");
        by_sample
            .get(&(id, sample_idx))
            .copied()
            .cloned()
            .with_context(|| format!("sample {sample_idx} of {id} has no weight"))
    };
    let weights = trajectories.iter().map(weight_of).collect::<anyhow::Result<Vec<Weight>>>()?;
    let (examples, stats) = pack(&questions, &trajectories, &weights, &chat, &config.pack)?;
    write_jsonl(&args.out, &examples)?;
    output.line(serde_json::to_string_pretty(&stats)?)
}
