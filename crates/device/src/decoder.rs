//! A decoder on a device: the same configuration and weights as `exsearch-model`'s, as burn's tensors.
use crate::adapter::DeviceAdapter;
use crate::layer::{LayerWeights, product};
use crate::parameters::{Parameters, Place};
use crate::pool::KvPool;
use burn_tensor::{DType, Device, Int, Tensor, TensorData};
use exsearch_model::ModelError;
use exsearch_model::config::{DecoderConfig, Rope};
use exsearch_model::decoder::RopeTable;
use exsearch_model::weights::Weights;
use std::path::Path;

/// The number format of linear weights and of what is kept of a context. Norms, softmax, sums and adapters are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// The upper half of an f32.
    Bf16,
}

/// A decoder.
pub struct DeviceDecoder {
    config: DecoderConfig,
    pub(crate) parameters: Parameters<Tensor<2>>,
    /// Cosines and sines `[max_positions, d / 2]` of each different rotation, and which of them each layer uses.
    ropes: Vec<[Tensor<2>; 2]>,
    pub(crate) rope_of_layer: Vec<usize>,
    max_positions: usize,
    precision: Precision,
    device: Device,
}

/// The next tokens of one sequence.
pub struct Chunk<'a> {
    /// The rows of what came before; holds those of the new tokens afterwards.
    pub rows: &'a mut Vec<u32>,
    /// The new tokens; not empty.
    pub tokens: &'a [u32],
}

/// Where the tokens of a batch stand and what they may see.
pub(crate) struct Places {
    pub(crate) t: usize,
    /// Cosines and sines `[m, 1, d / 2]` of each different rotation.
    pub(crate) rotations: Vec<[Tensor<3>; 2]>,
    /// For each different window, 0 where a key is seen and -1e30 where it is not: `[b, 1, t, k]`.
    hidden: Vec<(Option<usize>, Tensor<4>)>,
}

impl Precision {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl DeviceDecoder {
    /// Loads the decoder of an HF folder for sequences of at most `max_positions` tokens, or the model's own limit if less.
    pub fn open(dir: &Path, max_positions: usize, precision: Precision, device: &Device) -> Result<Self, ModelError> {
        let config = DecoderConfig::open(dir)?;
        let weights = Weights::open(dir)?;
        let max_positions = max_positions.min(config.max_position_embeddings);
        Self::from_tensors(config, max_positions, precision, device, |name, shape| weights.tensor_f32(name, shape))
    }

    /// A decoder of what `tensor` gives for each name and shape that a checkpoint of this configuration has in files.
    pub fn from_tensors<E>(
        config: DecoderConfig,
        max_positions: usize,
        precision: Precision,
        device: &Device,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let places = Parameters::of(&config);
        let upload = |(name, shape): &Place| {
            let (size, dtype) = match *shape.as_slice() {
                [rows, columns] => ([rows, columns], precision.dtype()),
                _ => ([1, shape[0]], DType::F32),
            };
            Ok(Tensor::<2>::from_data(TensorData::new(tensor(name, shape)?, size), (device, dtype)))
        };
        let tensors = places.all().map(upload).collect::<Result<Vec<_>, E>>()?;
        let mut tensors = tensors.into_iter();
        let parameters = places.map(|_| tensors.next().expect("a tensor for each place"));

        let mut different: Vec<Rope> = Vec::new();
        let mut rope_of_layer = Vec::with_capacity(config.layers.len());
        for layer in &config.layers {
            let known = different.iter().position(|rope| *rope == layer.rope);
            rope_of_layer.push(known.unwrap_or(different.len()));
            if known.is_none() {
                different.push(layer.rope);
            }
        }
        let half = config.head_dim / 2;
        let table = |rope: &Rope| {
            let RopeTable { cos, sin, .. } = RopeTable::new(rope, config.head_dim, max_positions);
            [cos, sin]
                .map(|values| Tensor::from_data(TensorData::new(values, [max_positions, half]), (device, DType::F32)))
        };
        let ropes = different.iter().map(table).collect();
        Ok(Self { config, parameters, ropes, rope_of_layer, max_positions, precision, device: device.clone() })
    }

    /// Its configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The longest sequence it takes, in tokens.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// The number format of its weights.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes that a token takes in a [`KvPool`].
    pub fn bytes_a_token(&self) -> usize {
        let config = &self.config;
        2 * config.layers.len() * config.n_kv_heads * config.head_dim * self.precision.dtype().size()
    }

