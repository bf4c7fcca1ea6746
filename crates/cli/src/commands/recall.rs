//! `exsearch recall`: questions and an index to how many of their gold passages it finds.
use crate::output::{Output, thousands};
use crate::progress::Unit;
use crate::retriever;
use anyhow::{Context, ensure};
use exsearch_corpus::{BadLines, read_questions};
use exsearch_evaluation::{Estimate, EvalConfig, evaluate_rankings};
use exsearch_schema::Hit;
use std::path::PathBuf;
use std::time::Instant;

/// Measure an index: which gold passages and answers it finds for questions as they are asked
///
/// Searches once for each question, by its own words. R@k is the share of a question's gold passages among the first k, all@k
/// whether all of them are, answer@k whether one of the first k holds an answer. A failed query finds nothing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Questions with `supporting` passages: JSON lines or a JSON list
    questions: PathBuf,
    /// The index folder, or a TOML file that describes a retriever
    #[arg(long, value_name = "PATH")]
    index: PathBuf,
    /// Only questions of this split
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// At most so many questions, the first ones
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// How many passages count
    #[arg(short = 'k', long, value_name = "K", value_delimiter = ',', default_values_t = [2, 5, 10, 20])]
    top_ks: Vec<usize>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Queries a call.
const BATCH: usize = 64;

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let mut questions = read_questions(&args.questions, args.split.as_deref(), BadLines::Stop)?.rows;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    ensure!(!questions.is_empty(), "{} gives no questions", args.questions.display());
    let most = *args.top_ks.iter().max().context("give at least one K")?;
    let retriever = retriever::open(&args.index)?;
    let mut bar = output.progress("searching", Unit::Items, questions.len() as u64);
    let clock = Instant::now();
    let mut rankings: Vec<Vec<Hit>> = Vec::with_capacity(questions.len());
    let (mut n_failed, mut first_failure) = (0, None);
    for batch in questions.chunks(BATCH) {
        let queries: Vec<&str> = batch.iter().map(|question| question.question.as_str()).collect();
        for found in retriever.search_batch(&queries, most) {
            rankings.push(found.unwrap_or_else(|error| {
                n_failed += 1;
                first_failure.get_or_insert(error);
                Vec::new()
            }));
        }
        bar.set(rankings.len() as u64);
    }
    let millis = clock.elapsed().as_secs_f64() * 1e3 / questions.len() as f64;
    drop(bar);
    if let Some(error) = first_failure {
        output.note(format_args!("{n_failed} queries failed, the first because {error}"));
    }
    let config = EvalConfig { top_ks: args.top_ks, ..EvalConfig::default() };
    let report = evaluate_rankings(&questions, &rankings, &config)?;
    if args.json {
        return output.json(&report);
    }
    let n_with_gold = thousands(report.n_with_gold as u64);
    output.line(format_args!(
        "{} questions, {n_with_gold} with gold passages; percent with 95% intervals; {millis:.1} ms a query in batches",
        thousands(report.n_questions as u64)
    ))?;
    output.line(format_args!("{:>4}  {:<20} {:<20} {:<20}", "k", "R@k", "all@k", "answer@k"))?;
    let percent = |estimate: Option<&Estimate>| {
        let Some(Estimate { mean, low, high, .. }) = estimate else { return "    -".to_owned() };
        format!("{:5.1} [{:5.1}, {:5.1}]", mean * 100.0, low * 100.0, high * 100.0)
    };
    for row in &report.at {
        let cells = [row.gold_recall.as_ref(), row.all_gold.as_ref(), Some(&row.answer_recall)].map(percent);
        output.line(format_args!("{:>4}  {:<20} {:<20} {:<20}", row.top_k, cells[0], cells[1], cells[2]))?;
    }
    Ok(())
}
