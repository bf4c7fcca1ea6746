//! A GGUF file of a known family -> an HF model folder that transformers and [`crate::config::DecoderConfig`] read.
use super::{Gguf, GgufValue, tokenizer};
use crate::error::io_error;
use crate::weights::{WeightDtype, write_streaming};
use crate::{ModelError, files};
use serde_json::{Value, json};
use std::path::Path;

/// Writes `gguf_path` as config.json, generation_config.json, tokenizer.json, tokenizer_config.json and model.safetensors
/// (f32) into `out_dir`. config.json comes last: a folder that has it is complete.
pub fn import_gguf(gguf_path: &Path, out_dir: &Path) -> Result<(), ModelError> {
    let mut gguf = Gguf::open(gguf_path)?;
    let shape = Shape::read(&mut gguf)?;
    let tokenizer = tokenizer::rebuild(&gguf)?;
    let layout = tensor_layout(&gguf, &shape)?;
    std::fs::create_dir_all(out_dir).map_err(io_error("create", out_dir))?;
    files::write_json(&out_dir.join("tokenizer.json"), &tokenizer.json)?;
    files::write_json(&out_dir.join("tokenizer_config.json"), &tokenizer.config)?;
    files::write_json(&out_dir.join("generation_config.json"), &tokenizer.generation)?;
    write_weights(&mut gguf, &shape, &layout, &out_dir.join("model.safetensors"))?;
    files::write_json(&out_dir.join("config.json"), &shape.config_json(&tokenizer))
}

/// The `general.architecture` of files that can be imported.
const KNOWN_GGUF_ARCHITECTURES: &[&str] = &["llama", "qwen2", "qwen3", "gemma3"];

/// One of [`KNOWN_GGUF_ARCHITECTURES`]. llama.cpp calls Mistral `llama`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

struct Shape {
    architecture: Architecture,
    hidden_size: usize,
    intermediate_size: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    rope_scaling: Value,
    is_tied: bool,
    /// Fields of config.json that only this architecture has.
    more: Value,
}

/// A tensor's name in the GGUF file, its name and shape in the folder.
struct Renamed {
    from: String,
    to: String,
    shape: Vec<usize>,
}

/// The GGUF and HF names of the tensors that every layer has.
const LAYER_TENSORS: &[(&str, &str)] = &[
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
];
const MLP_NORM: &[(&str, &str)] = &[("ffn_norm.weight", "post_attention_layernorm.weight")];
const QKV_BIASES: &[(&str, &str)] = &[
    ("attn_q.bias", "self_attn.q_proj.bias"),
    ("attn_k.bias", "self_attn.k_proj.bias"),
    ("attn_v.bias", "self_attn.v_proj.bias"),
];
const HEAD_NORMS: &[(&str, &str)] =
    &[("attn_q_norm.weight", "self_attn.q_norm.weight"), ("attn_k_norm.weight", "self_attn.k_norm.weight")];
const GEMMA_NORMS: &[(&str, &str)] = &[
    ("post_attention_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_norm.weight", "pre_feedforward_layernorm.weight"),
    ("post_ffw_norm.weight", "post_feedforward_layernorm.weight"),
];
/// Beyond any model, and small enough that products of two stay within 64 bits.
const MAX_SIZE: usize = 1 << 30;
/// Frequency divisors that llama.cpp's converter computes for Llama 3.1 and later.
const ROPE_FREQUENCIES: &str = "rope_freqs.weight";

impl Architecture {
    fn read(gguf: &Gguf) -> Result<Self, ModelError> {
        let found = gguf.text("general.architecture").unwrap_or("(none)");
        match found {
            "llama" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            "gemma3" => Ok(Self::Gemma3),
            _ => Err(ModelError::UnknownArchitecture {
                path: gguf.path().to_owned(),
                found: found.to_owned(),
                known: KNOWN_GGUF_ARCHITECTURES,
            }),
        }
    }

    /// transformers' class and `model_type`.
    fn hf_names(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("LlamaForCausalLM", "llama"),
            Self::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
            Self::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
            Self::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
        }
    }

    /// The GGUF and HF names of a layer's tensors.
    fn layer_tensors(self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let more: [&[_]; 2] = match self {
            Self::Llama => [MLP_NORM, &[]],
            Self::Qwen2 => [MLP_NORM, QKV_BIASES],
            Self::Qwen3 => [MLP_NORM, HEAD_NORMS],
            Self::Gemma3 => [GEMMA_NORMS, HEAD_NORMS],
        };
        LAYER_TENSORS.iter().chain(more[0]).chain(more[1])
    }
}

