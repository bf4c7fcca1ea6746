//! Question text in, the passages with the nearest tokens out.
use super::manifest::{FORMAT, Manifest};
use super::writer::INDEX;
use crate::Error;
use crate::encode::{check_kind, encode_queries};
use crate::folder::Folder;
use crate::passages::{PassageSegment, PassageStore};
use exsearch_index::{IndexInfo, LateIndex, Scored, SearchOptions};
use exsearch_schema::{Encoder, Hit, Passage, PassageId, RetrieveError, Retriever, VectorKind};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A complete late-interaction index with the encoder of its queries, at one generation, open for searching by any number of
/// threads.
pub struct LateRetriever {
    dir: PathBuf,
    manifest: Manifest,
    opened: Opened,
    encoder: Arc<dyn Encoder>,
    options: SearchOptions,
}

/// Passages and vectors under the same numbers.
pub(super) struct Opened {
    passages: PassageStore,
    index: LateIndex,
}

impl LateRetriever {
    /// What the index in a folder says of itself, such as where its encoder was.
    pub fn read_manifest(dir: &Path) -> Result<Manifest, Error> {
        let folder = Folder::new(dir, &FORMAT);
        folder.manifest()?.ok_or_else(|| folder.incomplete())
    }

    /// Where the index in a folder has its vectors, in the format of crate `index`.
    pub fn index_dir(dir: &Path) -> Result<PathBuf, Error> {
        Ok(dir.join(Self::read_manifest(dir)?.data).join(INDEX))
    }

    /// Opens the index in a folder for queries of `encoder`, which must be the one that it was built with. `options` say how
    /// much a search looks at; their `top_k` is that of each search. Looks at the sizes of files, not at their content.
    pub fn open(dir: &Path, encoder: Arc<dyn Encoder>, options: SearchOptions) -> Result<Self, Error> {
        check_kind(&*encoder, VectorKind::PerToken)?;
        let folder = Folder::new(dir, &FORMAT);
        let mut manifest = Self::read_manifest(dir)?;
        let opened = match Opened::open(&folder, &manifest) {
            Ok(opened) => opened,
            // A rebuild may have replaced the index, or an append added to it, since the manifest was read.
            Err(error) => match folder.manifest::<Manifest>()? {
                Some(newer) if newer != manifest => {
                    manifest = newer;
                    Opened::open(&folder, &manifest)?
                }
                _ => return Err(error),
            },
        };
        manifest.encoder.check(dir, &*encoder)?;
        Ok(Self { dir: dir.to_owned(), manifest, opened, encoder, options })
    }

    /// What the index says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What the index of vectors says of itself.
    pub fn info(&self) -> IndexInfo {
        self.opened.index.info()
    }

    /// The number of passages that can be found.
    pub fn n_passages(&self) -> u64 {
        let info = self.info();
        u64::from(info.n_passages - info.n_deleted)
    }

    /// The passage with an id, or `None` when the corpus has none or it is deleted.
    pub fn get(&self, id: &PassageId) -> Result<Option<Passage>, Error> {
        self.opened.find(id)?.map(|number| self.opened.passages.get(number)).transpose()
    }

    /// Whether an append, a deletion, a compaction or a rebuild has changed the index since it was opened: opening it again
    /// shows it.
    pub fn is_outdated(&self, dir: &Path) -> Result<bool, Error> {
        let newest = Self::read_manifest(dir)?;
        if newest != self.manifest {
            return Ok(true);
        }
        let index_dir = dir.join(&newest.data).join(INDEX);
        Ok(LateIndex::current_generation(&index_dir)? != self.info().generation)
    }

    /// Reads the whole index and errors when it is not what was written.
    pub fn verify(&self) -> Result<(), Error> {
        let Opened { passages, index } = &self.opened;
        passages.verify()?;
        index.verify()?;
        match (0..index.n_passages()).find(|number| passages.is_dropped(*number) && !index.is_deleted(*number)) {
            Some(number) => Err(Error::Damaged {
                dir: self.dir.clone(),
                reason: format!("passage {number} has no text and is not deleted"),
            }),
            None => Ok(()),
        }
    }

    fn hits(&self, found: &[Scored]) -> Result<Vec<Hit>, Error> {
        let mut hits = Vec::with_capacity(found.len());
        for Scored { passage: number, score } in found {
            let Passage { id, title, text } = self.opened.passages.get(*number)?;
            hits.push(Hit { id, title, text, score: *score });
        }
        Ok(hits)
    }
}

impl Opened {
    pub(super) fn open(folder: &Folder, manifest: &Manifest) -> Result<Self, Error> {
        let data = folder.data(&manifest.data);
        // The vectors first: the passages that are named then are at least those that have vectors.
        let index = LateIndex::open(&data.join(INDEX))?;
        let passages = PassageStore::open(&data, &manifest.passages)?;
        if index.dim() != manifest.encoder.dim {
            let (found, expected) = (index.dim(), manifest.encoder.dim);
            return Err(folder.damaged(format!("its vectors have {found} dimensions instead of {expected}")));
        }
        if index.n_passages() > passages.n_passages() {
            let (found, expected) = (passages.n_passages(), index.n_passages());
            return Err(folder.damaged(format!("it holds {found} passages instead of {expected}")));
        }
        Ok(Self { passages, index })
    }

    /// The number of the passage with an id that is not deleted.
    pub(super) fn find(&self, id: &PassageId) -> Result<Option<u32>, Error> {
        let is_there = |number: u32| number < self.index.n_passages() && !self.index.is_deleted(number);
        self.passages.find_where(id, is_there)
    }

    /// A copy of a segment of passages called `name` without the deleted ones; `None` when there is nothing to leave out.
    pub(super) fn copy_without_deleted(&self, segment_idx: usize, name: &str) -> Result<Option<PassageSegment>, Error> {
        let is_deleted = |number: u32| number < self.index.n_passages() && self.index.is_deleted(number);
        self.passages.copy_without(segment_idx, name, is_deleted)
    }
}

impl Retriever for LateRetriever {
    /// Scores are MaxSim on the vectors as the index keeps them. Queries are encoded together and searched on all threads; a
    /// query alone is searched on one.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let n_candidates = self.options.n_candidates.max(top_k);
        let options = SearchOptions { top_k, n_candidates, ..self.options.clone() };
        let search = |embedding: Result<exsearch_schema::Embedding, RetrieveError>| {
            let values = embedding?.values;
            let found = self.opened.index.search(&values, &options).map_err(Error::from);
            found.and_then(|found| self.hits(&found)).map_err(|error| RetrieveError::Failed(error.to_string()))
        };
        let encoded = encode_queries(&*self.encoder, queries);
        match queries {
            [_] => encoded.into_iter().map(search).collect(),
            _ => encoded.into_par_iter().map(search).collect(),
        }
    }

    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        self.get(id).map_err(|error| RetrieveError::Failed(error.to_string()))
    }
}
