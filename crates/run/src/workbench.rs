//! What the stages work with, opened once: the policy (a decoder and what was trained beside it) and its chat format.
use crate::error::RunError;
use exsearch_engine::{Engine, EngineConfig, GenerationWeights};
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

/// The local generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GeneratorConfig {
    /// Sequences that are decoded at once. Changes speed and memory, never results.
    pub max_sequences: usize,
    /// Tokens computed in one pass. Changes speed and memory, never results.
    pub max_rows: usize,
    /// Memory in MB for keys and values: of sequences that run, of what is scored, and of turns that may go on. Changes speed,
    /// never results. Default 2048.
    pub kv_cache_mb: usize,
    /// The weights that tokens are sampled with: `f32`, or `int8` for speed. With `int8` both log-probs on a trajectory are those
    /// of the rounded model, and sampling correction (`weights.correct_sampling`), which needs the model's own, is refused. Gold
    /// answers are scored in f32 either way. Default `f32`.
    pub weights: GenerationWeights,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self { max_sequences: 64, max_rows: 512, kv_cache_mb: 2048, weights: GenerationWeights::F32 }
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
            kv_cache_bytes: config.kv_cache_mb << 20,
            weights: config.weights,
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
