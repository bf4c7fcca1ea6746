//! Vectors in, a segment out: streamed, in bounded memory, continued after a kill.
//!
//! Codes, residuals and offsets grow in files named `.part`; session.json says how much of them is committed. At the end the
//! postings are counted from the codes, the files get their names, and the next generation of the manifest names them.
use crate::IndexError;
use crate::codec::{Assigner, Codec, normalize};
use crate::error::{damaged, io_error};
use crate::folder::{
    CODEC, Committed, FileEntry, Folder, Lock, Manifest, SESSION, SegmentEntry, Session, segment_file,
};
use crate::postings::CodesFile;
use crate::segment::map;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Vectors that are encoded together at most: enough for all threads, and more would not make it faster.
const MAX_CHUNK_BYTES: usize = 64 << 20;

/// How an index is written. Changes no byte of it.
#[derive(Clone, Debug, PartialEq)]
pub struct WriterConfig {
    /// What a writer holds, in MiB, codec and mapped files not counted: vectors that wait to be encoded, and at the end the
    /// postings of as many centroids as fit. Smaller values read the codes more often. Lengths of passages take 4 bytes
    /// each on top (21M passages: 84 MB).
    pub memory_mb: usize,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { memory_mb: 512 }
    }
}

impl WriterConfig {
    pub(crate) fn check(&self) -> Result<(), IndexError> {
        if self.memory_mb >= 8 {
            return Ok(());
        }
        let (name, value) = ("memory_mb", self.memory_mb as u64);
        Err(IndexError::Config { name, value, expected: "at least 8" })
    }
}

/// Adds one segment to an index. Dropped or killed before [`Writer::finish`], it leaves what was committed, which
/// [`Writer::resume`] continues. After an error nothing more can be written: drop it and resume.
pub struct Writer {
    folder: Folder,
    _lock: Lock,
    config: WriterConfig,
    codec: Codec,
    assigner: Assigner,
    manifest: Option<Manifest>,
    session: Session,
    parts: Parts,
    /// Tokens of each passage of the segment, the waiting ones included.
    lengths: Vec<u32>,
    /// Vectors that wait to be encoded.
    waiting: Vec<f32>,
    n_waiting_passages: usize,
    has_failed: bool,
}

impl Writer {
    /// Begins an index in `dir`, which does not exist or is empty. `source` says what the passages come from; it is kept for
    /// the caller to compare.
    pub fn create(dir: &Path, codec: &Codec, source: &str, config: &WriterConfig) -> Result<Self, IndexError> {
        config.check()?;
        let folder = Folder::new(dir);
        folder.refuse_foreign()?;
        std::fs::create_dir_all(dir).map_err(|error| io_error(dir, error))?;
        let lock = folder.lock()?;
        if folder.manifest_if_any()?.is_some() || folder.session()?.is_some() {
            return Err(IndexError::AlreadyExists { dir: dir.to_owned() });
        }
        folder.remove_leftovers()?;
        let entry = folder.write_file(CODEC, &codec.to_bytes())?;
        let session = Session::new(entry, 0, 0, source);
        Self::begin(folder, lock, config, codec.clone(), None, session)
    }

    /// Begins a segment behind the passages of a complete index, with its codec.
    pub fn append(dir: &Path, source: &str, config: &WriterConfig) -> Result<Self, IndexError> {
        config.check()?;
        let folder = Folder::new(dir);
        // Before the lock, which makes a file.
        folder.manifest()?;
        let lock = folder.lock()?;
        if folder.session()?.is_some() {
            return Err(IndexError::Unfinished { dir: dir.to_owned() });
        }
        folder.remove_leftovers()?;
        let manifest = folder.manifest()?;
        let codec = open_codec(&folder, &manifest.codec)?;
        let number = next_segment(&manifest);
        let session = Session::new(manifest.codec.clone(), number, manifest.n_passages, source);
        Self::begin(folder, lock, config, codec, Some(manifest), session)
    }

