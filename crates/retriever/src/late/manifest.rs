//! What a late-interaction index says of itself: its encoder, its corpora, and how it is built.
use crate::folder::{Complete, Format, Plan, SourceId};
use crate::passages::{PassageMark, PassageSegment};
use crate::{EncoderId, Error};
use exsearch_index::{CodecConfig, WriterConfig};
use serde::{Deserialize, Serialize};

/// Of the folder's layout and files; the vectors' files have their own. Goes up with every incompatible change.
pub const FORMAT_VERSION: u64 = 1;

pub(crate) static FORMAT: Format = Format { kind: "late", noun: "a late-interaction index", version: FORMAT_VERSION };

/// Of the files of passages, before their segment's number.
pub(crate) const SEGMENT_PREFIX: &str = "segment-";

/// How an index is built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LateConfig {
    /// Bits a dimension of what a vector's centroid leaves: 1, 2 or 4.
    pub bits: usize,
    /// How many centroids; by default as many as the corpus's tokens suggest.
    pub n_centroids: Option<usize>,
    /// Rounds of k-means.
    pub n_rounds: usize,
    /// Of the sample and of the first centroids.
    pub seed: u64,
    /// Passages that the encoder gets at a time. Changes speed and memory, never results.
    pub batch: usize,
    /// A killed build loses at most this many passages, rounded up to whole batches.
    pub commit_every: u64,
    /// What is held in memory, in MiB, the encoder and 9 to 18 bytes a passage not counted: of the sample's vectors before
    /// the first passage is added, and by the writer afterwards. Only when it is too small for the sample that the codec
    /// asks for does it change results.
    pub memory_mb: usize,
}

/// What a complete index says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that built it.
    pub format_version: u64,
    /// `late`.
    pub kind: String,
    /// What made its vectors, and what must make those of queries.
    pub encoder: EncoderId,
    /// How it was built.
    pub config: LateConfig,
    /// What it was made from: one for each of `passages`.
    pub sources: Vec<SourceId>,
    /// Its passages, the deleted ones included; those that a compaction dropped have a number only.
    pub passages: Vec<PassageSegment>,
    /// The folder of its data.
    pub data: String,
}

/// What a build in progress is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LatePlan {
    pub(crate) format_version: u64,
    pub(crate) source: SourceId,
    pub(crate) encoder: EncoderId,
    pub(crate) config: LateConfig,
}

/// How many of a segment's passages are on disk: as many as have vectors, or the next commit's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    pub(crate) segment: String,
    pub(crate) passages: PassageMark,
}

impl Default for LateConfig {
    fn default() -> Self {
        let CodecConfig { bits, n_centroids, n_rounds, seed } = CodecConfig::default();
        Self { bits, n_centroids, n_rounds, seed, batch: 512, commit_every: 8_192, memory_mb: 1_024 }
    }
}

impl LateConfig {
    pub(crate) fn check(&self) -> Result<(), Error> {
        // All of them, before a folder is made that a corrected call would find in its way.
        let n_centroids = self.n_centroids.unwrap_or(1);
        let settings = [
            ("batch", self.batch > 0, "it must be at least 1"),
            ("commit_every", self.commit_every > 0, "it must be at least 1"),
            ("bits", matches!(self.bits, 1 | 2 | 4), "it must be 1, 2 or 4"),
            ("n_centroids", (1..=1 << 18).contains(&n_centroids), "it must be 1 to 2^18"),
            ("memory_mb", self.memory_mb >= 8, "it must be at least 8"),
        ];
        match settings.into_iter().find(|(_, is_fine, _)| !is_fine) {
            Some((name, _, reason)) => {
                Err(Error::InvalidConfig { what: format!("late setting {name}"), reason: reason.to_owned() })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn codec(&self) -> CodecConfig {
        let Self { bits, n_centroids, n_rounds, seed, .. } = *self;
        CodecConfig { bits, n_centroids, n_rounds, seed }
    }

    pub(crate) fn writer(&self) -> WriterConfig {
        WriterConfig { memory_mb: self.memory_mb }
    }
}

impl Plan for LatePlan {
    fn difference(&self, wanted: &Self) -> Option<String> {
        if self.format_version != wanted.format_version {
            return Some(format!("its format version is {}, not {}", self.format_version, wanted.format_version));
        }
        let codec = || {
            let is_same = self.config.codec() == wanted.config.codec();
            let CodecConfig { bits, n_centroids, n_rounds, seed } = self.config.codec();
            let n_centroids = n_centroids.map_or("the default number".to_owned(), |n| n.to_string());
            let settings = format!("{bits} bits, {n_centroids} of centroids, {n_rounds} rounds, seed {seed}");
            (!is_same).then(|| format!("it is built with {settings}"))
        };
        self.source.difference(&wanted.source).or_else(|| self.encoder.difference(&wanted.encoder)).or_else(codec)
    }
}

impl Manifest {
    /// The number of passages that were ever added; deleted ones keep their number.
    pub fn n_added(&self) -> u64 {
        self.passages.iter().map(|segment| u64::from(segment.n_passages)).sum()
    }

    /// The name of the next segment of passages: never one that a reader may have open.
    pub(crate) fn next_segment(&self) -> String {
        let number = |segment: &PassageSegment| segment.name.strip_prefix(SEGMENT_PREFIX)?.parse::<u64>().ok();
        let last = self.passages.iter().filter_map(number).max();
        format!("{SEGMENT_PREFIX}{}", last.map_or(0, |last| last.saturating_add(1)))
    }
}

impl Complete for Manifest {
    type Plan = LatePlan;

    /// What it was first built from, and how.
    fn plan(&self) -> Option<LatePlan> {
        Some(LatePlan {
            format_version: self.format_version,
            source: self.sources.first()?.clone(),
            encoder: self.encoder.clone(),
            config: self.config.clone(),
        })
    }

    fn data(&self) -> &str {
        &self.data
    }
}
