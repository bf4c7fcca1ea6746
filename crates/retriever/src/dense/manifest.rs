//! What a dense index says of itself: its encoder, its source, how it was built, and its files.
use crate::EncoderId;
use crate::folder::{Complete, Format, IndexFile, Plan, SourceId};
use crate::passages::{PassageMark, PassageSegment};
use serde::{Deserialize, Serialize};

/// Of the folder's layout and files. Goes up with every incompatible change.
pub const FORMAT_VERSION: u64 = 1;

pub(crate) static FORMAT: Format = Format { kind: "dense", noun: "a dense index", version: FORMAT_VERSION };

/// How the numbers of a vector are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the encoder gives them: 4 bytes.
    #[default]
    F32,
    /// Rounded to 11 bits: 2 bytes. Changes scores by at most 5e-4 of themselves.
    F16,
}

/// How an index is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DenseConfig {
    /// How the numbers of a vector are kept.
    pub precision: Precision,
    /// Passages that the encoder gets at a time: a multiple of 32. Changes speed and memory, never results.
    pub batch: usize,
    /// A killed build loses at most this many passages, rounded up to whole batches.
    pub commit_every: u64,
    /// Up to this many passages a query looks at every vector; with more the build ends with lists of neighbours, and a
    /// query looks at some of them only.
    pub exact_up_to: u64,
}

/// What a complete index says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that built it.
    pub format_version: u64,
    /// `dense`.
    pub kind: String,
    /// The number of passages in it.
    pub n_passages: u64,
    /// What it was made from.
    pub source: SourceId,
    /// What made its vectors, and what must make those of queries.
    pub encoder: EncoderId,
    /// How it was built.
    pub config: DenseConfig,
    /// Its passages.
    pub passages: Vec<PassageSegment>,
    /// CRC-32 of the file of vectors.
    pub vectors_crc32: u32,
    /// Whether there are lists of neighbours.
    pub has_lists: bool,
    /// The folder of its data.
    pub data: String,
    /// Its files, to notice missing and shortened ones.
    pub files: Vec<IndexFile>,
}

/// What a build in progress is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DensePlan {
    pub(crate) format_version: u64,
    pub(crate) source: SourceId,
    pub(crate) encoder: EncoderId,
    pub(crate) precision: Precision,
    pub(crate) exact_up_to: u64,
}

/// How far a build is on disk. Its vectors are whole panels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    pub(crate) passages: PassageMark,
    pub(crate) vectors_crc32: u32,
}

impl Default for DenseConfig {
    fn default() -> Self {
        Self { precision: Precision::F32, batch: 512, commit_every: 8_192, exact_up_to: 1_000_000 }
    }
}

impl Precision {
    pub(crate) fn n_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl Plan for DensePlan {
    fn difference(&self, wanted: &Self) -> Option<String> {
        if self.format_version != wanted.format_version {
            return Some(format!("its format version is {}, not {}", self.format_version, wanted.format_version));
        }
        let precision = || (self.precision != wanted.precision).then(|| format!("it is kept in {:?}", self.precision));
        let lists = || {
            let is_same = self.exact_up_to == wanted.exact_up_to;
            (!is_same).then(|| format!("it is searched exactly up to {} passages", self.exact_up_to))
        };
        self.source
            .difference(&wanted.source)
            .or_else(|| self.encoder.difference(&wanted.encoder))
            .or_else(precision)
            .or_else(lists)
    }
}

impl Complete for Manifest {
    type Plan = DensePlan;

    fn plan(&self) -> Option<DensePlan> {
        Some(DensePlan {
            format_version: self.format_version,
            source: self.source.clone(),
            encoder: self.encoder.clone(),
            precision: self.config.precision,
            exact_up_to: self.config.exact_up_to,
        })
    }

    fn data(&self) -> &str {
        &self.data
    }
}