    /// Continues what was begun and not finished; `None` when there is nothing of that kind.
    /// [`Writer::n_passages`] says how many passages are already in.
    pub fn resume(dir: &Path, config: &WriterConfig) -> Result<Option<Self>, IndexError> {
        config.check()?;
        let folder = Folder::new(dir);
        if folder.session()?.is_none() {
            return Ok(None);
        }
        let lock = folder.lock()?;
        let manifest = folder.manifest_if_any()?;
        let Some(session) = folder.session()? else { return Ok(None) };
        if manifest.iter().flat_map(|manifest| &manifest.segments).any(|segment| segment.number == session.segment) {
            // Killed between the manifest and the removal of the session.
            folder.remove(SESSION)?;
            return Ok(None);
        }
        folder.remove_leftovers()?;
        let codec = open_codec(&folder, &session.codec)?;
        let parts = Parts::resume(&folder, &session)?;
        let lengths = committed_lengths(&folder, &session)?;
        Ok(Some(Self::with(folder, lock, config, codec, manifest, session, parts, lengths)))
    }

    fn begin(
        folder: Folder,
        lock: Lock,
        config: &WriterConfig,
        codec: Codec,
        manifest: Option<Manifest>,
        session: Session,
    ) -> Result<Self, IndexError> {
        let parts = Parts::create(&folder, session.segment)?;
        let mut writer = Self::with(folder, lock, config, codec, manifest, session, parts, Vec::new());
        writer.parts.offsets.write(&0u64.to_le_bytes())?;
        writer.commit()?;
        Ok(writer)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the struct")]
    fn with(
        folder: Folder,
        lock: Lock,
        config: &WriterConfig,
        codec: Codec,
        manifest: Option<Manifest>,
        session: Session,
        parts: Parts,
        lengths: Vec<u32>,
    ) -> Self {
        let (assigner, config) = (codec.assigner(), config.clone());
        let (waiting, n_waiting_passages, has_failed) = (Vec::new(), 0, false);
        Self {
            folder,
            _lock: lock,
            config,
            codec,
            assigner,
            manifest,
            session,
            parts,
            lengths,
            waiting,
            n_waiting_passages,
            has_failed,
        }
    }

    /// How many passages were pushed into this segment, in this session and the ones that it continues.
    pub fn n_passages(&self) -> u32 {
        self.lengths.len() as u32
    }

    /// The number of the segment's first passage.
    pub fn first_passage(&self) -> u32 {
        self.session.first_passage
    }

    /// What the caller said that the passages come from.
    pub fn source(&self) -> &str {
        &self.session.source
    }

    /// The codec.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// Adds a passage with its vectors (`n_tokens x dim`, of any length but zero; none at all are fine) and returns its number.
    pub fn push(&mut self, vectors: &[f32]) -> Result<u32, IndexError> {
        self.check()?;
        let dim = self.codec.dim();
        if !vectors.len().is_multiple_of(dim) {
            return Err(IndexError::Dimension { dim, n_values: vectors.len() });
        }
        let number = self.session.first_passage.checked_add(self.n_passages()).filter(|number| *number < u32::MAX);
        let Some(number) = number else { return Err(IndexError::Full { dir: self.folder.dir.clone() }) };
        let first = self.waiting.len();
        self.waiting.extend_from_slice(vectors);
        if let Err(error) = normalize(&mut self.waiting[first..], dim, || format!("passage {number}")) {
            // The passage is not in, and another can be pushed in its place.
            self.waiting.truncate(first);
            return Err(error);
        }
        self.lengths.push((vectors.len() / dim) as u32);
        self.n_waiting_passages += 1;
        if 4 * self.waiting.len() >= self.chunk_bytes() {
            self.flush()?;
        }
        Ok(number)
    }

    /// Makes everything pushed so far durable: a kill does not lose it.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        self.flush()?;
        self.has_failed = true;
        self.session.offsets = self.parts.offsets.sync()?;
        self.session.codes = self.parts.codes.sync()?;
        self.session.residuals = self.parts.residuals.sync()?;
        self.session.n_passages = self.n_passages();
        self.folder.write_session(&self.session)?;
        self.has_failed = false;
        Ok(())
    }

