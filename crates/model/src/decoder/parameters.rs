//! A decoder's parameters, packed for products. Files hold linear weights `[out, in]`; here they are B = Wᵀ `[in, out]`.
use crate::ModelError;
use crate::config::DecoderConfig;
use crate::weights::Weights;
use exsearch_kernels::{LANES, Panels};

/// The linear maps of a layer, in the order of [`LayerParameters::linears`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Hidden to queries.
    Query,
    /// Hidden to keys.
    Key,
    /// Hidden to values.
    Value,
    /// Attention's heads to hidden.
    Output,
    /// Hidden to the gate of SwiGLU.
    Gate,
    /// Hidden to the other half of SwiGLU.
    Up,
    /// Intermediate to hidden.
    Down,
}

/// One layer.
#[derive(Clone)]
pub struct LayerParameters {
    /// RMSNorm before attention `[h]`.
    pub attention_norm: Vec<f32>,
    /// RMSNorm before the MLP `[h]`.
    pub mlp_norm: Vec<f32>,
    /// The seven projections, each `[in, out]`.
    pub linears: [Panels; 7],
}

/// All parameters of a decoder.
#[derive(Clone)]
pub struct Parameters {
    /// The embedding, transposed `[h, v]`: as it lies it is the head of a model that ties both.
    pub embedding: Panels,
    /// The layers, first to last.
    pub layers: Vec<LayerParameters>,
    /// The last RMSNorm `[h]`.
    pub norm: Vec<f32>,
    /// The head `[h, v]` of a model that does not tie it.
    pub head: Option<Panels>,
}

impl Projection {
    /// All of them in order.
    pub const ALL: [Self; 7] = [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Its name in files: the path below a layer.
    pub fn path(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Its `(in, out)` sizes.
    pub fn sizes(self, config: &DecoderConfig) -> (usize, usize) {
        let (h, i) = (config.hidden_size, config.intermediate_size);
        let (queries, keys) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        match self {
            Self::Query => (h, queries),
            Self::Key | Self::Value => (h, keys),
            Self::Output => (queries, h),
            Self::Gate | Self::Up => (h, i),
            Self::Down => (i, h),
        }
    }
}

impl Parameters {
    /// Reads and packs a checkpoint.
    pub fn load(weights: &Weights, config: &DecoderConfig) -> Result<Self, ModelError> {
        let (h, v) = (config.hidden_size, config.vocab_size);
        let packed = |name: &str, n: usize, k: usize| -> Result<Panels, ModelError> {
            Ok(Panels::from_transposed(&weights.tensor_f32(name, &[n, k])?, n, k))
        };
        let layers = (0..config.n_layers)
            .map(|layer_idx| {
                let linear = |projection: Projection| {
                    let (k, n) = projection.sizes(config);
                    packed(&format!("model.layers.{layer_idx}.{}.weight", projection.path()), n, k)
                };
                let norm = |name: &str| weights.tensor_f32(&format!("model.layers.{layer_idx}.{name}.weight"), &[h]);
                let [query, key, value, output, gate, up, down] = Projection::ALL.map(linear);
                Ok(LayerParameters {
                    attention_norm: norm("input_layernorm")?,
                    mlp_norm: norm("post_attention_layernorm")?,
                    linears: [query?, key?, value?, output?, gate?, up?, down?],
                })
            })
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            embedding: packed("model.embed_tokens.weight", v, h)?,
            layers,
            norm: weights.tensor_f32("model.norm.weight", &[h])?,
            head: if config.tie_word_embeddings { None } else { Some(packed("lm_head.weight", v, h)?) },
        })
    }

    /// Zeros of the same shapes: a place for gradients or moments.
    pub fn zeros_like(&self) -> Self {
        let zeros = |panels: &Panels| Panels::zeros(panels.k(), panels.n());
        Self {
            embedding: zeros(&self.embedding),
            layers: self
                .layers
                .iter()
                .map(|layer| LayerParameters {
                    attention_norm: vec![0.0; layer.attention_norm.len()],
                    mlp_norm: vec![0.0; layer.mlp_norm.len()],
                    linears: layer.linears.each_ref().map(zeros),
                })
                .collect(),
            norm: vec![0.0; self.norm.len()],
            head: self.head.as_ref().map(zeros),
        }
    }

    /// The head `[h, v]`.
    pub fn head(&self) -> &Panels {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Every parameter as a flat slice, in a fixed order. Packed ones are in the packed order.
    pub fn slices_mut(&mut self) -> Vec<&mut [f32]> {
        let mut slices: Vec<&mut [f32]> = vec![self.embedding.values_mut()];
        for layer in &mut self.layers {
            slices.push(&mut layer.attention_norm);
            slices.push(&mut layer.mlp_norm);
            slices.extend(layer.linears.iter_mut().map(Panels::values_mut));
        }
        slices.push(&mut self.norm);
        slices.extend(self.head.as_mut().map(Panels::values_mut));
        slices
    }

    /// Every tensor under its name in files, as files hold it: `(name, shape, values)`.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>, Vec<f32>)> + '_ {
        let linear = |name: String, panels: &Panels| (name, vec![panels.n(), panels.k()], panels.to_transposed_rows());
        let vector = |name: String, values: &Vec<f32>| (name, vec![values.len()], values.clone());
        let layers = self.layers.iter().enumerate().flat_map(move |(layer_idx, layer)| {
            let prefix = format!("model.layers.{layer_idx}");
            let mut tensors = vec![
                vector(format!("{prefix}.input_layernorm.weight"), &layer.attention_norm),
                vector(format!("{prefix}.post_attention_layernorm.weight"), &layer.mlp_norm),
            ];
            for (projection, panels) in Projection::ALL.iter().zip(&layer.linears) {
                tensors.push(linear(format!("{prefix}.{}.weight", projection.path()), panels));
            }
            tensors
        });
        std::iter::once_with(move || linear("model.embed_tokens.weight".into(), &self.embedding))
            .chain(layers)
            .chain(std::iter::once_with(move || vector("model.norm.weight".into(), &self.norm)))
            .chain(self.head.iter().map(move |head| linear("lm_head.weight".into(), head)))
    }

    /// Copies the embedding of `token` `[h]` to `out`.
    pub(crate) fn embed(&self, token: u32, out: &mut [f32]) {
        let (first, lane) = embedding_column(&self.embedding, token);
        let values = &self.embedding.values()[first..];
        for (row, out) in out.iter_mut().enumerate() {
            *out = values[row * LANES + lane];
        }
    }
}

/// Where the column of `token` starts in a packed embedding `[h, v]`, and its lane; its values lie LANES apart.
pub(crate) fn embedding_column(embedding: &Panels, token: u32) -> (usize, usize) {
    let token = token as usize;
    assert!(token < embedding.n(), "token {token} is within the vocabulary of {}", embedding.n());
    (token / LANES * embedding.k() * LANES, token % LANES)
}
