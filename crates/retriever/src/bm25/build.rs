//! Passages in, a complete index folder out: atomic, resumable, with bounded memory.
//!
//! How many passages are in the index is recorded in the payload of each of tantivy's commits. After a kill the next call
//! skips as many passages of its input and goes on. Documents carry their position in the corpus, so the order of results
//! does not depend on which thread or which run indexed them.
use super::analysis::{ANALYZER, Fields, analyzer, document, schema};
use super::manifest::{Bm25Config, Bm25Plan, FORMAT, FORMAT_VERSION, Manifest};
use super::search::{Bm25Index, find_id};
use crate::Error;
use crate::error::library_error;
use crate::folder::{Built, Folder, Progress, SourceId, Target};
use crate::passages::SeenIds;
use exsearch_schema::{Passage, PassageId};
use std::path::Path;
use tantivy::indexer::IndexWriterOptions;
use tantivy::{Index, IndexWriter, TantivyError};

/// Passages between two reports of [`Progress::Indexed`].
const REPORT_EVERY: u64 = 1_000;

/// Builds an index of `passages`, which come from `source` in the same order at every call. Returns when the index is
/// complete and durable. Killed at any point and called again, it continues behind its last commit.
pub fn build<E>(
    passages: impl IntoIterator<Item = Result<Passage, E>>,
    source: &SourceId,
    target: &Target<'_>,
    config: &Bm25Config,
    mut progress: impl FnMut(Progress),
) -> Result<Built<Manifest>, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    check_config(config)?;
    let folder = Folder::new(target.dir, &FORMAT);
    let lock = folder.begin()?;
    let plan = Bm25Plan { format_version: FORMAT_VERSION, source: source.clone(), analysis: config.analysis.clone() };
    if let Some(manifest) =
        folder.finished(&plan, target.replace, |_: &Manifest| Bm25Index::open(target.dir).map(drop))?
    {
        return Ok(Built::AlreadyComplete(manifest));
    }
    let data = folder.choose_data::<Manifest>(&plan, target.replace, opens)?;
    let mut build = Build::open(&folder, data.clone(), config)?;
    if let Err(error) = build.add_all(passages, &mut progress) {
        drop(build);
        return Err(folder.keep_or_drop(&data, error));
    }
    progress(Progress::Merging);
    let manifest = build.finish(source, config)?;
    folder.remove_other_data(&manifest.data)?;
    drop(lock);
    Ok(Built::Completed(manifest))
}

fn check_config(config: &Bm25Config) -> Result<(), Error> {
    let refuse = |name, value, expected: String| Err(Error::Config { name, value, expected });
    let least_mb = config.n_threads.saturating_mul(15);
    if !(1..=8).contains(&config.n_threads) {
        return refuse("n_threads", config.n_threads as u64, "1 to 8".to_owned());
    }
    // tantivy takes at most 4 GB a thread.
    if !(least_mb..=4_000).contains(&config.memory_mb) {
        let expected = format!("{least_mb} to 4000 for {} threads", config.n_threads);
        return refuse("memory_mb", config.memory_mb as u64, expected);
    }
    if config.commit_every == 0 {
        return refuse("commit_every", 0, "at least 1".to_owned());
    }
    Ok(())
}

/// Whether an unfinished build can be continued.
fn opens(data: &Path) -> bool {
    let opened = Index::open_in_dir(data).and_then(|index| index.reader().map(drop));
    opened.is_ok() || !data.join("meta.json").exists()
}

/// A build in progress.
struct Build<'a> {
    folder: &'a Folder,
    data: String,
    index: Index,
    writer: IndexWriter,
    fields: Fields,
    commit_every: u64,
    /// Passages that a kill does not lose.
    n_committed: u64,
    seen: SeenIds,
}

impl<'a> Build<'a> {
    fn open(folder: &'a Folder, data: String, config: &Bm25Config) -> Result<Self, Error> {
        let path = folder.data(&data);
        let (schema, fields) = schema();
        let library = |error| library_error(&folder.dir, error);
        // A build killed before tantivy wrote its first meta.json has nothing to continue from.
        let index = if path.join("meta.json").exists() {
            Index::open_in_dir(&path).map_err(library)?
        } else {
            Index::create_in_dir(&path, schema).map_err(library)?
        };
        index.tokenizers().register(ANALYZER, analyzer(&config.analysis));
        let n_committed = match index.load_metas().map_err(library)?.payload {
            None => 0,
            Some(payload) => payload
                .parse()
                .map_err(|_| folder.damaged(format!("its commit says {payload:?} instead of a number")))?,
        };
        let options = IndexWriterOptions::builder()
            .num_worker_threads(config.n_threads)
            .memory_budget_per_thread((config.memory_mb << 20) / config.n_threads)
            .num_merge_threads(1)
            .build();
        let writer = index.writer_with_options(options).map_err(library)?;
        let (commit_every, seen) = (config.commit_every, SeenIds::default());
        Ok(Self { folder, data, index, writer, fields, commit_every, n_committed, seen })
    }

