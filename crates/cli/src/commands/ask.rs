//! `exsearch ask`: one question to an answer with its evidence, step by step.
use super::model::{ModelsDir, ensure_no_adapter};
use crate::device::DeviceArgs;
use crate::output::{Output, duration, printable, snippet};
use crate::progress::{Progress, Unit};
use crate::remote::{self, RemoteArgs};
use crate::retriever;
use anyhow::{Context, bail};
use exsearch_agent::{Agent, AgentConfig, Event, EventKind, Job, Protocol, job_seed};
use exsearch_engine::GenerationWeights;
use exsearch_run::{Device, GeneratorConfig, Policy};
use exsearch_schema::{Author, Boundary, ChatCodec, Generator, Hit, Incident, Outcome, Question, Trajectory};
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::time::Instant;

/// Answer a question by searching, and show every step
///
/// Shows the queries of the model, the passages that were found, the evidence that it wrote down and where that stands in the
/// passages, and its answer.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The question, in quotes
    question: String,
    /// A model folder, or the name of a model fetched with `exsearch model pull`
    #[arg(long, value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    place: ModelsDir,
    /// An adapter trained on the model
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The index folder to search in
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// A TOML file with the wording of the dialogue [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    protocol: Option<PathBuf>,
    /// Passages shown after a query
    #[arg(short = 'k', long, value_name = "N", default_value_t = AgentConfig::default().top_k)]
    top_k: usize,
    /// Queries at most
    #[arg(long, value_name = "N", default_value_t = AgentConfig::default().max_steps)]
    max_steps: usize,
    /// Tokens of the whole dialogue at most
    #[arg(long, value_name = "N", default_value_t = AgentConfig::default().max_dialogue_tokens)]
    max_tokens: usize,
    /// 0 always takes the most probable token, 1 samples from the model as it is
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// Samples from the smallest set of tokens with this much probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// The seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The weights to answer with: the model's own, or rounded to 8 bits for speed
    #[arg(long, value_name = "WEIGHTS", value_enum, default_value_t = Weights::F32)]
    weights: Weights,
    /// Print the trajectory as JSON instead of the steps
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: RemoteArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Weights {
    F32,
    Int8,
}

/// Characters of a passage that are shown.
const SNIPPET_CHARS: usize = 120;
/// Characters shown on each side of the evidence in its passage.
const AROUND_CHARS: usize = 60;

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    if args.question.trim().is_empty() {
        bail!("the question is empty");
    }
    let mut agent = agent(&args, args.max_tokens)?;
    let index = retriever::open(&args.index)?;
    let mut bar = output.progress("opening the model", Unit::Nothing, 0);
    let model = args.place.find(&args.model)?;
    ensure_no_adapter(&model)?;
    let (policy, engine, mut local, remote, mut turns);
    let (chat, generator): (&dyn ChatCodec, &mut dyn Generator) = match args.remote.config() {
        None => {
            policy = Policy::open(&model, args.adapter.as_deref(), args.max_tokens, args.device.or(Device::Cpu))?;
            let context = policy.max_positions();
            if context < args.max_tokens {
                bar.pause(|| {
                    output.note(format_args!("{} takes dialogues of {context} tokens at most", model.display()))
                });
                agent = self::agent(&args, context)?;
            }
            let weights = match args.weights {
                Weights::F32 => GenerationWeights::F32,
                Weights::Int8 => GenerationWeights::Int8,
            };
            let config = GeneratorConfig { weights, ..GeneratorConfig::default() };
            policy.check(&config)?;
            engine = policy.engine(&config);
            local = engine.generator();
            (&policy.chat, &mut *local)
        }
        Some(config) => {
            remote = remote::open(&config, &model, args.max_tokens)?;
            turns = remote.model.generator();
            (&*remote.chat, &mut turns)
        }
    };
    bar.set_what("thinking");

    let question = Question { id: "question".to_owned(), text: args.question.clone() };
    let seed = job_seed(args.seed, &question.id, 0);
    let started = Instant::now();
    let mut view = View { output, bar: &bar, hits: Vec::new() };
    let (mut trajectory, mut failure) = (None, None);
    let mut on_event = |event: Event| {
        let shown = match event.kind {
            EventKind::Done(done) => {
                trajectory = Some(*done);
                Ok(())
            }
            _ if args.json => Ok(()),
            kind => view.show(kind),
        };
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    };
    let job = Job { question, sample_idx: 0, seed, hint: None };
    let _ = agent.run(&[job], chat, generator, &*index, &mut on_event);
    drop(bar);
    if let Some(error) = failure {
        return Err(error);
    }
    let mut trajectory = trajectory.expect("a job that was not broken off ends");
    trajectory.secs = started.elapsed().as_secs_f32();
    if args.json {
        output.json(&trajectory)?;
    } else {
        show_end(&trajectory, output)?;
    }
    match &trajectory.outcome {
        Outcome::Failed(boundary) => bail!("there is no answer: {}", in_plain_words(*boundary)),
        Outcome::Answered | Outcome::Forced(_) => Ok(()),
    }
}

