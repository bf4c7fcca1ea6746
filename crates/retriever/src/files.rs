//! Files that appear whole or not at all, and positions in files that grow.
use crate::Error;
use crate::error::io_error;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The name under which a file is written before it gets its own.
pub(crate) fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// `None` when there is no such file. A file that is no JSON makes the index in `dir` a damaged one.
pub(crate) fn read_json(path: &Path, dir: &Path) -> Result<Option<serde_json::Value>, Error> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Damaged { dir: dir.to_owned(), reason: format!("{}: {error}", path.display()) }),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(io_error(path, error)),
    }
}

/// [`write_whole`] of a value as indented JSON.
pub(crate) fn write_json(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), Error> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain structs serialize");
    bytes.push(b'\n');
    write_whole(dir, name, &bytes)
}

/// Either the whole file is there under its name afterwards, or what was there before.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let (path, temporary) = (dir.join(name), dir.join(temporary(name)));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_folder(dir)
    };
    write().map_err(|error| io_error(&path, error))
}

/// Makes a rename in the folder durable. Windows neither needs nor allows it.
pub(crate) fn sync_folder(dir: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// A file that is written front to back and may be gone on with later, behind a position that is known to be on disk.
pub(crate) struct GrowingFile {
    path: PathBuf,
    writer: BufWriter<File>,
    n_bytes: u64,
}

impl GrowingFile {
    /// Opens the file and cuts it to `n_bytes`; a file that does not exist has 0. `None` when it is shorter.
    pub(crate) fn open_at(path: &Path, n_bytes: u64) -> Result<Option<Self>, Error> {
        let open = || {
            let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
            if file.metadata()?.len() < n_bytes {
                return Ok(None);
            }
            file.set_len(n_bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(Some(Self { path: path.to_owned(), writer: BufWriter::with_capacity(1 << 20, file), n_bytes }))
        };
        open().map_err(|error| io_error(path, error))
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.writer.write_all(bytes).map_err(|error| io_error(&self.path, error))?;
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The file's length, what is still in the buffer included.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Hands everything to the system, so that readers of the file see it.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.writer.flush().map_err(|error| io_error(&self.path, error))
    }

    /// Returns when everything that was appended is on disk.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.writer.get_ref().sync_all().map_err(|error| io_error(&self.path, error))
    }
}
