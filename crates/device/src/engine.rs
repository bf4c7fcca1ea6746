//! Requests to generations and scores on a device, many sequences at once.
//!
//! Requests join and leave a running batch at every step; a step computes some prompts and one token of every sequence that
//! decodes. What is common to two contexts is computed once and its rows are shared. Draws are `exsearch-engine`'s: a function
//! of logits, settings, seed and position.
use crate::adapter::DeviceAdapter;
use crate::decoder::{Chunk, DeviceDecoder, numbers};
use crate::pool::KvPool;
use burn_tensor::activation;
use exsearch_engine::rules::{WORTH_WAITING, common_prefix, finish_of, refusal, scored_length};
use exsearch_engine::{Decode, Draw, EngineConfig, EngineStats, draw};
use exsearch_schema::{
    Finish, GenerateError, GenerateRequest, Generation, Generator, RequestId, ScoreError, ScoreRequest, Scorer,
};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;

/// A model with its running sequences. `&DeviceEngine` is a [`Generator`] and a [`Scorer`], so that both can be used in turn
/// while they share rows.
pub struct DeviceEngine<'m> {
    decoder: &'m DeviceDecoder,
    adapter: Option<&'m DeviceAdapter>,
    text: &'m dyn Decode,
    config: EngineConfig,
    state: RefCell<State>,
}

struct State {
    next_id: u64,
    waiting: VecDeque<(RequestId, GenerateRequest)>,
    running: Vec<Sequence>,
    rejected: Vec<(RequestId, GenerateError)>,
    memory: Memory,
    stats: EngineStats,
}

/// The pool and what finished requests left in it.
struct Memory {
    pool: KvPool,
    kept: Vec<Kept>,
    clock: u64,
    /// Kept rows are given up rather than that the pool grows past this.
    max_rows: usize,
}

/// Token ids with their rows.
struct Kept {
    ids: Vec<u32>,
    rows: Vec<u32>,
    last_used: u64,
}

/// A request that is being worked on.
struct Sequence {
    id: RequestId,
    request: GenerateRequest,
    rows: Vec<u32>,
    sampled: Vec<u32>,
    logprobs: Vec<f32>,
    behaviour_logprobs: Vec<f32>,
}

/// Tokens of one prompt that are computed in one pass.
const PREFILL_TOKENS: usize = 256;
/// Numbers in a block of logits when scoring: 64 MB.
const SCORE_NUMBERS: usize = 1 << 24;