    fn add_all<E>(
        &mut self,
        passages: impl IntoIterator<Item = Result<Passage, E>>,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), Error>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let n_before = self.n_committed;
        if n_before > 0 {
            progress(Progress::Resumed { n_passages: n_before });
        }
        let mut n_passages = 0;
        for passage in passages {
            let passage = passage.map_err(|error| Error::Source { number: n_passages + 1, source: error.into() })?;
            let is_new = self.seen.insert(&passage.id);
            if n_passages < n_before {
                n_passages += 1;
                if n_passages == n_before {
                    self.check_resumed(&passage.id)?;
                }
                continue;
            }
            if !is_new {
                self.check_unique(&passage.id, n_passages)?;
            }
            self.add(&passage, n_passages)?;
            n_passages += 1;
            if n_passages.is_multiple_of(REPORT_EVERY) {
                progress(Progress::Indexed { n_passages });
            }
            if n_passages - self.n_committed >= self.commit_every {
                self.commit(n_passages)?;
                progress(Progress::Committed { n_passages });
            }
        }
        if n_passages < n_before {
            let reason = format!("{n_before} passages were indexed before, now there are {n_passages}");
            return Err(Error::SourceChanged { dir: self.folder.dir.clone(), reason });
        }
        self.commit(n_passages)?;
        progress(Progress::Committed { n_passages });
        Ok(())
    }

    fn add(&mut self, passage: &Passage, ordinal: u64) -> Result<(), Error> {
        match self.writer.add_document(document(&self.fields, passage, ordinal)) {
            Ok(_) => Ok(()),
            // A worker died. This error does not say of what; asking for a commit does.
            Err(error) => {
                let error = self.writer.prepare_commit().err().unwrap_or(error);
                Err(library_error(&self.folder.dir, error))
            }
        }
    }

    fn commit(&mut self, n_passages: u64) -> Result<(), Error> {
        let commit = |writer: &mut IndexWriter| -> Result<(), TantivyError> {
            let mut commit = writer.prepare_commit()?;
            commit.set_payload(&n_passages.to_string());
            commit.commit()?;
            Ok(())
        };
        commit(&mut self.writer).map_err(|error| library_error(&self.folder.dir, error))?;
        self.n_committed = n_passages;
        Ok(())
    }

    /// The passage before the first new one must be the one that was last committed.
    fn check_resumed(&self, id: &PassageId) -> Result<(), Error> {
        if self.ordinal_of(id)? == Some(self.n_committed - 1) {
            return Ok(());
        }
        let reason = format!("passage {} is now {:?}, which it was not", self.n_committed, id.0);
        Err(Error::SourceChanged { dir: self.folder.dir.clone(), reason })
    }

    /// Two ids share a hash: looks the id up among the passages before.
    fn check_unique(&mut self, id: &PassageId, ordinal: u64) -> Result<(), Error> {
        self.commit(ordinal)?;
        let Some(first) = self.ordinal_of(id)? else { return Ok(()) };
        Err(Error::DuplicateId { id: id.0.clone(), first: first + 1, second: ordinal + 1 })
    }

    /// The position in the corpus of a committed passage.
    fn ordinal_of(&self, id: &PassageId) -> Result<Option<u64>, Error> {
        let find = || -> Result<Option<u64>, TantivyError> {
            let searcher = self.index.reader()?.searcher();
            let Some(address) = find_id(&searcher, &self.fields, id)? else { return Ok(None) };
            let segment = searcher.segment_reader(address.segment_ord);
            Ok(segment.fast_fields().u64(super::analysis::ORDINAL)?.first(address.doc_id))
        };
        find().map_err(|error| library_error(&self.folder.dir, error))
    }

    fn finish(self, source: &SourceId, config: &Bm25Config) -> Result<Manifest, Error> {
        let library = |error| library_error(&self.folder.dir, error);
        self.writer.wait_merging_threads().map_err(library)?;
        let segments = self.index.searchable_segment_ids().map_err(library)?;
        let segments: Vec<String> = segments.iter().map(|segment| segment.uuid_string()).collect();
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            kind: "bm25".to_owned(),
            n_passages: self.n_committed,
            source: source.clone(),
            config: config.clone(),
            tantivy: tantivy::version_string().to_owned(),
            files: self.folder.data_files(&self.data, |name| {
                name == "meta.json" || segments.iter().any(|segment| name.starts_with(segment))
            })?,
            data: self.data,
        };
        self.folder.write_manifest(&manifest)?;
        Ok(manifest)
    }
}
