//! `exsearch search`: queries to ranked passages.
use crate::output::{Output, printable, snippet};
use crate::retriever;
use anyhow::{Context, bail};
use exsearch_schema::{Hit, RetrieveError};
use serde::Serialize;
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

/// Search an index
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A query, in quotes when it has several words; several are searched one by one; - reads one a line from stdin
    #[arg(required = true, value_name = "QUERY")]
    queries: Vec<String>,
    /// The index folder, or a TOML file that describes a retriever
    #[arg(long, value_name = "PATH")]
    index: PathBuf,
    /// Passages a query
    #[arg(short = 'k', long, value_name = "N", default_value_t = 5)]
    top_k: usize,
    /// Print {"query", "hits"} as JSON, a line for each query
    #[arg(long)]
    json: bool,
    /// Print passages in full instead of their first words
    #[arg(long, conflicts_with = "json")]
    full: bool,
}

/// What `--json` prints for a query.
#[derive(Serialize)]
struct Answer<'a> {
    query: &'a str,
    hits: &'a [Hit],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Queries that are searched in one call when they come from a file.
const BATCH: usize = 256;
/// Characters of a passage that are shown, about two lines.
const SNIPPET_CHARS: usize = 160;

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    let index = retriever::open(&args.index)?;
    let (mut n_failed, mut first_failure) = (0, None);
    let is_single = args.queries.len() == 1 && args.queries[0] != "-";
    let mut search = |queries: &[String]| -> anyhow::Result<()> {
        let words: Vec<&str> = queries.iter().map(String::as_str).collect();
        for (query, found) in words.iter().zip(index.search_batch(&words, args.top_k)) {
            if let Err(error) = &found {
                n_failed += 1;
                first_failure.get_or_insert_with(|| error.clone());
            }
            show(query, found, &args, is_single, output)?;
        }
        Ok(())
    };
    for query in &args.queries {
        if query == "-" {
            for_lines(&mut search)?;
        } else {
            search(std::slice::from_ref(query))?;
        }
    }
    match first_failure {
        None => Ok(()),
        Some(RetrieveError::EmptyQuery) if is_single => {
            bail!("the query could not be searched; give it words that passages could hold")
        }
        Some(RetrieveError::Failed(reason)) if is_single => bail!("the query could not be searched: {reason}"),
        Some(error) => bail!("{n_failed} queries could not be searched; the first: {error}"),
    }
}

/// The lines of stdin in batches; from a terminal one at a time, as they are typed.
fn for_lines(search: &mut impl FnMut(&[String]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    let batch_size = if stdin.is_terminal() { 1 } else { BATCH };
    let mut batch = Vec::new();
    for (line_idx, line) in stdin.lock().lines().enumerate() {
        let line = line.with_context(|| format!("cannot read line {} of standard input", line_idx + 1))?;
        if !line.trim().is_empty() {
            batch.push(line);
        }
        if batch.len() == batch_size {
            search(&batch)?;
            batch.clear();
        }
    }
    search(&batch)
}

fn show(
    query: &str,
    found: Result<Vec<Hit>, RetrieveError>,
    args: &Args,
    is_single: bool,
    output: &Output,
) -> anyhow::Result<()> {
    if args.json {
        let (hits, error) = match found {
            Ok(hits) => (hits, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        return output.json(&Answer { query, hits: &hits, error });
    }
    if !is_single {
        output.line(format_args!("> {}", printable(query)))?;
    }
    match found {
        // Told as the error of the command.
        Err(_) if is_single => {}
        Err(error) => output.line(format_args!("   {error}"))?,
        Ok(hits) if hits.is_empty() => output.line("   nothing found")?,
        Ok(hits) => {
            for (hit_idx, hit) in hits.iter().enumerate() {
                let title = output.strong(&printable(&hit.title), "");
                let id = output.dim(format_args!("[{}]", printable(&hit.id.0)));
                let text = if args.full { printable(&hit.text) } else { snippet(&hit.text, SNIPPET_CHARS) };
                output.line(format_args!(
                    "{:>2} {:>8.3}  {title} {id}\n             {text}",
                    hit_idx + 1,
                    hit.score
                ))?;
            }
        }
    }
    if is_single { Ok(()) } else { output.line("") }
}
