//! Passages by their number: id, title and text on disk, read where they lie.
//!
//! A store is a row of segments; a segment never changes once it is finished, and the numbers of its passages follow those
//! of the segments before it. Which segments there are is said by the manifest of the index that the store belongs to.
//!
//! ```text
//! <segment>.passages   "exspass1", then for each passage: crc32 u32 | id, title, text lengths 3 x u32 | id | title | text
//! <segment>.offsets    where each passage starts, u64 each: a passage costs two reads; of a dropped one 2^64 - 1
//! <segment>.ids        (hash of the id u64, number within the segment u32), sorted: an id is found in about 3 reads
//! ```
//! A dropped passage keeps its number and nothing else: it has no record and no entry among the ids.
//!
//! Numbers are little-endian. The checksum is over the passage's number and all of it behind the checksum, and is compared
//! at every read. Besides the text a passage costs 16 + 8 + 12 = 36 bytes (21M passages: 756 MB).
use crate::Error;
use crate::error::io_error;
use crate::files::{GrowingFile, write_whole};
use exsearch_kernels::MappedFile;
use exsearch_schema::{Passage, PassageId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"exspass1";
const HEADER_BYTES: usize = 16;
const ID_ENTRY_BYTES: usize = 12;
/// The offset of a dropped passage.
const DROPPED: u64 = u64::MAX;

/// A finished segment, as a manifest keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassageSegment {
    /// What its files' names begin with.
    pub name: String,
    /// How many passages it holds, the dropped ones counted.
    pub n_passages: u32,
    /// How many of them were dropped: deleted, and left out when the segment was copied.
    #[serde(default)]
    pub n_dropped: u32,
    /// The length of its passages file.
    pub n_bytes: u64,
}

/// Reads passages. Any number of threads may.
pub struct PassageStore {
    dir: PathBuf,
    segments: Vec<Segment>,
    n_passages: u32,
}

/// Writes one segment, front to back.
pub struct PassageWriter {
    dir: PathBuf,
    name: String,
    passages: GrowingFile,
    offsets: GrowingFile,
    n_passages: u32,
    n_dropped: u32,
    record: Vec<u8>,
}

/// How far a segment has been written: what a kill does not lose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassageMark {
    /// How many passages.
    pub n_passages: u32,
    /// Up to which byte of the passages file.
    pub n_bytes: u64,
}

impl PassageStore {
    /// Opens the segments in `dir`. Looks at the sizes of their files, not at their content.
    pub fn open(dir: &Path, segments: &[PassageSegment]) -> Result<Self, Error> {
        let mut first: u32 = 0;
        let mut opened = Vec::with_capacity(segments.len());
        for segment in segments {
            opened.push(Segment::open(dir, segment, first)?);
            first = first
                .checked_add(segment.n_passages)
                .ok_or_else(|| damaged(dir, "its segments hold more than 2^32 passages".to_owned()))?;
        }
        Ok(Self { dir: dir.to_owned(), segments: opened, n_passages: first })
    }

    /// How many passages it holds.
    pub fn n_passages(&self) -> u32 {
        self.n_passages
    }

    /// Whether a passage was dropped. Panics at numbers past the end.
    pub fn is_dropped(&self, number: u32) -> bool {
        let segment = self.segment_of(number);
        segment.offset(number - segment.first) == Some(DROPPED)
    }

    /// The passage with a number; [`Error::Damaged`] when it is not what was written, or dropped. Panics at numbers past the
    /// end.
    pub fn get(&self, number: u32) -> Result<Passage, Error> {
        let segment = self.segment_of(number);
        segment.get(number - segment.first).map_err(|reason| damaged(&self.dir, reason))
    }

    fn segment_of(&self, number: u32) -> &Segment {
        assert!(number < self.n_passages, "passage {number} of {}", self.n_passages);
        let segment_idx = self.segments.partition_point(|segment| segment.first <= number) - 1;
        &self.segments[segment_idx]
    }

    /// The number of the passage with an id, or `None` when there is none.
    pub fn find(&self, id: &PassageId) -> Result<Option<u32>, Error> {
        self.find_where(id, |_| true)
    }

    /// The number of the passage with an id for which `counts` holds: ids may be given again when a passage is deleted.
    pub fn find_where(&self, id: &PassageId, counts: impl Fn(u32) -> bool) -> Result<Option<u32>, Error> {
        let hash = id_hash(&id.0);
        for segment in &self.segments {
            for number in segment.with_hash(hash).map(|number| segment.first + number) {
                if counts(number) && self.get(number)?.id == *id {
                    return Ok(Some(number));
                }
            }
        }
        Ok(None)
    }

