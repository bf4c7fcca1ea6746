//! A passage file to an index folder of any kind, with progress.
use super::estimate::Plan;
use super::source::source_id;
use super::{Args, Kind};
use crate::commands::model;
use crate::output::{Output, bytes, duration, thousands};
use crate::progress::{Progress, Unit};
use crate::retriever::Machine;
use anyhow::{Context, bail};
use exsearch_corpus::{BadLines, CorpusError, PassageReader};
use exsearch_model::encoder::is_onnx;
use exsearch_retriever::bm25::{self, Analysis, Bm25Config};
use exsearch_retriever::config::{Bm25Part, FusionKind, HybridConfig, HybridPartConfig, VectorPart};
use exsearch_retriever::dense::{self, DenseConfig, Precision};
use exsearch_retriever::late::{self, LateConfig, Step};
use exsearch_retriever::{Built, Error, IndexFile, RRF_K, Resolver, RetrieverConfig, SourceId, Target};
use exsearch_schema::{Encoder, Passage, VectorKind};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// An encoder and where it was opened.
type Opened = (Arc<dyn Encoder>, PathBuf);

pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<()> {
    let started = Instant::now();
    let (passages, out) = (args.passages.as_deref(), args.out.as_deref());
    let (passages, out) = passages.zip(out).expect("required without a subcommand");
    // An empty file is a mistake, and with --force would take a good index's place.
    if PassageReader::open(passages, BadLines::Stop)?.next().is_none() {
        bail!("{} holds no passages: it needs one a line, as TSV (id, text, title) or as JSON", passages.display());
    }
    let encoder = match args.kind {
        Kind::Bm25 => None,
        Kind::Late => Some(open_encoder(&args.encoder, VectorKind::PerToken, output)?),
        Kind::Dense | Kind::Hybrid => Some(open_encoder(&args.encoder, VectorKind::Single, output)?),
    };
    let is_there = ["manifest.json", exsearch_retriever::CONFIG_FILE].iter().any(|name| out.join(name).is_file());
    if args.estimate || !is_there {
        let plan = Plan {
            kind: args.kind,
            encoder: encoder.as_ref().map(|(encoder, _)| &**encoder),
            bytes_a_number: if args.half { 2 } else { 4 },
            bits: args.bits,
            buffer_bytes: buffer_mb(args) as u64 * (1 << 20),
        };
        let estimate = plan.estimate(passages)?;
        if args.estimate {
            return output.line(estimate.describe());
        }
        output.note(estimate.describe());
        if !args.force {
            estimate.check(out, output)?;
        }
    }
    let build = Build {
        passages,
        bad_lines: if args.skip_bad { BadLines::Skip } else { BadLines::Stop },
        source: source_id(passages, output)?,
        replace: args.force,
        output,
    };
    let summary = match (args.kind, &encoder) {
        (Kind::Bm25, _) | (_, None) => build.bm25(out, &bm25_config(args))?,
        (Kind::Dense, Some(encoder)) => build.dense(out, encoder, &dense_config(args))?,
        (Kind::Late, Some(encoder)) => build.late(out, encoder, &late_config(args))?,
        (Kind::Hybrid, Some(encoder)) => {
            let words = build.bm25(&out.join("bm25"), &bm25_config(args))?;
            let vectors = build.dense(&out.join("dense"), encoder, &dense_config(args))?;
            hybrid().write_to(out)?;
            Summary { n_bytes: words.n_bytes + vectors.n_bytes, is_new: words.is_new || vectors.is_new, ..words }
        }
    };
    let Summary { n_passages, n_bytes, is_new } = summary;
    let what = format!("{}: {} passages, {}", out.display(), thousands(n_passages), bytes(n_bytes));
    if !is_new {
        return output.line(format_args!("{what}, nothing to do"));
    }
    let secs = started.elapsed().as_secs_f64();
    let rate = thousands((n_passages as f64 / secs) as u64);
    output.line(format_args!("{what} in {} ({rate} passages/s)", duration(secs)))
}

/// Builds or completes a BM25 index of a passage file, showing progress.
pub(crate) fn build_bm25(passages: &Path, dir: &Path, output: &Output) -> anyhow::Result<()> {
    let source = source_id(passages, output)?;
    let build = Build { passages, bad_lines: BadLines::Stop, source, replace: false, output };
    build.bm25(dir, &Bm25Config::default()).map(drop)
}

/// The encoder of a folder, of an ONNX file, or of a name that is fetched first.
pub(super) fn open_encoder(spec: &str, kind: VectorKind, output: &Output) -> anyhow::Result<Opened> {
    let given = Path::new(spec);
    let dir = if is_onnx(given) { given.to_owned() } else { model::fetch(spec, None, false, output)? };
    // The index names it, and is opened from other folders.
    let dir = std::path::absolute(&dir).with_context(|| format!("cannot use {}", dir.display()))?;
    let encoder = Machine::default().encoder(&dir, kind).map_err(|error| anyhow::anyhow!(error))?;
    Ok((encoder, dir))
}

