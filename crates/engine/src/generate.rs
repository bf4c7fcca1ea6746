//! Which sequences run, and one pass over the model for all of them.
use crate::prefix::PrefixStore;
use crate::rules::{WORTH_WAITING, common_prefix, finish_of};
use crate::sample::{Draw, draw};
use crate::{Decode, Engine, State};
use exsearch_model::decoder::{Chunk, KvCache, PAGE_TOKENS};
use exsearch_schema::{Finish, GenerateError, GenerateRequest, Generation, RequestId, Sampling};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::time::Instant;

/// A request that is being worked on, or waits.
pub(crate) struct Sequence {
    id: RequestId,
    sampling: Sampling,
    /// The context and what was sampled behind it.
    ids: Vec<u32>,
    n_context: usize,
    /// Keys and values of the first of them; all but the last once it decodes.
    cache: KvCache,
    logprobs: Vec<f32>,
    behaviour_logprobs: Vec<f32>,
}

impl Engine<'_> {
    /// Moves waiting requests to the running ones while their contexts have room beside those of the running ones. One whose
    /// beginning another is computing right now waits for it.
    pub(crate) fn admit(&self, state: &mut State) {
        let mut kept_waiting = VecDeque::new();
        while state.running.len() < self.config.max_sequences
            && let Some(mut sequence) = state.waiting.pop_front()
        {
            let ids = &sequence.ids;
            // The last token is always computed: its row gives the next draw.
            let reusable = ids.len() - 1;
            let stored = state.store.longest(ids).min(reusable);
            let by_running = |other: &Sequence| common_prefix(&other.ids, ids).min(reusable);
            let ready = |other: &Sequence| by_running(other).min(other.cache.n_tokens());
            let in_running = state.running.iter().map(ready).max().unwrap_or(0);
            let soon = state.running.iter().map(by_running).max().unwrap_or(0);
            if soon >= stored.max(in_running) + WORTH_WAITING {
                kept_waiting.push_back(sequence);
                continue;
            }
            if !self.fits_beside_running(ids.len(), in_running, state) {
                kept_waiting.push_back(sequence);
                break;
            }
            if in_running > stored {
                let source = state.running.iter().max_by_key(|other| ready(other)).expect("one is running");
                sequence.cache = source.cache.prefix(in_running);
            } else if let Some(cache) = state.store.take(ids, reusable) {
                sequence.cache = cache;
            }
            state.stats.n_reused += sequence.cache.n_tokens() as u64;
            state.running.push(sequence);
        }
        while let Some(sequence) = kept_waiting.pop_back() {
            state.waiting.push_front(sequence);
        }
    }

    /// Whether `n_tokens`, of which the first `n_shared` are those of a running sequence, fit the budget beside all that runs,
    /// once the stored caches are dropped. Each running sequence keeps a page to grow. Alone, a sequence always fits: `submit`
    /// saw to that.
    fn fits_beside_running(&self, n_tokens: usize, n_shared: usize, state: &State) -> bool {
        let held = KvCache::distinct_pages(state.running.iter().map(|running| &running.cache));
        let promised = |running: &Sequence| running.cache.new_pages(running.pending()) + 1;
        let promised: usize = state.running.iter().map(promised).sum();
        let needed = KvCache::pages_of(n_tokens) - n_shared / PAGE_TOKENS;
        state.running.is_empty() || held + promised + needed <= self.max_pages
    }

    /// One pass: a token for every decoding sequence, and as much of the prompts as fits. Returns what finished.
    pub(crate) fn step(&self, state: &mut State) -> Vec<(RequestId, Generation)> {
        let since = Instant::now();
        let plan = self.plan(state);
        let State { running, workspace, logits, .. } = state;
        let (mut wanted, mut drawing) = (Vec::new(), Vec::new());
        let mut chunks = Vec::with_capacity(plan.len());
        let (mut n_rows, mut n_prefilled) = (0, 0);
        for (idx, (sequence, n)) in running.iter_mut().zip(plan).enumerate().filter(|(_, (_, n))| *n > 0) {
            let pending = sequence.pending();
            if pending > 1 {
                n_prefilled += n;
            }
            n_rows += n;
            if n == pending {
                wanted.push(n_rows - 1);
                drawing.push(idx);
            }
            let start = sequence.cache.n_tokens();
            chunks.push(Chunk { tokens: &sequence.ids[start..start + n], cache: &mut sequence.cache });
        }
        if chunks.is_empty() {
            return Vec::new();
        }
        let sampler = self.sampler();
        let hidden = sampler.forward(&mut chunks, &wanted, workspace);
        sampler.logits(&hidden, logits, workspace);
        let draws = {
            let vocabulary = self.decoder.config().vocab_size;
            let running = &*running;
            let rows = logits.par_chunks_exact_mut(vocabulary).zip(&drawing);
            rows.map(|(row, &idx)| running[idx].draw(row)).collect::<Vec<Draw>>()
        };
        self.count_pass(state);
        let took = since.elapsed();
        let prefill = took.mul_f64(n_prefilled as f64 / n_rows as f64);
        state.stats.prefill += prefill;
        state.stats.decode += took.saturating_sub(prefill);
        let State { running, store, stats, .. } = state;
        stats.n_prefilled += n_prefilled as u64;
        let mut finished = Vec::new();
        for (&idx, draw) in drawing.iter().zip(&draws).rev() {
            stats.n_sampled += 1;
            if let Some(finish) = running[idx].push(draw, self.text, self.max_context()) {
                finished.push(running.swap_remove(idx).finish(finish, store));
            }
        }
        finished
    }

    /// How many tokens of each running sequence the next pass computes, after making room for them: stored caches go first,
    /// then the youngest sequences wait again. One that does not fit alone fails.
    fn plan(&self, state: &mut State) -> Vec<usize> {
        loop {
            let n_decoding = state.running.iter().filter(|sequence| sequence.pending() == 1).count();
            let mut room = self.config.max_rows.saturating_sub(n_decoding).max(1);
            let mut take = |sequence: &Sequence| match sequence.pending() {
                1 => 1,
                pending => {
                    let n = pending.min(room);
                    room -= n;
                    n
                }
            };
            let plan: Vec<usize> = state.running.iter().map(&mut take).collect();
            let new: usize = state.running.iter().zip(&plan).map(|(sequence, &n)| sequence.cache.new_pages(n)).sum();
            if state.pages.count() + new <= self.max_pages || state.running.is_empty() {
                return plan;
            }
            if !state.store.drop_oldest() {
                self.put_back_youngest(state);
            }
        }
    }

    /// Takes the keys and values of the youngest running sequence and lets it wait; if it is the only one, it fails. False
    /// where none is running.
    pub(crate) fn put_back_youngest(&self, state: &mut State) -> bool {
        let Some(idx) = (0..state.running.len()).max_by_key(|&idx| state.running[idx].id) else { return false };
        let mut sequence = state.running.swap_remove(idx);
        match self.too_large(sequence.ids.len()) {
            Some(reason) => state.failed.push((sequence.id, GenerateError::Failed(reason))),
            None => {
                sequence.cache = self.new_cache(state);
                state.stats.n_put_back += 1;
                state.waiting.push_front(sequence);
            }
        }
        true
    }
}