    /// Copies a segment to a new one called `name`, every passage under its number, without those for which `is_deleted`
    /// holds. `None`, and nothing written, when all of them were dropped before. The copy is on disk when this returns.
    pub fn copy_without(
        &self,
        segment_idx: usize,
        name: &str,
        is_deleted: impl Fn(u32) -> bool,
    ) -> Result<Option<PassageSegment>, Error> {
        let segment = &self.segments[segment_idx];
        let numbers = segment.first..segment.first + segment.n_passages();
        if !numbers.clone().any(|number| is_deleted(number) && !self.is_dropped(number)) {
            return Ok(None);
        }
        let mut copy = PassageWriter::open(&self.dir, name, PassageMark::default())?;
        for number in numbers {
            match is_deleted(number) || self.is_dropped(number) {
                true => copy.drop_next()?,
                false => copy.add(&self.get(number)?)?,
            }
        }
        copy.finish().map(Some)
    }

    /// Reads everything and errors at the first passage that is not what was written or is not found by its id.
    pub fn verify(&self) -> Result<(), Error> {
        for segment in &self.segments {
            let n_dropped = (0..segment.n_passages()).filter(|at| segment.offset(*at) == Some(DROPPED)).count();
            if n_dropped != segment.n_dropped as usize {
                let reason = format!("{n_dropped} passages of {} are dropped, not {}", segment.name, segment.n_dropped);
                return Err(damaged(&self.dir, reason));
            }
        }
        for number in (0..self.n_passages).filter(|number| !self.is_dropped(*number)) {
            let id = self.get(number)?.id;
            if self.find_where(&id, |found| found == number)? != Some(number) {
                return Err(damaged(&self.dir, format!("passage {number} is not found by its id {:?}", id.0)));
            }
        }
        Ok(())
    }
}

