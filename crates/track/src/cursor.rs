//! What a server has been sent already, in a small file of the run folder.
use crate::error::{TrackError, io};
use crate::files::write;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a server is with a run. Kept for one address: another server is told everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cursor {
    pub(crate) url: String,
    /// The server's own name of the run, once it has one.
    pub(crate) run: String,
    /// Whether it has the configuration.
    pub(crate) has_config: bool,
    /// Parts of the record that it has.
    pub(crate) n_parts: usize,
    /// Whether it knows that the run has ended.
    pub(crate) is_finished: bool,
}

/// A cursor and its file.
pub(crate) struct CursorFile {
    path: PathBuf,
    pub(crate) at: Cursor,
}

impl CursorFile {
    /// Reads it, or starts at the beginning where there is none for this address or it cannot be read: servers take the same
    /// values twice.
    pub(crate) fn open(dir: &Path, tracker: &str, url: &str) -> Result<Self, TrackError> {
        let path = dir.join("track").join(format!("{tracker}.json"));
        let found = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Cursor::default(),
            Err(error) => return Err(io(&path)(error)),
        };
        let at = if found.url == url { found } else { Cursor { url: url.to_owned(), ..Cursor::default() } };
        Ok(Self { path, at })
    }

    /// Keeps what the server has by now.
    pub(crate) fn save(&self) -> Result<(), TrackError> {
        write(&self.path, serde_json::to_string(&self.at).expect("plain data").as_bytes())
    }
}