fn bm25_config(args: &Args) -> Bm25Config {
    let default = Bm25Config::default();
    Bm25Config {
        analysis: Analysis { stemming: !args.no_stemming },
        memory_mb: args.memory_mb.unwrap_or(default.memory_mb),
        n_threads: rayon::current_num_threads().clamp(1, 8),
        commit_every: args.commit_every,
    }
}

fn dense_config(args: &Args) -> DenseConfig {
    let precision = if args.half { Precision::F16 } else { Precision::F32 };
    let default = DenseConfig::default();
    DenseConfig { precision, commit_every: default.commit_every.min(args.commit_every), ..default }
}

fn late_config(args: &Args) -> LateConfig {
    let default = LateConfig::default();
    LateConfig {
        bits: args.bits,
        memory_mb: args.memory_mb.unwrap_or(default.memory_mb),
        commit_every: default.commit_every.min(args.commit_every),
        ..default
    }
}

/// What a build of this kind buffers.
fn buffer_mb(args: &Args) -> usize {
    match args.kind {
        Kind::Bm25 | Kind::Hybrid => bm25_config(args).memory_mb,
        Kind::Late => late_config(args).memory_mb,
        Kind::Dense => 0,
    }
}

/// Both parts, each beside the other in the folder. Fusion and weights are those that find the most of three sets of questions
/// (docs/LOG.md).
fn hybrid() -> RetrieverConfig {
    let part = |weight, retriever| HybridPartConfig { weight, depth: 100, retriever };
    RetrieverConfig::Hybrid(HybridConfig {
        fusion: FusionKind::Scores,
        k: RRF_K,
        parts: vec![
            part(0.3, RetrieverConfig::Bm25(Bm25Part { index: "bm25".into() })),
            part(0.7, RetrieverConfig::Dense(VectorPart { index: "dense".into(), ..VectorPart::default() })),
        ],
    })
}

/// What a build made or found.
struct Summary {
    n_passages: u64,
    n_bytes: u64,
    is_new: bool,
}

impl Summary {
    fn of<M>(built: Built<M>, size: impl Fn(&M) -> (u64, u64)) -> Self {
        let (manifest, is_new) = match built {
            Built::Completed(manifest) => (manifest, true),
            Built::AlreadyComplete(manifest) => (manifest, false),
        };
        let (n_passages, n_bytes) = size(&manifest);
        Self { n_passages, n_bytes, is_new }
    }
}

/// A passage file on its way into an index.
struct Build<'a> {
    passages: &'a Path,
    bad_lines: BadLines,
    source: SourceId,
    replace: bool,
    output: &'a Output,
}

impl Build<'_> {
    fn bm25(&self, dir: &Path, config: &Bm25Config) -> anyhow::Result<Summary> {
        let corpus = Corpus::open(self.passages, self.bad_lines)?;
        let mut view = View::new("indexing", &corpus, self.output);
        let built = bm25::build(corpus.rows(), &self.source, &self.target(dir), config, |step| view.show(step));
        drop(view);
        corpus.close(built, self.output).map(|built| {
            Summary::of(built, |manifest: &bm25::Manifest| (manifest.n_passages, n_bytes(&manifest.files)))
        })
    }

    fn dense(&self, dir: &Path, (encoder, path): &Opened, config: &DenseConfig) -> anyhow::Result<Summary> {
        let corpus = Corpus::open(self.passages, self.bad_lines)?;
        let mut view = View::new("encoding", &corpus, self.output);
        let path = path.to_string_lossy();
        let encoder = (&**encoder, &*path);
        let target = self.target(dir);
        let built = dense::build(corpus.rows(), &self.source, encoder, &target, config, |step| view.show(step));
        drop(view);
        corpus.close(built, self.output).map(|built| {
            Summary::of(built, |manifest: &dense::Manifest| (manifest.n_passages, n_bytes(&manifest.files)))
        })
    }

    fn late(&self, dir: &Path, (encoder, path): &Opened, config: &LateConfig) -> anyhow::Result<Summary> {
        let corpus = Corpus::open(self.passages, self.bad_lines)?;
        let mut view = View::new("encoding", &corpus, self.output);
        let path = path.to_string_lossy();
        let encoder = (&**encoder, &*path);
        let built = late::build(
            || corpus.reopen().map(|()| corpus.rows()),
            &self.source,
            encoder,
            &self.target(dir),
            config,
            |step| match step {
                Step::Sampling { n_encoded, n_wanted } => view.sampling(n_encoded, n_wanted),
                Step::Training => view.bar.set_what("finding centroids"),
                Step::Adding(step) => view.show(step),
            },
        );
        drop(view);
        let size = |manifest: &late::Manifest| (manifest.n_added(), folder_bytes(dir));
        corpus.close(built, self.output).map(|built| Summary::of(built, size))
    }

    fn target<'t>(&self, dir: &'t Path) -> Target<'t> {
        Target { dir, replace: self.replace }
    }
}

fn n_bytes(files: &[IndexFile]) -> u64 {
    files.iter().map(|file| file.n_bytes).sum()
}

