//! A corpus in, a complete late-interaction index out: sampled, then streamed; atomic and resumable.
use super::manifest::{FORMAT, FORMAT_VERSION, LateConfig, LatePlan, Manifest};
use super::sample::sample;
use super::search::Opened;
use super::writer::{INDEX, SegmentWriter, read_mark};
use super::{Built, Step};
use crate::encode::check_kind;
use crate::folder::{Folder, SourceId, Target};
use crate::passages::{PassageSegment, PassageWriter};
use crate::stream::{Pace, add_all};
use crate::{EncoderId, Error};
use exsearch_index::{Codec, LateIndex, Writer};
use exsearch_schema::{Embedding, Encoder, Passage, VectorKind};
use std::collections::HashMap;
use std::path::Path;

const FIRST_SEGMENT: &str = "segment-0";

/// Builds an index of the corpus that `corpus` opens, which has the same passages in the same order each time; it is read
/// twice, once to draw a sample. `encoder_path` is where the encoder was opened, so that the index can say so. Returns when
/// the index is complete and durable. Killed at any point and called again, it continues behind its last commit.
pub fn build<I, E>(
    mut corpus: impl FnMut() -> Result<I, E>,
    source: &SourceId,
    (encoder, encoder_path): (&dyn Encoder, &str),
    target: &Target<'_>,
    config: &LateConfig,
    mut progress: impl FnMut(Step),
) -> Result<Built, Error>
where
    I: IntoIterator<Item = Result<Passage, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    config.check()?;
    check_kind(encoder, VectorKind::PerToken)?;
    let folder = Folder::new(target.dir, &FORMAT);
    let lock = folder.begin()?;
    let plan = LatePlan {
        format_version: FORMAT_VERSION,
        source: source.clone(),
        encoder: EncoderId::new(encoder_path, encoder),
        config: config.clone(),
    };
    if let Some(manifest) =
        folder.finished(&plan, target.replace, |manifest| Opened::open(&folder, manifest).map(drop))?
    {
        return Ok(Built::AlreadyComplete(manifest));
    }
    let data = folder.choose_data::<Manifest>(&plan, target.replace, |data| segment_with_vectors(data).is_ok())?;
    let path = folder.data(&data);
    let mut open_corpus = || corpus().map_err(|error| Error::Source { number: 1, source: error.into() });
    let passages = match segment_with_vectors(&path)? {
        Some(segment) => segment,
        None => {
            let (index, kept) = open_writer(&path, &mut open_corpus, encoder, &plan, &mut progress)?;
            let mut writer = SegmentWriter::open(&path, FIRST_SEGMENT, index, encoder, None, kept)?;
            let pace = Pace { batch: config.batch, commit_every: config.commit_every };
            let adding = &mut |step| progress(Step::Adding(step));
            if let Err(error) = add_all(&mut writer, target.dir, open_corpus()?, pace, adding) {
                drop(writer);
                return Err(folder.keep_or_drop(&data, error));
            }
            progress(Step::Adding(crate::Progress::Merging));
            let (segment, index) = writer.finish()?;
            index.finish()?;
            segment
        }
    };
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        kind: FORMAT.kind.to_owned(),
        encoder: plan.encoder,
        config: config.clone(),
        sources: vec![source.clone()],
        passages: vec![passages],
        data,
    };
    folder.write_manifest(&manifest)?;
    folder.remove_other_data(&manifest.data)?;
    drop(lock);
    Ok(Built::Completed(manifest))
}

/// The writer of the vectors: that of an unfinished build, or a new one with a codec trained on a sample of the corpus.
fn open_writer<I, E>(
    data: &Path,
    open_corpus: &mut impl FnMut() -> Result<I, Error>,
    encoder: &dyn Encoder,
    plan: &LatePlan,
    progress: &mut impl FnMut(Step),
) -> Result<(Writer, HashMap<u64, Embedding>), Error>
where
    I: IntoIterator<Item = Result<Passage, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (dir, config) = (data.join(INDEX), &plan.config);
    if let Some(writer) = Writer::resume(&dir, &config.writer())? {
        return Ok((writer, HashMap::new()));
    }
    let sample = sample(open_corpus()?, encoder, config, progress)?;
    progress(Step::Training);
    let codec = Codec::train(sample.vectors, encoder.dim(), sample.n_tokens, &config.codec())?;
    let writer = Writer::create(&dir, &codec, &plan.source.fingerprint, &config.writer())?;
    Ok((writer, sample.kept))
}

/// The passages of a build that was killed when its vectors were complete and its manifest was not written.
fn segment_with_vectors(data: &Path) -> Result<Option<PassageSegment>, Error> {
    let (dir, mark) = (data.join(INDEX), read_mark(data)?);
    let Some(mark) = mark.filter(|_| dir.join("manifest.json").is_file()) else { return Ok(None) };
    let index = LateIndex::open(&dir)?;
    if index.n_passages() != mark.passages.n_passages {
        let reason = format!("{} passages have vectors, {} have text", index.n_passages(), mark.passages.n_passages);
        return Err(Error::Damaged { dir: data.to_owned(), reason });
    }
    Ok(Some(PassageWriter::open(data, FIRST_SEGMENT, mark.passages)?.finish()?))
}
