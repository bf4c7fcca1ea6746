//! config.json and generation_config.json of an HF model folder -> what the decoder needs to know.
//!
//! Knows nothing of weights or tokenizers. Whatever the decoder could not compute faithfully is refused here, so that a
//! model that loads is a model that computes what its authors meant.
use crate::{ModelError, files};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The `architectures` that have a decoder.
pub const KNOWN_ARCHITECTURES: &[&str] = &["LlamaForCausalLM"];

/// The shape of a Llama-family decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub n_layers: usize,
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
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: RopeScaling,
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

/// How rotary frequencies are stretched for contexts longer than those of pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Positions are divided by `factor`.
    Linear {
        /// How many times longer.
        factor: f32,
    },
    /// Llama 3.1's: long wavelengths are divided by `factor`, short ones kept, those between interpolated.
    Llama3 {
        /// How many times longer.
        factor: f32,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// The context of pre-training.
        original_max_position_embeddings: usize,
    },
}

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
        refuse_what_is_not_computed(&fields)?;
        let hidden_size = fields.required_count("hidden_size")?;
        let n_heads = fields.required_count("num_attention_heads")?;
        let head_dim = match fields.count("head_dim")? {
            Some(head_dim) => head_dim,
            None if n_heads > 0 && hidden_size % n_heads == 0 => hidden_size / n_heads,
            None => return Err(fields.invalid(format!("hidden_size {hidden_size} is no multiple of {n_heads} heads"))),
        };
        let rope = fields.object("rope_parameters")?.or(fields.object("rope_scaling")?);
        let rope_theta = match &rope {
            Some(rope) if rope.map.contains_key("rope_theta") => rope.number("rope_theta")?,
            _ => fields.number("rope_theta")?,
        };
        let max_position_embeddings = fields.count("max_position_embeddings")?.unwrap_or(2048);
        let config = Self {
            hidden_size,
            intermediate_size: fields.required_count("intermediate_size")?,
            n_layers: fields.required_count("num_hidden_layers")?,
            n_heads,
            n_kv_heads: fields.count("num_key_value_heads")?.unwrap_or(n_heads),
            head_dim,
            vocab_size: fields.required_count("vocab_size")?,
            // The defaults are those of transformers' LlamaConfig.
            rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: rope_theta.unwrap_or(10_000.0),
            rope_scaling: RopeScaling::read(rope.as_ref(), max_position_embeddings)?,
            max_position_embeddings,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            bos_token_id: fields.ids("bos_token_id")?.first().copied(),
            eos_token_ids: fields.ids("eos_token_id")?,
            raw,
        };
        config.check(path)?;
        Ok(config)
    }

    /// Writes [`DecoderConfig::raw`] as `dir/config.json`.
    pub fn write(&self, dir: &Path) -> Result<(), ModelError> {
        files::write_json(&dir.join("config.json"), &Value::Object(self.raw.clone()))
    }

    /// The number of weights, the embedding counted once where it is tied.
    pub fn n_parameters(&self) -> usize {
        let (query, key_value) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let attention = self.hidden_size * (2 * query + 2 * key_value);
        let layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size;
        let embedding = self.vocab_size * self.hidden_size;
        let n_embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        self.n_layers * layer + n_embeddings * embedding + self.hidden_size
    }

    fn check(&self, path: &Path) -> Result<(), ModelError> {
        let invalid = |reason: String| Err(ModelError::InvalidConfig { path: path.to_owned(), reason });
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.n_layers),
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
        if !(self.rope_theta > 0.0 && self.rms_norm_eps >= 0.0) {
            return invalid(format!("rope_theta {} or rms_norm_eps {} is off", self.rope_theta, self.rms_norm_eps));
        }
        let special = self.bos_token_id.iter().chain(&self.eos_token_ids);
        if let Some(id) = special.copied().find(|&id| id as usize >= self.vocab_size) {
            return invalid(format!("token id {id} lies outside the vocabulary of {}", self.vocab_size));
        }
        Ok(())
    }
}

