//! Passages in, a complete dense index out: atomic, resumable, with memory for one batch and 9 to 18 bytes a passage.
use super::manifest::{DenseConfig, DensePlan, FORMAT, FORMAT_VERSION, Manifest, Mark};
use super::search::Data;
use super::vectors::{VectorWriter, Vectors};
use super::{Built, ann};
use crate::encode::{check_kind, encode_passages};
use crate::files::{read_json, write_json};
use crate::folder::{Folder, Progress, SourceId, Target};
use crate::passages::PassageWriter;
use crate::stream::{Pace, Sink, add_all, encode_error};
use crate::{EncoderId, Error};
use exsearch_kernels::LANES;
use exsearch_schema::{Encoder, Passage, VectorKind};
use std::path::Path;

pub(crate) const SEGMENT: &str = "segment-0";
pub(crate) const VECTORS: &str = "vectors";
pub(crate) const LISTS: &str = "lists";
const PROGRESS: &str = "progress.json";

/// Builds an index of `passages`, which come from `source` in the same order at every call. `encoder_path` is where the
/// encoder was opened, so that the index can say so. Returns when the index is complete and durable. Killed at any point and
/// called again, it continues behind its last commit.
pub fn build<E>(
    passages: impl IntoIterator<Item = Result<Passage, E>>,
    source: &SourceId,
    (encoder, encoder_path): (&dyn Encoder, &str),
    target: &Target<'_>,
    config: &DenseConfig,
    mut progress: impl FnMut(Progress),
) -> Result<Built, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    check_config(config)?;
    check_kind(encoder, VectorKind::Single)?;
    let folder = Folder::new(target.dir, &FORMAT);
    let lock = folder.begin()?;
    let plan = DensePlan {
        format_version: FORMAT_VERSION,
        source: source.clone(),
        encoder: EncoderId::new(encoder_path, encoder),
        precision: config.precision,
        exact_up_to: config.exact_up_to,
    };
    if let Some(manifest) =
        folder.finished(&plan, target.replace, |manifest| Data::open(&folder, manifest).map(drop))?
    {
        return Ok(Built::AlreadyComplete(manifest));
    }
    let data = folder.choose_data::<Manifest>(&plan, target.replace, |data| mark(data).is_ok())?;
    let mut build = Build::open(&folder, &data, encoder, config)?;
    let pace = Pace { batch: config.batch, commit_every: config.commit_every };
    let n_passages = match add_all(&mut build, target.dir, passages, pace, &mut progress) {
        Ok(n_passages) => n_passages,
        Err(error) => {
            drop(build);
            return Err(folder.keep_or_drop(&data, error));
        }
    };
    progress(Progress::Merging);
    let manifest = build.finish(plan, n_passages, config)?;
    folder.remove_other_data(&manifest.data)?;
    drop(lock);
    Ok(Built::Completed(manifest))
}

fn check_config(config: &DenseConfig) -> Result<(), Error> {
    let refuse = |what: &str, reason: &str| {
        Err(Error::InvalidConfig { what: format!("dense setting {what}"), reason: reason.to_owned() })
    };
    if config.batch == 0 || !config.batch.is_multiple_of(LANES) {
        return refuse("batch", "it must be a multiple of 32");
    }
    if config.commit_every == 0 {
        return refuse("commit_every", "it must be at least 1");
    }
    Ok(())
}

/// How far an unfinished build is.
fn mark(data: &Path) -> Result<Mark, Error> {
    let damaged =
        |error: serde_json::Error| Error::Damaged { dir: data.to_owned(), reason: format!("{PROGRESS}: {error}") };
    read_json(&data.join(PROGRESS), data)?.map_or(Ok(Mark::default()), serde_json::from_value).map_err(damaged)
}

/// A build in progress.
struct Build<'a> {
    folder: &'a Folder,
    data: &'a str,
    encoder: &'a dyn Encoder,
    passages: PassageWriter,
    vectors: VectorWriter,
    n_committed: u64,
}

impl<'a> Build<'a> {
    fn open(folder: &'a Folder, data: &'a str, encoder: &'a dyn Encoder, config: &DenseConfig) -> Result<Self, Error> {
        let path = folder.data(data);
        let Mark { passages, vectors_crc32 } = mark(&path)?;
        let n_committed = u64::from(passages.n_passages);
        if !n_committed.is_multiple_of(LANES as u64) {
            return Err(folder.damaged(format!("{data}/{PROGRESS} does not end with a whole panel")));
        }
        let (dim, n_vectors) = (encoder.dim(), n_committed as usize);
        let vectors = VectorWriter::open(&path.join(VECTORS), dim, config.precision, n_vectors, vectors_crc32)?;
        let vectors = vectors.ok_or_else(|| folder.damaged(format!("{data}/{VECTORS} is shorter than it was")))?;
        let passages = PassageWriter::open(&path, SEGMENT, passages)?;
        Ok(Self { folder, data, encoder, passages, vectors, n_committed })
    }

    fn finish(self, plan: DensePlan, n_passages: u64, config: &DenseConfig) -> Result<Manifest, Error> {
        let passages = self.passages.finish()?;
        let vectors_crc32 = self.vectors.finish()?;
        let has_lists = n_passages > config.exact_up_to;
        if has_lists {
            let path = self.folder.data(self.data);
            let n_vectors = passages.n_passages as usize;
            let vectors = Vectors::open(&path.join(VECTORS), plan.encoder.dim, n_vectors, config.precision)?;
            let vectors = vectors.ok_or_else(|| self.folder.damaged(format!("{VECTORS} has another length")))?;
            ann::build(&path.join(LISTS), &vectors, &plan.source.fingerprint)?;
        }
        let belongs = |name: &str| name == VECTORS || name.starts_with(SEGMENT) && !name.ends_with(".tmp");
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            kind: FORMAT.kind.to_owned(),
            n_passages,
            source: plan.source,
            encoder: plan.encoder,
            config: config.clone(),
            passages: vec![passages],
            vectors_crc32,
            has_lists,
            data: self.data.to_owned(),
            files: self.folder.data_files(self.data, belongs)?,
        };
        self.folder.write_manifest(&manifest)?;
        Ok(manifest)
    }
}

impl Sink for Build<'_> {
    fn n_committed(&self) -> u64 {
        self.n_committed
    }

    fn passages(&mut self) -> &mut PassageWriter {
        &mut self.passages
    }

    fn has_from_before(&self, _: &Passage) -> Result<bool, Error> {
        Ok(false)
    }

    fn add(&mut self, passages: &[Passage], first: u64) -> Result<(), Error> {
        let embeddings = encode_passages(self.encoder, passages);
        let embeddings = embeddings.map_err(|source| encode_error(first, passages.len(), source))?;
        for (passage, embedding) in passages.iter().zip(embeddings) {
            self.passages.add(passage)?;
            self.vectors.add(&embedding.values)?;
        }
        Ok(())
    }

    /// Called behind whole batches, thus whole panels.
    fn commit(&mut self) -> Result<(), Error> {
        let mark = Mark { passages: self.passages.sync()?, vectors_crc32: self.vectors.sync()? };
        write_json(&self.folder.data(self.data), PROGRESS, &mark)
    }
}
