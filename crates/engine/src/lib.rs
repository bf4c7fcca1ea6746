//! Generation and scoring with a local model, many sequences at once.
//!
//! Requests join and leave a running batch at every step; prompts are computed beside the decoding of others; what earlier
//! requests computed of the same beginning is taken from their caches. None of that changes a number: a sequence's
//! log-probs and draws depend on its context and seed alone (`exsearch-kernels` keeps rows independent of each other).
//!
//! Knows nothing of agents, questions or gold answers.
mod prefix;
mod sample;

pub use sample::{Draw, draw};

use exsearch_model::chat::HfChat;
use exsearch_model::decoder::{Adapter, Chunk, Decoder, KvCache, Workspace};
use exsearch_schema::{
    ChatCodec, Finish, GenerateError, GenerateRequest, Generation, Generator, RequestId, ScoreError, ScoreRequest,
    Scorer,
};
use prefix::{PrefixStore, common_prefix};
use std::cell::RefCell;
use std::collections::VecDeque;

/// Limits of an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Sequences that run at once.
    pub max_sequences: usize,
    /// Tokens computed in one pass: decoding sequences take one each, prompts share the rest.
    pub max_rows: usize,
    /// Memory for the caches of finished requests, whose beginnings later ones may share.
    pub prefix_cache_bytes: usize,
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
}

/// A model with its running sequences. `&Engine` is a [`Generator`] and a [`Scorer`], so that both can be used in turn
/// while they share caches.
pub struct Engine<'m> {
    decoder: &'m Decoder,
    adapter: Option<&'m Adapter>,
    text: &'m dyn Decode,
    config: EngineConfig,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    waiting: VecDeque<(RequestId, GenerateRequest)>,
    running: Vec<Sequence>,
    rejected: Vec<(RequestId, GenerateError)>,
    store: PrefixStore,
    workspace: Workspace,
    logits: Vec<f32>,
    stats: EngineStats,
}

/// A request that is being worked on.
struct Sequence {
    id: RequestId,
    request: GenerateRequest,
    cache: KvCache,
    sampled: Vec<u32>,
    logprobs: Vec<f32>,
    behaviour_logprobs: Vec<f32>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { max_sequences: 64, max_rows: 512, prefix_cache_bytes: 1 << 30 }
    }
}

impl<'m> Engine<'m> {
    /// An engine over a decoder and, where one is trained, its adapter.
    pub fn new(decoder: &'m Decoder, adapter: Option<&'m Adapter>, text: &'m dyn Decode, config: EngineConfig) -> Self {
        assert!(config.max_sequences > 0 && config.max_rows > 0, "an engine that can do something");
        Self { decoder, adapter, text, config, state: RefCell::default() }
    }

    /// Counters since it was made.
    pub fn stats(&self) -> EngineStats {
        self.state.borrow().stats
    }

    /// The longest sequence it takes, in tokens.
    pub fn max_context(&self) -> usize {
        self.decoder.max_positions()
    }
}

impl Generator for &Engine<'_> {
    fn submit(&mut self, request: GenerateRequest) -> RequestId {
        let mut state = self.state.borrow_mut();
        let id = RequestId(state.next_id);
        state.next_id += 1;
        let (length, limit) = (request.context.len(), self.max_context());
        if length == 0 {
            state.rejected.push((id, GenerateError::Failed("the context is empty".into())));
        } else if length >= limit {
            state.rejected.push((id, GenerateError::ContextTooLong { length, limit }));
        } else if request.sampling.max_new_tokens == 0 {
            state.rejected.push((id, GenerateError::Failed("max_new_tokens is 0".into())));
        } else {
            state.waiting.push_back((id, request));
        }
        id
    }

    fn wait(&mut self) -> Vec<(RequestId, Result<Generation, GenerateError>)> {
        let mut state = self.state.borrow_mut();
        let mut done: Vec<_> = state.rejected.drain(..).map(|(id, error)| (id, Err(error))).collect();
        while done.is_empty() && !(state.waiting.is_empty() && state.running.is_empty()) {
            self.admit(&mut state);
            let finished = self.step(&mut state);
            done.extend(finished.into_iter().map(|(id, generation)| (id, Ok(generation))));
        }
        done.sort_by_key(|(id, _)| *id);
        done
    }
}

