//! The keys and values of a sequence in pages of 64 tokens, laid out so that attention over a page is two plain products.
//!
//! Keys of a head are panels of 32 tokens `[t / 32][d][32]`: the right-hand side of Q·Kᵀ. Values are rows `[t, d]`: the
//! right-hand side of P·V. SmolLM2-135M: 2 x 30 layers x 192 floats = 46 KB a token, 2.9 MB a page.
//!
//! Caches with a common beginning share its pages. A shared page that is written to is copied first.
use super::attention::HeadPage;
use crate::config::DecoderConfig;
use exsearch_kernels::{LANES, MatRef};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 2 * LANES;

/// Keys and values of one sequence.
#[derive(Clone)]
pub struct KvCache {
    pages: Vec<Arc<Page>>,
    counter: PageCounter,
    n_kv_heads: usize,
    head_dim: usize,
    /// Floats of a page.
    page_size: usize,
    n_tokens: usize,
}

/// How many pages the caches that were made with it hold together, shared ones counted once.
#[derive(Clone, Default)]
pub struct PageCounter(Arc<AtomicUsize>);

/// 64 tokens: by layer and key-value head, keys `[2][d][32]` and then values `[64, d]`.
struct Page {
    values: Vec<f32>,
    counter: PageCounter,
}

impl PageCounter {
    /// The pages there are.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Page {
    fn new(values: Vec<f32>, counter: &PageCounter) -> Self {
        counter.0.fetch_add(1, Ordering::Relaxed);
        Self { values, counter: counter.clone() }
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self::new(self.values.clone(), &self.counter)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.counter.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl KvCache {
    /// An empty cache.
    pub fn new(config: &DecoderConfig) -> Self {
        Self::counted(config, &PageCounter::default())
    }

    /// An empty cache whose pages are counted with those of others.
    pub fn counted(config: &DecoderConfig, counter: &PageCounter) -> Self {
        Self {
            pages: Vec::new(),
            counter: counter.clone(),
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            page_size: Self::page_bytes(config) / size_of::<f32>(),
            n_tokens: 0,
        }
    }

    /// How many tokens it holds.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Bytes a token takes in a cache of this configuration.
    pub fn bytes_a_token(config: &DecoderConfig) -> usize {
        2 * config.layers.len() * config.n_kv_heads * config.head_dim * size_of::<f32>()
    }

    /// Bytes of a page of this configuration.
    pub fn page_bytes(config: &DecoderConfig) -> usize {
        PAGE_TOKENS * Self::bytes_a_token(config)
    }

    /// The pages that some caches hold together, shared ones counted once.
    pub fn distinct_pages<'a>(caches: impl Iterator<Item = &'a Self>) -> usize {
        caches.flat_map(|cache| cache.pages.iter().map(Arc::as_ptr)).collect::<HashSet<_>>().len()
    }

    /// Pages that hold `n_tokens`.
    pub fn pages_of(n_tokens: usize) -> usize {
        n_tokens.div_ceil(PAGE_TOKENS)
    }

    /// Pages that writing `n_new` tokens makes: new ones, and the last one's copy where another cache shares it.
    pub fn new_pages(&self, n_new: usize) -> usize {
        let copies = n_new > 0 && !self.n_tokens.is_multiple_of(PAGE_TOKENS) && Arc::strong_count(self.last()) > 1;
        Self::pages_of(self.n_tokens + n_new) - self.pages.len() + usize::from(copies)
    }

    fn last(&self) -> &Arc<Page> {
        self.pages.last().expect("a cache with tokens has pages")
    }

    /// A cache of the first `n_tokens`, which shares their pages.
    pub fn prefix(&self, n_tokens: usize) -> Self {
        assert!(n_tokens <= self.n_tokens, "a prefix is no longer than the whole");
        let pages = self.pages[..Self::pages_of(n_tokens)].to_vec();
        Self { pages, counter: self.counter.clone(), n_tokens, ..*self }
    }

    /// Drops all tokens behind the first `n_tokens`.
    pub fn truncate(&mut self, n_tokens: usize) {
        assert!(n_tokens <= self.n_tokens, "a prefix is no longer than the whole");
        self.pages.truncate(Self::pages_of(n_tokens));
        self.n_tokens = n_tokens;
    }

    /// Writes one layer's keys and values `[n, kv heads · d]` behind the tokens so far. [`KvCache::advance`] counts them once
    /// every layer has written its own.
    pub(crate) fn write(&mut self, layer_idx: usize, keys: &[f32], values: &[f32]) {
        let (d, width) = (self.head_dim, self.n_kv_heads * self.head_dim);
        let end = self.n_tokens + keys.len() / width;
        while self.pages.len() < Self::pages_of(end) {
            self.pages.push(Arc::new(Page::new(vec![0.0; self.page_size], &self.counter)));
        }
        let mut position = self.n_tokens;
        while position < end {
            let (page_idx, first) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
            let rows = position - self.n_tokens..end.min((page_idx + 1) * PAGE_TOKENS) - self.n_tokens;
            let places: Vec<_> = (0..self.n_kv_heads).map(|head| self.places(layer_idx, head)).collect();
            let page = &mut Arc::make_mut(&mut self.pages[page_idx]).values;
            for (head, (key_place, value_place)) in places.into_iter().enumerate() {
                for (offset, row) in rows.clone().enumerate() {
                    let (token, at) = (first + offset, row * width + head * d);
                    let panel = &mut page[key_place.clone()][token / LANES * d * LANES..][..d * LANES];
                    for (line, value) in panel.chunks_exact_mut(LANES).zip(&keys[at..][..d]) {
                        line[token % LANES] = *value;
                    }
                    page[value_place.clone()][token * d..][..d].copy_from_slice(&values[at..][..d]);
                }
            }
            position += rows.len();
        }
    }

    /// Counts tokens that every layer has written.
    pub(crate) fn advance(&mut self, n_tokens: usize) {
        self.n_tokens += n_tokens;
    }

    /// What a head's pages hold, 64 tokens each.
    pub(super) fn head(&self, layer_idx: usize, head: usize) -> Vec<HeadPage<'_>> {
        let (keys, values) = self.places(layer_idx, head);
        let rows = |page| MatRef::new(page, PAGE_TOKENS, self.head_dim);
        let pages = self.pages.iter().map(|page| page.values.as_slice());
        pages.map(|page| HeadPage { keys: &page[keys.clone()], values: rows(&page[values.clone()]) }).collect()
    }

    /// Where a head's keys and values lie in a page.
    fn places(&self, layer_idx: usize, head: usize) -> (Range<usize>, Range<usize>) {
        let size = PAGE_TOKENS * self.head_dim;
        let first = 2 * (layer_idx * self.n_kv_heads + head) * size;
        (first..first + size, first + size..first + 2 * size)
    }
}
