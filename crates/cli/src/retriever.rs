//! Index folders and retriever files to retrievers: what they need of models and of the environment.
use crate::environment;
use exsearch_model::encoder::{EncoderConfig, open_encoder};
use exsearch_retriever::{ResolveError, Resolver};
use exsearch_schema::{Encoder, Retriever, VectorKind};
use std::path::Path;
use std::sync::Arc;

/// Opens encoders, and reads keys from the environment variables that a retriever file names.
pub(crate) struct Machine;

impl Resolver for Machine {
    fn encoder(&self, dir: &Path, kind: VectorKind) -> Result<Arc<dyn Encoder>, ResolveError> {
        Ok(Arc::from(open_encoder(dir, Some(kind), &EncoderConfig::default())?))
    }

    fn variable(&self, name: &str) -> Option<String> {
        environment::named(name)
    }
}

/// The retriever at a path: an index folder of any kind, or a TOML file that describes one, whose paths are relative to it.
pub(crate) fn open(path: &Path) -> anyhow::Result<Box<dyn Retriever>> {
    Ok(exsearch_retriever::open_index(path, &Machine)?)
}