impl Engine<'_> {
    /// Moves waiting requests to the running ones. One whose beginning another is computing right now waits for it.
    fn admit(&self, state: &mut State) {
        let mut kept_waiting = VecDeque::new();
        while state.running.len() < self.config.max_sequences
            && let Some((id, request)) = state.waiting.pop_front()
        {
            let context = &request.context;
            // The last token is always computed: its row gives the first draw.
            let reusable = context.len() - 1;
            let stored = state.store.longest(context).min(reusable);
            let by_running = |sequence: &Sequence| common_prefix(&sequence.request.context, context).min(reusable);
            let ready = |sequence: &Sequence| by_running(sequence).min(sequence.cache.n_tokens());
            let in_running = state.running.iter().map(ready).max().unwrap_or(0);
            let soon = state.running.iter().map(by_running).max().unwrap_or(0);
            if soon >= stored.max(in_running) + WORTH_WAITING {
                kept_waiting.push_back((id, request));
                continue;
            }
            let cache = if in_running > stored {
                let source = state.running.iter().max_by_key(|sequence| ready(sequence)).expect("one is running");
                source.cache.prefix(in_running)
            } else {
                state.store.take(context, reusable).unwrap_or_else(|| KvCache::new(self.decoder.config()))
            };
            state.stats.n_reused += cache.n_tokens() as u64;
            let (sampled, logprobs, behaviour_logprobs) = (Vec::new(), Vec::new(), Vec::new());
            state.running.push(Sequence { id, request, cache, sampled, logprobs, behaviour_logprobs });
        }
        while let Some(request) = kept_waiting.pop_back() {
            state.waiting.push_front(request);
        }
    }

    /// One pass: a token for every decoding sequence, and as much of the prompts as fits. Returns what finished.
    fn step(&self, state: &mut State) -> Vec<(RequestId, Generation)> {
        let State { running, store, workspace, logits, stats, .. } = state;
        let n_decoding = running.iter().filter(|sequence| sequence.pending() == 1).count();
        let mut room = self.config.max_rows.saturating_sub(n_decoding).max(1);
        let mut chunks = Vec::with_capacity(running.len());
        let (mut wanted, mut drawing) = (Vec::new(), Vec::new());
        let mut n_rows = 0;
        for (idx, sequence) in running.iter_mut().enumerate() {
            let pending = sequence.pending();
            let n = if pending == 1 { 1 } else { pending.min(room) };
            if n == 0 {
                continue;
            }
            if pending > 1 {
                room -= n;
                stats.n_prefilled += n as u64;
            }
            n_rows += n;
            if n == pending {
                wanted.push(n_rows - 1);
                drawing.push(idx);
            }
            let start = sequence.cache.n_tokens();
            let context = &sequence.request.context;
            let tokens = if start < context.len() {
                &context[start..start + n]
            } else {
                &sequence.sampled[start - context.len()..]
            };
            chunks.push(Chunk { cache: &mut sequence.cache, tokens });
        }
        stats.n_passes += 1;
        let hidden = self.decoder.forward(self.adapter, &mut chunks, &wanted, workspace);
        drop(chunks);
        self.decoder.logits(&hidden, logits);
        let draws = {
            use rayon::prelude::*;
            let vocabulary = self.decoder.config().vocab_size;
            let running = &*running;
            let rows = logits.par_chunks_exact_mut(vocabulary).zip(&drawing);
            rows.map(|(row, &idx)| running[idx].draw(row)).collect::<Vec<Draw>>()
        };
        let mut finished = Vec::new();
        for (&idx, draw) in drawing.iter().zip(&draws).rev() {
            stats.n_sampled += 1;
            if let Some(finish) = running[idx].push(draw, self.text, self.max_context()) {
                let sequence = running.swap_remove(idx);
                finished.push(sequence.finish(finish, store));
            }
        }
        let running_tokens: usize = running.iter().map(|sequence| sequence.cache.n_tokens()).sum();
        let bytes_a_token = KvCache::bytes_a_token(self.decoder.config());
        store.shrink(self.config.prefix_cache_bytes.saturating_sub(running_tokens * bytes_a_token), bytes_a_token);
        finished
    }
}

/// Tokens that another sequence must be about to share before a request waits for it.
const WORTH_WAITING: usize = 16;

impl Sequence {
    /// Tokens that are known but not computed.
    fn pending(&self) -> usize {
        self.request.context.len() + self.sampled.len() - self.cache.n_tokens()
    }

    fn draw(&self, logits: &mut [f32]) -> Draw {
        draw(logits, &self.request.sampling, self.sampled.len())
    }

