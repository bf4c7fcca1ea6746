//! Index folders and retriever files to retrievers: what they need of models and of the environment.
use crate::environment;
use crate::models;
use exsearch_model::encoder::{EncoderConfig, is_onnx, open_cross_encoder, open_encoder};
use exsearch_retriever::{ResolveError, Resolver};
use exsearch_schema::{
    CrossEncoder, Embedding, EncodeError, Encoder, Hit, Passage, PassageId, RetrieveError, Retriever, TextRole,
    VectorKind,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Opens models by folder or by the name under which they were pulled, and reads keys from the environment variables that a
/// retriever file names.
#[derive(Default)]
pub(crate) struct Machine {
    /// Time in the encoders that it has opened.
    encode_nanos: Arc<AtomicU64>,
}

impl Resolver for Machine {
    fn encoder(&self, model: &Path, kind: VectorKind) -> Result<Arc<dyn Encoder>, ResolveError> {
        let model = folder(model)?;
        #[cfg(feature = "ort")]
        load_onnxruntime(&model)?;
        let encoder = open_encoder(&model, Some(kind), &EncoderConfig::default())?;
        Ok(Arc::new(MeasuredEncoder { encoder, nanos: self.encode_nanos.clone() }))
    }

    fn cross_encoder(&self, model: &Path) -> Result<Arc<dyn CrossEncoder>, ResolveError> {
        Ok(Arc::from(open_cross_encoder(&folder(model)?)?))
    }

    fn variable(&self, name: &str) -> Option<String> {
        environment::named(name)
    }
}

/// The folder or ONNX file of a model that a retriever needs. Nothing is fetched here: opening an index must not wait for a network.
fn folder(model: &Path) -> anyhow::Result<PathBuf> {
    match model.to_str() {
        Some(name) if model.is_relative() && !is_onnx(model) => models::find(name, None),
        _ => Ok(model.to_owned()),
    }
}

/// What a model in an ONNX file is run with. Without it, opening the model says what to do.
#[cfg(feature = "ort")]
fn load_onnxruntime(model: &Path) -> Result<(), exsearch_model::ModelError> {
    match environment::onnxruntime() {
        Some(library) if is_onnx(model) => exsearch_model::encoder::load_onnxruntime(&library),
        _ => Ok(()),
    }
}

/// The retriever at a path: an index folder of any kind, or a TOML file that describes one, whose paths are relative to it.
pub(crate) fn open(path: &Path) -> anyhow::Result<Box<dyn Retriever>> {
    let machine = Machine::default();
    let retriever = exsearch_retriever::open_index(path, &machine)?;
    Ok(Box::new(Measured { retriever, encode_nanos: machine.encode_nanos }))
}

/// A retriever that knows how long its encoders took.
struct Measured {
    retriever: Box<dyn Retriever>,
    encode_nanos: Arc<AtomicU64>,
}

impl Retriever for Measured {
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        self.retriever.search_batch(queries, top_k)
    }

    fn passage(&self, id: &PassageId) -> Result<Option<Passage>, RetrieveError> {
        self.retriever.passage(id)
    }

    fn encode_secs(&self) -> f64 {
        self.encode_nanos.load(Ordering::Relaxed) as f64 / 1e9
    }
}

/// An encoder that adds its time to a clock.
struct MeasuredEncoder {
    encoder: Box<dyn Encoder>,
    nanos: Arc<AtomicU64>,
}

impl Encoder for MeasuredEncoder {
    fn dim(&self) -> usize {
        self.encoder.dim()
    }

    fn kind(&self) -> VectorKind {
        self.encoder.kind()
    }

    fn fingerprint(&self) -> &str {
        self.encoder.fingerprint()
    }

    fn encode(&self, texts: &[&str], role: TextRole) -> Result<Vec<Embedding>, EncodeError> {
        let since = Instant::now();
        let embeddings = self.encoder.encode(texts, role);
        self.nanos.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        embeddings
    }
}