    /// Makes the segment part of the index. Killed in the middle, [`Writer::resume`] and this repeat it.
    pub fn finish(mut self) -> Result<(), IndexError> {
        self.commit()?;
        let mut manifest = self.manifest.take().unwrap_or_else(|| Manifest::first(self.session.codec.clone()));
        if self.session.n_passages > 0 {
            let entry = self.parts.finish(&self.folder, &self.codec, &self.session, &self.lengths, &self.config)?;
            manifest.n_passages = entry.first_passage + entry.n_passages;
            manifest.segments.push(entry);
        }
        manifest.generation += 1;
        self.folder.write_manifest(&manifest)?;
        self.folder.remove(SESSION)?;
        self.folder.remove_leftovers()
    }

    /// Gives up the segment: the index is as it was before, and one that was never finished is gone.
    pub fn abandon(self) -> Result<(), IndexError> {
        self.folder.remove(SESSION)?;
        self.folder.remove_leftovers()
    }

    fn check(&self) -> Result<(), IndexError> {
        if self.has_failed { Err(IndexError::WriterFailed { dir: self.folder.dir.clone() }) } else { Ok(()) }
    }

    fn chunk_bytes(&self) -> usize {
        // Encoding needs about as much again: codes, residuals, and the products of a block for every thread.
        MAX_CHUNK_BYTES.min((self.config.memory_mb << 20) / 2)
    }

    /// Encodes what waits and writes it, not yet durably.
    fn flush(&mut self) -> Result<(), IndexError> {
        self.check()?;
        self.has_failed = true;
        let encoded = self.codec.encode(&self.assigner, &self.waiting);
        let code_bytes = self.codec.code_bytes();
        let mut codes = Vec::with_capacity(encoded.centroids.len() * code_bytes);
        for centroid in &encoded.centroids {
            codes.extend_from_slice(&centroid.to_le_bytes()[..code_bytes]);
        }
        let mut offsets = Vec::with_capacity(8 * self.n_waiting_passages);
        let mut n_tokens = self.session.n_tokens;
        for length in &self.lengths[self.lengths.len() - self.n_waiting_passages..] {
            n_tokens += u64::from(*length);
            offsets.extend(n_tokens.to_le_bytes());
        }
        self.parts.codes.write(&codes)?;
        self.parts.residuals.write(&encoded.residuals)?;
        self.parts.offsets.write(&offsets)?;
        self.session.n_tokens = n_tokens;
        self.session.n_outliers += encoded.n_outliers;
        self.waiting.clear();
        self.n_waiting_passages = 0;
        self.has_failed = false;
        Ok(())
    }
}

/// The files of a segment that is being written.
pub(crate) struct Parts {
    pub(crate) offsets: Part,
    pub(crate) codes: Part,
    pub(crate) residuals: Part,
}

impl Parts {
    pub(crate) fn create(folder: &Folder, segment: u64) -> Result<Self, IndexError> {
        let part = |part| Part::create(folder, segment_file(segment, part));
        Ok(Self { offsets: part("offsets")?, codes: part("codes")?, residuals: part("residuals")? })
    }

    fn resume(folder: &Folder, session: &Session) -> Result<Self, IndexError> {
        let part = |part, committed| Part::resume(folder, segment_file(session.segment, part), committed);
        Ok(Self {
            offsets: part("offsets", session.offsets)?,
            codes: part("codes", session.codes)?,
            residuals: part("residuals", session.residuals)?,
        })
    }

    /// Writes the postings and gives all files their names. Everything in them is durable.
    pub(crate) fn finish(
        &mut self,
        folder: &Folder,
        codec: &Codec,
        session: &Session,
        lengths: &[u32],
        config: &WriterConfig,
    ) -> Result<SegmentEntry, IndexError> {
        let mut postings = Part::create(folder, segment_file(session.segment, "postings"))?;
        let codes = CodesFile {
            path: &folder.path(&self.codes.part_name()),
            code_bytes: codec.code_bytes(),
            n_centroids: codec.n_centroids(),
            lengths,
        };
        codes.write_postings((config.memory_mb << 20) / 2, |bytes| postings.write(bytes))?;
        Ok(SegmentEntry {
            number: session.segment,
            first_passage: session.first_passage,
            n_passages: session.n_passages,
            n_tokens: session.n_tokens,
            max_tokens: lengths.iter().copied().max().unwrap_or(0),
            n_outliers: session.n_outliers,
            source: session.source.clone(),
            offsets: self.offsets.finish(folder)?,
            codes: self.codes.finish(folder)?,
            residuals: self.residuals.finish(folder)?,
            postings: postings.finish(folder)?,
        })
    }
}

