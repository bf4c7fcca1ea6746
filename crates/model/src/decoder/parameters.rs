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
    /// Hidden to the gate of the MLP.
    Gate,
    /// Hidden to what the gate is multiplied with.
    Up,
    /// Intermediate to hidden.
    Down,
}

/// The RMSNorms of a layer, in the order of [`LayerParameters::norms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Before attention.
    Attention,
    /// Before the MLP.
    Mlp,
    /// Of each head of the queries.
    Query,
    /// Of each head of the keys.
    Key,
    /// Of what attention gives.
    AttentionOutput,
    /// Of what the MLP gives.
    MlpOutput,
}

/// One layer.
#[derive(Clone)]
pub struct LayerParameters {
    /// The weights of the norms `[h]`, those of heads `[d]`, where the model has them.
    pub norms: [Option<Vec<f32>>; 6],
    /// The seven projections, each `[in, out]`.
    pub linears: [Panels; 7],
    /// Their biases `[out]`, where the model has them.
    pub biases: [Option<Vec<f32>>; 7],
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

    /// Whether it has a bias.
    pub fn has_bias(self, config: &DecoderConfig) -> bool {
        match self {
            Self::Query | Self::Key | Self::Value => config.qkv_biases,
            Self::Output => config.output_bias,
            Self::Gate | Self::Up | Self::Down => config.mlp_biases,
        }
    }
}

impl Norm {
    /// All of them in order.
    pub const ALL: [Self; 6] =
        [Self::Attention, Self::Mlp, Self::Query, Self::Key, Self::AttentionOutput, Self::MlpOutput];

    /// Its name in files: the path below a layer. In a model that normalizes outputs, `post_attention_layernorm` is what it
    /// says; in others it is the norm before the MLP.
    pub fn path(self, has_output_norms: bool) -> &'static str {
        match self {
            Self::Attention => "input_layernorm",
            Self::Mlp if has_output_norms => "pre_feedforward_layernorm",
            Self::Mlp | Self::AttentionOutput => "post_attention_layernorm",
            Self::Query => "self_attn.q_norm",
            Self::Key => "self_attn.k_norm",
            Self::MlpOutput => "post_feedforward_layernorm",
        }
    }

    /// The length of its weight; `None` where a model of this configuration has none.
    pub fn size(self, config: &DecoderConfig) -> Option<usize> {
        match self {
            Self::Attention | Self::Mlp => Some(config.hidden_size),
            Self::Query | Self::Key => config.query_key_norms.then_some(config.head_dim),
            Self::AttentionOutput | Self::MlpOutput => config.output_norms.then_some(config.hidden_size),
        }
    }
}

impl LayerParameters {
    /// The weight of a norm, where the layer has it.
    pub fn norm(&self, norm: Norm) -> Option<&[f32]> {
        self.norms[norm as usize].as_deref()
    }

    /// The weight of a norm that every layer has.
    pub(crate) fn required_norm(&self, norm: Norm) -> &[f32] {
        self.norm(norm).expect("every layer normalizes the input of attention and MLP")
    }

    fn zeros_like(&self) -> Self {
        let zeros = |values: &Option<Vec<f32>>| values.as_ref().map(|values| vec![0.0; values.len()]);
        Self {
            norms: self.norms.each_ref().map(zeros),
            linears: self.linears.each_ref().map(|panels| Panels::zeros(panels.k(), panels.n())),
            biases: self.biases.each_ref().map(zeros),
        }
    }
}

impl Parameters {
    /// Reads and packs a checkpoint.
    pub fn load(weights: &Weights, config: &DecoderConfig) -> Result<Self, ModelError> {
        Self::from_tensors(config, |name, shape| weights.tensor_f32(name, shape))
    }

    /// Packs what `tensor` gives for each name and shape that a checkpoint of this configuration has in files.
    pub fn from_tensors<E>(
        config: &DecoderConfig,
        mut tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        let (h, v) = (config.hidden_size, config.vocab_size);
        let mut layers = Vec::with_capacity(config.layers.len());
        for layer_idx in 0..config.layers.len() {
            let name = |path: &str, kind: &str| format!("model.layers.{layer_idx}.{path}.{kind}");
            let norms = Norm::ALL.map(|norm| {
                let size = norm.size(config)?;
                Some(tensor(&name(norm.path(config.output_norms), "weight"), &[size]))
            });
            let linears = Projection::ALL.map(|projection| -> Result<Panels, E> {
                let (k, n) = projection.sizes(config);
                let rows = tensor(&name(projection.path(), "weight"), &[n, k])?;
                Ok(Panels::from_transposed(&rows, n, k))
            });
            let biases = Projection::ALL.map(|projection| {
                let (_, n) = projection.sizes(config);
                projection.has_bias(config).then(|| tensor(&name(projection.path(), "bias"), &[n]))
            });
            layers.push(LayerParameters {
                norms: all(norms.map(Option::transpose))?,
                linears: all(linears)?,
                biases: all(biases.map(Option::transpose))?,
            });
        }
        let mut packed =
            |name: &str| -> Result<Panels, E> { Ok(Panels::from_transposed(&tensor(name, &[v, h])?, v, h)) };
        let embedding = packed("model.embed_tokens.weight")?;
        let head = if config.tie_word_embeddings { None } else { Some(packed("lm_head.weight")?) };
        Ok(Self { embedding, layers, norm: tensor("model.norm.weight", &[h])?, head })
    }

    /// Zeros of the same shapes: a place for gradients or moments.
    pub fn zeros_like(&self) -> Self {
        let zeros = |panels: &Panels| Panels::zeros(panels.k(), panels.n());
        Self {
            embedding: zeros(&self.embedding),
            layers: self.layers.iter().map(LayerParameters::zeros_like).collect(),
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
            slices.extend(layer.norms.iter_mut().flatten().map(Vec::as_mut_slice));
            slices.extend(layer.linears.iter_mut().map(Panels::values_mut));
            slices.extend(layer.biases.iter_mut().flatten().map(Vec::as_mut_slice));
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
            let mut tensors = Vec::new();
            let has_output_norms = layer.norm(Norm::AttentionOutput).is_some();
            for (norm, values) in Norm::ALL.iter().zip(&layer.norms) {
                let name = format!("{prefix}.{}.weight", norm.path(has_output_norms));
                tensors.extend(values.as_ref().map(|values| vector(name, values)));
            }
            for (projection, panels) in Projection::ALL.iter().zip(&layer.linears) {
                tensors.push(linear(format!("{prefix}.{}.weight", projection.path()), panels));
            }
            for (projection, values) in Projection::ALL.iter().zip(&layer.biases) {
                let name = format!("{prefix}.{}.bias", projection.path());
                tensors.extend(values.as_ref().map(|values| vector(name, values)));
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

/// Every value, or the first error.
fn all<T, E, const N: usize>(results: [Result<T, E>; N]) -> Result<[T; N], E> {
    let values: Vec<T> = results.into_iter().collect::<Result<_, E>>()?;
    Ok(values.try_into().unwrap_or_else(|_| unreachable!("as many values as results")))
}

/// Where the column of `token` starts in a packed embedding `[h, v]`, and its lane; its values lie LANES apart.
pub(crate) fn embedding_column(embedding: &Panels, token: u32) -> (usize, usize) {
    let token = token as usize;
    assert!(token < embedding.n(), "token {token} is within the vocabulary of {}", embedding.n());
    (token / LANES * embedding.k() * LANES, token % LANES)
}
