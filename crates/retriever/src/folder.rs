//! An index folder of any kind: what is in it, in what state it is, and which unfinished build can be continued.
//!
//! ```text
//! manifest.json   exists only when the index is complete; names the data folder; written last
//! build.lock      held by the process that builds
//! data-<n>/       the index's files, and plan.json: what they are made from
//! ```
//! A rebuild writes a new data folder beside the one in use, then replaces the manifest, then removes the old data.
//! Knows nothing of what an index's files hold.
use crate::Error;
use crate::error::io_error;
use crate::files::{read_json, temporary, write_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

pub(crate) const MANIFEST: &str = "manifest.json";
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

/// A file of the index, relative to its data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
}

/// Where an index is built.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The index folder: one that does not exist, is empty, or holds an index.
    pub dir: &'a Path,
    /// Builds even where a finished or unfinished index is. An unfinished build of the same index is continued all the
    /// same. The finished index stays usable until the new one is complete.
    pub replace: bool,
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// An unfinished build was found; its first passages are skipped, not indexed again.
    Resumed {
        /// How many.
        n_passages: u64,
    },
    /// Passages were handed to the indexing threads.
    Indexed {
        /// All so far, those of earlier runs included.
        n_passages: u64,
    },
    /// Passages are on disk: a kill does not lose them.
    Committed {
        /// All so far.
        n_passages: u64,
    },
    /// All passages are on disk; what makes searching fast is being finished.
    Merging,
}

/// What a build found to do. `M` is the index's manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Built<M> {
    /// The index was built, or an unfinished one was completed.
    Completed(M),
    /// The folder holds a complete index of the same source and settings; nothing was read.
    AlreadyComplete(M),
}

/// What tells the manifests of one kind of index from others.
pub(crate) struct Format {
    /// As the manifest says it.
    pub(crate) kind: &'static str,
    /// As a message says it.
    pub(crate) noun: &'static str,
    pub(crate) version: u64,
}

/// What a build in progress is made from.
pub(crate) trait Plan: Serialize + DeserializeOwned {
    /// `None` when both make the same index, otherwise how this one differs.
    fn difference(&self, wanted: &Self) -> Option<String>;
}

/// What a complete index of one kind says of itself.
pub(crate) trait Complete: DeserializeOwned {
    /// What its builds are made from.
    type Plan: Plan;

    /// The plan that made it; `None` when it does not say.
    fn plan(&self) -> Option<Self::Plan>;

    /// The folder of its data.
    fn data(&self) -> &str;
}

/// An index folder, which need not exist.
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
    format: &'static Format,
}

impl SourceId {
    /// `None` when both name the same corpus.
    pub(crate) fn difference(&self, other: &SourceId) -> Option<String> {
        let is_same = self.n_bytes == other.n_bytes && self.fingerprint == other.fingerprint;
        (!is_same).then(|| format!("it is made from {} ({} bytes)", self.path, self.n_bytes))
    }
}

impl Folder {
    pub(crate) fn new(dir: &Path, format: &'static Format) -> Self {
        Self { dir: dir.to_owned(), format }
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The manifest, or `None` when there is none. Checks format version and kind before anything else of it.
    pub(crate) fn manifest<M: DeserializeOwned>(&self) -> Result<Option<M>, Error> {
        let Some(json) = read_manifest(&self.dir)? else { return Ok(None) };
        let text = |key: &str| json.get(key).and_then(|value| value.as_str());
        if text("kind") != Some(self.format.kind) {
            return Err(self.not_an_index(format!("its manifest is of kind {:?}", text("kind").unwrap_or("unknown"))));
        }
        let expected = self.format.version;
        match json.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(found) if found == expected => {}
            Some(found) => return Err(Error::FormatVersion { dir: self.dir.clone(), found, expected }),
            None => return Err(self.damaged(format!("{MANIFEST} has no format version"))),
        }
        serde_json::from_value(json).map(Some).map_err(|error| self.damaged(format!("{MANIFEST}: {error}")))
    }

