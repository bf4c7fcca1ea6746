//! What can go wrong with an index on disk, by what the caller can do about it.
use std::io;
use std::path::{Path, PathBuf};
use tantivy::TantivyError;
use tantivy::directory::error::{LockError, OpenDirectoryError, OpenReadError, OpenWriteError};

/// Why an index could not be built or opened. Every message names the folder or file and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two passages of the corpus have the same id; what was built of it has been removed.
    #[error(
        "passage id {id:?} occurs twice: passages {first} and {second} of the corpus, counted from 1; ids must be unique"
    )]
    DuplicateId {
        /// The id.
        id: String,
        /// Where it occurred first, counted from 1.
        first: u64,
        /// Where it occurred again, counted from 1.
        second: u64,
    },
    /// A passage that was to be added has the id of one that the index holds.
    #[error("passage {number} of the corpus, counted from 1, has the id {id:?}, which the index in {} has already; delete that one first, or leave this one out", dir.display())]
    IdInUse {
        /// The index folder.
        dir: PathBuf,
        /// The id.
        id: String,
        /// Where it occurred, counted from 1.
        number: u64,
    },
    /// The index holds no passage with the id; nothing was changed.
    #[error("the index in {} has no passage {id:?}", dir.display())]
    UnknownId {
        /// The index folder.
        dir: PathBuf,
        /// The id.
        id: String,
    },
    /// The late-interaction index failed.
    #[error(transparent)]
    Late(#[from] exsearch_index::IndexError),
    /// The corpus could not be read to its end. What was committed before is kept for the next call.
    #[error("passage {number} of the corpus could not be read")]
    Source {
        /// Which passage, counted from 1.
        number: u64,
        /// The reader's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The corpus does not go on where an unfinished build of it stopped, although its fingerprint is the same.
    #[error("{} holds an unfinished index of other passages ({reason}); replace it with --force or choose another folder", dir.display())]
    SourceChanged {
        /// The index folder.
        dir: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// The folder holds an index, finished or not, of another source or with other settings.
    #[error("{} already holds an index that differs: {reason}; replace it with --force or choose another folder", dir.display())]
    OtherIndex {
        /// The index folder.
        dir: PathBuf,
        /// How it differs.
        reason: String,
    },
    /// The folder holds no index of the kind, and for a build: holds something else.
    #[error("{} is not {expected}: {reason}; name the folder that the index was built in, or build into a new one", dir.display())]
    NotAnIndex {
        /// The folder.
        dir: PathBuf,
        /// What it should be, with its article.
        expected: &'static str,
        /// What was seen.
        reason: String,
    },
    /// The build of the index has not finished.
    #[error("the index in {} is not finished; run the same build again and it continues where it stopped", dir.display())]
    Unfinished {
        /// The index folder.
        dir: PathBuf,
    },
    /// Another version of this program wrote the index in a format that this one does not read.
    #[error("the index in {} has format version {found}, this program reads {expected}; build it again with --force", dir.display())]
    FormatVersion {
        /// The index folder.
        dir: PathBuf,
        /// The version in its manifest.
        found: u64,
        /// The version that this program reads and writes.
        expected: u64,
    },
    /// Files of the index are missing, cut short or not what they should be.
    #[error("the index in {} is damaged: {reason}; build it again with --force", dir.display())]
    Damaged {
        /// The index folder.
        dir: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// Another process builds into the folder.
    #[error("another process is building the index in {}; wait for it to finish", dir.display())]
    Busy {
        /// The index folder.
        dir: PathBuf,
    },
    /// A setting is out of its range.
    #[error("bm25 setting {name} is {value}, it must be {expected}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        expected: String,
    },
    /// A setting, a name or an encoder cannot be used as it is.
    #[error("{what}: {reason}")]
    InvalidConfig {
        /// Which.
        what: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The index was built with another encoder: the vectors of its passages and of queries do not belong together.
    #[error("{} was built with the encoder {path} ({expected}), this one is {found}; open that one, or build again", dir.display())]
    OtherEncoder {
        /// The index folder.
        dir: PathBuf,
        /// Where the index's encoder was.
        path: String,
        /// The fingerprint of the index's encoder.
        expected: String,
        /// The fingerprint of the encoder that was given.
        found: String,
    },
    /// The encoder of an index could not be opened.
    #[error("cannot open the encoder {}", dir.display())]
    OpenEncoder {
        /// Its folder.
        dir: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The encoder failed. What was committed before is kept for the next call.
    #[error("passages {first} to {last} of the corpus, counted from 1, got no vectors")]
    Encode {
        /// The first of those that were encoded together.
        first: u64,
        /// The last of them.
        last: u64,
        /// The encoder's error.
        source: exsearch_schema::EncodeError,
    },
    /// The disk is full. What was committed before is kept for the next call.
    #[error("no space left for the index in {}; free some and run the same build again, it continues where it stopped", dir.display())]
    DiskFull {
        /// The index folder.
        dir: PathBuf,
    },
    /// A file could not be read or written. What was committed before is kept for the next call.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The search library failed in a way that has no variant of its own.
    #[error("the search library failed on the index in {}", dir.display())]
    Library {
        /// The index folder.
        dir: PathBuf,
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<exsearch_http::BadSetting> for Error {
    fn from(error: exsearch_http::BadSetting) -> Self {
        Self::InvalidConfig { what: error.what, reason: error.reason }
    }
}

/// An error of the system on `path`.
pub(crate) fn io_error(path: &Path, source: io::Error) -> Error {
    if says_disk_full(&source) {
        return Error::DiskFull { dir: path.to_owned() };
    }
    Error::Io { path: path.to_owned(), source }
}

/// An error of tantivy on the index in `dir`; the errors of the system are dug out of it.
pub(crate) fn library_error(dir: &Path, error: TantivyError) -> Error {
    if says_disk_full(&error) {
        return Error::DiskFull { dir: dir.to_owned() };
    }
    let io = |io: &io::Error| io_error(dir, io::Error::new(io.kind(), io.to_string()));
    match &error {
        TantivyError::IoError(error) => io(error),
        TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, .. })
        | TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. })
        | TantivyError::OpenDirectoryError(OpenDirectoryError::IoError { io_error, .. }) => io(io_error),
        TantivyError::LockFailure(LockError::LockBusy, _) => Error::Busy { dir: dir.to_owned() },
        TantivyError::LockFailure(LockError::IoError(error), _) => io(error),
        TantivyError::OpenReadError(_)
        | TantivyError::OpenDirectoryError(_)
        | TantivyError::DataCorruption(_)
        | TantivyError::IncompatibleIndex(_)
        | TantivyError::DeserializeError(_) => Error::Damaged { dir: dir.to_owned(), reason: error.to_string() },
        _ => Error::Library { dir: dir.to_owned(), source: Box::new(error) },
    }
}

/// Whether an error, or one that it was made from, is of a full disk or a used-up quota. tantivy's writer threads hand on
/// their errors as text, so that where no error of the system is left the text is looked at: 28 is ENOSPC, 122 EDQUOT.
fn says_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    // The text of a system's error is its `Display` or, where a library printed it so, its `Debug`.
    let text = format!("{error} {error:?}");
    ["(os error 28)", "(os error 122)", "kind: StorageFull", "kind: QuotaExceeded"]
        .iter()
        .any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[cfg(target_os = "linux")]
    /// Linux's numbers, as tantivy 0.27 hands them on from its indexing threads.
    #[test]
    fn a_full_disk_is_told_from_other_errors_however_it_is_wrapped() {
        let dir = Path::new("index");
        let no_space = || io::Error::from_raw_os_error(28);
        let is_full = |error: Error| matches!(error, Error::DiskFull { .. });
        let wrapped = [
            TantivyError::IoError(Arc::new(no_space())),
            TantivyError::IoError(Arc::new(io::Error::other(no_space()))),
            TantivyError::IoError(Arc::new(io::Error::other("write: Disk quota exceeded (os error 122)"))),
            TantivyError::OpenWriteError(OpenWriteError::wrap_io_error(no_space(), "x.store".into())),
            TantivyError::ErrorInThread(format!("{:?}", TantivyError::IoError(Arc::new(no_space())))),
            TantivyError::ErrorInThread("No space left on device (os error 28)".to_owned()),
        ];
        for error in wrapped {
            let text = format!("{error:?}");
            assert!(is_full(library_error(dir, error)), "{text}");
        }
        for code in [5, 2, 128] {
            let error = TantivyError::ErrorInThread(io::Error::from_raw_os_error(code).to_string());
            assert!(matches!(library_error(dir, error), Error::Library { .. }), "os error {code}");
            assert!(matches!(io_error(dir, io::Error::from_raw_os_error(code)), Error::Io { .. }), "os error {code}");
        }
    }
}