    /// Runs the chunks and returns the final hidden states `[wanted, h]` of the wanted rows, counted over the tokens of all
    /// chunks in order, for [`DeviceDecoder::logits`]; none where no row is wanted, as burn's kernels take no empty tensors.
    ///
    /// # Panics
    /// When a sequence grows past [`DeviceDecoder::max_positions`], a token is outside the vocabulary, or a chunk is empty.
    pub fn forward(&self, pool: &mut KvPool, chunks: &mut [Chunk<'_>], wanted: &[usize]) -> Option<Tensor<2>> {
        let n_new = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        if pool.n_free() < n_new {
            pool.grow(2 * pool.n_rows() + n_new);
        }
        self.infer(None, pool, chunks, wanted)
    }

    /// [`DeviceDecoder::forward`] with an adapter, where the pool has room.
    pub(crate) fn infer(
        &self,
        adapter: Option<&DeviceAdapter>,
        pool: &mut KvPool,
        chunks: &mut [Chunk<'_>],
        wanted: &[usize],
    ) -> Option<Tensor<2>> {
        let (b, t) = (chunks.len(), chunks.iter().map(|chunk| chunk.tokens.len()).max().unwrap_or(0));
        // Few different lengths, so that a GPU's kernels are compiled for few shapes.
        let k = chunks.iter().map(|it| it.rows.len() + it.tokens.len()).max().unwrap_or(0).next_multiple_of(64);
        let (mut tokens, mut positions, mut written) = (vec![0; b * t], vec![0; b * t], vec![0; b * t]);
        let (mut read, mut padded_row) = (vec![0; b * k], Vec::new());
        for (idx, chunk) in chunks.iter_mut().enumerate() {
            let (start, n) = (chunk.rows.len(), chunk.tokens.len());
            assert!(n > 0 && start + n <= self.max_positions, "{n} tokens behind {start} fit the model");
            pool.take(n, chunk.rows);
            padded_row.extend(idx * t..idx * t + n);
            for (offset, token) in chunk.tokens.iter().enumerate() {
                assert!((*token as usize) < self.config.vocab_size, "token {token} is within the vocabulary");
                tokens[idx * t + offset] = *token as i32;
                positions[idx * t + offset] = (start + offset) as i32;
            }
            copy(&chunk.rows[start..], &mut written[idx * t..]);
            copy(chunk.rows, &mut read[idx * k..]);
        }
        let places = self.places(b, t, k, positions);
        let [written, read] = [written, read].map(|rows| self.indices(rows));
        let mut x = self.embed(&self.indices(tokens));
        for layer_idx in 0..self.config.layers.len() {
            let weights = self.weights(layer_idx, adapter);
            x = self.layer(layer_idx, &weights, x, &places, &mut |keys, values| {
                pool.write(layer_idx, &written, keys, values);
                let width = self.config.n_kv_heads * self.config.head_dim;
                pool.read(layer_idx, &read).map(|rows| rows.reshape([b, k, width]))
            });
        }
        if wanted.is_empty() {
            return None;
        }
        let wanted = self.indices(wanted.iter().map(|row| padded_row[*row] as i32).collect());
        Some(self.normalize(x.select(0, wanted), Some(&self.parameters.norm)))
    }

    /// Logits `[m, v]` of final hidden states `[m, h]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        product(hidden, self.parameters.head())
    }

    /// What the first layer sees of tokens `[m]`: `[m, h]`.
    pub(crate) fn embed(&self, tokens: &Tensor<1, Int>) -> Tensor<2> {
        let rows = self.parameters.embedding.clone().select(0, tokens.clone());
        crate::layer::cast(rows, DType::F32) * self.config.embedding_scale
    }

    /// A layer's weights, none of them tracked.
    pub(crate) fn weights(&self, layer_idx: usize, adapter: Option<&DeviceAdapter>) -> LayerWeights {
        let lora = adapter.map(|adapter| (adapter.layers[layer_idx].clone(), adapter.scale()));
        LayerWeights { base: self.parameters.layers[layer_idx].clone(), lora }
    }

    /// Rows or tokens as a tensor.
    pub(crate) fn indices(&self, values: Vec<i32>) -> Tensor<1, Int> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), &self.device)
    }

    /// Places of tokens at `positions [m]` that attend to k keys, the first of them at position 0.
    pub(crate) fn places(&self, b: usize, t: usize, k: usize, positions: Vec<i32>) -> Places {
        let positions = self.indices(positions);
        let rotations = self.ropes.iter().map(|tables| {
            tables.each_ref().map(|table| table.clone().select(0, positions.clone()).unsqueeze_dim::<3>(1))
        });
        let rotations = rotations.collect();
        let queries = positions.reshape([b, t, 1]).expand([b, t, k]);
        let keys = Tensor::<1, Int>::arange(0..k as i64, &self.device).reshape([1, 1, k]).expand([b, t, k]);
        let mut hidden: Vec<(Option<usize>, Tensor<4>)> = Vec::new();
        for window in self.config.layers.iter().map(|layer| layer.window) {
            if hidden.iter().any(|(known, _)| *known == window) {
                continue;
            }
            let mut unseen = keys.clone().greater(queries.clone());
            if let Some(window) = window {
                unseen = unseen.bool_or(keys.clone().lower_equal(queries.clone() - window as i32));
            }
            hidden.push((window, (unseen.float() * -1e30).reshape([b, 1, t, k])));
        }
        Places { t, rotations, hidden }
    }
}

impl Places {
    /// The same for b sequences of one length.
    pub(crate) fn repeated(mut self, b: usize) -> Self {
        for table in self.rotations.iter_mut().flatten() {
            *table = table.clone().repeat_dim(0, b);
        }
        self
    }

    /// What is added to scores so that unseen keys weigh nothing.
    pub(crate) fn hidden(&self, window: Option<usize>) -> &Tensor<4> {
        let of_window = self.hidden.iter().find(|(known, _)| *known == window);
        &of_window.expect("there is one for every layer's window").1
    }
}

fn copy(rows: &[u32], to: &mut [i32]) {
    for (to, row) in to.iter_mut().zip(rows) {
        *to = *row as i32;
    }
}

/// The numbers of a tensor, row by row.
///
/// # Panics
/// When the device is lost.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap_or_else(|error| panic!("the device gives its results: {error}"))
}