fn agent(args: &Args, max_dialogue_tokens: usize) -> anyhow::Result<Agent> {
    let protocol = match &args.protocol {
        None => Protocol::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Protocol::from_toml(&text).with_context(|| path.display().to_string())?
        }
    };
    let config = AgentConfig {
        top_k: args.top_k,
        max_steps: args.max_steps,
        max_dialogue_tokens,
        temperature: args.temperature,
        top_p: args.top_p,
        ..AgentConfig::default()
    };
    Ok(Agent::new(protocol, config)?)
}

/// The steps as they happen.
struct View<'a> {
    output: &'a Output,
    bar: &'a Progress,
    /// What was last shown to the model.
    hits: Vec<Hit>,
}

impl View<'_> {
    fn show(&mut self, kind: EventKind) -> anyhow::Result<()> {
        match self.text(kind) {
            Some(text) => self.bar.pause(|| self.output.line(text)),
            None => Ok(()),
        }
    }

    fn text(&mut self, kind: EventKind) -> Option<String> {
        let output = self.output;
        Some(match kind {
            EventKind::StepStarted { .. } | EventKind::Done(_) => return None,
            EventKind::Query { step_idx, query } => {
                self.hits.clear();
                format!("{}. search    {}", step_idx + 1, output.strong(&printable(query.trim()), ""))
            }
            EventKind::Hits { hits, .. } => {
                self.hits = hits;
                self.passages()
            }
            EventKind::Record { record, .. } => {
                let quotes: String = self.hits.iter().filter_map(|hit| self.quote(hit, record.trim())).collect();
                let found =
                    if quotes.is_empty() { "             (no passage says it in these words)" } else { &quotes };
                format!("   evidence  {}\n{}", printable(record.trim()), found.trim_end())
            }
            EventKind::Incident(Incident { boundary, detail, .. }) => {
                let adds = matches!(boundary, Boundary::Retriever | Boundary::Generator);
                let detail = if adds { format!(": {}", snippet(&detail, 200)) } else { String::new() };
                output.dim(format_args!("   note      {}{detail}", in_plain_words(boundary)))
            }
            EventKind::Answer { text } => format!("\nAnswer: {}", output.strong(&printable(text.trim()), "")),
        })
    }

    fn passages(&self) -> String {
        if self.hits.is_empty() {
            return "   found     nothing".to_owned();
        }
        let lines = self.hits.iter().enumerate().map(|(hit_idx, hit)| {
            let head = if hit_idx == 0 { "found" } else { "" };
            let id = self.output.dim(format_args!("[{}] {:.2}", printable(&hit.id.0), hit.score));
            format!("   {head:<9} {}: {} {id}", printable(&hit.title), snippet(&hit.text, SNIPPET_CHARS))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// A line with the place of the evidence in a passage.
    fn quote(&self, hit: &Hit, evidence: &str) -> Option<String> {
        let Range { start, end } = find_ignoring_case(&hit.text, evidence)?;
        let before = hit.text[..start].char_indices().rev().nth(AROUND_CHARS - 1).map_or(0, |(position, _)| position);
        let after = hit.text[end..].char_indices().nth(AROUND_CHARS).map_or(hit.text.len(), |(offset, _)| end + offset);
        let dots = |is_cut| if is_cut { "..." } else { "" };
        let shown = self.output.strong(&printable(&hit.text[start..end]), "**");
        let (left, right) = (printable(&hit.text[before..start]), printable(&hit.text[end..after]));
        let (cut_left, cut_right) = (dots(before > 0), dots(after < hit.text.len()));
        Some(format!("             {}: {cut_left}{left}{shown}{right}{cut_right}\n", printable(&hit.title)))
    }
}

/// Where `text` first holds `wanted`, upper and lower case aside.
fn find_ignoring_case(text: &str, wanted: &str) -> Option<Range<usize>> {
    if wanted.is_empty() {
        return None;
    }
    let fits = |start: usize| {
        let mut found = text[start..].char_indices();
        for expected in wanted.chars() {
            let (_, actual) = found.next()?;
            if !actual.to_lowercase().eq(expected.to_lowercase()) {
                return None;
            }
        }
        Some(start..start + found.offset())
    };
    text.char_indices().find_map(|(start, _)| fits(start))
}

/// The evidence in one list, with the best passage that says it, and what the answer took.
fn show_end(trajectory: &Trajectory, output: &Output) -> anyhow::Result<()> {
    let recorded: Vec<_> =
        trajectory.steps.iter().filter_map(|step| Some((step.record.as_ref()?, &step.hits))).collect();
    if !recorded.is_empty() {
        output.line("\nEvidence:")?;
    }
    for (idx, (record, hits)) in recorded.iter().enumerate() {
        let saying = hits.iter().find(|hit| find_ignoring_case(&hit.text, record.trim()).is_some());
        let source = match (saying, hits.first()) {
            (Some(hit), _) => format!("{} [{}]", printable(&hit.title), printable(&hit.id.0)),
            (None, Some(hit)) => {
                format!("not word for word; first read: {} [{}]", printable(&hit.title), printable(&hit.id.0))
            }
            (None, None) => "no passage was found".to_owned(),
        };
        output.line(format_args!("  {}. {} - {source}", idx + 1, printable(record.trim())))?;
    }
    if let Outcome::Forced(boundary) = &trajectory.outcome {
        output.line(format_args!("\nThe model was made to answer: {}.", in_plain_words(*boundary)))?;
        if trajectory.steps.is_empty() {
            output.note("It searched for nothing: was it ever trained to search? `exsearch quickstart` shows how.");
        }
    }
    let own = trajectory.segments.iter().filter(|segment| segment.author == Author::Model);
    let n_own: usize = own.map(|segment| segment.ids.len()).sum();
    let (n_tokens, secs) = (trajectory.n_tokens(), f64::from(trajectory.secs));
    output.line(output.dim(format_args!(
        "\n{} searches, {n_tokens} tokens of which {n_own} by the model, {}",
        trajectory.steps.len(),
        duration(secs)
    )))
}

/// What went wrong, for someone who does not know the names in files.
fn in_plain_words(boundary: Boundary) -> &'static str {
    match boundary {
        Boundary::MalformedTurn => "the model wrote neither a query nor the end of its search",
        Boundary::EmptyQuery => "the model's query was empty",
        Boundary::RepeatedQuery => "the model asked what it had asked before",
        Boundary::MalformedSelect => "the model chose passages that were not offered",
        Boundary::EmptyRecord => "the model wrote down no evidence",
        Boundary::Retriever => "the search failed",
        Boundary::Generator => "the model could not be run",
        Boundary::TurnTooLong => "the model wrote on and was cut off",
        Boundary::MaxSteps => "the largest number of searches was reached",
        Boundary::MaxTokens => "the dialogue reached its largest length",
        Boundary::MaxTime => "the time was up",
        Boundary::EmptyAnswer => "the model's answer was empty",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reads_as_query_passages_and_evidence() {
        let (output, bar) = (Output::new(true), Progress::silent());
        let mut view = View { output: &output, bar: &bar, hits: Vec::new() };
        let text = format!("{} He was born in Lion\u{1b} Falls in 1901.", "Long ago. ".repeat(20));
        let hit = Hit { id: "7".into(), title: "Al Bo".to_owned(), text, score: 3.5 };
        let mut text = |kind| view.text(kind).expect("it is shown");
        assert_eq!(text(EventKind::Query { step_idx: 1, query: " where? ".to_owned() }), "2. search    where?");
        let found = text(EventKind::Hits { step_idx: 1, hits: vec![hit] });
        assert!(found.starts_with("   found     Al Bo: Long ago. Long") && found.ends_with("... [7] 3.50"), "{found}");
        let evidence = text(EventKind::Record { step_idx: 1, record: "IN 1901".to_owned() });
        let quote = "Long ago. Long ago.  He was born in Lion  Falls **in 1901**.";
        assert!(evidence.starts_with("   evidence  IN 1901\n") && evidence.ends_with(quote), "{evidence}");
        let evidence = text(EventKind::Record { step_idx: 1, record: "1902".to_owned() });
        assert!(evidence.ends_with("(no passage says it in these words)"), "{evidence}");
    }

    #[test]
    fn evidence_is_found_whatever_its_case() {
        let check = |text: &str, wanted: &str, expect: Option<&str>| {
            assert_eq!(find_ignoring_case(text, wanted).map(|range| &text[range]), expect, "{wanted} in {text}");
        };
        check("Born in Ålborg in 1901.", "ålborg", Some("Ålborg"));
        check("Born in Ålborg in 1901.", "1901.", Some("1901."));
        check("Born in Ålborg in 1901.", "1902", None);
        check("Born in Ålborg", "ålborg city", None);
        check("text", "", None);
    }
}
