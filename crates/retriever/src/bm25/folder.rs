//! The index folder: what is in it, what it was made from, and in what state it is.
//!
//! ```text
//! manifest.json   exists only when the index is complete; names the data folder; written last
//! build.lock      held by the process that builds
//! data-<n>/       tantivy's files, and plan.json: what they are made from
//! ```
//! A rebuild writes a new data folder beside the one in use, then replaces the manifest, then removes the old data.
use crate::Error;
use crate::error::io_error;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Of the folder's layout and of what is stored in the index. Goes up with every incompatible change.
pub const FORMAT_VERSION: u64 = 1;

const KIND: &str = "bm25";
const MANIFEST: &str = "manifest.json";
const PLAN: &str = "plan.json";
const LOCK: &str = "build.lock";
const DATA_PREFIX: &str = "data-";

/// Says which corpus an index was made from. Two are the same when size and hash are; the path is for readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceId {
    /// Where the corpus was read from.
    pub path: String,
    /// Its size.
    pub n_bytes: u64,
    /// A hash of its content, such as `sha256:<hex>`.
    pub fingerprint: String,
}

/// How text becomes words. Part of what an index is: a change needs a rebuild.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Analysis {
    /// Cuts English endings (Snowball), so that "lived" finds "living".
    pub stemming: bool,
}

/// How an index is built. Only `analysis` changes what searches return.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bm25Config {
    /// How text becomes words.
    pub analysis: Analysis,
    /// Threads that turn passages into postings, 1 to 8; one more merges.
    pub n_threads: usize,
    /// What these threads buffer together before they write, in MiB: at least 15 a thread. Checking that ids are unique
    /// takes about 9 to 18 bytes a passage on top (21M passages: 300 MB).
    pub memory_mb: usize,
    /// A killed build loses at most this many passages. Smaller values make more, smaller writes.
    pub commit_every: u64,
}

/// A file of the index, relative to its data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
}

/// What a complete index says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the program that built it.
    pub format_version: u64,
    /// `bm25`.
    pub kind: String,
    /// The number of passages in it.
    pub n_passages: u64,
    /// What it was made from.
    pub source: SourceId,
    /// How it was built.
    pub config: Bm25Config,
    /// The version of the tantivy library that wrote it.
    pub tantivy: String,
    /// The folder of its data.
    pub data: String,
    /// Its files, to notice missing and shortened ones.
    pub files: Vec<IndexFile>,
}

/// What a build in progress is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) format_version: u64,
    pub(crate) source: SourceId,
    pub(crate) analysis: Analysis,
}

/// An index folder, which need not exist.
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
}

impl Default for Analysis {
    fn default() -> Self {
        Self { stemming: true }
    }
}

impl Default for Bm25Config {
    fn default() -> Self {
        Self { analysis: Analysis::default(), n_threads: 2, memory_mb: 200, commit_every: 200_000 }
    }
}

impl SourceId {
    pub(crate) fn is_same_content(&self, other: &SourceId) -> bool {
        self.n_bytes == other.n_bytes && self.fingerprint == other.fingerprint
    }
}

impl Plan {
    /// `None` when both make the same index, otherwise how they differ.
    pub(crate) fn difference(&self, source: &SourceId, analysis: &Analysis) -> Option<String> {
        if self.format_version != FORMAT_VERSION {
            return Some(format!("its format version is {}, not {FORMAT_VERSION}", self.format_version));
        }
        if !self.source.is_same_content(source) {
            return Some(format!("it is made from {} ({} bytes)", self.source.path, self.source.n_bytes));
        }
        (self.analysis != *analysis).then(|| format!("it is built with {:?}", self.analysis))
    }
}

impl Manifest {
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            format_version: self.format_version,
            source: self.source.clone(),
            analysis: self.config.analysis.clone(),
        }
    }
}

