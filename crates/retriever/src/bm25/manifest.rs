//! What a BM25 index says of itself: how it was built, from what, and of which files it consists.
use crate::folder::{Complete, Format, IndexFile, Plan, SourceId};
use serde::{Deserialize, Serialize};

/// Of the folder's layout and of what is stored in the index. Goes up with every incompatible change.
pub const FORMAT_VERSION: u64 = 1;

pub(crate) static FORMAT: Format = Format { kind: "bm25", noun: "a BM25 index", version: FORMAT_VERSION };

/// How text becomes words. Part of what an index is: a change needs a rebuild.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Analysis {
    /// Cuts English endings (Snowball), so that "lived" finds "living".
    pub stemming: bool,
}

/// How an index is built. Only `analysis` changes what searches return.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bm25Config {
    /// How text becomes words.
    pub analysis: Analysis,
    /// Threads that turn passages into postings, 1 to 8; one more merges.
    pub n_threads: usize,
    /// What these threads buffer together before they write, in MiB: at least 15 a thread. Checking that ids are unique
    /// takes about 9 to 18 bytes a passage on top (21M passages: 300 MB).
    pub memory_mb: usize,
    /// A killed build loses at most this many passages. Smaller values make more, smaller writes.
    pub commit_every: u64,
}

/// What a complete index says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that built it.
    pub format_version: u64,
    /// `bm25`.
    pub kind: String,
    /// The number of passages in it.
    pub n_passages: u64,
    /// What it was made from.
    pub source: SourceId,
    /// How it was built.
    pub config: Bm25Config,
    /// The version of the tantivy library that wrote it.
    pub tantivy: String,
    /// The folder of its data.
    pub data: String,
    /// Its files, to notice missing and shortened ones.
    pub files: Vec<IndexFile>,
}

/// What a build in progress is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bm25Plan {
    pub(crate) format_version: u64,
    pub(crate) source: SourceId,
    pub(crate) analysis: Analysis,
}

impl Default for Analysis {
    fn default() -> Self {
        Self { stemming: true }
    }
}

impl Default for Bm25Config {
    fn default() -> Self {
        Self { analysis: Analysis::default(), n_threads: 2, memory_mb: 200, commit_every: 200_000 }
    }
}

impl std::fmt::Display for Analysis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.stemming { "with stemming" } else { "without stemming" })
    }
}

impl Plan for Bm25Plan {
    fn difference(&self, wanted: &Self) -> Option<String> {
        if self.format_version != wanted.format_version {
            return Some(format!("its format version is {}, not {}", self.format_version, wanted.format_version));
        }
        self.source
            .difference(&wanted.source)
            .or_else(|| (self.analysis != wanted.analysis).then(|| format!("it is built {}", self.analysis)))
    }
}

impl Complete for Manifest {
    type Plan = Bm25Plan;

    fn plan(&self) -> Option<Bm25Plan> {
        Some(Bm25Plan {
            format_version: self.format_version,
            source: self.source.clone(),
            analysis: self.config.analysis.clone(),
        })
    }

    fn data(&self) -> &str {
        &self.data
    }
}
