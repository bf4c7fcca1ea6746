//! One decoder layer on tensors, for inference and, where its inputs are tracked, for training.
use crate::adapter::Pairs;
use crate::decoder::{DeviceDecoder, Places};
use crate::parameters::Layer;
use burn_tensor::{DType, Tensor, activation};
use exsearch_model::config::Activation;
use exsearch_model::decoder::{Norm, Projection};

/// What a layer computes with: its weights and, where there is one, its part of an adapter with the adapter's scale.
pub(crate) struct LayerWeights {
    pub(crate) base: Layer<Tensor<2>>,
    pub(crate) lora: Option<(Pairs, f32)>,
}

/// x in another number format; x itself where it has it.
pub(crate) fn cast<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype { x } else { x.cast(dtype) }
}

impl LayerWeights {
    /// `y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ` of x `[m, in]`: products with W in its own number format, all else in f32.
    fn linear(&self, projection: Projection, x: &Tensor<2>) -> Tensor<2> {
        let slot = projection as usize;
        let weight = &self.base.linears[slot];
        let mut y = product(x.clone(), weight);
        if let Some(bias) = &self.base.biases[slot] {
            y = y + bias.clone();
        }
        if let Some((pairs, scale)) = &self.lora
            && let Some([a, b]) = &pairs[slot]
        {
            y = y + product(product(x.clone(), a), b) * *scale;
        }
        y
    }
}

/// x·Wᵀ in f32, multiplied in the number format of W `[out, in]`.
pub(crate) fn product(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    cast(cast(x, weight.dtype()).matmul(weight.clone().transpose()), DType::F32)
}

/// What attention sees: takes new keys and values `[m, kv heads · d]` and gives all of them, `[b, k, kv heads · d]`.
pub(crate) type Remember<'a> = dyn FnMut(Tensor<2>, Tensor<2>) -> [Tensor<3>; 2] + 'a;

impl DeviceDecoder {
    /// Maps `x [m, h]` to the layer's output of the same shape.
    pub(crate) fn layer(
        &self,
        layer_idx: usize,
        weights: &LayerWeights,
        x: Tensor<2>,
        places: &Places,
        remember: &mut Remember<'_>,
    ) -> Tensor<2> {
        let norm = |norm: Norm| weights.base.norm(norm);
        let normed = self.normalize(x.clone(), norm(Norm::Attention));
        let [queries, keys, values] =
            [Projection::Query, Projection::Key, Projection::Value].map(|it| weights.linear(it, &normed));
        let queries = self.turn(layer_idx, queries, norm(Norm::Query), places);
        let keys = self.turn(layer_idx, keys, norm(Norm::Key), places);
        let [keys, values] = remember(keys, values);
        let attended = self.attend(layer_idx, queries, keys, values, places);
        let output = weights.linear(Projection::Output, &attended);
        let x = x + self.normalize(output, norm(Norm::AttentionOutput));

        let normed = self.normalize(x.clone(), norm(Norm::Mlp));
        let gate = weights.linear(Projection::Gate, &normed);
        let gate = match self.config().activation {
            Activation::Silu => activation::silu(gate),
            Activation::GeluTanh => gelu_tanh(gate),
        };
        let active = gate * weights.linear(Projection::Up, &normed);
        let output = weights.linear(Projection::Down, &active);
        x + self.normalize(output, norm(Norm::MlpOutput))
    }

    /// RMSNorm of rows as long as `weight [1, n]`; the rows themselves where there is none.
    pub(crate) fn normalize(&self, x: Tensor<2>, weight: Option<&Tensor<2>>) -> Tensor<2> {
        let Some(weight) = weight else { return x };
        let config = self.config();
        let rms = ((x.clone() * x.clone()).mean_dim(1) + config.rms_norm_eps).sqrt();
        let weight = if config.norm_offset == 0.0 { weight.clone() } else { weight.clone() + config.norm_offset };
        x / rms * weight
    }

    /// Normalizes every head of `x [m, heads · d]` where the layer has a norm for it, and rotates it by its position.
    fn turn(&self, layer_idx: usize, x: Tensor<2>, norm: Option<&Tensor<2>>, places: &Places) -> Tensor<2> {
        let [m, width] = x.dims();
        let d = self.config().head_dim;
        let heads = self.normalize(x.reshape([m * (width / d), d]), norm).reshape([m, width / d, d]);
        let [left, right] = [0, d / 2].map(|start| heads.clone().narrow(2, start, d / 2));
        let [cos, sin] = &places.rotations[self.rope_of_layer[layer_idx]];
        let turned_left = left.clone() * cos.clone() - right.clone() * sin.clone();
        let turned_right = right * cos.clone() + left * sin.clone();
        Tensor::cat(vec![turned_left, turned_right], 2).reshape([m, width])
    }

    /// Softmax attention (arXiv 1706.03762) of queries `[m, heads · d]` over keys and values `[b, k, kv heads · d]`.
    fn attend(
        &self,
        layer_idx: usize,
        queries: Tensor<2>,
        keys: Tensor<3>,
        values: Tensor<3>,
        places: &Places,
    ) -> Tensor<2> {
        let config = self.config();
        let (d, n_kv, group) = (config.head_dim, config.n_kv_heads, config.n_heads / config.n_kv_heads);
        let [b, k, _] = keys.dims();
        let t = places.t;
        // Heads that share keys stand side by side, so that one product serves them all.
        let queries = queries.reshape([b, t, n_kv, group, d]).permute([0, 2, 3, 1, 4]);
        let queries = cast(queries.reshape([b * n_kv, group * t, d]) * config.attention_scale, keys.dtype());
        let [keys, values] =
            [keys, values].map(|rows| rows.reshape([b, k, n_kv, d]).swap_dims(1, 2).reshape([b * n_kv, k, d]));
        let scores = cast(queries.matmul(keys.transpose()), DType::F32).reshape([b, n_kv * group, t, k]);
        let scores = scores + places.hidden(config.layers[layer_idx].window).clone();
        let weights = activation::softmax(scores, 3).reshape([b * n_kv, group * t, k]);
        let attended = cast(cast(weights, values.dtype()).matmul(values), DType::F32);
        attended.reshape([b, n_kv, group, t, d]).permute([0, 3, 1, 2, 4]).reshape([b * t, n_kv * group * d])
    }
}

/// GELU by tanh (arXiv 1606.08415). burn's own raises to the power of 3.0, which shaders leave undefined below zero.
fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let cubed = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cubed * 0.044715) * (2.0 / std::f32::consts::PI).sqrt();
    x * (inner.tanh() + 1.0) * 0.5
}
