//! `exsearch index`: a passage file to an index folder, and what can be done with one afterwards.
mod build;
mod change;
mod estimate;
mod source;

pub(crate) use build::build_bm25;

use crate::output::Output;
use exsearch_retriever::bm25::Bm25Config;
use std::path::PathBuf;

/// Index the passages of a file for search
///
/// Reads DPR's TSV (id, text, title; as psgs_w100.tsv) or JSON lines with id, title and text. A build that was killed goes
/// on where it stopped when the same command is given again; the folder is an index only once all of it is on disk.
///
/// bm25 finds words. dense keeps a vector a passage, late one a token (ColBERT's MaxSim), made by --encoder. hybrid builds
/// bm25 and dense and fuses their rankings: the best default for questions on one machine.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    change: Option<change::Change>,
    /// The passage file
    #[arg(required = true)]
    passages: Option<PathBuf>,
    /// The folder to write the index to
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,
    /// What is searched by
    #[arg(long, value_enum, default_value_t = Kind::Bm25)]
    kind: Kind,
    /// Leave out lines that are no passages and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    /// Replace an index of other passages or settings; build even what looks too large for the machine
    #[arg(long)]
    force: bool,
    /// Only say what time, memory and disk the build would take
    #[arg(long)]
    estimate: bool,
    /// bm25: keep English endings, so that "lived" does not find "living"
    #[arg(long)]
    no_stemming: bool,
    /// dense, late, hybrid: a folder with a BERT, sentence-transformers or ColBERT checkpoint, organization/name on the Hugging
    /// Face hub, or `minilm` (all-MiniLM-L6-v2); in a build with the feature `ort` also an ONNX file of such a folder
    #[arg(long, value_name = "MODEL", default_value = "minilm")]
    encoder: String,
    /// dense, hybrid: keep vectors in 2 bytes a number instead of 4
    #[arg(long)]
    half: bool,
    /// late: bits a dimension of what a vector's centroid leaves, 1, 2 or 4
    #[arg(long, value_name = "N", default_value_t = 2)]
    bits: usize,
    /// bm25, late: memory for buffers, in MiB; unique ids take up to 18 bytes a passage on top
    #[arg(long, value_name = "N")]
    memory_mb: Option<usize>,
    /// Passages between two commits: a killed build loses at most this many
    #[arg(long, value_name = "N", default_value_t = Bm25Config::default().commit_every)]
    commit_every: u64,
}

/// The kinds of index.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Kind {
    /// Words (BM25)
    Bm25,
    /// A vector a passage
    Dense,
    /// A vector a token, by late interaction
    Late,
    /// bm25 and dense, by the weighted mean of their scores
    Hybrid,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    match args.change {
        Some(change) => change::run(change, output),
        None => build::run(&args, output),
    }
}
