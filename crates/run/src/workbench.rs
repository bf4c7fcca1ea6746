//! What the stages work with, opened once: the policy (a decoder and what was trained beside it) and its chat format.
use crate::error::RunError;
use exsearch_engine::{Engine, EngineConfig};
use exsearch_model::chat::HfChat;
use exsearch_model::checkpoint::{is_adapter, load_adapter, load_decoder, merge};
use exsearch_model::decoder::{Adapter, Decoder};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A language model that can be asked and trained.
pub struct Policy {
    /// The model.
    pub decoder: Decoder,
    /// Trained beside it, where there is one.
    pub adapter: Option<Adapter>,
    /// Tokenizer and chat template.
    pub chat: HfChat,
    /// The folder that the decoder came from.
    pub base: PathBuf,
}

/// Limits of the local generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Sequences that are decoded at once. Changes speed and memory, never results.
    pub max_sequences: usize,
    /// Tokens computed in one pass. Changes speed and memory, never results.
    pub max_rows: usize,
    /// Memory in MB for the keys and values of turns that may go on. Changes speed, never results.
    pub prefix_cache_mb: usize,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self { max_sequences: 64, max_rows: 512, prefix_cache_mb: 1536 }
    }
}

impl Policy {
    /// Opens a model folder, or an adapter folder and the model that it belongs to, for dialogues of at most `max_tokens`.
    pub fn open(model: &Path, adapter: Option<&Path>, max_tokens: usize) -> Result<Self, RunError> {
        let decoder = load_decoder(model, max_tokens)?;
        let chat = HfChat::open(model, None)?;
        let adapter = adapter.map(|dir| load_adapter(dir, decoder.config())).transpose()?;
        Ok(Self { decoder, adapter, chat, base: model.to_owned() })
    }

    /// Takes up a checkpoint: an adapter beside the decoder, or a folder in its place.
    pub fn load_checkpoint(&mut self, dir: &Path) -> Result<(), RunError> {
        if is_adapter(dir) {
            self.adapter = Some(load_adapter(dir, self.decoder.config())?);
        } else {
            let max_positions = self.decoder.max_positions();
            self.decoder = load_decoder(dir, max_positions)?;
            self.adapter = None;
        }
        Ok(())
    }

    /// A generator and scorer over it.
    pub fn engine(&self, config: &GeneratorConfig) -> Engine<'_> {
        let config = EngineConfig {
            max_sequences: config.max_sequences,
            max_rows: config.max_rows,
            prefix_cache_bytes: config.prefix_cache_mb << 20,
        };
        Engine::new(&self.decoder, self.adapter.as_ref(), &self.chat, config)
    }

    /// Makes the adapter part of the decoder, so that full training goes on from it.
    pub fn merge_adapter(&mut self) {
        if let Some(adapter) = self.adapter.take() {
            merge(&mut self.decoder, &adapter);
        }
    }
}
