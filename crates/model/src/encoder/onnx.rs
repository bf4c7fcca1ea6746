//! An ONNX file of a BERT -> the final hidden states of texts, by onnxruntime: the way to checkpoints quantized to int8.
//!
//! One text a run and one thread a session. An int8 model takes the scale of its activations from its whole input, so that
//! neighbours or padding would change a text's vector; so no text has either, and threads work on texts of their own. Other
//! versions of onnxruntime and other processors may give other last digits; a fingerprint does not see them.
//!
//! onnxruntime is loaded at run time, from where [`load_onnxruntime`] is told. Knows nothing of tokenizers or heads.
//!
//! Legend: n = tokens of a text, h = hidden size.
use super::bert::TokenIds;
use super::hash::ContentHash;
use super::packs::own_threads;
use crate::ModelError;
use crate::error::io_error;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Set once the library is loaded: before that, its functions would look for it in places of their own and panic.
static LOADED: OnceLock<()> = OnceLock::new();

/// Loads onnxruntime (version 1.17 or later) from a shared library, such as the `libonnxruntime.so.1.31.1` in the folder
/// `onnxruntime/capi` of the Python package of that name. The first library that loads stays for the process.
pub fn load_onnxruntime(library: &Path) -> Result<(), ModelError> {
    let environment = ort::init_from(library).map_err(|error| failed(library)(error.to_string()))?;
    environment.with_telemetry(false).commit();
    LOADED.get_or_init(|| ());
    Ok(())
}

/// An ONNX model with the threads and sessions that it runs on.
pub(super) struct OnnxBert {
    path: PathBuf,
    hidden_size: usize,
    inputs: Vec<Input>,
    /// The name of the hidden states among the outputs.
    output: String,
    /// Threads of its own, unless those of the caller are used.
    pool: Option<rayon::ThreadPool>,
    /// Those that ran at the same time, at most one a thread.
    sessions: Mutex<Vec<Session>>,
}

/// What a BERT in ONNX takes, each `[1, n]`.
#[derive(Clone, Copy)]
enum Input {
    Ids,
    Mask,
    Types,
}

const INPUTS: &[(&str, Input)] =
    &[("input_ids", Input::Ids), ("attention_mask", Input::Mask), ("token_type_ids", Input::Types)];

impl OnnxBert {
    /// Opens a model with hidden states `[1, n, h]` among its outputs, and adds its content to `hash`.
    pub(super) fn load(
        path: &Path,
        hidden_size: usize,
        threads: Option<usize>,
        hash: &mut ContentHash,
    ) -> Result<Self, ModelError> {
        hash.add_text("onnx");
        for file in files_of(path) {
            hash.add_bytes(&std::fs::read(&file).map_err(io_error("read", &file))?);
        }
        let session = open_session(path)?;
        let mut inputs = Vec::new();
        for input in session.inputs() {
            let Some((_, input)) = INPUTS.iter().find(|(name, _)| *name == input.name()) else {
                let feature = format!("the input `{}`", input.name());
                return Err(ModelError::UnsupportedFeature { path: path.to_owned(), feature });
            };
            inputs.push(*input);
        }
        let is_hidden = |shape: &[i64]| shape.len() == 3 && [-1, hidden_size as i64].contains(&shape[2]);
        let mut outputs = session.outputs().iter();
        let output = outputs.find(|output| output.dtype().tensor_shape().is_some_and(|shape| is_hidden(shape)));
        let Some(output) = output.map(|output| output.name().to_owned()) else {
            let reason =
                format!("it has no output [batch, tokens, {hidden_size}]; export the encoder without its pooling");
            return Err(failed(path)(reason));
        };
        let (pool, sessions) = (own_threads(threads)?, Mutex::new(vec![session]));
        Ok(Self { path: path.to_owned(), hidden_size, inputs, output, pool, sessions })
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// What `head` makes of the ids of each text and of its final hidden states `[n, h]`, in the order of the texts.
    pub(super) fn run<T: Send>(
        &self,
        texts: &[&str],
        tokenize: impl Fn(&str) -> Result<TokenIds, ModelError> + Sync,
        head: impl Fn(&TokenIds, &[f32]) -> T + Sync,
    ) -> Result<Vec<T>, ModelError> {
        let run_one = |text: &&str| {
            let ids = tokenize(text)?;
            let kept = || self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = kept().pop();
            let mut session = idle.map_or_else(|| open_session(&self.path), Ok)?;
            let result = self.run_session(&mut session, &ids, &head);
            kept().push(session);
            result.map_err(|error| failed(&self.path)(error.to_string()))
        };
        let run = || texts.par_iter().with_max_len(1).map(run_one).collect::<Result<Vec<T>, ModelError>>();
        match &self.pool {
            Some(pool) => pool.install(run),
            None => run(),
        }
    }

    fn run_session<T>(
        &self,
        session: &mut Session,
        text: &TokenIds,
        head: &impl Fn(&TokenIds, &[f32]) -> T,
    ) -> ort::Result<T> {
        let n = text.ids.len();
        let ids: Vec<i64> = text.ids.iter().map(|id| i64::from(*id)).collect();
        let mask: Vec<i64> = (0..n).map(|idx| i64::from(idx < text.n_attended)).collect();
        let types: Vec<i64> = (0..n).map(|idx| i64::from(idx >= text.n_first_type)).collect();
        let mut values: Vec<SessionInputValue<'_>> = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let numbers = match input {
                Input::Ids => &ids,
                Input::Mask => &mask,
                Input::Types => &types,
            };
            values.push(TensorRef::from_array_view(([1, n], numbers.as_slice()))?.into());
        }
        let outputs = session.run(values.as_slice())?;
        let (shape, hidden) = outputs[self.output.as_str()].try_extract_tensor::<f32>()?;
        if shape[..] != [1, n as i64, self.hidden_size as i64] {
            return Err(ort::Error::new(format!("its output `{}` is {shape:?} for {n} tokens", self.output)));
        }
        Ok(head(text, hidden))
    }
}

fn open_session(path: &Path) -> Result<Session, ModelError> {
    if LOADED.get().is_none() {
        let reason = "onnxruntime is not loaded: set ORT_DYLIB_PATH to its shared library, such as the libonnxruntime.so in the \
                      folder onnxruntime/capi of the Python package onnxruntime";
        return Err(failed(path)(reason.to_owned()));
    }
    let session = || -> ort::Result<Session> {
        let mut builder = Session::builder()?.with_intra_threads(1)?.with_inter_threads(1)?;
        builder.commit_from_file(path)
    };
    session().map_err(|error| failed(path)(error.to_string()))
}

/// The model, and the file beside it in which exporters put large weights.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let beside = ["_data", ".data"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    });
    let mut files = vec![path.to_owned()];
    files.extend(beside.into_iter().filter(|file| file.is_file()));
    files
}

fn failed(path: &Path) -> impl FnOnce(String) -> ModelError + use<> {
    let path = path.to_owned();
    |reason| ModelError::Onnx { path, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Here and not among the tests that load a library: it stays for the process, and another is not looked at.
    #[test]
    fn a_library_that_is_not_there_is_told() {
        let error = load_onnxruntime(Path::new("no-such-library.so")).expect_err("it is not there").to_string();
        assert!(error.contains("no-such-library.so cannot be run"), "{error}");
        let error = open_session(Path::new("model.onnx")).map(drop).expect_err("nothing is loaded").to_string();
        assert!(error.contains("model.onnx cannot be run") && error.contains("ORT_DYLIB_PATH"), "{error}");
    }
}