impl<'m> DeviceEngine<'m> {
    pub(crate) fn new(
        decoder: &'m DeviceDecoder,
        adapter: Option<&'m DeviceAdapter>,
        text: &'m dyn Decode,
        config: EngineConfig,
    ) -> Self {
        assert!(config.max_sequences > 0 && config.max_rows > 0, "an engine that can do something");
        let max_rows = config.kv_cache_bytes / decoder.bytes_a_token();
        let memory = Memory { pool: KvPool::new(decoder), kept: Vec::new(), clock: 0, max_rows };
        let state = State {
            next_id: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            rejected: Vec::new(),
            memory,
            stats: EngineStats::default(),
        };
        Self { decoder, adapter, text, config, state: RefCell::new(state) }
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

impl Generator for &DeviceEngine<'_> {
    fn submit(&mut self, request: GenerateRequest) -> RequestId {
        let mut state = self.state.borrow_mut();
        let id = RequestId(state.next_id);
        state.next_id += 1;
        match refusal(&request, self.max_context()) {
            Some(error) => state.rejected.push((id, error)),
            None => state.waiting.push_back((id, request)),
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

impl DeviceEngine<'_> {
    /// Moves waiting requests to the running ones. One whose beginning another is computing right now waits for it.
    fn admit(&self, state: &mut State) {
        let State { waiting, running, memory, stats, .. } = state;
        let mut kept_waiting = VecDeque::new();
        while running.len() < self.config.max_sequences
            && let Some((id, request)) = waiting.pop_front()
        {
            // The last token is always computed: its row gives the first draw.
            let reusable = request.context.len() - 1;
            let common = |it: &Sequence| common_prefix(&it.request.context, &request.context).min(reusable);
            let ready = |it: &Sequence| common(it).min(it.rows.len());
            let best = running.iter().max_by_key(|it| ready(it));
            let kept = memory.longest(&request.context).min(reusable);
            let now = best.map_or(0, ready).max(kept);
            if running.iter().any(|it| common(it) >= now + WORTH_WAITING) {
                kept_waiting.push_back((id, request));
                continue;
            }
            let rows = match best {
                Some(best) if ready(best) > kept => memory.pool.share(&best.rows[..now]),
                _ => memory.beginning(&request.context, reusable),
            };
            stats.n_reused += rows.len() as u64;
            let (sampled, logprobs, behaviour_logprobs) = (Vec::new(), Vec::new(), Vec::new());
            running.push(Sequence { id, request, rows, sampled, logprobs, behaviour_logprobs });
        }
        while let Some(request) = kept_waiting.pop_back() {
            waiting.push_front(request);
        }
    }

    /// A pass over some prompts and one over all that decode. Returns what finished.
    fn step(&self, state: &mut State) -> Vec<(RequestId, Generation)> {
        let decodes = |it: &Sequence| it.pending() == 1;
        let decoding: Vec<(usize, usize)> =
            state.running.iter().enumerate().filter(|(_, it)| decodes(it)).map(|(idx, _)| (idx, 1)).collect();
        let prompts = state.running.iter().enumerate().filter(|(_, it)| !decodes(it));
        let prefill = together(prompts.map(|(idx, it)| (idx, it.pending())), self.config.max_rows);
        let mut draws = Vec::new();
        for work in [prefill, decoding] {
            draws.extend(self.pass(state, &work));
        }
        draws.sort_by_key(|(idx, _)| *idx);
        let State { running, memory, stats, .. } = state;
        let mut finished = Vec::new();
        for (idx, draw) in draws.into_iter().rev() {
            stats.n_sampled += 1;
            if let Some(finish) = running[idx].push(&draw, self.text, self.max_context()) {
                finished.push(running.swap_remove(idx).finish(finish, memory));
            }
        }
        finished
    }

    /// Computes the next n tokens of sequences, for pairs of a sequence and n, and draws for those that have no other left.
    fn pass(&self, state: &mut State, work: &[(usize, usize)]) -> Vec<(usize, Draw)> {
        if work.is_empty() {
            return Vec::new();
        }
        let State { running, memory, stats, .. } = state;
        memory.make_room(work.iter().map(|(_, n)| n).sum());
        let known: Vec<Vec<u32>> = work.iter().map(|&(idx, n)| running[idx].next(n)).collect();
        let (mut wanted, mut drawing, mut n_rows) = (Vec::new(), Vec::new(), 0);
        for &(idx, n) in work {
            let sequence = &running[idx];
            n_rows += n;
            if n == sequence.pending() {
                wanted.push(n_rows - 1);
                drawing.push(idx);
            }
            stats.n_prefilled += if sequence.pending() > 1 { n as u64 } else { 0 };
        }
        stats.n_passes += 1;
        let mut of_sequence: Vec<Option<&mut Vec<u32>>> = running.iter_mut().map(|it| Some(&mut it.rows)).collect();
        let mut chunks: Vec<Chunk<'_>> = work
            .iter()
            .zip(&known)
            .map(|(&(idx, _), tokens)| Chunk { rows: of_sequence[idx].take().expect("a sequence once"), tokens })
            .collect();
        let Some(hidden) = self.decoder.infer(self.adapter, &mut memory.pool, &mut chunks, &wanted) else {
            return Vec::new();
        };
        let mut logits = numbers(self.decoder.logits(hidden));
        let rows = logits.par_chunks_exact_mut(self.decoder.config().vocab_size).zip(&drawing);
        rows.map(|(row, &idx)| (idx, draw(row, &running[idx].request.sampling, running[idx].sampled.len()))).collect()
    }
}

/// As many of the prompts, pairs of a name and a length, as fit into one pass, each with the tokens it takes there.
fn together(prompts: impl Iterator<Item = (usize, usize)>, max_rows: usize) -> Vec<(usize, usize)> {
    let (mut chosen, mut longest) = (Vec::new(), 0);
    for (idx, pending) in prompts {
        let n = pending.min(PREFILL_TOKENS).min(max_rows);
        // All are padded to the longest.
        if !chosen.is_empty() && (chosen.len() + 1) * longest.max(n) > max_rows {
            break;
        }
        longest = longest.max(n);
        chosen.push((idx, n));
    }
    chosen
}

impl Memory {
    /// How many of the first tokens of `context` some kept rows hold.
    fn longest(&self, context: &[u32]) -> usize {
        self.kept.iter().map(|kept| common_prefix(&kept.ids, context)).max().unwrap_or(0)
    }

    /// The rows of the longest kept beginning of `context`, at most `limit` of them.
    fn beginning(&mut self, context: &[u32], limit: usize) -> Vec<u32> {
        self.clock += 1;
        let best = self.kept.iter_mut().max_by_key(|kept| common_prefix(&kept.ids, context));
        let Some(best) = best else { return Vec::new() };
        best.last_used = self.clock;
        let length = common_prefix(&best.ids, context).min(limit);
        self.pool.share(&best.rows[..length])
    }

    /// Keeps the rows of `ids`, in place of what they go on from.
    fn keep(&mut self, ids: Vec<u32>, rows: Vec<u32>) {
        self.clock += 1;
        let (pool, last_used) = (&mut self.pool, self.clock);
        self.kept.retain(|kept| {
            let is_continued = rows.starts_with(&kept.rows);
            if is_continued {
                pool.release(&kept.rows);
            }
            !is_continued
        });
        self.kept.push(Kept { ids, rows, last_used });
    }

    /// Sees to it that n rows are free: lets the pool grow to its limit, gives up the least recently used of what is kept, and
    /// lets it grow past the limit only for what is under way.
    fn make_room(&mut self, n: usize) {
        while self.pool.n_free() < n {
            let n_rows = self.pool.n_rows();
            let oldest = (0..self.kept.len()).min_by_key(|&idx| self.kept[idx].last_used);
            match oldest {
                Some(oldest) if n_rows >= self.max_rows => {
                    let kept = self.kept.swap_remove(oldest);
                    self.pool.release(&kept.rows);
                }
                _ => self.pool.grow((2 * n_rows).min(self.max_rows).max(n_rows + n)),
            }
        }
    }
}

impl Sequence {
    /// Tokens that are known but not computed.
    fn pending(&self) -> usize {
        self.request.context.len() + self.sampled.len() - self.rows.len()
    }

    /// The next n of them.
    fn next(&self, n: usize) -> Vec<u32> {
        let known = self.request.context.iter().chain(&self.sampled);
        known.skip(self.rows.len()).take(n).copied().collect()
    }

    /// Takes a drawn token and says whether the turn ends with it.
    fn push(&mut self, draw: &Draw, text: &dyn Decode, max_context: usize) -> Option<Finish> {
        self.sampled.push(draw.id);
        self.logprobs.push(draw.logprob);
        self.behaviour_logprobs.push(draw.behaviour_logprob);
        finish_of(&self.sampled, self.request.context.len(), &self.request.sampling, text, max_context)
    }

    fn finish(self, finish: Finish, memory: &mut Memory) -> (RequestId, Generation) {
        let Self { id, request, rows, sampled, logprobs, behaviour_logprobs } = self;
        let mut ids = request.context;
        ids.extend(&sampled);
        ids.truncate(rows.len());
        memory.keep(ids, rows);
        (id, Generation { ids: sampled, logprobs, behaviour_logprobs, finish })
    }
}

/// A continuation that is being scored.
struct Scored<'r> {
    request_idx: usize,
    continuation_idx: usize,
    /// The context's last token and all of the continuation but its last.
    tokens: Vec<u32>,
    targets: &'r [u32],
}

impl Scorer for &DeviceEngine<'_> {
    fn score(&mut self, requests: &[ScoreRequest]) -> Vec<Result<Vec<f32>, ScoreError>> {
        let mut state = self.state.borrow_mut();
        let mut sums: Vec<Result<Vec<f32>, ScoreError>> = requests
            .iter()
            .map(|it| scored_length(it, self.max_context()).map(|_| vec![0.0; it.continuations.len()]))
            .collect();
        let contexts = self.compute_contexts(requests, &sums, &mut state);
        let mut open = Vec::new();
        for (request_idx, request) in requests.iter().enumerate().filter(|(idx, _)| sums[*idx].is_ok()) {
            let last = *request.context.last().expect("it was checked");
            for (continuation_idx, targets) in request.continuations.iter().enumerate().filter(|(_, it)| !it.is_empty())
            {
                let tokens = std::iter::once(last).chain(targets.iter().copied()).take(targets.len()).collect();
                open.push(Scored { request_idx, continuation_idx, tokens, targets });
            }
        }
        let mut rest = open.as_slice();
        while !rest.is_empty() {
            let lengths = rest.iter().scan((0, 0), |(n, longest), it| {
                (*n, *longest) = (*n + 1, it.tokens.len().max(*longest));
                Some(*n * *longest)
            });
            let n = lengths.take_while(|n_rows| *n_rows <= self.config.max_rows).count().max(1);
            let (now, later) = rest.split_at(n);
            for (scored, sum) in now.iter().zip(self.score_together(now, &contexts, &mut state)) {
                sums[scored.request_idx].as_mut().expect("it was checked")[scored.continuation_idx] = sum;
            }
            rest = later;
        }
        for (request, rows) in requests.iter().zip(contexts) {
            if !rows.is_empty() {
                state.memory.keep(request.context[..rows.len()].to_vec(), rows);
            }
        }
        sums
    }
}

impl DeviceEngine<'_> {
    /// The rows of every context without its last token; none for those that are not scored.
    fn compute_contexts(
        &self,
        requests: &[ScoreRequest],
        sums: &[Result<Vec<f32>, ScoreError>],
        state: &mut State,
    ) -> Vec<Vec<u32>> {
        let State { memory, stats, .. } = state;
        let before: Vec<&[u32]> = requests
            .iter()
            .zip(sums)
            .map(|(request, sum)| if sum.is_ok() { &request.context[..request.context.len() - 1] } else { &[] })
            .collect();
        let mut all_rows: Vec<Vec<u32>> = before.iter().map(|ids| memory.beginning(ids, ids.len())).collect();
        stats.n_reused += all_rows.iter().map(|rows| rows.len() as u64).sum::<u64>();
        loop {
            let open = all_rows.iter().zip(&before).enumerate();
            let open = open.map(|(idx, (rows, ids))| (idx, ids.len() - rows.len())).filter(|(_, pending)| *pending > 0);
            let work = together(open, self.config.max_rows);
            if work.is_empty() {
                return all_rows;
            }
            let n_new = work.iter().map(|(_, n)| n).sum();
            memory.make_room(n_new);
            (stats.n_prefilled, stats.n_passes) = (stats.n_prefilled + n_new as u64, stats.n_passes + 1);
            let mut taken: Vec<Option<&mut Vec<u32>>> = all_rows.iter_mut().map(Some).collect();
            let mut chunks: Vec<Chunk<'_>> = work
                .iter()
                .map(|&(idx, n)| {
                    let rows = taken[idx].take().expect("a context once");
                    let tokens = &before[idx][rows.len()..][..n];
                    Chunk { rows, tokens }
                })
                .collect();
            self.decoder.infer(self.adapter, &mut memory.pool, &mut chunks, &[]);
        }
    }

