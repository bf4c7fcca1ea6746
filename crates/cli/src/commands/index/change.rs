//! `exsearch index add`, `delete`, `compact`, `info`, `verify`: what can be done with an index that is there.
use super::build::{Corpus, View, folder_bytes};
use super::source::source_id;
use crate::output::{Output, bytes, thousands};
use crate::retriever::Machine;
use anyhow::{Context, bail};
use exsearch_corpus::BadLines;
use exsearch_index::{LateIndex, SearchOptions};
use exsearch_retriever::bm25::Bm25Index;
use exsearch_retriever::dense::DenseIndex;
use exsearch_retriever::late::{self, LateConfig, LateRetriever};
use exsearch_retriever::{Built, Resolver, index_kind, parts};
use exsearch_schema::{Encoder, PassageId, VectorKind};
use serde_json::{Value, json};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Subcommand)]
pub(super) enum Change {
    /// Add the passages of another file to a late-interaction index
    ///
    /// Their ids must be new, or those of deleted passages. Searches find all of them or none. Killed at any moment, the same
    /// command goes on.
    Add {
        /// The passage file
        passages: PathBuf,
        /// The index folder
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
        /// Leave out lines that are no passages and count them, instead of stopping at the first
        #[arg(long)]
        skip_bad: bool,
    },
    /// Delete passages of a late-interaction index; when an id is unknown, nothing is deleted
    Delete {
        /// Their ids; - reads one a line from stdin
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        /// The index folder
        #[arg(long, value_name = "DIR")]
        index: PathBuf,
    },
    /// Make one segment of a late-interaction index that was added to or deleted from, and drop the vectors and the text of
    /// what was deleted; needs as much disk again until it is done
    Compact {
        /// The index folder
        index: PathBuf,
    },
    /// Say what an index holds and what it was made from, as JSON
    Info {
        /// The index folder
        index: PathBuf,
    },
    /// Read a whole index and compare it with its checksums
    Verify {
        /// The index folder
        index: PathBuf,
    },
}

pub(super) fn run(change: Change, output: &Output) -> anyhow::Result<()> {
    match change {
        Change::Add { passages, index, skip_bad } => add(&passages, &index, skip_bad, output),
        Change::Delete { ids, index } => {
            check_late(&index)?;
            let n_deleted = late::delete(&index, &read_ids(ids)?)?;
            output.line(format_args!("{}: {} passages deleted", index.display(), thousands(n_deleted.into())))
        }
        Change::Compact { index } => {
            check_late(&index)?;
            let before = folder_bytes(&index);
            let what = match late::compact(&index, &LateConfig::default())? {
                true => format!("{} became {}", bytes(before), bytes(folder_bytes(&index))),
                false => "nothing to do".to_owned(),
            };
            output.line(format_args!("{}: {what}", index.display()))
        }
        Change::Info { index } => output.text(format_args!("{:#}\n", info(&index)?)),
        Change::Verify { index } => {
            verify(&index)?;
            output.line(format_args!("{}: all files are as they were written", index.display()))
        }
    }
}

fn add(passages: &Path, dir: &Path, skip_bad: bool, output: &Output) -> anyhow::Result<()> {
    check_late(dir)?;
    let manifest = LateRetriever::read_manifest(dir)?;
    let encoder = encoder(&manifest.encoder.path, VectorKind::PerToken)?;
    let source = source_id(passages, output)?;
    let corpus = Corpus::open(passages, if skip_bad { BadLines::Skip } else { BadLines::Stop })?;
    let mut view = View::new("encoding", &corpus, output);
    let added = late::append(dir, corpus.rows(), &source, &*encoder, &manifest.config, |step| view.show(step));
    drop(view);
    match corpus.close(added, output)? {
        Built::Completed(now) => {
            let n_added = thousands(now.n_added() - manifest.n_added());
            output.line(format_args!("{}: {n_added} passages added", dir.display()))
        }
        Built::AlreadyComplete(_) => {
            output.line(format_args!("{}: {} is in it, nothing to do", dir.display(), passages.display()))
        }
    }
}

/// Only late-interaction indexes change in place.
fn check_late(dir: &Path) -> anyhow::Result<()> {
    match index_kind(dir)?.as_str() {
        "late" => Ok(()),
        kind => bail!(
            "{} is a {kind} index, which does not change: build it again from all passages with `exsearch index --force`",
            dir.display()
        ),
    }
}

fn read_ids(ids: Vec<String>) -> anyhow::Result<Vec<PassageId>> {
    let mut all = Vec::new();
    for id in ids {
        if id != "-" {
            all.push(PassageId(id));
            continue;
        }
        for line in std::io::stdin().lock().lines() {
            let line = line.context("cannot read standard input")?;
            if !line.trim().is_empty() {
                all.push(PassageId(line.trim().to_owned()));
            }
        }
    }
    Ok(all)
}

fn encoder(path: &str, kind: VectorKind) -> anyhow::Result<Arc<dyn Encoder>> {
    Machine::default().encoder(Path::new(path), kind).map_err(|error| anyhow::anyhow!("the index's encoder: {error}"))
}

/// What an index says of itself; of several parts, each.
fn info(dir: &Path) -> anyhow::Result<Value> {
    let kind = index_kind(dir)?;
    if let Some(parts) = parts(dir)? {
        let parts = parts.iter().map(|part| info(part)).collect::<anyhow::Result<Vec<Value>>>()?;
        return Ok(json!({ "kind": kind, "n_bytes": folder_bytes(dir), "parts": parts }));
    }
    let manifest =
        std::fs::read(dir.join("manifest.json")).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut info: Value = serde_json::from_slice(&manifest)?;
    info["kind"] = json!(kind);
    info["n_bytes"] = json!(folder_bytes(dir));
    if kind == "late" {
        let late = LateIndex::open(&LateRetriever::index_dir(dir)?)?.info();
        info["vectors"] = json!({
            "dim": late.dim,
            "bits": late.bits,
            "n_centroids": late.n_centroids,
            "n_passages": late.n_passages - late.n_deleted,
            "n_deleted": late.n_deleted,
            "n_tokens": late.n_tokens,
            "n_bytes": late.n_bytes,
            "bytes_a_token": late.n_bytes as f64 / late.n_tokens.max(1) as f64,
            "segments": late.segments.iter().map(|segment| json!({
                "n_passages": segment.n_passages,
                "n_tokens": segment.n_tokens,
                "outliers": segment.outliers,
                "source": segment.source,
            })).collect::<Vec<_>>(),
        });
    }
    Ok(info)
}

fn verify(dir: &Path) -> anyhow::Result<()> {
    if let Some(parts) = parts(dir)? {
        return parts.iter().try_for_each(|part| verify(part));
    }
    match index_kind(dir)?.as_str() {
        "late" => {
            let encoder = encoder(&LateRetriever::read_manifest(dir)?.encoder.path, VectorKind::PerToken)?;
            Ok(LateRetriever::open(dir, encoder, SearchOptions::default())?.verify()?)
        }
        "dense" => {
            let encoder = encoder(&DenseIndex::read_manifest(dir)?.encoder.path, VectorKind::Single)?;
            Ok(DenseIndex::open(dir, encoder)?.verify()?)
        }
        _ => Ok(Bm25Index::open(dir)?.verify()?),
    }
}
