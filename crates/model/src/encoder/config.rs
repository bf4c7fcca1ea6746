//! config.json of a BERT checkpoint -> the shape of the encoder.
//!
//! Whatever would be computed otherwise than its authors meant is refused here.
use crate::config::{Fields, bad_size};
use crate::{ModelError, files};
use serde_json::Value;
use std::path::Path;

/// The model types that have an encoder.
pub const KNOWN_MODEL_TYPES: &[&str] = &["bert"];

/// The shape of a BERT encoder (arXiv 1810.04805).
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub n_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub n_heads: usize,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Rows of the position embedding: the longest text in tokens, markers included.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding.
    pub n_token_types: usize,
    /// Added to the variance in LayerNorm.
    pub layer_norm_eps: f32,
    /// The MLP's activation.
    pub activation: Activation,
}

/// What is between the two halves of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `gelu`: by the error function.
    Gelu,
    /// `gelu_new`, `gelu_pytorch_tanh`: its approximation.
    GeluTanh,
    /// `relu`.
    Relu,
}

impl BertConfig {
    /// Reads `dir/config.json`.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        if !path.is_file() {
            return Err(ModelError::MissingFile {
                folder: dir.to_owned(),
                file: "config.json",
                advice: "give a Hugging Face model folder, or pull the model first",
            });
        }
        Self::from_json(&path, &files::read_json(&path)?)
    }

    /// Reads the contents of a config.json; `path` is for error messages only.
    pub fn from_json(path: &Path, json: &Value) -> Result<Self, ModelError> {
        let Some(map) = json.as_object() else {
            return Err(ModelError::Json { path: path.to_owned(), reason: "it holds no object".to_owned() });
        };
        let fields = Fields { path, map };
        let model_type = fields.text("model_type")?.unwrap_or("(none)");
        if !KNOWN_MODEL_TYPES.contains(&model_type) {
            let found = model_type.to_owned();
            return Err(ModelError::UnknownArchitecture { path: path.to_owned(), found, known: KNOWN_MODEL_TYPES });
        }
        let unsupported = |feature: String| ModelError::UnsupportedFeature { path: path.to_owned(), feature };
        match fields.text("position_embedding_type")? {
            None | Some("absolute") => {}
            Some(other) => return Err(unsupported(format!("`position_embedding_type` {other}"))),
        }
        if fields.flag("is_decoder")? {
            return Err(unsupported("`is_decoder`".to_owned()));
        }
        let activation = match fields.text("hidden_act")?.unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => return Err(unsupported(format!("`hidden_act` {other}"))),
        };
        let config = Self {
            hidden_size: fields.required_count("hidden_size")?,
            intermediate_size: fields.required_count("intermediate_size")?,
            n_layers: fields.required_count("num_hidden_layers")?,
            n_heads: fields.required_count("num_attention_heads")?,
            vocab_size: fields.required_count("vocab_size")?,
            max_position_embeddings: fields.required_count("max_position_embeddings")?,
            // The defaults are those of transformers' BertConfig.
            n_token_types: fields.count("type_vocab_size")?.unwrap_or(2),
            layer_norm_eps: fields.number("layer_norm_eps")?.unwrap_or(1e-12),
            activation,
        };
        config.check(&fields)?;
        Ok(config)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.n_heads
    }

    fn check(&self, fields: &Fields) -> Result<(), ModelError> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.n_layers),
            ("num_attention_heads", self.n_heads),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.n_token_types),
        ];
        if let Some(reason) = bad_size(&sizes) {
            return Err(fields.invalid(reason));
        }
        if !self.hidden_size.is_multiple_of(self.n_heads) {
            let (h, n_heads) = (self.hidden_size, self.n_heads);
            return Err(fields.invalid(format!("hidden_size {h} is no multiple of {n_heads} heads")));
        }
        if self.layer_norm_eps.is_nan() || self.layer_norm_eps < 0.0 {
            return Err(fields.invalid(format!("layer_norm_eps is {}", self.layer_norm_eps)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(change: (&str, Value)) -> Result<BertConfig, String> {
        let mut json = json!({
            "model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
            "num_attention_heads": 12, "vocab_size": 30522, "max_position_embeddings": 512, "hidden_act": "gelu",
        });
        json[change.0] = change.1;
        BertConfig::from_json(Path::new("config.json"), &json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_read_and_what_is_assumed() {
        let config = read(("layer_norm_eps", json!(1e-5))).expect("complete");
        assert_eq!((config.head_dim(), config.n_token_types, config.layer_norm_eps), (32, 2, 1e-5));
        assert_eq!(config.activation, Activation::Gelu);
        assert_eq!(read(("hidden_act", json!("gelu_new"))).expect("known").activation, Activation::GeluTanh);
    }

    #[test]
    fn what_would_be_computed_wrongly_is_refused() {
        for (field, value, message) in [
            ("model_type", json!("mpnet"), "architecture `mpnet`; known ones: bert"),
            ("hidden_act", json!("silu"), "`hidden_act` silu"),
            ("position_embedding_type", json!("relative_key"), "`position_embedding_type` relative_key"),
            ("is_decoder", json!(true), "`is_decoder`"),
            ("num_attention_heads", json!(5), "384 is no multiple of 5 heads"),
            ("num_hidden_layers", json!(0), "num_hidden_layers is 0"),
            ("vocab_size", json!("many"), "`vocab_size` is \"many\", not a whole number"),
            ("layer_norm_eps", json!(-1.0), "layer_norm_eps is -1"),
        ] {
            let error = read((field, value)).expect_err(field);
            assert!(error.contains(message), "{error}");
        }
    }
}
