//! Index folders and retriever files to retrievers: what they need of models and of the environment.
use crate::environment;
use crate::models;
use exsearch_model::encoder::{EncoderConfig, is_onnx, open_cross_encoder, open_encoder};
use exsearch_retriever::{ResolveError, Resolver};
use exsearch_schema::{CrossEncoder, Encoder, Retriever, VectorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens models by folder or by the name under which they were pulled, and reads keys from the environment variables that a
/// retriever file names.
pub(crate) struct Machine;

impl Resolver for Machine {
    fn encoder(&self, model: &Path, kind: VectorKind) -> Result<Arc<dyn Encoder>, ResolveError> {
        let model = folder(model)?;
        #[cfg(feature = "ort")]
        load_onnxruntime(&model)?;
        Ok(Arc::from(open_encoder(&model, Some(kind), &EncoderConfig::default())?))
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
    Ok(exsearch_retriever::open_index(path, &Machine)?)
}
