//! The index folder: what is in it, which of it counts, and how it changes without a reader noticing.
use crate::IndexError;
use crate::error::{damaged, io_error};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Of the folder's layout and of every file in it. Goes up with every incompatible change.
pub const FORMAT_VERSION: u64 = 1;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SESSION: &str = "session.json";
pub(crate) const CODEC: &str = "codec.bin";
const LOCK: &str = "writer.lock";
const KIND: &str = "late";

/// A file of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) n_bytes: u64,
    pub(crate) crc32: u32,
}

/// Passages that were added together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentEntry {
    /// In the names of its files.
    pub(crate) number: u64,
    pub(crate) first_passage: u32,
    pub(crate) n_passages: u32,
    pub(crate) n_tokens: u64,
    /// Those of its longest passage.
    pub(crate) max_tokens: u32,
    /// Tokens farther from their centroid than 99 of 100 of the codec's sample.
    pub(crate) n_outliers: u64,
    /// What the caller says that it was made from.
    pub(crate) source: String,
    pub(crate) offsets: FileEntry,
    pub(crate) codes: FileEntry,
    pub(crate) residuals: FileEntry,
    pub(crate) postings: FileEntry,
}

/// What a complete index consists of. A change writes the next generation of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) format_version: u64,
    pub(crate) kind: String,
    pub(crate) generation: u64,
    pub(crate) n_passages: u32,
    pub(crate) n_deleted: u32,
    pub(crate) codec: FileEntry,
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) deleted: Option<FileEntry>,
}

/// How much of a growing file is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Committed {
    pub(crate) n_bytes: u64,
    pub(crate) crc32: u32,
}

/// A segment that is being written, as of its last commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Session {
    pub(crate) format_version: u64,
    pub(crate) kind: String,
    pub(crate) codec: FileEntry,
    pub(crate) segment: u64,
    pub(crate) first_passage: u32,
    pub(crate) n_passages: u32,
    pub(crate) n_tokens: u64,
    pub(crate) n_outliers: u64,
    pub(crate) source: String,
    pub(crate) offsets: Committed,
    pub(crate) codes: Committed,
    pub(crate) residuals: Committed,
}

/// JSON with a checksum of its content, as serde_json writes that without spaces.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<T> {
    crc32: u32,
    content: T,
}

/// An index folder, which need not exist.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
}

/// Keeps others from changing the index until it is dropped; the system frees it when this process is killed.
pub(crate) struct Lock {
    _file: File,
}

impl SegmentEntry {
    pub(crate) fn files(&self) -> [&FileEntry; 4] {
        [&self.offsets, &self.codes, &self.residuals, &self.postings]
    }
}

impl Manifest {
    pub(crate) fn first(codec: FileEntry) -> Self {
        let (format_version, kind) = (FORMAT_VERSION, KIND.to_owned());
        let (segments, deleted) = (Vec::new(), None);
        Self { format_version, kind, generation: 0, n_passages: 0, n_deleted: 0, codec, segments, deleted }
    }

    /// Every file that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let segments = self.segments.iter().flat_map(SegmentEntry::files);
        [&self.codec].into_iter().chain(segments).chain(&self.deleted)
    }
}

impl Session {
    pub(crate) fn new(codec: FileEntry, segment: u64, first_passage: u32, source: &str) -> Self {
        let (format_version, kind) = (FORMAT_VERSION, KIND.to_owned());
        let (offsets, codes, residuals) = Default::default();
        let (n_passages, n_tokens, n_outliers, source) = (0, 0, 0, source.to_owned());
        Self {
            format_version,
            kind,
            codec,
            segment,
            first_passage,
            n_passages,
            n_tokens,
            n_outliers,
            source,
            offsets,
            codes,
            residuals,
        }
    }
}

impl Folder {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The manifest of a complete index, or why there is none.
    pub(crate) fn manifest(&self) -> Result<Manifest, IndexError> {
        if let Some(manifest) = self.read_sealed(MANIFEST)? {
            return Ok(manifest);
        }
        if self.path(SESSION).exists() {
            return Err(IndexError::Unfinished { dir: self.dir.clone() });
        }
        let reason = if self.dir.exists() { "it has no manifest.json" } else { "it does not exist" };
        Err(IndexError::NotAnIndex { dir: self.dir.clone(), reason: reason.to_owned() })
    }

    /// The manifest, or `None` before the first segment is finished.
    pub(crate) fn manifest_if_any(&self) -> Result<Option<Manifest>, IndexError> {
        self.read_sealed(MANIFEST)
    }

    /// The segment that is being written, if one is.
    pub(crate) fn session(&self) -> Result<Option<Session>, IndexError> {
        self.read_sealed(SESSION)
    }

    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> Result<(), IndexError> {
        self.write_sealed(MANIFEST, manifest)
    }

    pub(crate) fn write_session(&self, session: &Session) -> Result<(), IndexError> {
        self.write_sealed(SESSION, session)
    }

    fn write_sealed(&self, name: &str, content: &impl Serialize) -> Result<(), IndexError> {
        let crc32 = crc32fast::hash(&serde_json::to_vec(content).expect("plain structs serialize"));
        let mut bytes = serde_json::to_vec_pretty(&Sealed { crc32, content }).expect("plain structs serialize");
        bytes.push(b'\n');
        self.write_file(name, &bytes).map(drop)
    }

