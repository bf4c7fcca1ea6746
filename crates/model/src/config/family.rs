//! What the config.json of each family means: the defaults, switches and spellings of transformers' configuration classes, as
//! the data of [`DecoderConfig`]. Behind this file nobody asks for a model's name.
use super::{Activation, DecoderConfig, Fields, LayerConfig, Rope};
use crate::ModelError;
use serde_json::Value;

/// The `architectures` that have a decoder.
pub const KNOWN_ARCHITECTURES: &[&str] =
    &["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM"];

/// One of [`KNOWN_ARCHITECTURES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Llama 2 and 3.x, SmolLM2.
    Llama,
    Mistral,
    /// Qwen2 and 2.5.
    Qwen2,
    Qwen3,
    /// Gemma 3's text models, 270M and 1B; the larger ones also see.
    Gemma3,
}

/// transformers' `sliding_window` for the families that have one, where the field is absent; `null` there means none.
const DEFAULT_WINDOW: usize = 4096;

impl Family {
    /// By `architectures`, else by `model_type`.
    pub(super) fn read(fields: &Fields) -> Result<Self, ModelError> {
        let named = fields.map.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
        let model_type = fields.text("model_type")?;
        let family = match (named, model_type) {
            (Some("LlamaForCausalLM"), _) | (None, Some("llama")) => Some(Self::Llama),
            (Some("MistralForCausalLM"), _) | (None, Some("mistral")) => Some(Self::Mistral),
            (Some("Qwen2ForCausalLM"), _) | (None, Some("qwen2")) => Some(Self::Qwen2),
            (Some("Qwen3ForCausalLM"), _) | (None, Some("qwen3")) => Some(Self::Qwen3),
            (Some("Gemma3ForCausalLM"), _) | (None, Some("gemma3_text")) => Some(Self::Gemma3),
            _ => None,
        };
        family.ok_or_else(|| ModelError::UnknownArchitecture {
            path: fields.path.to_owned(),
            found: named.or(model_type).unwrap_or("(none)").to_owned(),
            known: KNOWN_ARCHITECTURES,
        })
    }

    /// Refuses what would change the numbers and is not computed.
    pub(super) fn refuse_what_is_not_computed(self, fields: &Fields) -> Result<(), ModelError> {
        if let Some(factor) = fields.number("partial_rotary_factor")?.filter(|&factor| factor != 1.0) {
            return Err(fields.unsupported(format!("`partial_rotary_factor` {factor}")));
        }
        for name in ["quantization_config", "final_logit_softcapping", "attn_logit_softcapping"] {
            if fields.get(name).is_some() {
                return Err(fields.unsupported(format!("`{name}`")));
            }
        }
        // transformers does not look at these where they have no meaning; whoever wrote them meant something.
        let has_attention_bias = matches!(self, Self::Llama | Self::Qwen2 | Self::Qwen3 | Self::Gemma3);
        for (name, has_meaning) in [
            ("attention_bias", has_attention_bias),
            ("mlp_bias", self == Self::Llama),
            ("use_bidirectional_attention", false),
        ] {
            if fields.flag(name)? && !has_meaning {
                return Err(fields.unsupported(format!("`{name}`")));
            }
        }
        Ok(())
    }

    /// Width of a head where config.json names none.
    pub(super) fn head_dim(self, fields: &Fields, hidden_size: usize, n_heads: usize) -> Result<usize, ModelError> {
        match (fields.count("head_dim")?, self) {
            (Some(head_dim), _) => Ok(head_dim),
            (None, Self::Qwen3) => Ok(128),
            (None, Self::Gemma3) => Ok(256),
            (None, _) if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => Ok(hidden_size / n_heads),
            (None, _) => Err(fields.invalid(format!("hidden_size {hidden_size} is no multiple of {n_heads} heads"))),
        }
    }

    /// Key-value heads. `null` means as many as heads; only Llama's class means that by leaving the field out, too.
    pub(super) fn n_kv_heads(self, fields: &Fields, n_heads: usize) -> Result<usize, ModelError> {
        let name = "num_key_value_heads";
        match fields.count(name)? {
            Some(count) => Ok(count),
            None if self == Self::Llama || fields.map.contains_key(name) => Ok(n_heads),
            None => fields.required_count(name),
        }
    }

    /// Whether the head is the embedding where config.json does not say.
    pub(super) fn ties_embeddings(self) -> bool {
        self == Self::Gemma3
    }

    /// Biases of queries, keys and values; of the output projection; of the MLP.
    pub(super) fn biases(self, fields: &Fields) -> Result<[bool; 3], ModelError> {
        let attention = fields.flag("attention_bias")?;
        Ok(match self {
            Self::Qwen2 => [true, false, false],
            Self::Llama => [attention, attention, fields.flag("mlp_bias")?],
            Self::Mistral | Self::Qwen3 | Self::Gemma3 => [attention, attention, false],
        })
    }

