//! A complete index, opened to be searched.
use crate::codec::Codec;
use crate::edit::Deleted;
use crate::error::{damaged, io_error};
use crate::folder::{Folder, Manifest, checksum};
use crate::search::{Scored, Scratch, SearchOptions, View};
use crate::segment::Segment;
use crate::writer::open_codec;
use crate::{FORMAT_VERSION, IndexError};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Mutex;

/// Times that opening is tried again when a compaction takes away files that the manifest named just before.
const MAX_TRIES: usize = 10;

/// An index at one generation: what others add, delete or compact later is seen by opening it again. May be shared between
/// threads. Its files are mapped: resident memory is what searches touch, a byte for each value of a
/// centroid from the first search on, and 8 bytes a passage for each concurrent search.
pub struct LateIndex {
    folder: Folder,
    manifest: Manifest,
    codec: Codec,
    segments: Vec<Segment>,
    deleted: Deleted,
    /// Of searches that are done.
    scratches: Mutex<Vec<Scratch>>,
}

/// What an index says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexInfo {
    /// [`FORMAT_VERSION`].
    pub format_version: u64,
    /// Grows with every change.
    pub generation: u64,
    /// The length of a vector.
    pub dim: usize,
    /// Bits a dimension of a residual.
    pub bits: usize,
    /// Centroids of the codec.
    pub n_centroids: usize,
    /// Passage numbers given so far, the deleted ones included.
    pub n_passages: u32,
    /// Deleted passages.
    pub n_deleted: u32,
    /// Vectors.
    pub n_tokens: u64,
    /// All files but the manifest.
    pub n_bytes: u64,
    /// One for each time that passages were added, until they are compacted.
    pub segments: Vec<SegmentInfo>,
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentInfo {
    /// The number of its first passage.
    pub first_passage: u32,
    /// Its passages.
    pub n_passages: u32,
    /// Their vectors.
    pub n_tokens: u64,
    /// The part of its vectors that are farther from their centroid than 99 of 100 in the codec's sample: about 0.01 where the
    /// codec fits.
    pub outliers: f64,
    /// What the writer's caller said that it was made from.
    pub source: String,
}

impl SegmentInfo {
    /// Whether its passages differ so much from those that the codec was trained on that the index should be built again:
    /// five times as many outliers as expected.
    pub fn is_stale(&self) -> bool {
        self.outliers > 0.05
    }
}

impl LateIndex {
    /// Opens the index in a folder. Reads the manifest, the codec and the deletions, and looks at the other files' sizes.
    pub fn open(dir: &Path) -> Result<Self, IndexError> {
        let folder = Folder::new(dir);
        let mut manifest = folder.manifest()?;
        for _ in 0..MAX_TRIES {
            let error = match Self::open_generation(&folder, &manifest) {
                Err(IndexError::Io { path, source }) if crate::folder::is_missing(&source) => {
                    damaged(&path, "it is missing")
                }
                opened => return opened,
            };
            let newer = folder.manifest()?;
            if newer.generation == manifest.generation {
                return Err(error);
            }
            manifest = newer;
        }
        Err(IndexError::Locked { dir: dir.to_owned() })
    }

    fn open_generation(folder: &Folder, manifest: &Manifest) -> Result<Self, IndexError> {
        let codec = open_codec(folder, &manifest.codec)?;
        let deleted = Deleted::open(folder, manifest)?;
        let mut segments = Vec::with_capacity(manifest.segments.len());
        let mut next = 0u32;
        for entry in &manifest.segments {
            if entry.first_passage != next {
                return Err(damaged(&folder.path(crate::folder::MANIFEST), "its segments do not follow one another"));
            }
            next = next.saturating_add(entry.n_passages);
            segments.push(Segment::open(folder, entry, &codec)?);
        }
        if next != manifest.n_passages {
            return Err(damaged(&folder.path(crate::folder::MANIFEST), "its segments do not hold its passages"));
        }
        let (folder, manifest, scratches) = (folder.clone(), manifest.clone(), Mutex::default());
        Ok(Self { folder, manifest, codec, segments, deleted, scratches })
    }