    /// `None` when there is no such file. Checks kind and version before anything else of it.
    fn read_sealed<T: Serialize + DeserializeOwned>(&self, name: &str) -> Result<Option<T>, IndexError> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(io_error(&path, error)),
        };
        let as_json = |error: serde_json::Error| damaged(&path, error.to_string());
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(as_json)?;
        let content = value.get("content");
        if content.and_then(|content| content.get("kind")?.as_str()) != Some(KIND) {
            let reason = format!("{name} is not that of a late-interaction index");
            return Err(IndexError::NotAnIndex { dir: self.dir.clone(), reason });
        }
        match content.and_then(|content| content.get("format_version")?.as_u64()) {
            Some(FORMAT_VERSION) => {}
            Some(found) => return Err(IndexError::FormatVersion { path, found, expected: FORMAT_VERSION }),
            None => return Err(damaged(&path, "it has no format version")),
        }
        let sealed: Sealed<T> = serde_json::from_value(value).map_err(as_json)?;
        let crc32 = crc32fast::hash(&serde_json::to_vec(&sealed.content).expect("plain structs serialize"));
        if crc32 != sealed.crc32 {
            return Err(damaged(&path, "its checksum is another"));
        }
        Ok(Some(sealed.content))
    }

    /// Either the whole file is there under its name afterwards, or what was there before.
    pub(crate) fn write_file(&self, name: &str, bytes: &[u8]) -> Result<FileEntry, IndexError> {
        let temporary = self.path(&format!("{name}.tmp"));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|error| io_error(&temporary, error))?;
        self.rename(&format!("{name}.tmp"), name)?;
        Ok(FileEntry { name: name.to_owned(), n_bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
    }

    /// Gives a file its final name, durably.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), IndexError> {
        let path = self.path(to);
        fs::rename(self.path(from), &path).map_err(|error| io_error(&path, error))?;
        // Windows neither needs nor allows to sync a folder.
        if cfg!(unix) {
            let sync = || File::open(&self.dir)?.sync_all();
            sync().map_err(|error| io_error(&self.dir, error))?;
        }
        Ok(())
    }

    /// Removes a file; one that is gone is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), IndexError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if !is_missing(&error) => Err(io_error(&path, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn lock(&self) -> Result<Lock, IndexError> {
        let path = self.path(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| io_error(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(IndexError::Locked { dir: self.dir.clone() }),
            Err(TryLockError::Error(error)) => Err(io_error(&path, error)),
        }
    }

    /// Nothing is ever written into, or removed from, a folder that holds other things than an index of ours.
    pub(crate) fn refuse_foreign(&self) -> Result<(), IndexError> {
        match self.names()?.into_iter().find(|name| !is_ours(name)) {
            Some(name) => Err(IndexError::NotAnIndex { dir: self.dir.clone(), reason: format!("it holds {name:?}") }),
            None => Ok(()),
        }
    }

    /// Removes what a killed writer left: files that neither the manifest nor the session names. Only under the lock.
    pub(crate) fn remove_leftovers(&self) -> Result<(), IndexError> {
        let (manifest, session) = (self.manifest_if_any()?, self.session()?);
        let mut keep: Vec<String> = [LOCK, MANIFEST, SESSION].map(str::to_owned).to_vec();
        keep.extend(manifest.iter().flat_map(Manifest::files).map(|file| file.name.clone()));
        if let Some(session) = &session {
            keep.push(session.codec.name.clone());
            let names = ["offsets", "codes", "residuals"].map(|part| segment_file(session.segment, part));
            keep.extend(names.iter().map(|name| format!("{name}.part")));
            keep.extend(names);
        }
        for name in self.names()?.iter().filter(|name| is_ours(name) && !keep.contains(name)) {
            self.remove(name)?;
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, IndexError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(IndexError::NotAnIndex { dir: self.dir.clone(), reason: "it is a file".to_owned() });
            }
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(io_error(&self.dir, error)),
        };
        let name =
            |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<io::Result<_>>().map_err(|error| io_error(&self.dir, error))
    }
}

/// The name of a segment's file.
pub(crate) fn segment_file(number: u64, part: &str) -> String {
    format!("segment-{number}.{part}")
}

/// The checksum and size of a file, read front to back.
pub(crate) fn checksum(path: &Path) -> io::Result<Committed> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let (mut buffer, mut n_bytes) = (vec![0u8; 1 << 20], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Committed { n_bytes, crc32: hasher.finalize() }),
            n => {
                hasher.update(&buffer[..n]);
                n_bytes += n as u64;
            }
        }
    }
}

pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").or(name.strip_suffix(".part")).unwrap_or(name);
    let numbered = |prefix: &str, suffixes: &[&str]| {
        let rest = name.strip_prefix(prefix).and_then(|rest| rest.split_once('.'));
        rest.is_some_and(|(number, suffix)| number.parse::<u64>().is_ok() && suffixes.contains(&suffix))
    };
    [LOCK, MANIFEST, SESSION, CODEC].contains(&name)
        || numbered("segment-", &["offsets", "codes", "residuals", "postings"])
        || numbered("deleted-", &["bits"])
}
