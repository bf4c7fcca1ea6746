//! Files that appear whole or not at all: written under a temporary name, synced, renamed.
use crate::{ModelError, error::io_error, error::json_error};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `path` through `fill`. When `fill` fails, an older `path` stays as it was.
pub(crate) fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let partial = partial_path(path);
    let mut writer = BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(io_error("create", &partial))?);
    let filled = fill(&mut writer).and_then(|()| {
        writer.flush().map_err(io_error("write", &partial))?;
        writer.get_ref().sync_all().map_err(io_error("sync", &partial))
    });
    if let Err(error) = filled {
        // The first error is the one to report; a leftover is overwritten by the next attempt.
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    std::fs::rename(&partial, path).map_err(io_error("rename", &partial))?;
    sync_folder_of(path)
}

/// [`write_atomically`] for bytes at hand.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    write_atomically(path, |writer| writer.write_all(bytes).map_err(io_error("write", path)))
}

/// Writes `value` as indented JSON with a final newline.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    let mut text = serde_json::to_string_pretty(value).map_err(json_error(path))?;
    text.push('\n');
    write_bytes(path, text.as_bytes())
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, ModelError> {
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    serde_json::from_slice(&bytes).map_err(json_error(path))
}

/// `path` with `.partial` behind its name.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().expect("a file to write has a name").to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

/// Makes a rename in the folder of `path` survive a power cut.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), ModelError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Windows cannot open folders as files; there the rename alone has to do.
    if cfg!(unix) {
        File::open(folder).and_then(|opened| opened.sync_all()).map_err(io_error("sync", folder))?;
    }
    Ok(())
}