impl RopeScaling {
    fn read(rope: Option<&Fields>, max_position_embeddings: usize) -> Result<Self, ModelError> {
        let Some(rope) = rope else { return Ok(Self::None) };
        let kind = rope.text("rope_type")?.or(rope.text("type")?).unwrap_or("default");
        let required = |name: &str| {
            rope.number(name)?.ok_or_else(|| rope.invalid(format!("rope scaling `{kind}` lacks `{name}`")))
        };
        let scaling = match kind {
            "default" => Self::None,
            "linear" => Self::Linear { factor: required("factor")? },
            "llama3" => Self::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_max_position_embeddings: rope
                    .count("original_max_position_embeddings")?
                    .unwrap_or(max_position_embeddings),
            },
            _ => {
                return Err(ModelError::UnsupportedFeature {
                    path: rope.path.to_owned(),
                    feature: format!("rope scaling `{kind}`"),
                });
            }
        };
        match scaling {
            Self::Linear { factor } | Self::Llama3 { factor, .. } if factor.is_nan() || factor <= 0.0 => {
                Err(rope.invalid(format!("rope scaling factor is {factor}")))
            }
            Self::Llama3 { low_freq_factor, high_freq_factor, .. } if low_freq_factor >= high_freq_factor => {
                Err(rope.invalid(format!("low_freq_factor {low_freq_factor} >= high_freq_factor {high_freq_factor}")))
            }
            _ => Ok(scaling),
        }
    }
}

fn refuse_what_is_not_computed(fields: &Fields) -> Result<(), ModelError> {
    let named = fields.map.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let model_type = fields.text("model_type")?;
    let is_llama = match named {
        Some(name) => KNOWN_ARCHITECTURES.contains(&name),
        None => model_type == Some("llama"),
    };
    if !is_llama {
        return Err(ModelError::UnknownArchitecture {
            path: fields.path.to_owned(),
            found: named.or(model_type).unwrap_or("(none)").to_owned(),
            known: KNOWN_ARCHITECTURES,
        });
    }
    let unsupported = |feature: String| Err(ModelError::UnsupportedFeature { path: fields.path.to_owned(), feature });
    for name in ["attention_bias", "mlp_bias"] {
        if fields.flag(name)? {
            return unsupported(format!("`{name}`"));
        }
    }
    match fields.text("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => return unsupported(format!("`hidden_act` {other}")),
    }
    if let Some(factor) = fields.number("partial_rotary_factor")?.filter(|&factor| factor != 1.0) {
        return unsupported(format!("`partial_rotary_factor` {factor}"));
    }
    if fields.map.get("quantization_config").is_some_and(|value| !value.is_null()) {
        return unsupported("`quantization_config` (weights quantized in place)".to_owned());
    }
    Ok(())
}

/// Typed access to a JSON object; errors name the file and the field. `null` counts as absent.
pub(crate) struct Fields<'a> {
    pub(crate) path: &'a Path,
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(&self, name: &str, wanted: &str) -> ModelError {
        let found = &self.map[name];
        ModelError::Json { path: self.path.to_owned(), reason: format!("`{name}` is {found}, not {wanted}") }
    }

    pub(crate) fn invalid(&self, reason: String) -> ModelError {
        ModelError::InvalidConfig { path: PathBuf::from(self.path), reason }
    }

    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) => Ok(Some(count)),
            None => Err(self.wrong(name, "a whole number")),
        }
    }

    pub(crate) fn required_count(&self, name: &str) -> Result<usize, ModelError> {
        self.count(name)?
            .ok_or_else(|| ModelError::Json { path: self.path.to_owned(), reason: format!("it lacks `{name}`") })
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => Ok(Some(number as f32)),
            None => Err(self.wrong(name, "a number")),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(name, "a text"))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ModelError> {
        let Some(value) = self.get(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(name, "true or false"))
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(name, "an object"))?;
        Ok(Some(Fields { path: self.path, map }))
    }

    /// A token id or a list of them.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let as_id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(items) => items.iter().map(as_id).collect(),
            one => as_id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(name, "a token id or a list of them"))
    }
}

