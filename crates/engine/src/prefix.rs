//! Caches of finished requests, found again by the beginning of a later one.
use exsearch_model::decoder::KvCache;

/// Token ids with their keys and values.
struct Stored {
    ids: Vec<u32>,
    cache: KvCache,
    last_used: u64,
}

/// The caches of finished requests.
#[derive(Default)]
pub(crate) struct PrefixStore {
    stored: Vec<Stored>,
    clock: u64,
}

impl PrefixStore {
    /// How many of the first tokens of `context` the best stored cache covers.
    pub(crate) fn longest(&self, context: &[u32]) -> usize {
        self.stored.iter().map(|stored| common_prefix(&stored.ids, context)).max().unwrap_or(0)
    }

    /// A cache of the longest stored beginning of `context`, at most `limit` tokens. A dialogue that goes on takes its cache
    /// away; one that only shares a beginning gets a copy.
    pub(crate) fn take(&mut self, context: &[u32], limit: usize) -> Option<KvCache> {
        let covers = |stored: &Stored| common_prefix(&stored.ids, context).min(limit);
        let (idx, best) = self.stored.iter().enumerate().max_by_key(|(idx, stored)| (covers(stored), *idx))?;
        let length = covers(best);
        if length == 0 {
            return None;
        }
        if length == best.ids.len() {
            return Some(self.stored.swap_remove(idx).cache);
        }
        self.clock += 1;
        self.stored[idx].last_used = self.clock;
        Some(self.stored[idx].cache.prefix(length))
    }

    /// Keeps the cache of `ids`.
    pub(crate) fn put(&mut self, ids: Vec<u32>, cache: KvCache) {
        debug_assert_eq!(ids.len(), cache.n_tokens());
        self.clock += 1;
        self.stored.push(Stored { ids, cache, last_used: self.clock });
    }

    /// Drops the least recently used caches until the rest fits.
    pub(crate) fn shrink(&mut self, max_bytes: usize, bytes_a_token: usize) {
        let mut bytes: usize = self.stored.iter().map(|stored| stored.ids.len() * bytes_a_token).sum();
        while bytes > max_bytes {
            let Some(oldest) = (0..self.stored.len()).min_by_key(|&idx| self.stored[idx].last_used) else { break };
            bytes -= self.stored.swap_remove(oldest).ids.len() * bytes_a_token;
        }
    }
}

/// How many ids two sequences share at their beginnings.
pub(crate) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