impl Shape {
    fn read(gguf: &mut Gguf) -> Result<Self, ModelError> {
        let architecture = Architecture::read(gguf)?;
        if let Some(n_experts) = gguf.model_count("expert_count").filter(|&count| count > 0) {
            return Err(unsupported(gguf, format!("a mixture of {n_experts} experts")));
        }
        let required = |key: &str| match gguf.model_count(key) {
            Some(count @ 1..=MAX_SIZE) => Ok(count),
            other => Err(gguf.invalid(format!("its {key} is {other:?}"))),
        };
        let (hidden_size, n_heads) = (required("embedding_length")?, required("attention.head_count")?);
        let head_dim = gguf.model_count("attention.key_length").unwrap_or(hidden_size / n_heads);
        let n_kv_heads = gguf.model_count("attention.head_count_kv").unwrap_or(n_heads);
        if gguf.model_count("rope.dimension_count").is_some_and(|n_rotated| n_rotated != head_dim) {
            return Err(unsupported(gguf, "rotary embeddings over a part of each head".to_owned()));
        }
        if head_dim == 0
            || !head_dim.is_multiple_of(2)
            || head_dim > MAX_SIZE
            || n_kv_heads == 0
            || n_kv_heads > n_heads
        {
            return Err(gguf.invalid(format!("it has {n_heads} and {n_kv_heads} heads, {head_dim} wide")));
        }
        let number = |key: &str, default: f64| float_as_written(gguf.model_float(key).unwrap_or(default));
        let mut shape = Self {
            architecture,
            hidden_size,
            intermediate_size: required("feed_forward_length")?,
            n_layers: required("block_count")?,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab_size: gguf.shape("token_embd.weight").and_then(|shape| shape.first().copied()).unwrap_or(0),
            max_position_embeddings: required("context_length")?,
            rms_norm_eps: number("attention.layer_norm_rms_epsilon", 1e-5),
            rope_theta: number("rope.freq_base", 10_000.0),
            rope_scaling: Value::Null,
            is_tied: gguf.shape("output.weight").is_none(),
            more: json!({}),
        };
        shape.rope_scaling = shape.read_rope_scaling(gguf)?;
        shape.more = shape.more_of_config(gguf)?;
        Ok(shape)
    }

    /// What config.json says of one architecture alone.
    fn more_of_config(&self, gguf: &Gguf) -> Result<Value, ModelError> {
        if self.architecture != Architecture::Gemma3 {
            return Ok(match self.architecture {
                Architecture::Llama => json!({"hidden_act": "silu", "attention_bias": false, "mlp_bias": false}),
                _ => json!({"hidden_act": "silu", "use_sliding_window": false}),
            });
        }
        for key in ["gemma3.final_logit_softcapping", "gemma3.attn_logit_softcapping"] {
            if gguf.metadata.contains_key(key) {
                return Err(unsupported(gguf, format!("`{key}`")));
            }
        }
        let Some(window) = gguf.model_count("attention.sliding_window") else {
            return Err(gguf.invalid("it has no gemma3.attention.sliding_window".to_owned()));
        };
        // What llama.cpp does without keys for it (`llama_model::load_hparams`, `LLM_ARCH_GEMMA3`): every sixth layer sees
        // everything; the 27B model alone, which has 62 layers, scales scores by another width than a head's.
        let period = match gguf.metadata.get("gemma3.attention.sliding_window_pattern") {
            None => 6,
            Some(GgufValue::Int(period @ 1..=64)) => *period as usize,
            Some(_) => {
                return Err(unsupported(gguf, "a `gemma3.attention.sliding_window_pattern` of this kind".to_owned()));
            }
        };
        let slides = |layer_idx: usize| !(layer_idx + 1).is_multiple_of(period);
        let layer_type = |layer_idx| if slides(layer_idx) { "sliding_attention" } else { "full_attention" };
        // A false layer count must not cost memory; the layers that the file lacks are told later.
        let n_layers = self.n_layers.min(gguf.tensor_names().count());
        let scalar = if self.n_layers == 62 { self.hidden_size / self.n_heads } else { self.head_dim };
        Ok(json!({
            "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": scalar, "sliding_window": window,
            "layer_types": (0..n_layers).map(layer_type).collect::<Vec<_>>(),
            "rope_local_base_freq": float_as_written(gguf.model_float("rope.freq_base_swa").unwrap_or(10_000.0)),
            "attention_bias": false
        }))
    }

