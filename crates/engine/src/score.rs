//! Log-probs of given continuations, for many contexts at once.
//!
//! All contexts with their continuations form a tree of tokens: what several share is computed once. Its branches are
//! computed depth first, as many in one pass as fit, so that only those under way hold pages of their own; logits are made of
//! the rows before the scored tokens alone.
use crate::rules::{common_prefix, scored_length};
use crate::{Engine, State};
use exsearch_kernels::log_softmax_at;
use exsearch_model::decoder::{Chunk, KvCache};
use exsearch_schema::{ScoreError, ScoreRequest};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of logits at a time: 64 x 49,152 x 4 B = 12.6 MB.
const SCORE_ROWS: usize = 64;

/// A context with one continuation.
struct Path<'r> {
    request_idx: usize,
    continuation_idx: usize,
    /// The context and all of the continuation but its last token, which nothing is predicted from.
    ids: Vec<u32>,
    /// The position that predicts the continuation's first token.
    first: usize,
    targets: &'r [u32],
    /// log p of each target.
    logprobs: Vec<f32>,
}

/// A run of tokens that paths have in common, behind those of the branches above it.
struct Branch {
    /// Of the sorted paths.
    paths: Range<usize>,
    tokens: Range<usize>,
    /// Holds what is above the branch and, as it is computed, its own tokens.
    cache: KvCache,
}

/// A target of a path, and which of a pass's wanted rows predicts it.
struct Reading {
    row: usize,
    path_idx: usize,
    target_idx: usize,
}