    /// The function on the gate of the MLP.
    pub(super) fn activation(self, fields: &Fields) -> Result<Activation, ModelError> {
        let (name, default) =
            if self == Self::Gemma3 { ("hidden_activation", "gelu_pytorch_tanh") } else { ("hidden_act", "silu") };
        match fields.text(name)?.unwrap_or(default) {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            other => Err(fields.unsupported(format!("`{name}` {other}"))),
        }
    }

    /// Norms and scales in which the family differs from Llama; `config` holds the sizes.
    pub(super) fn adjust(self, fields: &Fields, config: &mut DecoderConfig) -> Result<(), ModelError> {
        config.query_key_norms = matches!(self, Self::Qwen3 | Self::Gemma3);
        if self == Self::Gemma3 {
            config.norm_offset = 1.0;
            config.output_norms = true;
            config.embedding_scale = (config.hidden_size as f32).sqrt();
            config.attention_scale = 1.0 / fields.number("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
        }
        Ok(())
    }

    /// Windows and rotations of `n_layers` layers.
    pub(super) fn layers(self, fields: &Fields, n_layers: usize) -> Result<Vec<LayerConfig>, ModelError> {
        let window = self.window(fields)?;
        let slides = self.slides(fields, n_layers, window)?;
        if slides.contains(&true) && window.is_none_or(|window| window == 0) {
            return Err(fields.invalid("it has layers of sliding attention but no `sliding_window`".to_owned()));
        }
        let [everywhere, sliding] = self.ropes(fields)?;
        let layer = |slides| match slides {
            true => LayerConfig { window, rope: sliding },
            false => LayerConfig { window: None, rope: everywhere },
        };
        Ok(slides.into_iter().map(layer).collect())
    }

    fn window(self, fields: &Fields) -> Result<Option<usize>, ModelError> {
        let is_used = match self {
            Self::Llama => false,
            Self::Mistral | Self::Gemma3 => true,
            Self::Qwen2 | Self::Qwen3 => fields.flag("use_sliding_window")?,
        };
        if !is_used {
            return Ok(None);
        }
        if fields.map.contains_key("sliding_window") {
            fields.count("sliding_window")
        } else {
            Ok(Some(DEFAULT_WINDOW))
        }
    }

    /// Which layers slide: `layer_types` says so, else the family's rule.
    fn slides(self, fields: &Fields, n_layers: usize, window: Option<usize>) -> Result<Vec<bool>, ModelError> {
        if let Some(types) = fields.texts("layer_types")? {
            // transformers' Mistral does not look at them.
            if self == Self::Mistral {
                return Err(fields.unsupported("`layer_types`".to_owned()));
            }
            if types.len() != n_layers {
                return Err(fields.invalid(format!("{} layer_types for {n_layers} layers", types.len())));
            }
            let slides = |kind: &&str| match *kind {
                "full_attention" => Ok(false),
                "sliding_attention" => Ok(true),
                other => Err(fields.unsupported(format!("`layer_types` {other}"))),
            };
            return types.iter().map(slides).collect();
        }
        let n_full = fields.count("max_window_layers")?.unwrap_or(28);
        let period = fields.count("sliding_window_pattern")?.unwrap_or(6);
        if period == 0 {
            return Err(fields.invalid("sliding_window_pattern is 0".to_owned()));
        }
        let is_sliding = |layer_idx: usize| match self {
            Self::Llama => false,
            Self::Mistral => window.is_some(),
            Self::Qwen2 | Self::Qwen3 => window.is_some() && layer_idx >= n_full,
            // Five that slide, then one that sees everything.
            Self::Gemma3 => !(layer_idx + 1).is_multiple_of(period),
        };
        Ok((0..n_layers).map(is_sliding).collect())
    }

    /// The rotations of layers that see everything and of those that slide.
    fn ropes(self, fields: &Fields) -> Result<[Rope; 2], ModelError> {
        let parameters = fields.object("rope_parameters")?;
        let by_layer_type = |name: &str| match &parameters {
            Some(parameters) => parameters.object(name),
            None => Ok(None),
        };
        let (full, sliding) = (by_layer_type("full_attention")?, by_layer_type("sliding_attention")?);
        let is_nested = full.is_some() || sliding.is_some();
        if parameters.is_some() && is_nested != (self == Self::Gemma3) {
            return Err(fields.unsupported("`rope_parameters` of this form".to_owned()));
        }
        if self != Self::Gemma3 {
            let rope = parameters.or(fields.object("rope_scaling")?);
            let rope = Rope::read(fields, rope.as_ref(), fields.number("rope_theta")?.unwrap_or(10_000.0))?;
            return Ok([rope; 2]);
        }
        let full = full.or(fields.object("rope_scaling")?);
        let theta = fields.number("rope_theta")?.unwrap_or(1_000_000.0);
        let local_theta = fields.number("rope_local_base_freq")?.unwrap_or(10_000.0);
        Ok([Rope::read(fields, full.as_ref(), theta)?, Rope::read(fields, sliding.as_ref(), local_theta)?])
    }
}
