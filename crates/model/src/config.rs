//! config.json and generation_config.json of an HF model folder -> what the decoder needs to know.
//!
//! Families differ in data only: norms, biases, scales, and each layer's window and rotation. Knows nothing of weights or
//! tokenizers. Whatever the decoder could not compute faithfully is refused here, so that a model that loads is a model that
//! computes what its authors meant.
mod family;
mod fields;
mod rope;
#[cfg(test)]
mod tests;

pub use family::KNOWN_ARCHITECTURES;
pub(crate) use fields::{Fields, bad_size};
pub use rope::{Rope, RopeScaling};

use crate::{ModelError, files};
use family::Family;
use serde_json::{Map, Value};
use std::path::Path;

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// The transformer layers, first to last.
    pub layers: Vec<LayerConfig>,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head; `n_heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Added to the weights of every RMSNorm: 1 where files hold their distance from 1, else 0.
    pub norm_offset: f32,
    /// Whether every head of queries and keys is normalized before its rotation.
    pub query_key_norms: bool,
    /// Whether what attention and MLP give is normalized before it is added to the residual stream.
    pub output_norms: bool,
    /// Whether queries, keys and values have biases.
    pub qkv_biases: bool,
    /// Whether the projection of attention's heads to hidden has a bias.
    pub output_bias: bool,
    /// Whether the three projections of the MLP have biases.
    pub mlp_biases: bool,
    /// The function on the gate of the MLP.
    pub activation: Activation,
    /// Embeddings are multiplied with it on their way into the first layer.
    pub embedding_scale: f32,
    /// Products of queries and keys are multiplied with it.
    pub attention_scale: f32,
    /// The longest context in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// The id that opens a text, where the model has one.
    pub bos_token_id: Option<u32>,
    /// The ids that end a generation; generation_config.json overrides config.json.
    pub eos_token_ids: Vec<u32>,
    /// config.json as it was read, for writing it back.
    pub raw: Map<String, Value>,
}

/// What layers of one model differ in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// How many tokens a query sees, its own the last of them; all before it where there is none.
    pub window: Option<usize>,
    /// The rotation of queries and keys.
    pub rope: Rope,
}

/// The function on the gate of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`: SwiGLU.
    Silu,
    /// GELU by tanh: GeGLU.
    GeluTanh,
}

/// Beyond any model, and few enough to be listed.
const MAX_LAYERS: usize = 1 << 16;
/// transformers' LlamaConfig.
const DEFAULT_MAX_POSITIONS: usize = 2048;

impl DecoderConfig {
    /// Reads `dir/config.json`, and `dir/generation_config.json` where there is one.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(ModelError::MissingFile {
                folder: dir.to_owned(),
                file: "config.json",
                advice: "give a Hugging Face model folder, or pull the model first",
            });
        }
        let mut config = Self::from_json(&path, files::read_json(&path)?)?;
        let path_of_ids = dir.join("generation_config.json");
        if path_of_ids.is_file()
            && let Value::Object(map) = files::read_json(&path_of_ids)?
        {
            let fields = Fields { path: &path_of_ids, map: &map };
            config.bos_token_id = fields.ids("bos_token_id")?.first().copied().or(config.bos_token_id);
            let eos_token_ids = fields.ids("eos_token_id")?;
            if !eos_token_ids.is_empty() {
                config.eos_token_ids = eos_token_ids;
            }
            config.check(&path_of_ids)?;
        }
        Ok(config)
    }

    /// Reads the contents of a config.json; `path` is for error messages only.
    pub fn from_json(path: &Path, json: Value) -> Result<Self, ModelError> {
        let Value::Object(raw) = json else {
            return Err(ModelError::Json { path: path.to_owned(), reason: "it holds no object".to_owned() });
        };
        let fields = Fields { path, map: &raw };
        let family = Family::read(&fields)?;
        family.refuse_what_is_not_computed(&fields)?;
        let n_layers = fields.required_count("num_hidden_layers")?;
        if n_layers > MAX_LAYERS {
            return Err(fields.invalid(format!("num_hidden_layers is {n_layers}")));
        }
        let hidden_size = fields.required_count("hidden_size")?;
        let n_heads = fields.required_count("num_attention_heads")?;
        let head_dim = family.head_dim(&fields, hidden_size, n_heads)?;
        let [qkv_biases, output_bias, mlp_biases] = family.biases(&fields)?;
        let is_tied = match fields.get("tie_word_embeddings") {
            Some(_) => fields.flag("tie_word_embeddings")?,
            None => family.ties_embeddings(),
        };
        let mut config = Self {
            hidden_size,
            intermediate_size: fields.required_count("intermediate_size")?,
            layers: family.layers(&fields, n_layers)?,
            n_heads,
            n_kv_heads: family.n_kv_heads(&fields, n_heads)?,
            head_dim,
            vocab_size: fields.required_count("vocab_size")?,
            // The default of every family.
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
            norm_offset: 0.0,
            query_key_norms: false,
            output_norms: false,
            qkv_biases,
            output_bias,
            mlp_biases,
            activation: family.activation(&fields)?,
            embedding_scale: 1.0,
            attention_scale: 1.0 / (head_dim as f32).sqrt(),
            max_position_embeddings: fields.count("max_position_embeddings")?.unwrap_or(DEFAULT_MAX_POSITIONS),
            tie_word_embeddings: is_tied,
            bos_token_id: fields.ids("bos_token_id")?.first().copied(),
            eos_token_ids: fields.ids("eos_token_id")?,
            raw: raw.clone(),
        };
        family.adjust(&fields, &mut config)?;
        config.check(path)?;
        Ok(config)
    }

    /// Writes [`DecoderConfig::raw`] as `dir/config.json`.
    pub fn write(&self, dir: &Path) -> Result<(), ModelError> {
        files::write_json(&dir.join("config.json"), &Value::Object(self.raw.clone()))
    }

    fn check(&self, path: &Path) -> Result<(), ModelError> {
        let invalid = |reason: String| Err(ModelError::InvalidConfig { path: path.to_owned(), reason });
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.layers.len()),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some(reason) = bad_size(&sizes) {
            return invalid(reason);
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return invalid(format!(
                "num_attention_heads {} is no multiple of num_key_value_heads {}",
                self.n_heads, self.n_kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return invalid(format!("head_dim {} is odd, so it has no rotary halves", self.head_dim));
        }
        if let Some(layer) = self.layers.iter().find(|layer| !(layer.rope.theta > 0.0 && layer.rope.theta.is_finite()))
        {
            return invalid(format!("rope_theta is {}", layer.rope.theta));
        }
        if !(self.attention_scale > 0.0 && self.attention_scale.is_finite() && self.rms_norm_eps >= 0.0) {
            let (scale, epsilon) = (self.attention_scale, self.rms_norm_eps);
            return invalid(format!("query_pre_attn_scalar (scores times {scale}) or rms_norm_eps {epsilon} is off"));
        }
        let special = self.bos_token_id.iter().chain(&self.eos_token_ids);
        if let Some(id) = special.copied().find(|&id| id as usize >= self.vocab_size) {
            return invalid(format!("token id {id} lies outside the vocabulary of {}", self.vocab_size));
        }
        Ok(())
    }
}