    /// The generation that the index in a folder is at now: when it is not that of [`LateIndex::info`], opening it again
    /// shows changes.
    pub fn current_generation(dir: &Path) -> Result<u64, IndexError> {
        Ok(Folder::new(dir).manifest()?.generation)
    }

    /// The best passages for `query` (`n x dim`, of any length), best first, ties by number. Fewer than `top_k` when fewer
    /// have a token near the query; none for a query without vectors.
    pub fn search(&self, query: &[f32], options: &SearchOptions) -> Result<Vec<Scored>, IndexError> {
        let dim = self.codec.dim();
        if !query.len().is_multiple_of(dim) {
            return Err(IndexError::Dimension { dim, n_values: query.len() });
        }
        if let Some(position) = query.iter().position(|value| !value.is_finite()) {
            let (what, row) = ("query".to_owned(), position / dim);
            return Err(IndexError::Vector { what, row, reason: "is not finite" });
        }
        if query.is_empty() || options.top_k == 0 {
            return Ok(Vec::new());
        }
        let unused = self.scratches.lock().expect("no search panics while it holds the lock").pop();
        let mut scratch = unused.unwrap_or_default();
        let found = self.view().search(query, options, &mut scratch);
        self.scratches.lock().expect("no search panics while it holds the lock").push(scratch);
        found
    }

    /// [`LateIndex::search`] for each query, on all threads of the current rayon pool.
    pub fn search_batch<Q: AsRef<[f32]> + Sync>(
        &self,
        queries: &[Q],
        options: &SearchOptions,
    ) -> Result<Vec<Vec<Scored>>, IndexError> {
        let options = SearchOptions { parallel: false, ..options.clone() };
        queries.par_iter().map(|query| self.search(query.as_ref(), &options)).collect()
    }

    /// A passage's vectors as the index holds them (`n_tokens x dim`, each of length 1); none after a compaction when it is
    /// deleted.
    pub fn vectors(&self, passage: u32) -> Result<Vec<f32>, IndexError> {
        let n_passages = self.n_passages();
        if passage >= n_passages {
            return Err(IndexError::NoSuchPassage { passage, n_passages });
        }
        self.view().vectors(passage)
    }

    /// Passage numbers given so far, the deleted ones included.
    pub fn n_passages(&self) -> u32 {
        self.manifest.n_passages
    }

    /// Vectors, those of passages that were deleted since the last compaction included.
    pub fn n_tokens(&self) -> u64 {
        self.manifest.segments.iter().map(|segment| segment.n_tokens).sum()
    }

    /// The length of a vector.
    pub fn dim(&self) -> usize {
        self.codec.dim()
    }

    /// The codec, for another index of the same kind of vectors.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Whether a passage is deleted.
    pub fn is_deleted(&self, passage: u32) -> bool {
        self.deleted.contains(passage)
    }

    /// What the index says of itself.
    pub fn info(&self) -> IndexInfo {
        let segments = self.manifest.segments.iter().map(|entry| SegmentInfo {
            first_passage: entry.first_passage,
            n_passages: entry.n_passages,
            n_tokens: entry.n_tokens,
            outliers: entry.n_outliers as f64 / entry.n_tokens.max(1) as f64,
            source: entry.source.clone(),
        });
        IndexInfo {
            format_version: FORMAT_VERSION,
            generation: self.manifest.generation,
            dim: self.dim(),
            bits: self.codec.bits(),
            n_centroids: self.codec.n_centroids(),
            n_passages: self.n_passages(),
            n_deleted: self.manifest.n_deleted,
            n_tokens: self.n_tokens(),
            n_bytes: self.manifest.files().map(|file| file.n_bytes).sum(),
            segments: segments.collect(),
        }
    }

    /// Reads every file and compares it with its checksum. The first that differs is the error.
    pub fn verify(&self) -> Result<(), IndexError> {
        for file in self.manifest.files() {
            let path = self.folder.path(&file.name);
            let found = checksum(&path).map_err(|error| io_error(&path, error))?;
            if (found.n_bytes, found.crc32) != (file.n_bytes, file.crc32) {
                return Err(damaged(&path, "its size or checksum is another"));
            }
        }
        Ok(())
    }

    fn view(&self) -> View<'_> {
        View { codec: &self.codec, segments: &self.segments, deleted: &self.deleted }
    }
}
