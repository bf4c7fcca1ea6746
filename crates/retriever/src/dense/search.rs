//! Question text in, the passages with the nearest vectors out.
use super::ann::{self, AnnOptions};
use super::build::{LISTS, VECTORS};
use super::manifest::{FORMAT, Manifest};
use super::vectors::Vectors;
use crate::Error;
use crate::encode::{check_kind, encode_queries};
use crate::folder::Folder;
use crate::passages::PassageStore;
use crate::top::Scored;
use exsearch_index::LateIndex;
use exsearch_schema::{Embedding, Encoder, Hit, Passage, PassageId, RetrieveError, Retriever, VectorKind};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A complete dense index with the encoder of its queries, open for searching by any number of threads.
pub struct DenseIndex {
    manifest: Manifest,
    data: Data,
    encoder: Arc<dyn Encoder>,
    ann: AnnOptions,
}

/// What is in the data folder.
pub(super) struct Data {
    dir: PathBuf,
    passages: PassageStore,
    vectors: Vectors,
    lists: Option<LateIndex>,
}

impl DenseIndex {
    /// What the index in a folder says of itself, such as where its encoder was.
    pub fn read_manifest(dir: &Path) -> Result<Manifest, Error> {
        let folder = Folder::new(dir, &FORMAT);
        folder.manifest()?.ok_or_else(|| folder.incomplete())
    }

    /// Opens the index in a folder for queries of `encoder`, which must be the one that it was built with. Looks at the
    /// sizes of its files, not at their content.
    pub fn open(dir: &Path, encoder: Arc<dyn Encoder>) -> Result<Self, Error> {
        check_kind(&*encoder, VectorKind::Single)?;
        let folder = Folder::new(dir, &FORMAT);
        let manifest = Self::read_manifest(dir)?;
        manifest.encoder.check(dir, &*encoder)?;
        let (manifest, data) = match Data::open(&folder, &manifest) {
            Ok(data) => (manifest, data),
            // A rebuild may have replaced the index, and removed the old data, since the manifest was read.
            Err(error) => match folder.manifest::<Manifest>()? {
                Some(newer) if newer != manifest => {
                    newer.encoder.check(dir, &*encoder)?;
                    let data = Data::open(&folder, &newer)?;
                    (newer, data)
                }
                _ => return Err(error),
            },
        };
        Ok(Self { manifest, data, encoder, ann: AnnOptions::default() })
    }

    /// Looks at more or less of an index that is too large to be searched exactly.
    pub fn with_ann(self, ann: AnnOptions) -> Self {
        Self { ann, ..self }
    }

    /// What the index says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The number of passages in the index.
    pub fn n_passages(&self) -> u64 {
        self.manifest.n_passages
    }

    /// The passage with an id, or `None` when the corpus has none.
    pub fn get(&self, id: &PassageId) -> Result<Option<Passage>, Error> {
        let passages = &self.data.passages;
        passages.find(id)?.map(|number| passages.get(number)).transpose()
    }

    /// Reads the whole index and errors when it is not what was written.
    pub fn verify(&self) -> Result<(), Error> {
        let Data { dir, passages, vectors, lists } = &self.data;
        passages.verify()?;
        if vectors.crc32() != self.manifest.vectors_crc32 {
            return Err(Error::Damaged { dir: dir.clone(), reason: format!("{VECTORS} has another checksum") });
        }
        lists.iter().try_for_each(|lists| Ok(lists.verify()?))
    }

    /// The best passages for each vector of a query.
    fn nearest(&self, queries: &[&[f32]], top_k: usize) -> Vec<Result<Vec<Scored>, Error>> {
        let Data { vectors, lists, .. } = &self.data;
        match lists {
            None => vectors.scan(&queries.concat(), top_k).into_iter().map(Ok).collect(),
            Some(lists) => {
                queries.par_iter().map(|query| ann::search(lists, vectors, query, top_k, self.ann)).collect()
            }
        }
    }

    fn hits(&self, found: &[Scored]) -> Result<Vec<Hit>, RetrieveError> {
        let mut hits = Vec::with_capacity(found.len());
        for Scored { number, score } in found {
            let passage = self.data.passages.get(*number).map_err(|error| RetrieveError::Failed(error.to_string()))?;
            hits.push(Hit { id: passage.id, title: passage.title, text: passage.text, score: *score });
        }
        Ok(hits)
    }
}

impl Data {
    pub(super) fn open(folder: &Folder, manifest: &Manifest) -> Result<Self, Error> {
        folder.check_files(&manifest.data, &manifest.files)?;
        let data = folder.data(&manifest.data);
        let passages = PassageStore::open(&data, &manifest.passages)?;
        if u64::from(passages.n_passages()) != manifest.n_passages {
            let (found, expected) = (passages.n_passages(), manifest.n_passages);
            return Err(folder.damaged(format!("it holds {found} passages instead of {expected}")));
        }
        let n_vectors = passages.n_passages() as usize;
        let vectors = Vectors::open(&data.join(VECTORS), manifest.encoder.dim, n_vectors, manifest.config.precision)?;
        let vectors = vectors.ok_or_else(|| folder.damaged(format!("{VECTORS} has another length")))?;
        let lists = manifest.has_lists.then(|| LateIndex::open(&data.join(LISTS))).transpose()?;
        if lists.as_ref().is_some_and(|lists| (lists.n_passages(), lists.dim()) != (n_vectors as u32, vectors.dim())) {
            return Err(folder.damaged(format!("{LISTS} is not of its vectors")));
        }
        Ok(Self { dir: data, passages, vectors, lists })
    }
}

impl Retriever for DenseIndex {
    /// Scores are inner products, which are cosines. Queries are encoded together and share one pass over the vectors.
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let encoded = encode_queries(&*self.encoder, queries);
        let vectors: Vec<&[f32]> = encoded.iter().flatten().map(|embedding| embedding.values.as_slice()).collect();
        let mut found = self.nearest(&vectors, top_k).into_iter();
        let mut hits = |_: &Embedding| {
            let found = found.next().expect("a result for each vector");
            found.map_err(|error| RetrieveError::Failed(error.to_string())).and_then(|found| self.hits(&found))
        };
        encoded.iter().map(|embedding| hits(embedding.as_ref().map_err(Clone::clone)?)).collect()
    }

    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        self.get(id).map_err(|error| RetrieveError::Failed(error.to_string()))
    }
}