/// What is wrong with the first size that no model has.
pub(crate) fn bad_size(sizes: &[(&str, usize)]) -> Option<String> {
    // 2^30 is beyond any model and keeps every product of two of them within 64 bits.
    sizes.iter().find(|(_, size)| !(1..=1 << 30).contains(size)).map(|(name, size)| format!("{name} is {size}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320,
            "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "max_position_embeddings": 512,
            "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2
        })
    }

    fn with(changes: Value) -> Result<DecoderConfig, ModelError> {
        let mut json = base();
        for (name, value) in changes.as_object().expect("changes are an object") {
            json[name] = value.clone();
        }
        DecoderConfig::from_json(Path::new("folder/config.json"), json)
    }

    fn refuses(changes: Value, message: &str) {
        let error = with(changes).expect_err("it must be refused").to_string();
        assert!(error.contains(message) && error.contains("config.json"), "{error}");
    }

    #[test]
    fn head_dim_is_derived_or_explicit() {
        assert_eq!(with(json!({})).expect("the base parses").head_dim, 16);
        assert_eq!(with(json!({"head_dim": 32})).expect("it may differ").head_dim, 32);
        assert_eq!(with(json!({"num_key_value_heads": null})).expect("null is absent").n_kv_heads, 4);
    }

    #[test]
    fn rope_is_read_where_old_and_new_transformers_write_it() {
        let new = with(json!({"rope_theta": null, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}));
        assert_eq!(new.expect("the new layout parses").rope_theta, 5e5);
        let linear = with(json!({"rope_scaling": {"type": "linear", "factor": 2.0}})).expect("the old layout parses");
        assert_eq!((linear.rope_theta, linear.rope_scaling), (1e5, RopeScaling::Linear { factor: 2.0 }));
        let llama3 = with(json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}));
        let expected = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        assert_eq!(llama3.expect("llama3 parses").rope_scaling, expected);
    }

    #[test]
    fn what_the_decoder_would_get_wrong_is_refused() {
        refuses(json!({"architectures": ["Qwen2ForCausalLM"]}), "`Qwen2ForCausalLM`; known ones: LlamaForCausalLM");
        refuses(json!({"architectures": null, "model_type": "bert"}), "`bert`");
        refuses(json!({"attention_bias": true}), "attention_bias");
        refuses(json!({"mlp_bias": true}), "mlp_bias");
        refuses(json!({"hidden_act": "gelu"}), "gelu");
        refuses(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "yarn");
        refuses(json!({"rope_scaling": {"rope_type": "linear"}}), "lacks `factor`");
        refuses(json!({"hidden_size": 65}), "no multiple");
        refuses(json!({"num_key_value_heads": 3}), "no multiple");
        refuses(json!({"num_key_value_heads": 0}), "num_key_value_heads is 0");
        refuses(json!({"vocab_size": "many"}), "`vocab_size` is \"many\"");
        refuses(json!({"vocab_size": null}), "lacks `vocab_size`");
        refuses(json!({"eos_token_id": 320}), "outside the vocabulary");
    }

    #[test]
    fn generation_config_overrides_the_end_ids() {
        let folder = tempfile::tempdir().expect("a folder");
        files::write_json(&folder.path().join("config.json"), &base()).expect("written");
        let plain = DecoderConfig::open(folder.path()).expect("it opens");
        assert_eq!((plain.bos_token_id, plain.eos_token_ids), (Some(1), vec![2]));
        let generation = json!({"bos_token_id": 3, "eos_token_id": [4, 5]});
        files::write_json(&folder.path().join("generation_config.json"), &generation).expect("written");
        let both = DecoderConfig::open(folder.path()).expect("it opens");
        assert_eq!((both.bos_token_id, both.eos_token_ids.clone()), (Some(3), vec![4, 5]));
        both.write(folder.path()).expect("written back");
        let back = files::read_json(&folder.path().join("config.json")).expect("it is there");
        assert_eq!(back, base(), "the raw config is kept as it was");
    }

    #[test]
    fn a_missing_config_says_what_to_do() {
        let error = DecoderConfig::open(Path::new("nowhere")).expect_err("there is none").to_string();
        assert!(error.contains("nowhere has no config.json"), "{error}");
    }
}