impl Sequence {
    /// A request before anything of it is computed.
    pub(crate) fn new(id: RequestId, request: GenerateRequest, cache: KvCache) -> Self {
        let GenerateRequest { context: ids, sampling, .. } = request;
        let n_context = ids.len();
        Self { id, sampling, ids, n_context, cache, logprobs: Vec::new(), behaviour_logprobs: Vec::new() }
    }

    /// Tokens that are known but not computed.
    fn pending(&self) -> usize {
        self.ids.len() - self.cache.n_tokens()
    }

    fn sampled(&self) -> &[u32] {
        &self.ids[self.n_context..]
    }

    fn draw(&self, logits: &mut [f32]) -> Draw {
        draw(logits, &self.sampling, self.sampled().len())
    }

    /// Takes a drawn token and says whether the turn ends with it.
    fn push(&mut self, draw: &Draw, text: &dyn Decode, max_context: usize) -> Option<Finish> {
        self.ids.push(draw.id);
        self.logprobs.push(draw.logprob);
        self.behaviour_logprobs.push(draw.behaviour_logprob);
        finish_of(self.sampled(), self.n_context, &self.sampling, text, max_context)
    }

    fn finish(self, finish: Finish, store: &mut PrefixStore) -> (RequestId, Generation) {
        let Self { id, mut ids, n_context, cache, logprobs, behaviour_logprobs, .. } = self;
        let sampled = ids[n_context..].to_vec();
        ids.truncate(cache.n_tokens());
        store.put(ids, cache);
        (id, Generation { ids: sampled, logprobs, behaviour_logprobs, finish })
    }
}