    /// The data folders in the order of their numbers.
    pub(crate) fn data_names(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<String> =
            self.entries(&self.dir)?.into_iter().filter(|name| data_number(name).is_some()).collect();
        names.sort_by_key(|name| data_number(name));
        Ok(names)
    }

    /// Nothing is ever written into, or removed from, a folder that holds other things than an index of ours.
    pub(crate) fn refuse_foreign(&self) -> Result<(), Error> {
        let is_ours =
            |name: &str| name == LOCK || name == MANIFEST || name == temporary(MANIFEST) || data_number(name).is_some();
        match self.entries(&self.dir)?.into_iter().find(|name| !is_ours(name)) {
            Some(name) => Err(self.not_an_index(format!("it holds {name:?}"))),
            None => Ok(()),
        }
    }

    /// What the data folder is made from; `None` when its build was killed before it said so.
    pub(crate) fn plan<P: DeserializeOwned>(&self, data: &str) -> Result<Option<P>, Error> {
        let Some(json) = read_json(&self.data(data).join(PLAN), &self.dir)? else { return Ok(None) };
        serde_json::from_value(json).map(Some).map_err(|error| self.damaged(format!("{data}/{PLAN}: {error}")))
    }

    /// Makes the next data folder.
    pub(crate) fn create_data(&self, plan: &impl Serialize) -> Result<String, Error> {
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
    pub(crate) fn write_manifest(&self, manifest: &impl Serialize) -> Result<(), Error> {
        write_json(&self.dir, MANIFEST, manifest)
    }

    /// The files of a data folder that belong to the index, with their sizes.
    pub(crate) fn data_files(&self, data: &str, belongs: impl Fn(&str) -> bool) -> Result<Vec<IndexFile>, Error> {
        let path = self.data(data);
        let mut files = Vec::new();
        for name in self.entries(&path)?.into_iter().filter(|name| belongs(name)) {
            let file = path.join(&name);
            let n_bytes = fs::metadata(&file).map_err(|error| io_error(&file, error))?.len();
            files.push(IndexFile { name, n_bytes });
        }
        files.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(files)
    }

    /// Removes a file of a data folder; one that is gone is fine.
    pub(crate) fn remove_file(&self, data: &str, name: &str) -> Result<(), Error> {
        let path = self.data(data).join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(&path, error)),
            _ => Ok(()),
        }
    }

    /// Errors when a file of the index is missing or has another size. Does not read them.
    pub(crate) fn check_files(&self, data: &str, files: &[IndexFile]) -> Result<(), Error> {
        for file in files {
            let path = self.data(data).join(&file.name);
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

    /// Makes the folder, unless it holds other things, and [locks](Self::lock) it.
    pub(crate) fn begin(&self) -> Result<File, Error> {
        self.refuse_foreign()?;
        fs::create_dir_all(&self.dir).map_err(|error| io_error(&self.dir, error))?;
        self.lock()
    }

    /// The manifest of a complete index that makes this build needless. An index that differs, is damaged or of another
    /// format is an error unless it is to be replaced; one of another kind always is. `open` notices damage, which "nothing
    /// to do" would hide.
    pub(crate) fn finished<M: Complete>(
        &self,
        plan: &M::Plan,
        replace: bool,
        open: impl FnOnce(&M) -> Result<(), Error>,
    ) -> Result<Option<M>, Error> {
        let manifest = match self.manifest::<M>() {
            Err(Error::Damaged { .. } | Error::FormatVersion { .. }) if replace => return Ok(None),
            manifest => manifest?,
        };
        let Some(manifest) = manifest.filter(|_| !replace) else { return Ok(None) };
        if let Some(reason) = manifest.plan().and_then(|built| built.difference(plan)) {
            return Err(Error::OtherIndex { dir: self.dir.clone(), reason });
        }
        open(&manifest)?;
        self.remove_other_data(manifest.data())?;
        Ok(Some(manifest))
    }

    /// What a failed build leaves: what it has done, to be continued, but nothing of a corpus of which no index can be made.
    pub(crate) fn keep_or_drop(&self, data: &str, error: Error) -> Error {
        match error {
            Error::DuplicateId { .. } => self.remove_data(data).err().unwrap_or(error),
            error => error,
        }
    }

    pub(crate) fn damaged(&self, reason: String) -> Error {
        Error::Damaged { dir: self.dir.clone(), reason }
    }

    pub(crate) fn not_an_index(&self, reason: String) -> Error {
        Error::NotAnIndex { dir: self.dir.clone(), expected: self.format.noun, reason }
    }

    /// Why there is no manifest: an error for someone who wants to open the index.
    pub(crate) fn incomplete(&self) -> Error {
        match self.data_names() {
            Err(error) => error,
            Ok(names) if !names.is_empty() => Error::Unfinished { dir: self.dir.clone() },
            Ok(_) => {
                let reason = if self.dir.exists() { "it has no manifest.json" } else { "it does not exist" };
                self.not_an_index(reason.to_owned())
            }
        }
    }

    /// The data folder to write into: that of an unfinished build of the same index, or a new one. `continues` tells whether
    /// an unfinished one is in a state that can be gone on with.
    pub(crate) fn choose_data<M: Complete>(
        &self,
        wanted: &M::Plan,
        replace: bool,
        continues: impl Fn(&Path) -> bool,
    ) -> Result<String, Error> {
        // Unreadable only when it is to be replaced. Which data it names is unknown then: all of it may be damaged.
        let complete = self.manifest::<M>().ok().flatten();
        let in_use = complete.as_ref().map(M::data);
        let mut unfinished = None;
        for name in self.data_names()?.into_iter().filter(|name| in_use != Some(name.as_str())) {
            let difference = match self.plan::<M::Plan>(&name) {
                Ok(Some(plan)) => plan.difference(wanted),
                // Killed before its plan was written: there is nothing in it.
                Ok(None) => {
                    self.remove_data(&name)?;
                    continue;
                }
                Err(error) if !replace => return Err(error),
                Err(error) => Some(error.to_string()),
            };
            match difference {
                None if unfinished.is_none() => unfinished = Some(name),
                Some(reason) if !replace => {
                    let reason = format!("an unfinished one, {reason}");
                    return Err(Error::OtherIndex { dir: self.dir.clone(), reason });
                }
                _ => self.remove_data(&name)?,
            }
        }
        match unfinished {
            Some(name) if !replace || continues(&self.data(&name)) => Ok(name),
            damaged => {
                if let Some(name) = damaged {
                    self.remove_data(&name)?;
                }
                self.create_data(wanted)
            }
        }
    }

    pub(crate) fn remove_other_data(&self, keep: &str) -> Result<(), Error> {
        for name in self.data_names()?.iter().filter(|name| *name != keep) {
            self.remove_data(name)?;
        }
        Ok(())
    }

    /// The names in a folder; none when it does not exist.
    fn entries(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(self.not_an_index("it is a file".to_owned()));
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
}

/// The manifest in a folder, whatever its kind. Those of the first versions do not say theirs, which was BM25.
pub(crate) fn read_manifest(dir: &Path) -> Result<Option<serde_json::Value>, Error> {
    let mut manifest = read_json(&dir.join(MANIFEST), dir)?;
    if let Some(manifest) = &mut manifest
        && manifest.get("tantivy").is_some()
        && manifest.get("kind").is_none()
    {
        manifest["kind"] = "bm25".into();
    }
    Ok(manifest)
}

fn data_number(name: &str) -> Option<u64> {
    name.strip_prefix(DATA_PREFIX)?.parse().ok()
}
