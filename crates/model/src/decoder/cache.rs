//! The keys and values of a sequence, laid out so that attention over them is two plain products.
//!
//! Keys of a head are panels of 32 tokens `[t / 32][d][32]`: the right-hand side of Q·Kᵀ. Values are rows `[t, d]`: the
//! right-hand side of P·V. SmolLM2-135M: 2 x 30 layers x 192 floats = 46 KB a token.
use crate::config::DecoderConfig;
use exsearch_kernels::LANES;

/// Keys and values of one sequence.
#[derive(Clone)]
pub struct KvCache {
    /// By layer and key-value head: `[t / 32][d][32]`.
    keys: Vec<Vec<f32>>,
    /// By layer and key-value head: `[t, d]`.
    values: Vec<Vec<f32>>,
    n_kv_heads: usize,
    head_dim: usize,
    n_tokens: usize,
}

impl KvCache {
    /// An empty cache.
    pub fn new(config: &DecoderConfig) -> Self {
        let n_heads = config.layers.len() * config.n_kv_heads;
        Self {
            keys: vec![Vec::new(); n_heads],
            values: vec![Vec::new(); n_heads],
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
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

    /// A cache of the first `n_tokens`, copied.
    pub fn prefix(&self, n_tokens: usize) -> Self {
        assert!(n_tokens <= self.n_tokens, "a prefix is no longer than the whole");
        let key_values = n_tokens.div_ceil(LANES) * self.head_dim * LANES;
        let copy = |values: &Vec<f32>, length: usize| values[..length].to_vec();
        Self {
            keys: self.keys.iter().map(|keys| copy(keys, key_values)).collect(),
            values: self.values.iter().map(|values| copy(values, n_tokens * self.head_dim)).collect(),
            n_tokens,
            ..*self
        }
    }

    /// Drops all tokens behind the first `n_tokens`.
    pub fn truncate(&mut self, n_tokens: usize) {
        assert!(n_tokens <= self.n_tokens, "a prefix is no longer than the whole");
        for values in &mut self.values {
            values.truncate(n_tokens * self.head_dim);
        }
        for keys in &mut self.keys {
            keys.truncate(n_tokens.div_ceil(LANES) * self.head_dim * LANES);
        }
        self.n_tokens = n_tokens;
    }

    /// Writes one layer's keys and values `[n, kv heads · d]` behind the tokens so far. [`KvCache::advance`] counts them once
    /// every layer has written its own.
    pub(crate) fn write(&mut self, layer_idx: usize, keys: &[f32], values: &[f32]) {
        let (d, width) = (self.head_dim, self.n_kv_heads * self.head_dim);
        let n_new = keys.len() / width;
        let n_panels = (self.n_tokens + n_new).div_ceil(LANES);
        for head in 0..self.n_kv_heads {
            let slot = layer_idx * self.n_kv_heads + head;
            let panels = &mut self.keys[slot];
            panels.resize(n_panels * d * LANES, 0.0);
            for (row, key) in keys.chunks_exact(width).enumerate() {
                let position = self.n_tokens + row;
                let panel = &mut panels[position / LANES * d * LANES..][..d * LANES];
                for (line, value) in panel.chunks_exact_mut(LANES).zip(&key[head * d..][..d]) {
                    line[position % LANES] = *value;
                }
            }
            let rows = &mut self.values[slot];
            rows.truncate(self.n_tokens * d);
            for value in values.chunks_exact(width) {
                rows.extend_from_slice(&value[head * d..][..d]);
            }
        }
    }

    /// Counts tokens that every layer has written.
    pub(crate) fn advance(&mut self, n_tokens: usize) {
        self.n_tokens += n_tokens;
    }

    /// Keys `[t / 32][d][32]` and values `[t, d]` of a head.
    pub(crate) fn head(&self, layer_idx: usize, head: usize) -> (&[f32], &[f32]) {
        let slot = layer_idx * self.n_kv_heads + head;
        (&self.keys[slot], &self.values[slot])
    }
}