/// All files of a folder and those inside it.
pub(super) fn folder_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size =
        |path: PathBuf| if path.is_dir() { folder_bytes(&path) } else { path.metadata().map_or(0, |it| it.len()) };
    entries.flatten().map(|entry| size(entry.path())).sum()
}

/// A passage file that is read once or twice, and how far it is read.
pub(super) struct Corpus<'a> {
    path: &'a Path,
    bad_lines: BadLines,
    reader: RefCell<PassageReader>,
    bytes_read: Cell<u64>,
}

impl<'a> Corpus<'a> {
    pub(super) fn open(path: &'a Path, bad_lines: BadLines) -> anyhow::Result<Self> {
        let reader = RefCell::new(PassageReader::open(path, bad_lines)?);
        Ok(Self { path, bad_lines, reader, bytes_read: Cell::new(0) })
    }

    fn reopen(&self) -> Result<(), CorpusError> {
        self.bytes_read.set(0);
        *self.reader.borrow_mut() = PassageReader::open(self.path, self.bad_lines)?;
        Ok(())
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = Result<Passage, CorpusError>> + '_ {
        std::iter::from_fn(|| {
            let mut reader = self.reader.borrow_mut();
            let passage = reader.next();
            self.bytes_read.set(reader.bytes_read());
            passage
        })
    }

    /// Tells what was skipped, or explains what stopped the build.
    pub(super) fn close<B>(self, built: Result<B, Error>, output: &Output) -> anyhow::Result<B> {
        let built = built.map_err(explain)?;
        let reader = self.reader.into_inner();
        if reader.n_skipped() > 0 {
            output.note(format_args!("left out {} lines of {}:", thousands(reader.n_skipped()), self.path.display()));
            for skipped in reader.first_skipped() {
                output.note(format_args!("  line {}: {}", skipped.line, skipped.reason));
            }
        }
        Ok(built)
    }
}

/// The progress of a build.
pub(super) struct View<'a> {
    what: &'static str,
    bar: Progress,
    corpus: &'a Corpus<'a>,
    output: &'a Output,
    n_resumed: Option<u64>,
    is_sampling: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(what: &'static str, corpus: &'a Corpus<'a>, output: &'a Output) -> Self {
        let bar = output.progress(what, Unit::Bytes, corpus.reader.borrow().total_bytes());
        Self { what, bar, corpus, output, n_resumed: None, is_sampling: false }
    }

    fn sampling(&mut self, n_encoded: u64, n_wanted: u64) {
        if !std::mem::replace(&mut self.is_sampling, true) {
            self.bar = self.output.progress("encoding a sample", Unit::Items, n_wanted);
        }
        self.bar.set(n_encoded);
    }

    pub(super) fn show(&mut self, progress: exsearch_retriever::Progress) {
        use exsearch_retriever::Progress::{Committed, Indexed, Merging, Resumed};
        if std::mem::take(&mut self.is_sampling) {
            let total = self.corpus.reader.borrow().total_bytes();
            self.bar = self.output.progress(self.what, Unit::Bytes, total);
        }
        match progress {
            Resumed { n_passages } => {
                let note = format!("going on behind passage {}", thousands(n_passages));
                self.bar.pause(|| self.output.note(note));
                self.n_resumed = Some(n_passages);
            }
            Indexed { n_passages } | Committed { n_passages } => {
                // What was indexed before is only read again: it would make the rate look better than it is.
                if self.n_resumed.take_if(|before| n_passages >= *before).is_some() {
                    self.bar.resume_at(self.corpus.bytes_read.get());
                }
                self.bar.set(self.corpus.bytes_read.get());
            }
            Merging => self.bar.set_what("merging"),
        }
    }
}

/// A bad line is told by its own error, and that it can be skipped.
fn explain(error: Error) -> anyhow::Error {
    match error {
        Error::Source { source, number } => match source.downcast::<CorpusError>() {
            Ok(error) if matches!(*error, CorpusError::BadLine { .. }) => {
                anyhow::anyhow!(
                    "{error}\n  (--skip-bad leaves such lines out and counts them; when the file is mended, give --force)"
                )
            }
            Ok(error) => anyhow::Error::new(*error),
            Err(source) => Error::Source { source, number }.into(),
        },
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn check(flags: &[&str], expect: usize) {
        let line = ["index", "passages.tsv", "--out", "index"].iter().chain(flags);
        assert_eq!(buffer_mb(&Command::parse_from(line).args), expect, "{flags:?}");
    }

    #[test]
    fn an_estimate_counts_the_buffers_of_its_own_kind() {
        let (words, tokens) = (Bm25Config::default().memory_mb, LateConfig::default().memory_mb);
        assert_ne!(words, tokens);
        check(&[], words);
        check(&["--kind", "hybrid"], words);
        check(&["--kind", "late"], tokens);
        check(&["--kind", "dense"], 0);
        check(&["--kind", "late", "--memory-mb", "64"], 64);
        check(&["--memory-mb", "64"], 64);
    }
}