impl Engine<'_> {
    /// For every request the summed log-prob of each continuation.
    pub(crate) fn score_all(&self, requests: &[ScoreRequest], state: &mut State) -> Vec<Result<Vec<f32>, ScoreError>> {
        let mut results: Vec<_> = requests.iter().map(|request| self.accept(request)).collect();
        let mut paths: Vec<Path<'_>> = Vec::new();
        for (request_idx, request) in requests.iter().enumerate().filter(|(idx, _)| results[*idx].is_ok()) {
            let scored = request.continuations.iter().enumerate().filter(|(_, ids)| !ids.is_empty());
            paths.extend(scored.map(|(idx, targets)| Path::new(request_idx, idx, &request.context, targets)));
        }
        paths.sort_by(|a, b| a.ids.cmp(&b.ids));
        let mut branches = self.behind(0..paths.len(), 0, &self.new_cache(state), &paths, state);
        while !branches.is_empty() {
            // What is stored may hold all of a branch.
            if branches.iter().any(|branch| branch.pending() > 0) {
                self.score_pass(&mut branches, &mut paths, state);
            }
            let next = |branch: Branch| match branch.pending() {
                0 => self.behind(branch.paths, branch.tokens.end, &branch.cache, &paths, state),
                _ => vec![branch],
            };
            branches = branches.into_iter().flat_map(next).collect();
        }
        for path in paths {
            if let Ok(sums) = &mut results[path.request_idx] {
                sums[path.continuation_idx] = path.logprobs.iter().sum();
            }
        }
        results
    }

    /// The branches of sorted paths that are equal up to `depth`, which `cache` holds. Paths that end there have none.
    fn behind(
        &self,
        range: Range<usize>,
        depth: usize,
        cache: &KvCache,
        paths: &[Path<'_>],
        state: &mut State,
    ) -> Vec<Branch> {
        let mut start = range.start + paths[range.clone()].partition_point(|path| path.ids.len() <= depth);
        let mut branches = Vec::new();
        while start < range.end {
            let token = paths[start].ids[depth];
            let end = start + paths[start..range.end].partition_point(|path| path.ids[depth] == token);
            let tokens = depth..common_prefix(&paths[start].ids, &paths[end - 1].ids);
            // Rows that are scored are always computed. Keys and values of rounded weights are not those of the model.
            let unscored = paths[start..end].iter().map(|path| path.first).min().unwrap_or(0).min(tokens.end);
            let stored = (self.int8.is_none() && unscored > depth)
                .then(|| state.store.share(&paths[start].ids[..unscored]))
                .flatten()
                .filter(|stored| stored.n_tokens() > depth);
            state.stats.n_reused += stored.as_ref().map_or(0, |stored| stored.n_tokens() - depth) as u64;
            branches.push(Branch { paths: start..end, tokens, cache: stored.unwrap_or_else(|| cache.clone()) });
            start = end;
        }
        branches
    }

    /// A sum of zero for each continuation, or why the request cannot be computed.
    fn accept(&self, request: &ScoreRequest) -> Result<Vec<f32>, ScoreError> {
        let length = scored_length(request, self.max_context())?;
        match self.too_large(length) {
            Some(reason) => Err(ScoreError(reason)),
            None => Ok(vec![0.0; request.continuations.len()]),
        }
    }

    /// Computes the next tokens of the first branches and reads what they predict.
    fn score_pass(&self, branches: &mut [Branch], paths: &mut [Path<'_>], state: &mut State) {
        let plan = self.score_plan(branches, state);
        let (mut chunks, mut wanted, mut readings) = (Vec::with_capacity(plan.len()), Vec::new(), Vec::new());
        let mut n_rows = 0;
        for (branch, n) in branches.iter_mut().zip(plan) {
            let start = branch.cache.n_tokens();
            for position in start.max(branch.tokens.start)..start + n {
                let n_before = readings.len();
                for path_idx in branch.paths.clone().filter(|&idx| paths[idx].first <= position) {
                    let target_idx = position - paths[path_idx].first;
                    readings.push(Reading { row: wanted.len(), path_idx, target_idx });
                }
                if readings.len() > n_before {
                    wanted.push(n_rows + position - start);
                }
            }
            n_rows += n;
            let tokens = &paths[branch.paths.start].ids[start..start + n];
            chunks.push(Chunk { cache: &mut branch.cache, tokens });
        }
        state.stats.n_prefilled += n_rows as u64;
        let exact = self.decoder.inference(self.adapter, None);
        let hidden = exact.forward(&mut chunks, &wanted, &mut state.workspace);
        self.count_pass(state);
        let State { workspace, logits, .. } = state;
        let width = self.decoder.config().hidden_size;
        let mut logprobs = Vec::with_capacity(readings.len());
        for (part_idx, hidden) in hidden.chunks(SCORE_ROWS * width).enumerate() {
            exact.logits(hidden, logits, workspace);
            let (vocabulary, first) = (self.decoder.config().vocab_size, part_idx * SCORE_ROWS);
            let of_part = readings.partition_point(|reading| reading.row < first)
                ..readings.partition_point(|reading| reading.row < first + SCORE_ROWS);
            let read = |reading: &Reading| {
                let row = &logits[(reading.row - first) * vocabulary..][..vocabulary];
                log_softmax_at(row, paths[reading.path_idx].targets[reading.target_idx] as usize)
            };
            logprobs.par_extend(readings[of_part].par_iter().map(read));
        }
        for (reading, logprob) in readings.iter().zip(logprobs) {
            paths[reading.path_idx].logprobs[reading.target_idx] = logprob;
        }
    }

    /// How many tokens of each of the first branches the next pass computes: as many as rows and pages allow, at least one of
    /// the first. For that one, in this order, stored caches go, those of the last branches, and what is running.
    fn score_plan(&self, branches: &mut [Branch], state: &mut State) -> Vec<usize> {
        let (mut room, mut new) = (self.config.max_rows, 0);
        let mut plan = Vec::new();
        let mut idx = 0;
        while idx < branches.len() && room > 0 {
            let n = branches[idx].pending().min(room);
            let pages = branches[idx].cache.new_pages(n);
            if state.pages.count() + new + pages <= self.max_pages {
                plan.push(n);
                (room, new, idx) = (room - n, new + pages, idx + 1);
                continue;
            }
            // A page that only the store shared needs no copy any more.
            if state.store.drop_oldest() {
                continue;
            }
            if idx > 0 {
                break;
            }
            let last = branches[1..].iter_mut().rev().find(|branch| branch.cache.n_tokens() > 0);
            match last {
                Some(branch) => branch.cache = self.new_cache(state),
                None => assert!(self.put_back_youngest(state), "what is scored fits the budget alone"),
            }
        }
        plan
    }
}

impl<'r> Path<'r> {
    fn new(request_idx: usize, continuation_idx: usize, context: &[u32], targets: &'r [u32]) -> Self {
        let ids = context.iter().chain(&targets[..targets.len() - 1]).copied().collect();
        let logprobs = vec![f32::NAN; targets.len()];
        Self { request_idx, continuation_idx, ids, first: context.len() - 1, targets, logprobs }
    }
}

impl Branch {
    fn pending(&self) -> usize {
        self.tokens.end - self.cache.n_tokens()
    }
}
