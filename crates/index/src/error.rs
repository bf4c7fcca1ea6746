//! What can go wrong with an index, by what the caller can do about it.
use std::io;
use std::path::{Path, PathBuf};

/// Why an index could not be built, changed, opened or searched. Every message names the folder or file and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The folder holds no index, and for a build: holds something else.
    #[error("{} is not a late-interaction index: {reason}; name the folder that the index was built in, or build into a new one", dir.display())]
    NotAnIndex {
        /// The folder.
        dir: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// A build was to begin where there is an index already, finished or not.
    #[error("{} already holds an index; append to it, remove it, or choose another folder", dir.display())]
    AlreadyExists {
        /// The folder.
        dir: PathBuf,
    },
    /// Passages are being added and the last of them have not come yet.
    #[error("the index in {} is not finished; continue what was begun with the same passages, or abandon it", dir.display())]
    Unfinished {
        /// The folder.
        dir: PathBuf,
    },
    /// Another version of this program wrote the index in a format that this one does not read.
    #[error("{} has format version {found}, this program reads {expected}; build the index again", path.display())]
    FormatVersion {
        /// The manifest or codec.
        path: PathBuf,
        /// The version that it names.
        found: u64,
        /// The version that this program reads and writes.
        expected: u64,
    },
    /// A file of the index is missing, cut short or not what it should be.
    #[error("{} is damaged: {reason}; build the index again or restore the file", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// Another process or thread changes the index.
    #[error("the index in {} is being changed by another process; wait for it to finish", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// Vectors are not rows of the index's dimension.
    #[error(
        "{n_values} values are not whole vectors of {dim} dimensions; use the encoder that the index was built with"
    )]
    Dimension {
        /// The index's dimension.
        dim: usize,
        /// The values that came.
        n_values: usize,
    },
    /// A vector has no direction.
    #[error("vector {row} of the {what} {reason}; its encoder has failed")]
    Vector {
        /// Query, sample or passage with its number.
        what: String,
        /// Which of its vectors, from 0.
        row: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The sample has no vectors.
    #[error("a codec cannot be trained without vectors; give at least some thousand")]
    EmptySample,
    /// A setting is out of its range.
    #[error("index setting {name} is {value}, it must be {expected}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// Passage numbers have 32 bits.
    #[error("the index in {} is full: it holds 2^32 - 1 passages; split the corpus", dir.display())]
    Full {
        /// The folder.
        dir: PathBuf,
    },
    /// There is no such passage.
    #[error("passage {passage} is not in the index, which has {n_passages}, counted from 0")]
    NoSuchPassage {
        /// Its number.
        passage: u32,
        /// How many there are.
        n_passages: u32,
    },
    /// The writer could not write before. What was committed is kept.
    #[error("an earlier write to the index in {} failed; drop this writer and resume from the last commit", dir.display())]
    WriterFailed {
        /// The folder.
        dir: PathBuf,
    },
    /// The disk is full. What was committed before is kept.
    #[error("no space left for {}; free some and resume, what was committed is kept", path.display())]
    DiskFull {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file could not be read or written. What was committed before is kept.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// An error of the system on `path`.
pub(crate) fn io_error(path: &Path, source: io::Error) -> IndexError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => IndexError::DiskFull { path: path.to_owned() },
        _ => IndexError::Io { path: path.to_owned(), source },
    }
}

pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> IndexError {
    IndexError::Damaged { path: path.to_owned(), reason: reason.into() }
}
