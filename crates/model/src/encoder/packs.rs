//! Many texts -> what a head makes of each one's final hidden states: packs of texts of similar length, spread over threads.
//!
//! What a text gets does not depend on the others of a call or on the threads. Knows nothing of tokenizers or heads.
use super::bert::{Bert, TokenIds, Workspace};
use crate::ModelError;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// A BERT with the threads and buffers that it runs on.
pub(super) struct PackedBert {
    bert: Bert,
    /// Threads of its own, unless those of the caller are used.
    pool: Option<rayon::ThreadPool>,
    /// Buffers of the packs that were encoded at the same time, at most one a thread.
    workspaces: Mutex<Vec<Workspace>>,
}

/// Tokens of a pack where there are many texts. Enough rows for the products to be at full speed, few enough for the widest
/// activations to stay in the second-level cache: 256 tokens x 1,536 x 4 B = 1.6 MB for MiniLM.
const PACK_TOKENS: usize = 256;

impl PackedBert {
    /// Without `threads` it uses those of the calling rayon pool.
    pub(super) fn new(bert: Bert, threads: Option<usize>) -> Result<Self, ModelError> {
        Ok(Self { bert, pool: own_threads(threads)?, workspaces: Mutex::new(Vec::new()) })
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.bert.config().hidden_size
    }

    /// What `head` makes of the ids of each text and of its final hidden states `[n, h]`, in the order of the texts.
    pub(super) fn run<T: Send>(
        &self,
        texts: &[&str],
        tokenize: impl Fn(&str) -> Result<TokenIds, ModelError> + Sync,
        head: impl Fn(&TokenIds, &[f32]) -> T + Sync,
    ) -> Result<Vec<T>, ModelError> {
        let run = || {
            let ids: Vec<TokenIds> = texts.par_iter().map(|text| tokenize(text)).collect::<Result<_, _>>()?;
            Ok(self.run_ids(&ids, &head))
        };
        // From inside a pool many short parallel loops cost a fraction of what they cost from outside.
        match &self.pool {
            Some(pool) => pool.install(run),
            None => rayon::scope(|_| run()),
        }
    }

    fn run_ids<T: Send>(&self, texts: &[TokenIds], head: &(impl Fn(&TokenIds, &[f32]) -> T + Sync)) -> Vec<T> {
        let n_threads = rayon::current_num_threads();
        let packs = packs(texts, n_threads);
        // With a pack or more for every thread none has to wait for another.
        let is_parallel = packs.len() < n_threads;
        let run = |pack: &Vec<usize>| self.run_pack(pack, texts, head, is_parallel);
        let by_pack: Vec<Vec<T>> = if is_parallel {
            packs.iter().map(run).collect()
        } else {
            packs.par_iter().with_max_len(1).map(run).collect()
        };
        let mut results: Vec<Option<T>> = texts.iter().map(|_| None).collect();
        for (text_idx, result) in packs.into_iter().flatten().zip(by_pack.into_iter().flatten()) {
            results[text_idx] = Some(result);
        }
        results.into_iter().map(|result| result.expect("every text is in a pack")).collect()
    }

    /// The results of the texts of a pack, in its order.
    fn run_pack<T>(
        &self,
        pack: &[usize],
        texts: &[TokenIds],
        head: &impl Fn(&TokenIds, &[f32]) -> T,
        is_parallel: bool,
    ) -> Vec<T> {
        let kept = || self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = kept().pop().unwrap_or_default();
        let texts: Vec<&TokenIds> = pack.iter().map(|&text_idx| &texts[text_idx]).collect();
        let mut hidden = self.bert.forward(&texts, is_parallel, &mut workspace);
        let results = texts
            .iter()
            .map(|text| {
                let (rows, rest) = hidden.split_at(text.ids.len() * self.hidden_size());
                hidden = rest;
                head(text, rows)
            })
            .collect();
        kept().push(workspace);
        results
    }
}

/// A pool of so many threads, if any are asked for.
pub(super) fn own_threads(threads: Option<usize>) -> Result<Option<rayon::ThreadPool>, ModelError> {
    let pool = threads.map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build()).transpose();
    pool.map_err(|error| ModelError::Threads { reason: error.to_string() })
}

/// The texts in packs, the longest first, so that no thread is left with a long one at the end.
fn packs(texts: &[TokenIds], n_threads: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&text_idx| std::cmp::Reverse(texts[text_idx].ids.len()));
    let n_tokens: usize = texts.iter().map(|text| text.ids.len()).sum();
    let pack_tokens = n_tokens.div_ceil(n_threads).min(PACK_TOKENS);
    let (mut packs, mut room) = (Vec::<Vec<usize>>::new(), 0);
    for text_idx in order {
        let n = texts[text_idx].ids.len();
        match packs.last_mut() {
            Some(pack) if n <= room => {
                pack.push(text_idx);
                room -= n;
            }
            _ => {
                packs.push(vec![text_idx]);
                room = pack_tokens.saturating_sub(n);
            }
        }
    }
    packs
}
