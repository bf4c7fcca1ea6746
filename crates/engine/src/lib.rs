//! Generation and scoring with a local model, many sequences at once.
//!
//! Requests join and leave a running batch at every step; prompts are computed beside the decoding of others; what earlier
//! requests computed of the same beginning is taken from their caches. None of that changes a number: a sequence's
//! log-probs and draws depend on its context and seed alone (`exsearch-kernels` keeps rows independent of each other).
//!
//! All keys and values, of running sequences, of finished ones and of what is scored, share one budget of memory. When it is
//! used up, finished ones go first; then the youngest running sequence waits again and is computed anew later, to the same bits.
//!
//! Knows nothing of agents, questions or gold answers.
mod generate;
mod prefix;
pub mod rules;
mod sample;
mod score;

pub use sample::{Draw, draw};

use exsearch_model::chat::HfChat;
use exsearch_model::decoder::{Adapter, Decoder, Inference, Int8Weights, KvCache, PageCounter, Workspace};
use exsearch_schema::{
    ChatCodec, GenerateError, GenerateRequest, Generation, Generator, RequestId, ScoreError, ScoreRequest, Scorer,
};
use generate::Sequence;
use prefix::PrefixStore;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Limits of an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Tokens computed in one pass: decoding sequences take one each, prompts share the rest.
    pub max_rows: usize,
    /// Memory for keys and values: of running sequences, of what is scored, and of finished requests, whose beginnings later
    /// ones may share.
    pub kv_cache_bytes: usize,
    /// What generation computes with. Scoring is always f32.
    pub weights: GenerationWeights,
}

/// The linear weights that tokens are sampled with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GenerationWeights {
    /// The model's own.
    #[default]
    F32,
    /// Rounded to 8 bits in blocks of 64. Log-probs of generations are then those of the rounded model, which is what was
    /// sampled from; adapters apply in f32 on top.
    Int8,
}

/// What the engine needs to know of the tokenizer.
pub trait Decode: Sync {
    /// The text of ids, to look for stop strings in.
    fn decode(&self, ids: &[u32]) -> String;
    /// Tokens that end a turn.
    fn end_ids(&self) -> &[u32];
}

impl Decode for HfChat {
    fn decode(&self, ids: &[u32]) -> String {
        ChatCodec::decode(self, ids)
    }

    fn end_ids(&self) -> &[u32] {
        self.end_of_turn_ids()
    }
}

/// Counters since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Tokens computed as part of a context.
    pub n_prefilled: u64,
    /// Context tokens taken from a cache instead.
    pub n_reused: u64,
    /// Tokens sampled.
    pub n_sampled: u64,
    /// Passes over the model.
    pub n_passes: u64,
    /// Times that a running sequence had to wait again for want of memory.
    pub n_put_back: u64,
    /// The most bytes of keys and values at once.
    pub max_kv_bytes: usize,
    /// Time in passes that computed contexts. Of a pass that also sampled it is a share, by rows.
    pub prefill: Duration,
    /// Time in passes that sampled, likewise.
    pub decode: Duration,
    /// Time in which continuations were scored.
    pub score: Duration,
}

/// A model with its running sequences. `&Engine` is a [`Generator`] and a [`Scorer`], so that both can be used in turn
/// while they share caches.
pub struct Engine<'m> {
    decoder: &'m Decoder,
    adapter: Option<&'m Adapter>,
    int8: Option<Int8Weights>,
    text: &'m dyn Decode,
    config: EngineConfig,
    /// Pages of keys and values that fit the budget.
    max_pages: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    failed: Vec<(RequestId, GenerateError)>,
    store: PrefixStore,
    pages: PageCounter,
    workspace: Workspace,
    logits: Vec<f32>,
    stats: EngineStats,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { max_sequences: 64, max_rows: 512, kv_cache_bytes: 2 << 30, weights: GenerationWeights::F32 }
    }
}

impl<'m> Engine<'m> {
    /// An engine over a decoder and, where one is trained, its adapter.
    pub fn new(decoder: &'m Decoder, adapter: Option<&'m Adapter>, text: &'m dyn Decode, config: EngineConfig) -> Self {
        assert!(config.max_sequences > 0 && config.max_rows > 0, "an engine that can do something");
        let int8 = (config.weights == GenerationWeights::Int8).then(|| Int8Weights::new(decoder.parameters()));
        let max_pages = config.kv_cache_bytes / KvCache::page_bytes(decoder.config());
        Self { decoder, adapter, int8, text, config, max_pages, state: RefCell::default() }
    }

    /// Counters since it was made.
    pub fn stats(&self) -> EngineStats {
        self.state.borrow().stats
    }

    /// The longest sequence it takes, in tokens.
    pub fn max_context(&self) -> usize {
        self.decoder.max_positions()
    }

    /// What tokens are sampled from.
    fn sampler(&self) -> Inference<'_> {
        self.decoder.inference(self.adapter, self.int8.as_ref())
    }

    fn new_cache(&self, state: &State) -> KvCache {
        KvCache::counted(self.decoder.config(), &state.pages)
    }

    /// Counts a pass and the memory that it took.
    fn count_pass(&self, state: &mut State) {
        state.stats.n_passes += 1;
        let bytes = state.pages.count() * KvCache::page_bytes(self.decoder.config());
        state.stats.max_kv_bytes = state.stats.max_kv_bytes.max(bytes);
    }

    /// Why a sequence cannot be computed however long it waits, in words.
    fn too_large(&self, n_tokens: usize) -> Option<String> {
        let mb = |pages: usize| (pages * KvCache::page_bytes(self.decoder.config())).div_ceil(1 << 20);
        let pages = KvCache::pages_of(n_tokens);
        (pages > self.max_pages).then(|| {
            let (needed, limit) = (mb(pages), self.config.kv_cache_bytes >> 20);
            format!("keys and values of {n_tokens} tokens take {needed} MB, the limit for all is {limit} MB: raise it")
        })
    }
}

impl Generator for &Engine<'_> {
    fn submit(&mut self, request: GenerateRequest) -> RequestId {
        let mut state = self.state.borrow_mut();
        let id = RequestId(state.next_id);
        state.next_id += 1;
        let refusal = rules::refusal(&request, self.max_context())
            .or_else(|| self.too_large(request.context.len()).map(GenerateError::Failed));
        match refusal {
            Some(error) => state.failed.push((id, error)),
            None => {
                let cache = self.new_cache(&state);
                state.waiting.push_back(Sequence::new(id, request, cache));
            }
        }
        id
    }

    fn wait(&mut self) -> Vec<(RequestId, Result<Generation, GenerateError>)> {
        let mut state = self.state.borrow_mut();
        let mut done = Vec::new();
        loop {
            done.extend(state.failed.drain(..).map(|(id, error)| (id, Err(error))));
            if !done.is_empty() || (state.waiting.is_empty() && state.running.is_empty()) {
                done.sort_by_key(|(id, _)| *id);
                return done;
            }
            self.admit(&mut state);
            let finished = self.step(&mut state);
            done.extend(finished.into_iter().map(|(id, generation)| (id, Ok(generation))));
        }
    }
}

impl Scorer for &Engine<'_> {
    fn score(&mut self, requests: &[ScoreRequest]) -> Vec<Result<Vec<f32>, ScoreError>> {
        let (since, mut state) = (Instant::now(), self.state.borrow_mut());
        let results = self.score_all(requests, &mut state);
        state.stats.score += since.elapsed();
        results
    }
}

#[cfg(test)]
mod tests;
