//! Caches of finished requests, found again by the beginning of a later one.
use crate::rules::common_prefix;
use exsearch_model::decoder::KvCache;

/// Token ids with their keys and values.
struct Stored {
    ids: Vec<u32>,
    cache: KvCache,
    last_used: u64,
}

/// The caches of finished requests. Those with a common beginning may share its pages.
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
    /// away; one that only shares a beginning shares its pages.
    pub(crate) fn take(&mut self, context: &[u32], limit: usize) -> Option<KvCache> {
        let (idx, length) = self.best(&context[..limit])?;
        if length == self.stored[idx].ids.len() {
            return Some(self.stored.swap_remove(idx).cache);
        }
        Some(self.share_stored(idx, length))
    }

    /// A cache of the longest stored beginning of `context`, whose pages it shares.
    pub(crate) fn share(&mut self, context: &[u32]) -> Option<KvCache> {
        let (idx, length) = self.best(context)?;
        Some(self.share_stored(idx, length))
    }

    /// Which stored cache covers most of `context`, and how much.
    fn best(&self, context: &[u32]) -> Option<(usize, usize)> {
        let covers = self.stored.iter().map(|stored| common_prefix(&stored.ids, context));
        covers.enumerate().max_by_key(|&(idx, covers)| (covers, idx)).filter(|(_, covers)| *covers > 0)
    }

    fn share_stored(&mut self, idx: usize, length: usize) -> KvCache {
        self.clock += 1;
        self.stored[idx].last_used = self.clock;
        self.stored[idx].cache.prefix(length)
    }

    /// Keeps the cache of `ids`.
    pub(crate) fn put(&mut self, ids: Vec<u32>, cache: KvCache) {
        debug_assert_eq!(ids.len(), cache.n_tokens());
        if ids.is_empty() {
            return;
        }
        self.clock += 1;
        self.stored.push(Stored { ids, cache, last_used: self.clock });
    }

    /// Drops the least recently used cache; false when there is none. Pages that others share stay.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let oldest = (0..self.stored.len()).min_by_key(|&idx| self.stored[idx].last_used);
        oldest.map(|oldest| self.stored.swap_remove(oldest)).is_some()
    }
}
