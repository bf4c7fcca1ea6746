//! The memory of a backward pass: what layers keep, and what they work in. One piece of memory for all of it, used again from
//! pass to pass, so that a pass allocates nothing.
use super::Pass;
use crate::decoder::{Norm, Projection};

/// What the layers of a pass keep for their backward pass, and buffers. It grows to what the largest pass needs.
pub struct Tape {
    budget_bytes: usize,
    values: Vec<f32>,
}

/// What a layer's backward pass needs from its forward pass.
pub(super) struct LayerSaved<T> {
    /// In the order of [`Norm::ALL`].
    pub(super) norms: [Normed<T>; 6],
    /// After norm and rotation, as are the keys.
    pub(super) queries: T,
    pub(super) keys: T,
    pub(super) values: T,
    /// By sequence and query head `[heads, n]`.
    pub(super) lse: T,
    pub(super) attended: T,
    pub(super) gate: T,
    pub(super) up: T,
    /// s·(x·A) of each projection.
    pub(super) inner: [T; 7],
}

/// What went into an RMSNorm, and 1 / rms of each of its rows; empty where the layer has no such norm.
pub(super) struct Normed<T> {
    pub(super) x: T,
    pub(super) inverses: T,
}

/// A tape cut up for a pass.
pub(super) struct Cut<'a> {
    /// Of the last layers; a layer before them keeps its input and borrows the first of these.
    pub(super) saved: Vec<LayerSaved<&'a mut [f32]>>,
    /// Of the layers before them `[t, h]`.
    pub(super) inputs: Vec<&'a mut [f32]>,
    /// `[t, h]`.
    pub(super) x: &'a mut [f32],
    pub(super) d_x: &'a mut [f32],
    pub(super) scratch: Scratch<'a>,
}

/// Buffers for one step of a pass after the other, with whatever the last one left in them.
pub(super) struct Scratch<'a>(&'a mut [f32]);

/// Parts of the memory start at multiples of 64 bytes.
const ALIGN: usize = 16;

impl Tape {
    /// A tape that lets layers keep everything while that takes no more than `budget_bytes`. Of a longer pass the first layers
    /// keep their input alone, 2.3 KB instead of 23 KB a token and layer of SmolLM2-135M, and all but the last of their forward
    /// products is computed again; no number changes. The last layer always keeps everything.
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, values: Vec::new() }
    }

    pub(super) fn cut(&mut self, pass: &Pass<'_>) -> Cut<'_> {
        let config = &pass.decoder.config;
        let (n_layers, stream) = (config.layers.len(), pass.positions.len() * config.hidden_size);
        let aligned = |length: usize| length.next_multiple_of(ALIGN);
        let mut layer = 0;
        LayerSaved::lay_out(pass, |length| layer += aligned(length));
        let input = aligned(stream);
        let budget = self.budget_bytes / size_of::<f32>();
        let n_saved = (budget.saturating_sub(n_layers * input) / (layer - input)).clamp(1, n_layers);
        let n_inputs = n_layers - n_saved;
        let total = n_saved * layer + (n_inputs + 2) * input + pass.scratch_size();
        if self.values.len() < total + ALIGN {
            // Freed first: the two never exist at once.
            self.values = Vec::new();
            self.values = vec![0.0; total + ALIGN];
        }
        let start = self.values.as_ptr().align_offset(ALIGN * size_of::<f32>()).min(ALIGN);
        let mut rest = &mut self.values[start..];
        let mut take = |length: usize| take(&mut rest, length);
        let saved = (0..n_saved).map(|_| LayerSaved::lay_out(pass, &mut take)).collect();
        let inputs = (0..n_inputs).map(|_| take(stream)).collect();
        let (x, d_x) = (take(stream), take(stream));
        Cut { saved, inputs, x, d_x, scratch: Scratch(rest) }
    }
}

impl<T> LayerSaved<T> {
    /// Takes memory for every part.
    fn lay_out(pass: &Pass<'_>, mut take: impl FnMut(usize) -> T) -> Self {
        let config = &pass.decoder.config;
        let (t, i) = (pass.positions.len(), config.intermediate_size);
        let (width, kv_width) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        Self {
            norms: Norm::ALL.map(|norm| {
                let rows = match norm {
                    _ if norm.size(config).is_none() => 0,
                    Norm::Query => t * config.n_heads,
                    Norm::Key => t * config.n_kv_heads,
                    _ => t,
                };
                Normed { x: take(rows * norm.size(config).unwrap_or(0)), inverses: take(rows) }
            }),
            queries: take(t * width),
            keys: take(t * kv_width),
            values: take(t * kv_width),
            lse: take(t * config.n_heads),
            attended: take(t * width),
            gate: take(t * i),
            up: take(t * i),
            inner: Projection::ALL.map(|projection| take(t * pass.rank(projection))),
        }
    }
}

impl Scratch<'_> {
    /// Buffers of these lengths.
    pub(super) fn take<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
        let mut rest = &mut *self.0;
        lengths.map(|length| take(&mut rest, length))
    }

    /// What buffers of these lengths take.
    pub(super) fn size<const N: usize>(lengths: [usize; N]) -> usize {
        lengths.iter().map(|length| length.next_multiple_of(ALIGN)).sum()
    }
}

/// Cuts the next `length` values off.
fn take<'a>(rest: &mut &'a mut [f32], length: usize) -> &'a mut [f32] {
    let (taken, left) = std::mem::take(rest).split_at_mut(length.next_multiple_of(ALIGN));
    *rest = left;
    &mut taken[..length]
}
