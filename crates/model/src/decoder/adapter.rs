//! LoRA adapters (arXiv 2106.09685): a low-rank pair beside some of a decoder's projections.
use super::Projection;
use crate::config::DecoderConfig;
use exsearch_kernels::{Panels, SplitMix64};
use serde::{Deserialize, Serialize};

/// The shape of an adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// r: the inner size of each pair.
    pub rank: usize,
    /// α: what the pair adds is scaled by α / r.
    pub alpha: f32,
}

/// One pair. B starts at zero, so that a fresh adapter changes nothing.
#[derive(Clone)]
pub struct LoraPair {
    /// `[in, r]`.
    pub a: Panels,
    /// `[r, out]`.
    pub b: Panels,
}

/// Pairs for all seven projections of every layer.
#[derive(Clone)]
pub struct Adapter {
    config: LoraConfig,
    /// A pair for each layer and projection that has one.
    pub layers: Vec<[Option<LoraPair>; 7]>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0 }
    }
}

impl Adapter {
    /// A fresh adapter: A uniform within ±sqrt(1 / in) as PEFT initializes it (Kaiming with a = sqrt 5), B zero.
    pub fn new(lora: &LoraConfig, config: &DecoderConfig, seed: u64) -> Self {
        let mut random = SplitMix64(seed);
        let layers = (0..config.layers.len())
            .map(|_| {
                Projection::ALL.map(|projection| {
                    let (k, n) = projection.sizes(config);
                    let bound = (1.0 / k as f64).sqrt();
                    let a: Vec<f32> =
                        (0..k * lora.rank).map(|_| ((2.0 * random.uniform() - 1.0) * bound) as f32).collect();
                    Some(LoraPair { a: Panels::from_rows(&a, k, lora.rank), b: Panels::zeros(lora.rank, n) })
                })
            })
            .collect();
        Self { config: lora.clone(), layers }
    }

    /// An adapter of given pairs.
    pub fn from_pairs(config: LoraConfig, layers: Vec<[Option<LoraPair>; 7]>) -> Self {
        Self { config, layers }
    }

    /// Its shape.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// s = α / r.
    pub fn scale(&self) -> f32 {
        self.config.alpha / self.config.rank as f32
    }

    /// Zeros of the same shapes: a place for gradients or moments.
    pub fn zeros_like(&self) -> Self {
        let zeros = |panels: &Panels| Panels::zeros(panels.k(), panels.n());
        let pair = |pair: &LoraPair| LoraPair { a: zeros(&pair.a), b: zeros(&pair.b) };
        let layers = self.layers.iter().map(|layer| layer.each_ref().map(|it| it.as_ref().map(pair))).collect();
        Self { config: self.config.clone(), layers }
    }

    /// Every parameter as a flat slice, in a fixed order and the packed layout.
    pub fn slices_mut(&mut self) -> Vec<&mut [f32]> {
        let pairs = self.layers.iter_mut().flatten().flatten();
        pairs.flat_map(|pair| [pair.a.values_mut(), pair.b.values_mut()]).collect()
    }

    /// Every tensor under PEFT's names and shapes: `lora_A [r, in]`, `lora_B [out, r]`.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>, Vec<f32>)> + '_ {
        self.layers
            .iter()
            .enumerate()
            .flat_map(|(layer_idx, layer)| {
                Projection::ALL.iter().zip(layer).filter_map(move |(projection, pair)| {
                    let pair = pair.as_ref()?;
                    let prefix = format!("base_model.model.model.layers.{layer_idx}.{}", projection.path());
                    let tensor = |name: &str, panels: &Panels| {
                        let shape = vec![panels.n(), panels.k()];
                        (format!("{prefix}.{name}.weight"), shape, panels.to_transposed_rows())
                    };
                    Some([tensor("lora_A", &pair.a), tensor("lora_B", &pair.b)])
                })
            })
            .flatten()
    }
}
