//! `exsearch warmup teacher`: questions and a server with a good model to gold trajectories.
use super::super::run_config;
use crate::output::Output;
use crate::progress::Unit;
use crate::remote::{self, RemoteArgs};
use crate::retriever;
use anyhow::{Context, bail, ensure};
use exsearch_agent::{Agent, AgentConfig, Protocol};
use exsearch_corpus::{BadLines, read_questions};
use exsearch_run::teacher::{AnswerRule, Budget, TeacherProgress, TeacherTask, Validation, teach};
use exsearch_run::{LanguageModel, RunConfig, write_jsonl};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Have a teacher answer questions by searching, and keep what it does right
///
/// A model behind a server, by --server or the table `remote` of the configuration, plays the agent over the configuration's index. A
/// trajectory is kept when nothing went wrong in it, its answer is right, and each fact it recorded stands in a passage that it was
/// shown there; else the question is asked again. The others go to FILE.rejected.jsonl, each with its reason. Killed at any moment,
/// or stopped by its budget, the same command goes on with FILE.journal; with other rules it judges what is there anew.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The questions, with answers
    questions: PathBuf,
    /// A run configuration: index and agent are taken from it, and the model folder, of which the tokenizer counts tokens
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the gold trajectories go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only questions of this split
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Only the first N questions
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Trajectories a question at most, until one is kept
    #[arg(long, value_name = "M", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// What all draws come from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How the teacher samples [default: as the agent of the configuration]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// The wording of the dialogue with the teacher [default: the configuration's]; the student's is its own in any case
    #[arg(long, value_name = "FILE")]
    protocol: Option<PathBuf>,
    /// The folder of the teacher's tokenizer, which all server protocols but `chat` need [default: the configuration's model]
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// When an answer is right
    #[arg(long, value_enum, default_value_t = Answer::Em, help_heading = "What is kept")]
    answer: Answer,
    /// With --answer f1: the least F1
    #[arg(long, value_name = "F1", default_value_t = 0.8, help_heading = "What is kept")]
    least_f1: f64,
    /// The least number of searches
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What is kept")]
    min_steps: usize,
    /// Requests to the server at most, over all calls that go on with the journal
    #[arg(long, value_name = "N", help_heading = "Budget")]
    max_requests: Option<u64>,
    /// Tokens at most, of prompts and answers together, as the tokenizer counts them
    #[arg(long, value_name = "N", help_heading = "Budget")]
    max_tokens: Option<u64>,
    /// Cost at most, by the two prices
    #[arg(long, value_name = "COST", requires_all = ["prompt_price", "answer_price"], help_heading = "Budget")]
    max_cost: Option<f64>,
    /// The price of a million prompt tokens
    #[arg(long, value_name = "PRICE", help_heading = "Budget")]
    prompt_price: Option<f64>,
    /// The price of a million tokens that the server writes
    #[arg(long, value_name = "PRICE", help_heading = "Budget")]
    answer_price: Option<f64>,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// When an answer is right.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Answer {
    /// It equals a gold answer after normalization
    Em,
    /// Its token F1 with one is large enough
    F1,
    /// It has the words of one in a row
    Accuracy,
}

pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<()> {
    let config = run_config(&args.config)?;
    let server = args.remote.config().or_else(|| config.remote.clone());
    let server = server
        .context("a teacher is a server: give --server with --server-protocol, or `remote` in the configuration")?;
    let agent = agent(args, &config, server.http.max_concurrent)?;
    let mut questions = read_questions(&args.questions, args.split.as_deref(), BadLines::Stop)?.rows;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    ensure!(!questions.is_empty(), "{} gives no questions", args.questions.display());
    let mut ids = HashSet::new();
    if let Some(twice) = questions.iter().find(|question| !ids.insert(question.id.as_str())) {
        bail!("{}: two questions have the id {}", args.questions.display(), twice.id);
    }
    let index = retriever::open(&config.data.index)?;
    let tokenizer = args.tokenizer.as_ref().unwrap_or(&config.model);
    let teacher = remote::open(&server, tokenizer, config.max_tokens)?;
    // A server may come back at another address.
    let served = (server.protocol, &server.model, &server.extra);
    let settings = AgentConfig { max_concurrent: AgentConfig::default().max_concurrent, ..agent.config().clone() };
    let what = (tokenizer, &config.data.index, agent.protocol(), settings, served, &args.questions, args.seed);
    let journal = with_suffix(&args.out, ".journal");
    let task = TeacherTask {
        agent: &agent,
        questions: &questions,
        n_samples: args.samples,
        seed: args.seed,
        validation: Validation {
            answer: match args.answer {
                Answer::Em => AnswerRule::ExactMatch,
                Answer::F1 => AnswerRule::F1(args.least_f1),
                Answer::Accuracy => AnswerRule::Accuracy,
            },
            min_steps: args.min_steps,
        },
        budget: Budget {
            max_requests: args.max_requests,
            max_tokens: args.max_tokens,
            max_cost: args.max_cost,
            prompt_price: args.prompt_price.unwrap_or_default(),
            completion_price: args.answer_price.unwrap_or_default(),
        },
        fingerprint: serde_json::to_string(&what).context("cannot name the task")?,
        journal: &journal,
    };
    let mut bar = output.progress("teaching", Unit::Items, questions.len() as u64);
    let mut is_first = true;
    let mut on_progress = |progress: TeacherProgress| {
        if std::mem::take(&mut is_first) && progress.n_done > 0 {
            bar.resume_at(progress.n_done as u64);
        }
        bar.set(progress.n_done as u64);
    };
    let model = LanguageModel { chat: &*teacher.chat, generator: &mut teacher.model.generator(), scorer: None };
    let taught = teach(&task, model, &*index, &mut on_progress)?;
    drop(bar);
    write_jsonl(&with_suffix(&args.out, ".rejected.jsonl"), &taught.rejected)?;
    write_jsonl(&args.out, &taught.rows)?;
    if taught.stats.n_open > 0 {
        let n_open = taught.stats.n_open;
        output.note(format_args!(
            "The budget is used up; with a larger one the same command goes on with {n_open} questions."
        ));
    }
    output.line(serde_json::to_string_pretty(&taught.stats)?)
}

/// The agent as the teacher plays it. More dialogues than the server is asked for at once would bring no speed, and a kill or the end of
/// the budget breaks off all that are under way.
fn agent(args: &Args, config: &RunConfig, max_requests: usize) -> anyhow::Result<Agent> {
    let student = config.sampler()?;
    let protocol = match &args.protocol {
        None => student.protocol().clone(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Protocol::from_toml(&text).with_context(|| path.display().to_string())?
        }
    };
    let temperature = args.temperature.unwrap_or(config.agent.temperature);
    let max_concurrent = config.agent.max_concurrent.min(max_requests);
    Ok(Agent::new(protocol, AgentConfig { temperature, max_concurrent, ..config.agent.clone() })?)
}

/// `path` with something behind its name.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