impl PassageWriter {
    /// Starts the segment, or continues it behind `mark`: what was written past it is written again.
    pub fn open(dir: &Path, name: &str, mark: PassageMark) -> Result<Self, Error> {
        let shorter = |file: &str| damaged(dir, format!("{name}.{file} is shorter than it was"));
        let offsets = GrowingFile::open_at(&dir.join(format!("{name}.offsets")), 8 * u64::from(mark.n_passages))?;
        let passages = GrowingFile::open_at(&dir.join(format!("{name}.passages")), mark.n_bytes)?;
        let mut writer = Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            passages: passages.ok_or_else(|| shorter("passages"))?,
            offsets: offsets.ok_or_else(|| shorter("offsets"))?,
            n_passages: mark.n_passages,
            n_dropped: 0,
            record: Vec::new(),
        };
        if mark.n_bytes == 0 {
            writer.passages.append(MAGIC)?;
        }
        Ok(writer)
    }

    /// As [`PassageWriter::open`], behind the first `n_passages` of those that `mark` counts.
    pub fn open_at(dir: &Path, name: &str, mark: PassageMark, n_passages: u32) -> Result<Self, Error> {
        if n_passages > mark.n_passages {
            let reason = format!("{name} holds {} passages instead of {n_passages}", mark.n_passages);
            return Err(damaged(dir, reason));
        }
        if n_passages == mark.n_passages {
            return Self::open(dir, name, mark);
        }
        if n_passages == 0 {
            return Self::open(dir, name, PassageMark::default());
        }
        let offsets = map(dir, &format!("{name}.offsets"))?;
        let n_bytes = offsets.bytes().get(8 * n_passages as usize..).filter(|rest| rest.len() >= 8).map(read_u64);
        let n_bytes = n_bytes.filter(|n_bytes| *n_bytes <= mark.n_bytes);
        let n_bytes = n_bytes.ok_or_else(|| damaged(dir, format!("{name}.offsets is not what it was")))?;
        drop(offsets);
        Self::open(dir, name, PassageMark { n_passages, n_bytes })
    }

    /// Appends a passage. Ids are not checked here.
    pub fn add(&mut self, passage: &Passage) -> Result<(), Error> {
        let Passage { id, title, text } = passage;
        let parts = [id.0.as_bytes(), title.as_bytes(), text.as_bytes()];
        self.record.clear();
        for part in parts {
            let n_bytes = u32::try_from(part.len()).expect("a passage is below 4 GB");
            self.record.extend_from_slice(&n_bytes.to_le_bytes());
        }
        parts.iter().for_each(|part| self.record.extend_from_slice(part));
        self.offsets.append(&self.passages.n_bytes().to_le_bytes())?;
        self.passages.append(&checksum(self.n_passages, &self.record).to_le_bytes())?;
        self.passages.append(&self.record)?;
        self.count()
    }

    /// Gives the next number to a passage that is no more.
    fn drop_next(&mut self) -> Result<(), Error> {
        self.offsets.append(&DROPPED.to_le_bytes())?;
        self.n_dropped += 1;
        self.count()
    }

    fn count(&mut self) -> Result<(), Error> {
        self.n_passages = self.n_passages.checked_add(1).ok_or_else(|| Error::InvalidConfig {
            what: self.dir.display().to_string(),
            reason: "an index holds at most 2^32 - 1 passages; split the corpus".to_owned(),
        })?;
        Ok(())
    }

    /// Returns when all that was added is on disk.
    pub fn sync(&mut self) -> Result<PassageMark, Error> {
        self.passages.sync()?;
        self.offsets.sync()?;
        Ok(PassageMark { n_passages: self.n_passages, n_bytes: self.passages.n_bytes() })
    }

    /// The passage that was added as number `number` of this segment.
    pub fn get(&mut self, number: u32) -> Result<Passage, Error> {
        self.passages.flush()?;
        self.offsets.flush()?;
        let written = Segment::map(&self.dir, &self.name, 0)?;
        written.get(number).map_err(|reason| damaged(&self.dir, reason))
    }

    /// The number of the first passage with the id. Reads all of them: for the error that ends a build.
    pub fn find_slowly(&mut self, id: &PassageId) -> Result<Option<u32>, Error> {
        self.passages.flush()?;
        self.offsets.flush()?;
        let written = Segment::map(&self.dir, &self.name, 0)?;
        for number in 0..self.n_passages {
            if written.id(number).map_err(|reason| damaged(&self.dir, reason))? == id.0 {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Makes the ids searchable and everything durable. Reads the segment once; takes 16 bytes of memory a passage.
    pub fn finish(mut self) -> Result<PassageSegment, Error> {
        let PassageMark { n_passages, n_bytes } = self.sync()?;
        let written = Segment::map(&self.dir, &self.name, 0)?;
        let mut entries = Vec::with_capacity(n_passages as usize);
        for number in (0..n_passages).filter(|number| written.offset(*number) != Some(DROPPED)) {
            let id = written.id(number).map_err(|reason| damaged(&self.dir, reason))?;
            entries.push((id_hash(id), number));
        }
        entries.sort_unstable();
        let mut bytes = Vec::with_capacity(ID_ENTRY_BYTES * entries.len());
        for (hash, number) in entries {
            bytes.extend_from_slice(&hash.to_le_bytes());
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        write_whole(&self.dir, &format!("{}.ids", self.name), &bytes)?;
        Ok(PassageSegment { name: self.name, n_passages, n_dropped: self.n_dropped, n_bytes })
    }
}

/// The files of a segment.
struct Segment {
    name: String,
    /// The number of its first passage.
    first: u32,
    n_dropped: u32,
    passages: MappedFile,
    offsets: MappedFile,
    ids: Option<MappedFile>,
}

impl Segment {
    fn open(dir: &Path, segment: &PassageSegment, first: u32) -> Result<Self, Error> {
        let mut opened = Self::map(dir, &segment.name, first)?;
        let ids = map(dir, &format!("{}.ids", segment.name))?;
        let n_kept = segment.n_passages.checked_sub(segment.n_dropped);
        let n_kept = n_kept.ok_or_else(|| damaged(dir, format!("{} has dropped more than it holds", segment.name)))?;
        opened.n_dropped = segment.n_dropped;
        let expected = [
            ("passages", &opened.passages, segment.n_bytes),
            ("offsets", &opened.offsets, 8 * u64::from(segment.n_passages)),
            ("ids", &ids, ID_ENTRY_BYTES as u64 * u64::from(n_kept)),
        ];
        for (file, mapped, expected) in expected {
            let found = mapped.bytes().len() as u64;
            if found != expected {
                return Err(damaged(dir, format!("{}.{file} has {found} bytes instead of {expected}", segment.name)));
            }
        }
        if !opened.passages.bytes().starts_with(MAGIC) {
            return Err(damaged(dir, format!("{}.passages does not hold passages in format 1", segment.name)));
        }
        opened.ids = Some(ids);
        Ok(opened)
    }

    /// Without its ids, which only a finished segment has.
    fn map(dir: &Path, name: &str, first: u32) -> Result<Self, Error> {
        let passages = map(dir, &format!("{name}.passages"))?;
        let offsets = map(dir, &format!("{name}.offsets"))?;
        passages.advise_random();
        offsets.advise_random();
        Ok(Self { name: name.to_owned(), first, n_dropped: 0, passages, offsets, ids: None })
    }

    fn n_passages(&self) -> u32 {
        (self.offsets.bytes().len() / 8) as u32
    }

    /// Where a passage starts, or [`DROPPED`].
    fn offset(&self, number: u32) -> Option<u64> {
        let at = number as usize * 8;
        self.offsets.bytes().get(at..at + 8).map(read_u64)
    }

    /// The lengths of id, title and text, and the bytes from the first length on; an error says what is wrong.
    fn record(&self, number: u32) -> Result<([usize; 3], &[u8]), String> {
        let wrong = || format!("{}.passages is damaged at passage {number}", self.name);
        let start = self.offset(number).and_then(|start| usize::try_from(start).ok());
        let bytes = start.and_then(|start| self.passages.bytes().get(start..)).ok_or_else(wrong)?;
        let header = bytes.get(..HEADER_BYTES).ok_or_else(wrong)?;
        let lengths = [4, 8, 12].map(|at| read_u32(&header[at..]) as usize);
        let end = lengths.iter().try_fold(HEADER_BYTES, |end, length| end.checked_add(*length)).ok_or_else(wrong)?;
        let content = bytes.get(4..end).ok_or_else(wrong)?;
        if checksum(number, content) != read_u32(header) {
            return Err(wrong());
        }
        Ok((lengths, content))
    }

    fn get(&self, number: u32) -> Result<Passage, String> {
        let ([id, title, text], content) = self.record(number)?;
        let not_utf8 = |_| format!("{}.passages is not text at passage {number}", self.name);
        let string =
            |from: usize, n_bytes: usize| String::from_utf8(content[from..from + n_bytes].to_vec()).map_err(not_utf8);
        let start = HEADER_BYTES - 4;
        Ok(Passage {
            id: PassageId(string(start, id)?),
            title: string(start + id, title)?,
            text: string(start + id + title, text)?,
        })
    }

    fn id(&self, number: u32) -> Result<&str, String> {
        let ([id, ..], content) = self.record(number)?;
        let start = HEADER_BYTES - 4;
        std::str::from_utf8(&content[start..start + id])
            .map_err(|_| format!("{}.passages is not text at passage {number}", self.name))
    }

    /// The numbers, within the segment, of the passages whose ids have the hash.
    fn with_hash(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let bytes = self.ids.as_ref().map_or(&[][..], MappedFile::bytes);
        let entries = bytes.as_chunks::<ID_ENTRY_BYTES>().0;
        let start = interpolate(entries.len(), hash, |at| read_u64(&entries[at]));
        let n_passages = self.n_passages();
        let same = entries[start..].iter().take_while(move |entry| read_u64(*entry) == hash);
        // A number past the end is damage; the id is then not found, as `verify` says.
        same.map(|entry| read_u32(&entry[8..])).filter(move |number| *number < n_passages)
    }
}

/// The first of `n` sorted values that is at least `wanted`. Hashes are spread evenly, so that a guess from the value is
/// near; every second step halves the range, which bounds the steps whatever the values are.
fn interpolate(n: usize, wanted: u64, value: impl Fn(usize) -> u64) -> usize {
    let (mut low, mut high) = (0, n);
    let (mut low_value, mut high_value) = (0u64, u64::MAX);
    let mut is_guess = true;
    while low < high {
        let span = u128::from(high_value.saturating_sub(low_value)).max(1);
        let guess = low as u128 + u128::from(wanted.saturating_sub(low_value)) * (high - low) as u128 / span;
        let middle = if is_guess { (guess as usize).clamp(low, high - 1) } else { low + (high - low) / 2 };
        is_guess = !is_guess;
        let found = value(middle);
        if found < wanted {
            (low, low_value) = (middle + 1, found);
        } else {
            (high, high_value) = (middle, found);
        }
    }
    low
}

/// With the number, so that an offset that leads to another passage is noticed.
fn checksum(number: u32, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// Of the id alone, the same on every machine: the first 8 bytes of its SHA-256.
fn id_hash(id: &str) -> u64 {
    read_u64(&Sha256::digest(id.as_bytes()))
}

fn read_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

fn map(dir: &Path, name: &str) -> Result<MappedFile, Error> {
    let path = dir.join(name);
    MappedFile::open(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => damaged(dir, format!("{name} is missing")),
        _ => io_error(&path, error),
    })
}

fn damaged(dir: &Path, reason: String) -> Error {
    Error::Damaged { dir: dir.to_owned(), reason }
}

/// Ids seen so far, as 64-bit hashes: 9 to 18 bytes each, 300 MB for 21M passages, where the ids as strings would take
/// 1.5 GB. At 21M the chance of any collision is n^2 / 2^65 = 1e-5; one costs a look-up, not a wrong answer.
#[derive(Default)]
pub(crate) struct SeenIds {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl SeenIds {
    /// False when the id, or one with the same hash, has been seen.
    pub(crate) fn insert(&mut self, id: &PassageId) -> bool {
        self.hashes.insert(self.hasher.hash_one(&id.0))
    }
}

#[cfg(test)]
mod tests;
