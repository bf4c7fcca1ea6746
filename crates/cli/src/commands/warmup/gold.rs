//! `exsearch warmup gold`: question files with decompositions to gold trajectories, and what an index makes of them.
use super::super::run_config;
use crate::output::Output;
use crate::progress::Unit;
use crate::retriever;
use anyhow::ensure;
use exsearch_agent::{Agent, AgentConfig, Protocol, ReplayStats};
use exsearch_corpus::decomposition::{DecompositionCounts, LocateCounts, UnconvertedReason};
use exsearch_corpus::{BadLines, PassageReader, locate_passages, read_decompositions};
use exsearch_model::chat::HfChat;
use exsearch_run::messages::{export, write_messages};
use exsearch_run::{draw, evidence_shown, replay, write_jsonl};
use exsearch_schema::{ChatCodec, ChatError, GoldTrajectory, Message, Outcome};
use exsearch_trainset::PackConfig;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Make gold trajectories of questions with gold decompositions or evidence
///
/// Reads HotpotQA, MuSiQue and 2WikiMultihopQA as they are published, question rows with `decomposition` and `supporting`, and
/// gold trajectories (a world's train_gold.jsonl). A step is a part of a decomposition, an evidence triple, or a gold passage with
/// its supporting sentences. What could not be converted is counted by reason. With --index or --config the trajectories are played
/// with what the index finds, as training will do it, and the gold passages that it finds and lacks are counted.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The questions: JSON lines or a JSON list
    questions: PathBuf,
    /// Where the gold trajectories go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Only questions that name this split (published files name none)
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Only so many trajectories, drawn by the seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// What the draw comes from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Leave out rows that are no questions and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    /// The passages of the index: gold passages that the questions name by title and text are looked up in it
    #[arg(long, value_name = "FILE")]
    passages: Option<PathBuf>,
    /// Leave out trajectories with a step whose gold passage has no id, since the index may not find what its fact is from
    #[arg(long)]
    only_with_passages: bool,
    /// Play them with this index and the agent's defaults, without a limit on their length
    #[arg(long, value_name = "PATH", conflicts_with = "config", group = "preview")]
    index: Option<PathBuf>,
    /// Play them as this run configuration says: index, agent, and tokenizer of its model
    #[arg(long, value_name = "FILE", group = "preview")]
    config: Option<PathBuf>,
    /// With --index: passages shown after a query
    #[arg(short = 'k', long, value_name = "N", requires = "index", default_value_t = AgentConfig::default().top_k)]
    top_k: usize,
    /// Of those played, leave out the ones with a fact that no passage shown at its step has word for word
    #[arg(long, requires = "preview")]
    only_shown: bool,
    /// Where the played dialogues go, in the published code's format
    #[arg(long, value_name = "FILE", requires = "preview")]
    messages: Option<PathBuf>,
}

/// What is printed.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    counts: DecompositionCounts,
    /// Rows that are no questions.
    n_skipped: u64,
    /// Questions that could not be converted.
    unconverted: BTreeMap<UnconvertedReason, Unconverted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_up: Option<LocateCounts>,
    /// Left out by --only-with-passages.
    n_without_passages: usize,
    n_written: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    played: Option<Played>,
}

#[derive(Default, Serialize)]
struct Unconverted {
    n: usize,
    /// The first one's id.
    first: String,
}

/// What became of the trajectories with an index.
#[derive(Default, Serialize)]
struct Played {
    n_trajectories: usize,
    /// Of them too long for the agent's limits, or with a search that failed: no training example.
    n_unfit: usize,
    #[serde(flatten)]
    passages: ReplayStats,
    /// Facts that were recorded.
    n_facts: usize,
    /// Of them those that a passage shown at their step has word for word.
    n_facts_shown: usize,
    /// Left out by --only-shown.
    n_left_out: usize,
}

/// Trajectories that are played together: what they hold is kept no longer.
const PLAYED_TOGETHER: usize = 64;

pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<()> {
    let bad_lines = if args.skip_bad { BadLines::Skip } else { BadLines::Stop };
    let mut found = read_decompositions(&args.questions, args.split.as_deref(), bad_lines)?;
    let mut unconverted: BTreeMap<UnconvertedReason, Unconverted> = BTreeMap::new();
    for it in found.unconverted {
        let of_reason = unconverted.entry(it.reason).or_insert_with(|| Unconverted { n: 0, first: it.id });
        of_reason.n += 1;
    }
    let looked_up = match &args.passages {
        Some(path) => Some(locate_passages(&mut found.rows, &found.sought, PassageReader::open(path, bad_lines)?)?),
        None => None,
    };
    let n_before = found.rows.len();
    if args.only_with_passages {
        found.rows.retain(|row| row.steps.iter().all(|step| !step.docs.is_empty()));
    }
    let n_without_passages = n_before - found.rows.len();
    let rows = draw(found.rows, &args.questions, args.limit, args.seed)?;
    if rows.is_empty() {
        let reasons = serde_json::to_string(&unconverted)?;
        ensure!(n_before > 0, "{} gives no gold trajectories: {reasons}", args.questions.display());
    }
    let (rows, played) = play(args, rows, output)?;
    write_jsonl(&args.out, &rows)?;
    let told = Told {
        counts: found.counts,
        n_skipped: found.skipped.n_lines,
        unconverted,
        looked_up,
        n_without_passages,
        n_written: rows.len(),
        played,
    };
    output.line(serde_json::to_string_pretty(&told)?)
}

/// Plays the trajectories where an index is given, and leaves out what is to be left out for it.
fn play(
    args: &Args,
    rows: Vec<GoldTrajectory>,
    output: &Output,
) -> anyhow::Result<(Vec<GoldTrajectory>, Option<Played>)> {
    let (agent, index, chat): (Agent, _, Box<dyn ChatCodec>) = match (&args.config, &args.index) {
        (Some(path), _) => {
            let config = run_config(path)?;
            let chat = HfChat::open(&config.model, None)?;
            (config.sampler()?, retriever::open(&config.data.index)?, Box::new(chat))
        }
        (None, Some(path)) => {
            let most = rows.iter().map(|row| row.steps.len()).max().unwrap_or_default();
            let config = AgentConfig {
                top_k: args.top_k,
                max_steps: most.max(AgentConfig::default().max_steps),
                // As bytes, which `Bytes` counts, more than any dialogue has.
                max_dialogue_tokens: 1 << 40,
                ..AgentConfig::default()
            };
            (Agent::new(Protocol::default(), config)?, retriever::open(path)?, Box::new(Bytes))
        }
        (None, None) => return Ok((rows, None)),
    };
    let reference = Protocol::reference();
    let (mut played, mut kept, mut messages) = (Played::default(), Vec::new(), Vec::new());
    let mut bar = output.progress("playing", Unit::Items, rows.len() as u64);
    for rows in rows.chunks(PLAYED_TOGETHER) {
        let (trajectories, _, stats) = replay(rows, &agent, &*chat, &*index, &PackConfig::default())?;
        played.passages.add(stats.replay);
        for (row, trajectory) in rows.iter().zip(&trajectories) {
            played.n_trajectories += 1;
            played.n_unfit += usize::from(trajectory.outcome != Outcome::Answered);
            let (n_facts, n_shown) = evidence_shown(trajectory);
            played.n_facts += n_facts;
            played.n_facts_shown += n_shown;
            if args.only_shown && n_shown < n_facts {
                played.n_left_out += 1;
                continue;
            }
            kept.push(row.clone());
            if args.messages.is_some() {
                messages.extend(export(std::slice::from_ref(trajectory), None, None, Some(&reference))?.0);
            }
        }
        bar.set(played.n_trajectories as u64);
    }
    drop(bar);
    if let Some(path) = &args.messages {
        write_messages(path, &messages)?;
    }
    Ok((kept, Some(played)))
}

/// A token a byte, for dialogues of which only the words are wanted.
struct Bytes;

/// Behind all bytes.
const END_OF_TURN: u32 = 256;

impl ChatCodec for Bytes {
    fn open(&self, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
        Ok(messages.iter().flat_map(|message| message.content.bytes()).map(u32::from).collect())
    }

    fn reply(&self, _: &[Message], _: bool, next: &Message) -> Result<Vec<u32>, ChatError> {
        self.open(std::slice::from_ref(next))
    }

    fn turn(&self, text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).chain([END_OF_TURN]).collect()
    }

    fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
