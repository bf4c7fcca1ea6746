//! Passages of a corpus into an index that grows: in batches, with commits, behind what an earlier call left.
//!
//! Knows nothing of what the index keeps of a passage.
use crate::Error;
use crate::folder::Progress;
use crate::passages::{PassageWriter, SeenIds};
use exsearch_schema::{EncodeError, Passage};
use std::path::Path;

/// An index that is being built.
pub(crate) trait Sink {
    /// How many passages of the corpus a kill does not lose.
    fn n_committed(&self) -> u64;

    /// Where the passages themselves go.
    fn passages(&mut self) -> &mut PassageWriter;

    /// Whether the index has a passage with this id from an earlier corpus.
    fn has_from_before(&self, passage: &Passage) -> Result<bool, Error>;

    /// Adds passages; `first` is the position in the corpus, from 0, of the first of them.
    fn add(&mut self, passages: &[Passage], first: u64) -> Result<(), Error>;

    /// Makes durable what was added.
    fn commit(&mut self) -> Result<(), Error>;
}

/// In which steps a corpus is added.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Passages a call of [`Sink::add`].
    pub(crate) batch: usize,
    /// Passages between commits, rounded up to whole batches.
    pub(crate) commit_every: u64,
}

/// Adds what the sink does not have of a corpus, and returns how many passages the corpus has. The last batches are not
/// committed: finishing the index does that.
pub(crate) fn add_all<E>(
    sink: &mut dyn Sink,
    dir: &Path,
    passages: impl IntoIterator<Item = Result<Passage, E>>,
    pace: Pace,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, Error>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let n_before = sink.n_committed();
    if n_before > 0 {
        progress(Progress::Resumed { n_passages: n_before });
    }
    let (mut n_read, mut n_added, mut n_committed) = (0, n_before, n_before);
    let mut batch = Vec::with_capacity(pace.batch);
    let mut seen = SeenIds::default();
    for passage in passages {
        let passage = passage.map_err(|error| Error::Source { number: n_read + 1, source: error.into() })?;
        let is_new = seen.insert(&passage.id);
        n_read += 1;
        if n_read <= n_before {
            if n_read == n_before {
                check_resumed(sink, dir, &passage, n_before)?;
            }
            continue;
        }
        if !is_new {
            check_unique(sink, &batch, n_added, &passage, n_read)?;
        }
        if sink.has_from_before(&passage)? {
            return Err(Error::IdInUse { dir: dir.to_owned(), id: passage.id.0, number: n_read });
        }
        batch.push(passage);
        if batch.len() == pace.batch {
            sink.add(&batch, n_added)?;
            n_added += batch.len() as u64;
            batch.clear();
            progress(Progress::Indexed { n_passages: n_added });
            if n_added - n_committed >= pace.commit_every {
                sink.commit()?;
                n_committed = n_added;
                progress(Progress::Committed { n_passages: n_added });
            }
        }
    }
    if n_read < n_before {
        let reason = format!("{n_before} passages were indexed before, now there are {n_read}");
        return Err(Error::SourceChanged { dir: dir.to_owned(), reason });
    }
    if !batch.is_empty() {
        sink.add(&batch, n_added)?;
        progress(Progress::Indexed { n_passages: n_read });
    }
    Ok(n_read)
}

/// Why passages got no vectors.
pub(crate) fn encode_error(first: u64, n_passages: usize, source: EncodeError) -> Error {
    Error::Encode { first: first + 1, last: first + n_passages as u64, source }
}

/// The passage before the first new one must be the one that was last committed.
fn check_resumed(sink: &mut dyn Sink, dir: &Path, passage: &Passage, n_before: u64) -> Result<(), Error> {
    let last = sink.passages().get((n_before - 1) as u32)?;
    if last == *passage {
        return Ok(());
    }
    let reason = format!("passage {n_before} is now {:?}, it was {:?}", passage.id.0, last.id.0);
    Err(Error::SourceChanged { dir: dir.to_owned(), reason })
}

/// The hash of this id has been seen: looks whether the id has.
fn check_unique(
    sink: &mut dyn Sink,
    batch: &[Passage],
    n_added: u64,
    passage: &Passage,
    number: u64,
) -> Result<(), Error> {
    let first = match batch.iter().position(|other| other.id == passage.id) {
        Some(at) => Some(n_added + at as u64),
        None => sink.passages().find_slowly(&passage.id)?.map(u64::from),
    };
    let Some(first) = first else { return Ok(()) };
    Err(Error::DuplicateId { id: passage.id.0.clone(), first: first + 1, second: number })
}