/// A file that grows under the name `<name>.part`.
pub(crate) struct Part {
    name: String,
    path: std::path::PathBuf,
    file: File,
    n_bytes: u64,
    hasher: crc32fast::Hasher,
}

impl Part {
    fn create(folder: &Folder, name: String) -> Result<Self, IndexError> {
        let path = folder.path(&format!("{name}.part"));
        let file = File::create(&path).map_err(|error| io_error(&path, error))?;
        Ok(Self { name, path, file, n_bytes: 0, hasher: crc32fast::Hasher::new() })
    }

    /// Opens what was committed and cuts off what was not.
    fn resume(folder: &Folder, name: String, committed: Committed) -> Result<Self, IndexError> {
        let path = folder.path(&format!("{name}.part"));
        if !path.exists() && folder.path(&name).exists() {
            // Killed after it had got its name and before the manifest.
            folder.rename(&name, &format!("{name}.part"))?;
        }
        let open = || {
            let mut file = File::options().read(true).write(true).open(&path)?;
            let n_found = file.metadata()?.len();
            if n_found >= committed.n_bytes {
                file.set_len(committed.n_bytes)?;
                file.seek(SeekFrom::End(0))?;
            }
            Ok((file, n_found))
        };
        let (file, n_found) = open().map_err(|error| io_error(&path, error))?;
        if n_found < committed.n_bytes {
            return Err(damaged(&path, format!("it has {n_found} bytes of {} committed ones", committed.n_bytes)));
        }
        let hasher = crc32fast::Hasher::new_with_initial_len(committed.crc32, committed.n_bytes);
        Ok(Self { name, path, file, n_bytes: committed.n_bytes, hasher })
    }

    fn part_name(&self) -> String {
        format!("{}.part", self.name)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.file.write_all(bytes).map_err(|error| io_error(&self.path, error))?;
        self.n_bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<Committed, IndexError> {
        self.file.sync_all().map_err(|error| io_error(&self.path, error))?;
        Ok(Committed { n_bytes: self.n_bytes, crc32: self.hasher.clone().finalize() })
    }

    fn finish(&mut self, folder: &Folder) -> Result<FileEntry, IndexError> {
        let Committed { n_bytes, crc32 } = self.sync()?;
        folder.rename(&self.part_name(), &self.name)?;
        Ok(FileEntry { name: self.name.clone(), n_bytes, crc32 })
    }
}

/// The tokens of each committed passage.
fn committed_lengths(folder: &Folder, session: &Session) -> Result<Vec<u32>, IndexError> {
    let path = folder.path(&format!("{}.part", segment_file(session.segment, "offsets")));
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|error| io_error(&path, error))?;
    let offsets: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
    let lengths: Option<Vec<u32>> =
        offsets.windows(2).map(|pair| u32::try_from(pair[1].checked_sub(pair[0])?).ok()).collect();
    let ends = (offsets.first().copied(), offsets.last().copied());
    match lengths {
        Some(lengths) if lengths.len() == session.n_passages as usize && ends == (Some(0), Some(session.n_tokens)) => {
            Ok(lengths)
        }
        _ => Err(damaged(&path, "its offsets are not those of the committed passages")),
    }
}

/// Opens the codec after a look at its checksum: all else depends on it, and it is read as a whole anyway.
pub(crate) fn open_codec(folder: &Folder, entry: &FileEntry) -> Result<Codec, IndexError> {
    let path = folder.path(&entry.name);
    if crc32fast::hash(map(folder, entry)?.bytes()) != entry.crc32 {
        return Err(damaged(&path, "its checksum is another"));
    }
    Codec::open(&path)
}

/// A number that no segment has or had.
pub(crate) fn next_segment(manifest: &Manifest) -> u64 {
    // The generation grows by at least one with every segment.
    manifest.segments.iter().map(|segment| segment.number + 1).max().unwrap_or(0).max(manifest.generation)
}
