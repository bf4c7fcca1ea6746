//! Index folders and retriever files to retrievers: what they need of models and of the environment.
use crate::environment;
use crate::models;
use exsearch_model::encoder::{EncoderConfig, open_cross_encoder, open_encoder};
use exsearch_retriever::{ResolveError, Resolver};
use exsearch_schema::{CrossEncoder, Encoder, Retriever, VectorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens models by folder or by the name under which they were pulled, and reads keys from the environment variables that a retriever file names.
pub(crate) struct Machine;

impl Resolver for Machine {
    fn encoder(&self, model: &Path, kind: VectorKind) -> Result<Arc<dyn Encoder>, ResolveError> {
        Ok(Arc::from(open_encoder(&folder(model)?, Some(kind), &EncoderConfig::default())?))
    }

    fn cross_encoder(&self, model: &Path) -> Result<Arc<dyn CrossEncoder>, ResolveError> {
        Ok(Arc::from(open_cross_encoder(&folder(model)?)?))
    }

    fn variable(&self, name: &str) -> Option<String> {
        environment::named(name)
    }
}

/// The folder of a model that a retriever needs. Nothing is fetched here: opening an index must not wait for a network.
fn folder(model: &Path) -> anyhow::Result<PathBuf> {
    match model.to_str() {
        Some(name) if model.is_relative() => models::find(name, None),
        _ => Ok(model.to_owned()),
    }
}

/// The retriever at a path: an index folder of any kind, or a TOML file that describes one, whose paths are relative to it.
pub(crate) fn open(path: &Path) -> anyhow::Result<Box<dyn Retriever>> {
    Ok(exsearch_retriever::open_index(path, &Machine)?)
}