    /// log p of continuations, each behind its context.
    fn score_together(&self, scored: &[Scored<'_>], contexts: &[Vec<u32>], state: &mut State) -> Vec<f32> {
        let State { memory, stats, .. } = state;
        let n_rows: usize = scored.iter().map(|it| it.tokens.len()).sum();
        memory.make_room(n_rows);
        stats.n_passes += 1;
        let mut all_rows: Vec<Vec<u32>> =
            scored.iter().map(|it| memory.pool.share(&contexts[it.request_idx])).collect();
        let mut chunks: Vec<Chunk<'_>> =
            all_rows.iter_mut().zip(scored).map(|(rows, it)| Chunk { rows, tokens: &it.tokens }).collect();
        let wanted: Vec<usize> = (0..n_rows).collect();
        let hidden = self.decoder.infer(self.adapter, &mut memory.pool, &mut chunks, &wanted);
        let hidden = hidden.expect("a continuation that is scored has a token");
        let targets: Vec<i32> = scored.iter().flat_map(|it| it.targets).map(|id| *id as i32).collect();
        let block = (SCORE_NUMBERS / self.decoder.config().vocab_size).max(16);
        let mut logprobs = Vec::with_capacity(n_rows);
        for (block_idx, targets) in targets.chunks(block).enumerate() {
            let n = targets.len();
            let logits = self.decoder.logits(hidden.clone().narrow(0, block_idx * block, n));
            let targets = self.decoder.indices(targets.to_vec()).reshape([n, 1]);
            logprobs.extend(numbers(activation::log_softmax(logits, 1).gather(1, targets)));
        }
        for rows in &all_rows {
            memory.pool.release(rows);
        }
        let mut logprobs = logprobs.into_iter();
        scored.iter().map(|it| logprobs.by_ref().take(it.targets.len()).map(f64::from).sum::<f64>() as f32).collect()
    }
}