    fn read_rope_scaling(&self, gguf: &mut Gguf) -> Result<Value, ModelError> {
        if gguf.shape(ROPE_FREQUENCIES).is_some() {
            return self.llama3_scaling(gguf);
        }
        let factor = gguf.model_float("rope.scaling.factor").or(gguf.model_float("rope.scale_linear"));
        let old_style = if gguf.model_float("rope.scale_linear").is_some() { "linear" } else { "none" };
        match (gguf.text(&gguf.model_key("rope.scaling.type")).unwrap_or(old_style), factor) {
            ("none", _) => Ok(Value::Null),
            ("linear", Some(factor)) if factor > 0.0 => {
                Ok(json!({"rope_type": "linear", "factor": float_as_written(factor)}))
            }
            (other, _) => Err(unsupported(gguf, format!("rope scaling `{other}`"))),
        }
    }

    /// The converter keeps only the divisors of the frequencies. Every Llama 3.x uses the same three parameters beside the
    /// factor; whether they explain the divisors is checked.
    fn llama3_scaling(&self, gguf: &mut Gguf) -> Result<Value, ModelError> {
        const LOW: f64 = 1.0;
        const HIGH: f64 = 4.0;
        const ORIGINAL: f64 = 8192.0;
        let divisors = gguf.tensor_f32(ROPE_FREQUENCIES)?;
        let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
        let explains = divisors.iter().enumerate().all(|(idx, &divisor)| {
            let wavelength = std::f64::consts::TAU * self.rope_theta.powf(2.0 * idx as f64 / self.head_dim as f64);
            let smooth = ((ORIGINAL / wavelength - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
            let expected = 1.0 / ((1.0 - smooth) / factor + smooth);
            (f64::from(divisor) - expected).abs() <= 1e-3 * expected
        });
        if divisors.len() != self.head_dim / 2 || !explains {
            return Err(unsupported(gguf, "rope frequencies that are not Llama 3's".to_owned()));
        }
        Ok(json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
            "original_max_position_embeddings": ORIGINAL as u64
        }))
    }

    fn config_json(&self, tokenizer: &tokenizer::Rebuilt) -> Value {
        let (class, model_type) = self.architecture.hf_names();
        let mut config = json!({
            "architectures": [class],
            "model_type": model_type,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": self.rope_scaling,
            "tie_word_embeddings": self.is_tied,
            "bos_token_id": tokenizer.generation["bos_token_id"],
            "eos_token_id": tokenizer.generation["eos_token_id"],
            "torch_dtype": "float32"
        });
        for (name, value) in self.more.as_object().expect("`more_of_config` made an object") {
            config[name] = value.clone();
        }
        config
    }

    /// The shape that transformers gives to a layer's tensor.
    fn layer_tensor_shape(&self, hf_name: &str) -> Vec<usize> {
        let (query, key_value) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let (path, kind) = hf_name.rsplit_once('.').expect("a tensor's name ends with its kind");
        let [n_out, n_in] = match path {
            "self_attn.q_proj" => [query, self.hidden_size],
            "self_attn.k_proj" | "self_attn.v_proj" => [key_value, self.hidden_size],
            "self_attn.o_proj" => [self.hidden_size, query],
            "mlp.gate_proj" | "mlp.up_proj" => [self.intermediate_size, self.hidden_size],
            "mlp.down_proj" => [self.hidden_size, self.intermediate_size],
            "self_attn.q_norm" | "self_attn.k_norm" => return vec![self.head_dim],
            _ => return vec![self.hidden_size],
        };
        if kind == "bias" { vec![n_out] } else { vec![n_out, n_in] }
    }
}

