//! Why something was not tracked.
use exsearch_http::{BadSetting, HttpError};
use std::path::{Path, PathBuf};

/// Why something was not tracked. None of them is a reason to stop a run.
#[derive(Debug, thiserror::Error)]
pub enum TrackError {
    /// A file could not be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting that cannot work.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// A tracker's server did not take it.
    #[error("{tracker} at {url}: {error}")]
    Server {
        /// Which tracker.
        tracker: &'static str,
        /// Where.
        url: String,
        /// What happened.
        error: HttpError,
    },
    /// A tracker's server answered something else than it should.
    #[error("{tracker} at {url} answered without {what}")]
    Answer {
        /// Which tracker.
        tracker: &'static str,
        /// Where.
        url: String,
        /// What is missing, or what the server complains of.
        what: String,
    },
}

/// For `map_err`: names the path.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrackError + '_ {
    |source| TrackError::Io { path: path.to_owned(), source }
}