    /// Takes a drawn token and says whether the turn ends with it.
    fn push(&mut self, draw: &Draw, text: &dyn Decode, max_context: usize) -> Option<Finish> {
        self.sampled.push(draw.id);
        self.logprobs.push(draw.logprob);
        self.behaviour_logprobs.push(draw.behaviour_logprob);
        let sampling = &self.request.sampling;
        if text.end_ids().contains(&draw.id) {
            return Some(Finish::EndOfTurn);
        }
        if !sampling.stop.is_empty() {
            let turn = text.decode(&self.sampled);
            if sampling.stop.iter().any(|stop| turn.contains(stop.as_str())) {
                return Some(Finish::StopString);
            }
        }
        let full = self.request.context.len() + self.sampled.len() >= max_context;
        (full || self.sampled.len() >= sampling.max_new_tokens).then_some(Finish::MaxTokens)
    }

    fn finish(self, finish: Finish, store: &mut PrefixStore) -> (RequestId, Generation) {
        let Self { id, request, cache, sampled, logprobs, behaviour_logprobs } = self;
        let mut ids = request.context;
        ids.extend(&sampled);
        ids.truncate(cache.n_tokens());
        store.put(ids, cache);
        (id, Generation { ids: sampled, logprobs, behaviour_logprobs, finish })
    }
}

impl Scorer for &Engine<'_> {
    fn score(&mut self, requests: &[ScoreRequest]) -> Vec<Result<Vec<f32>, ScoreError>> {
        let mut state = self.state.borrow_mut();
        requests.iter().map(|request| self.score_one(request, &mut state)).collect()
    }
}

impl Engine<'_> {
    fn score_one(&self, request: &ScoreRequest, state: &mut State) -> Result<Vec<f32>, ScoreError> {
        let ScoreRequest { context, continuations } = request;
        let Some((last, before)) = context.split_last() else {
            return Err(ScoreError("there is no context to predict from".into()));
        };
        let longest = continuations.iter().map(Vec::len).max().unwrap_or(0);
        if context.len() + longest > self.max_context() {
            let (length, limit) = (context.len() + longest, self.max_context());
            return Err(ScoreError(format!("{length} tokens are more than the model's {limit}")));
        }
        let State { store, workspace, logits, stats, .. } = state;
        let mut cache = store.take(before, before.len()).unwrap_or_else(|| KvCache::new(self.decoder.config()));
        stats.n_reused += cache.n_tokens() as u64;
        while cache.n_tokens() < before.len() {
            let start = cache.n_tokens();
            let tokens = &before[start..before.len().min(start + self.config.max_rows)];
            stats.n_prefilled += tokens.len() as u64;
            self.decoder.forward(self.adapter, &mut [Chunk { cache: &mut cache, tokens }], &[], workspace);
        }
        // One pass for all continuations: each behind its own copy of the context.
        let continuations: Vec<&Vec<u32>> = continuations.iter().collect();
        let inputs: Vec<Vec<u32>> = continuations
            .iter()
            .map(|ids| std::iter::once(*last).chain(ids.iter().copied()).take(ids.len()).collect())
            .collect();
        let mut copies: Vec<KvCache> = inputs.iter().map(|_| cache.clone()).collect();
        let chunks = copies.iter_mut().zip(&inputs).filter(|(_, tokens)| !tokens.is_empty());
        let mut chunks: Vec<Chunk<'_>> = chunks.map(|(cache, tokens)| Chunk { cache, tokens }).collect();
        let n_rows: usize = inputs.iter().map(Vec::len).sum();
        let mut sums = vec![0.0; continuations.len()];
        if n_rows > 0 {
            let wanted: Vec<usize> = (0..n_rows).collect();
            let hidden = self.decoder.forward(self.adapter, &mut chunks, &wanted, workspace);
            let width = hidden.len() / n_rows;
            let targets = continuations.iter().enumerate().flat_map(|(idx, ids)| ids.iter().map(move |id| (idx, *id)));
            for (hidden, targets) in
                hidden.chunks(SCORE_ROWS * width).zip(targets.collect::<Vec<_>>().chunks(SCORE_ROWS))
            {
                self.decoder.logits(hidden, logits);
                let rows = logits.chunks_exact(self.decoder.config().vocab_size);
                for (row, &(continuation_idx, id)) in rows.zip(targets) {
                    sums[continuation_idx] += exsearch_kernels::log_softmax_at(row, id as usize);
                }
            }
        }
        store.put(before.to_vec(), cache);
        Ok(sums)
    }
}

/// Rows of logits at a time when scoring: 64 x 49,152 x 4 B = 12.6 MB.
const SCORE_ROWS: usize = 64;

#[cfg(test)]
mod tests;