impl Folder {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The manifest, or `None` when there is none. Checks format version and kind before anything else of it.
    pub(crate) fn manifest(&self) -> Result<Option<Manifest>, Error> {
        let Some(json) = read_json(&self.dir.join(MANIFEST), &self.dir)? else { return Ok(None) };
        let text = |key: &str| json.get(key).and_then(|value| value.as_str());
        if text("kind") != Some(KIND) {
            let reason = format!("its manifest is of kind {:?}", text("kind").unwrap_or("unknown"));
            return Err(Error::NotAnIndex { dir: self.dir.clone(), reason });
        }
        match json.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                return Err(Error::FormatVersion { dir: self.dir.clone(), found, expected: FORMAT_VERSION });
            }
            None => return Err(self.damaged(format!("{MANIFEST} has no format version"))),
        }
        serde_json::from_value(json).map(Some).map_err(|error| self.damaged(format!("{MANIFEST}: {error}")))
    }

    /// The data folders in the order of their numbers.
    pub(crate) fn data_names(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> =
            entries(&self.dir)?.into_iter().filter(|name| data_number(name).is_some()).collect();
        names.sort_by_key(|name| data_number(name));
        Ok(names)
    }

    /// A file or folder that no index folder holds, if there is one: then this folder is not ours to write into.
    pub(crate) fn foreign_entry(&self) -> Result<Option<String>, Error> {
        let is_ours =
            |name: &str| name == LOCK || name == MANIFEST || name == temporary(MANIFEST) || data_number(name).is_some();
        Ok(entries(&self.dir)?.into_iter().find(|name| !is_ours(name)))
    }

    /// What the data folder is made from; `None` when its build was killed before it said so.
    pub(crate) fn plan(&self, data: &str) -> Result<Option<Plan>, Error> {
        let Some(json) = read_json(&self.data(data).join(PLAN), &self.dir)? else { return Ok(None) };
        serde_json::from_value(json).map(Some).map_err(|error| self.damaged(format!("{data}/{PLAN}: {error}")))
    }

    /// Makes the next data folder.
    pub(crate) fn create_data(&self, plan: &Plan) -> Result<String, Error> {
        let last = self.data_names()?.last().and_then(|name| data_number(name));
        let name = format!("{DATA_PREFIX}{}", last.map_or(0, |number| number + 1));
        let path = self.data(&name);
        fs::create_dir(&path).map_err(|error| io_error(&path, error))?;
        write_json(&path, PLAN, plan)?;
        Ok(name)
    }

    /// Removes a data folder; one that is gone is fine.
    pub(crate) fn remove_data(&self, name: &str) -> Result<(), Error> {
        let path = self.data(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(&path, error)),
            _ => Ok(()),
        }
    }

    /// Makes the index complete, in one step.
    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        write_json(&self.dir, MANIFEST, manifest)
    }

    /// The files of a data folder that belong to the index, with their sizes.
    pub(crate) fn data_files(&self, data: &str, belongs: impl Fn(&str) -> bool) -> Result<Vec<IndexFile>, Error> {
        let path = self.data(data);
        let mut files = Vec::new();
        for name in entries(&path)?.into_iter().filter(|name| belongs(name)) {
            let file = path.join(&name);
            let n_bytes = fs::metadata(&file).map_err(|error| io_error(&file, error))?.len();
            files.push(IndexFile { name, n_bytes });
        }
        files.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(files)
    }

    /// Errors when a file of the index is missing or has another size. Does not read them.
    pub(crate) fn check_files(&self, manifest: &Manifest) -> Result<(), Error> {
        for file in &manifest.files {
            let path = self.data(&manifest.data).join(&file.name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.len() == file.n_bytes => {}
                Ok(metadata) => {
                    let (found, expected) = (metadata.len(), file.n_bytes);
                    let reason = format!("{} has {found} bytes instead of {expected}", path.display());
                    return Err(self.damaged(reason));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(self.damaged(format!("{} is missing", path.display())));
                }
                Err(error) => return Err(io_error(&path, error)),
            }
        }
        Ok(())
    }

    /// Keeps other processes from building here until the file is dropped; the system frees it when this process is killed.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        let path = self.dir.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| io_error(&path, error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { dir: self.dir.clone() }),
            Err(TryLockError::Error(error)) => Err(io_error(&path, error)),
        }
    }

    pub(crate) fn damaged(&self, reason: String) -> Error {
        Error::Damaged { dir: self.dir.clone(), reason }
    }
}

/// The names in a folder; none when it does not exist.
fn entries(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(Error::NotAnIndex { dir: dir.to_owned(), reason: "it is a file".to_owned() });
        }
        Err(error) => return Err(io_error(dir, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| io_error(dir, error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn data_number(name: &str) -> Option<u64> {
    name.strip_prefix(DATA_PREFIX)?.parse().ok()
}

fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// `None` when there is no such file.
fn read_json(path: &Path, dir: &Path) -> Result<Option<serde_json::Value>, Error> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Damaged { dir: dir.to_owned(), reason: format!("{}: {error}", path.display()) }),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(io_error(path, error)),
    }
}

/// Either the whole file is there under its name afterwards, or what was there before.
fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), Error> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain structs serialize");
    bytes.push(b'\n');
    let (path, temporary) = (dir.join(name), dir.join(temporary(name)));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_folder(dir)
    };
    write().map_err(|error| io_error(&path, error))
}

/// Makes a rename in the folder durable. Windows neither needs nor allows it.
fn sync_folder(dir: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}
