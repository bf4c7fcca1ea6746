//! A decoder's linear weights in bytes, for generation: a quarter of what a pass reads, and faster products. Embedding, norms,
//! attention and adapters stay f32, and so does all that scores or trains.
use super::{Parameters, Projection};
use exsearch_kernels::{Int8Panels, Int8Rows, Panels};

/// The seven projections of every layer and the head, in bytes.
pub struct Int8Weights {
    layers: Vec<[Int8Panels; 7]>,
    head: Int8Panels,
}

impl Int8Weights {
    /// Rounds the weights of a decoder.
    pub fn new(parameters: &Parameters) -> Self {
        let layers = parameters.layers.iter().map(|layer| layer.linears.each_ref().map(Int8Panels::new)).collect();
        Self { layers, head: Int8Panels::new(parameters.head()) }
    }

    /// Bytes in memory.
    pub fn n_bytes(&self) -> usize {
        self.layers.iter().flatten().chain([&self.head]).map(Int8Panels::n_bytes).sum()
    }

    /// The head `[h, v]`.
    pub(super) fn head(&self) -> &Int8Panels {
        &self.head
    }

    /// A projection `[in, out]`.
    pub(super) fn linear(&self, layer_idx: usize, projection: Projection) -> &Int8Panels {
        &self.layers[layer_idx][projection as usize]
    }
}

/// The right-hand side of a linear map as it is computed with, and its input's rows where those are bytes.
#[derive(Clone, Copy)]
pub(super) enum Base<'a> {
    /// As it is.
    F32(&'a Panels),
    /// In bytes.
    Int8(&'a Int8Rows, &'a Int8Panels),
}