/// Every tensor of the folder, found in the file with the right shape; tensors that nothing here would use are refused.
fn tensor_layout(gguf: &Gguf, shape: &Shape) -> Result<Vec<Renamed>, ModelError> {
    let renamed = |from: &str, to: &str, shape: Vec<usize>| Renamed { from: from.to_owned(), to: to.to_owned(), shape };
    let embedding = vec![shape.vocab_size, shape.hidden_size];
    let mut layout = vec![renamed("token_embd.weight", "model.embed_tokens.weight", embedding.clone())];
    for layer_idx in 0..shape.n_layers {
        // A false layer count ends here, at the first layer that the file lacks.
        for (gguf_name, hf_name) in shape.architecture.layer_tensors() {
            let from = format!("blk.{layer_idx}.{gguf_name}");
            let to = format!("model.layers.{layer_idx}.{hf_name}");
            check_tensor(gguf, &from, &shape.layer_tensor_shape(hf_name))?;
            layout.push(renamed(&from, &to, shape.layer_tensor_shape(hf_name)));
        }
    }
    layout.push(renamed("output_norm.weight", "model.norm.weight", vec![shape.hidden_size]));
    if !shape.is_tied {
        layout.push(renamed("output.weight", "lm_head.weight", embedding));
    }
    for tensor in &layout {
        check_tensor(gguf, &tensor.from, &tensor.shape)?;
    }
    let used: std::collections::HashSet<_> = layout.iter().map(|tensor| tensor.from.as_str()).collect();
    match gguf.tensor_names().find(|name| !used.contains(name) && *name != ROPE_FREQUENCIES) {
        Some(other) => Err(unsupported(gguf, format!("tensor `{other}`, which nothing here would use"))),
        None => Ok(layout),
    }
}

fn check_tensor(gguf: &Gguf, name: &str, expected: &[usize]) -> Result<(), ModelError> {
    let (path, tensor) = (gguf.path().to_owned(), name.to_owned());
    match gguf.shape(name) {
        None => Err(ModelError::MissingTensor { path, tensor }),
        Some(actual) if actual != expected => {
            let (expected, actual) = (expected.to_vec(), actual.to_vec());
            Err(ModelError::ShapeMismatch { path, tensor, expected, actual })
        }
        Some(_) => Ok(()),
    }
}

/// One tensor in memory at a time: SmolLM2's largest is the embedding, 49152 x 576 x 4 B = 113 MB.
fn write_weights(gguf: &mut Gguf, shape: &Shape, layout: &[Renamed], path: &Path) -> Result<(), ModelError> {
    let names = layout.iter().map(|tensor| (tensor.to.clone(), tensor.shape.clone())).collect();
    write_streaming(path, names, WeightDtype::F32, |writer| {
        for tensor in layout {
            let mut numbers = gguf.tensor_f32(&tensor.from)?;
            match shape.architecture {
                Architecture::Llama if is_rotated(&tensor.to) => {
                    numbers = unpermute(&numbers, shape.head_dim, shape.hidden_size);
                }
                // llama.cpp's converter adds the 1 that Gemma's norms lack in HF's files.
                Architecture::Gemma3 if tensor.to.ends_with("norm.weight") => {
                    numbers.iter_mut().for_each(|number| *number -= 1.0);
                }
                _ => {}
            }
            writer.put(&tensor.to, &numbers)?;
        }
        Ok(())
    })
}

fn is_rotated(hf_name: &str) -> bool {
    hf_name.ends_with("q_proj.weight") || hf_name.ends_with("k_proj.weight")
}

/// For Llama, llama.cpp rotates neighbouring rows of a head, HF its halves: row `2 i + half` of a head goes to `half * head_dim / 2 +
/// i`. The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py.
fn unpermute(numbers: &[f32], head_dim: usize, n_columns: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(numbers.len());
    for head in numbers.chunks(head_dim * n_columns) {
        for half in 0..2 {
            for idx in 0..head_dim / 2 {
                out.extend_from_slice(&head[(2 * idx + half) * n_columns..][..n_columns]);
            }
        }
    }
    out
}

/// The shortest decimal that reads back as the same f32: 9.999999747378752e-6 was written as 1e-5.
fn float_as_written(number: f64) -> f64 {
    let narrow = number as f32;
    if f64::from(narrow) == number { narrow.to_string().parse().unwrap_or(number) } else { number }
}

fn unsupported(gguf: &Gguf, feature: String) -> ModelError {
    ModelError::UnsupportedFeature { path: gguf.path().to_owned(), feature }
}
