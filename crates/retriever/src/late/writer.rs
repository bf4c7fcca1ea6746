//! A segment of passages and their vectors, written side by side.
use super::manifest::Mark;
use super::search::Opened;
use crate::Error;
use crate::encode::encode_passages;
use crate::files::{read_json, write_json};
use crate::passages::{PassageMark, PassageSegment, PassageWriter};
use crate::stream::{Sink, encode_error};
use exsearch_index::Writer;
use exsearch_schema::{Embedding, Encoder, Passage};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(super) const INDEX: &str = "index";
const PROGRESS: &str = "progress.json";

/// Adds passages. Those of a commit are on disk before their vectors are committed; where a kill came between, the passages
/// without vectors are written again.
pub(super) struct SegmentWriter<'a> {
    data: PathBuf,
    name: String,
    encoder: &'a dyn Encoder,
    passages: PassageWriter,
    index: Writer,
    /// What the index holds already, in an append.
    before: Option<&'a Opened>,
    /// Vectors that were made for the sample.
    kept: HashMap<u64, Embedding>,
    n_committed: u64,
}

impl<'a> SegmentWriter<'a> {
    /// Continues behind what `index` has of this segment.
    pub(super) fn open(
        data: &Path,
        name: &str,
        index: Writer,
        encoder: &'a dyn Encoder,
        before: Option<&'a Opened>,
        kept: HashMap<u64, Embedding>,
    ) -> Result<Self, Error> {
        let n_committed = index.n_passages();
        let mark = match read_mark(data)? {
            Some(mark) if mark.segment == name => mark.passages,
            _ => PassageMark::default(),
        };
        let passages = PassageWriter::open_at(data, name, mark, n_committed)?;
        Ok(Self {
            data: data.to_owned(),
            name: name.to_owned(),
            encoder,
            passages,
            index,
            before,
            kept,
            n_committed: u64::from(n_committed),
        })
    }

    /// Makes all that was added durable. The vectors are searchable once the writer that is returned is finished.
    pub(super) fn finish(mut self) -> Result<(PassageSegment, Writer), Error> {
        self.commit()?;
        Ok((self.passages.finish()?, self.index))
    }

    /// Gives up what was added.
    pub(super) fn abandon(self) -> Result<(), Error> {
        Ok(self.index.abandon()?)
    }
}

impl Sink for SegmentWriter<'_> {
    fn n_committed(&self) -> u64 {
        self.n_committed
    }

    fn passages(&mut self) -> &mut PassageWriter {
        &mut self.passages
    }

    fn has_from_before(&self, passage: &Passage) -> Result<bool, Error> {
        match self.before {
            Some(before) => Ok(before.find(&passage.id)?.is_some()),
            None => Ok(false),
        }
    }

    fn add(&mut self, passages: &[Passage], first: u64) -> Result<(), Error> {
        let is_kept = |at: &usize| self.kept.contains_key(&(first + *at as u64));
        let missing: Vec<Passage> =
            (0..passages.len()).filter(|at| !is_kept(at)).map(|at| passages[at].clone()).collect();
        let encoded = encode_passages(self.encoder, &missing);
        let mut encoded = encoded.map_err(|source| encode_error(first, passages.len(), source))?.into_iter();
        for (position, passage) in (first..).zip(passages) {
            let kept = self.kept.remove(&position);
            let embedding = kept.unwrap_or_else(|| encoded.next().expect("an embedding for each missing passage"));
            self.passages.add(passage)?;
            self.index.push(&embedding.values)?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Error> {
        let mark = Mark { segment: self.name.clone(), passages: self.passages.sync()? };
        write_json(&self.data, PROGRESS, &mark)?;
        self.index.commit()?;
        Ok(())
    }
}

pub(super) fn read_mark(data: &Path) -> Result<Option<Mark>, Error> {
    let damaged =
        |error: serde_json::Error| Error::Damaged { dir: data.to_owned(), reason: format!("{PROGRESS}: {error}") };
    read_json(&data.join(PROGRESS), data)?.map(serde_json::from_value).transpose().map_err(damaged)
}
