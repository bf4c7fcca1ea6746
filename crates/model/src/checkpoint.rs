//! Trained models on disk: PEFT adapters and whole HF folders, as transformers and PEFT load them.
use crate::config::DecoderConfig;
use crate::decoder::{Adapter, Decoder, LoraConfig, LoraPair, Parameters, Projection};
use crate::error::{io_error, json_error};
use crate::weights::{self, WeightDtype, Weights};
use crate::{ModelError, files};
use exsearch_kernels::{MatMut, MatRef, Operand, Panels, matmul};
use serde_json::json;
use std::path::Path;

const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Loads the decoder of an HF folder for sequences of at most `max_positions` tokens, or the model's own limit if less.
pub fn load_decoder(dir: &Path, max_positions: usize) -> Result<Decoder, ModelError> {
    let config = DecoderConfig::open(dir)?;
    let parameters = Parameters::load(&Weights::open(dir)?, &config)?;
    let max_positions = max_positions.min(config.max_position_embeddings);
    Ok(Decoder::new(config, parameters, max_positions))
}

/// Writes a decoder as an HF folder; configuration and tokenizer are copied from `base`. The weights come last, so that a
/// folder with weights is complete.
pub fn save_decoder(decoder: &Decoder, base: &Path, dir: &Path, dtype: WeightDtype) -> Result<(), ModelError> {
    let layout = decoder.parameters().tensors().map(|(name, shape, _)| (name, shape)).collect();
    let mut tensors = decoder.parameters().tensors();
    save_tensors(
        layout,
        |_| tensors.next().map(|(_, _, values)| values).expect("as many as announced"),
        base,
        dir,
        dtype,
    )
}

/// [`save_decoder`] for tensors wherever they lie: `layout` has their names and shapes, `tensor` is asked for the values of
/// each by its number, in order.
pub fn save_tensors(
    layout: Vec<(String, Vec<usize>)>,
    mut tensor: impl FnMut(usize) -> Vec<f32>,
    base: &Path,
    dir: &Path,
    dtype: WeightDtype,
) -> Result<(), ModelError> {
    weights::copy_sidecar_files(base, dir)?;
    let names: Vec<String> = layout.iter().map(|(name, _)| name.clone()).collect();
    weights::write_streaming(&dir.join("model.safetensors"), layout, dtype, |writer| {
        names.iter().enumerate().try_for_each(|(idx, name)| writer.put(name, &tensor(idx)))
    })
}

/// Writes an adapter as PEFT does; `base` is the model that it belongs to. The weights come last.
pub fn save_adapter(adapter: &Adapter, base: &Path, dir: &Path) -> Result<(), ModelError> {
    std::fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    let present = |projection: &Projection| adapter.layers.iter().any(|layer| layer[*projection as usize].is_some());
    let target = |projection: Projection| projection.path().rsplit('.').next();
    let targets: Vec<_> = Projection::ALL.into_iter().filter(present).filter_map(target).collect();
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": true,
        "r": adapter.config().rank, "lora_alpha": adapter.config().alpha, "lora_dropout": 0.0, "bias": "none",
        "target_modules": targets, "fan_in_fan_out": false, "modules_to_save": null, "use_rslora": false,
        "use_dora": false, "init_lora_weights": true,
    });
    files::write_json(&dir.join(ADAPTER_CONFIG), &config)?;
    let tensors: Vec<_> = adapter.tensors().collect();
    let borrowed = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice()));
    weights::write_safetensors(&dir.join(ADAPTER_WEIGHTS), borrowed, WeightDtype::F32)
}

/// Whether a folder holds an adapter.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG).is_file()
}

/// Loads a PEFT LoRA adapter for a decoder of this configuration. Variants that compute something else (DoRA, rank-stabilized
/// scaling, biases, per-module ranks) are refused.
pub fn load_adapter(dir: &Path, config: &DecoderConfig) -> Result<Adapter, ModelError> {
    let path = dir.join(ADAPTER_CONFIG);
    let json = files::read_json(&path)?;
    let set = |field: &str| json.get(field).is_some_and(|it| *it != json!(false) && !it.is_null());
    for field in ["use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save"] {
        if set(field) {
            return Err(ModelError::UnsupportedFeature { path, feature: format!("`{field}`") });
        }
    }
    for field in ["rank_pattern", "alpha_pattern"] {
        if json.get(field).and_then(|it| it.as_object()).is_some_and(|map| !map.is_empty()) {
            return Err(ModelError::UnsupportedFeature { path, feature: format!("`{field}`") });
        }
    }
    let rank = json.get("r").and_then(|it| it.as_u64()).filter(|rank| *rank > 0);
    let alpha = json.get("lora_alpha").and_then(|it| it.as_f64());
    let (Some(rank), Some(alpha)) = (rank, alpha) else {
        return Err(json_error(&path)("it needs a positive `r` and a `lora_alpha`"));
    };
    let rank = rank as usize;
    let weights = Weights::open_file(&dir.join(ADAPTER_WEIGHTS))?;
    let mut n_pairs = 0;
    let layers = (0..config.layers.len())
        .map(|layer_idx| {
            let mut pairs: [Option<LoraPair>; 7] = Default::default();
            for projection in Projection::ALL {
                let prefix = format!("base_model.model.model.layers.{layer_idx}.{}", projection.path());
                let (a, b) = (format!("{prefix}.lora_A.weight"), format!("{prefix}.lora_B.weight"));
                if weights.shape(&a).is_none() && weights.shape(&b).is_none() {
                    continue;
                }
                let (k, n) = projection.sizes(config);
                n_pairs += 1;
                pairs[projection as usize] = Some(LoraPair {
                    a: Panels::from_transposed(&weights.tensor_f32(&a, &[rank, k])?, rank, k),
                    b: Panels::from_transposed(&weights.tensor_f32(&b, &[n, rank])?, n, rank),
                });
            }
            Ok(pairs)
        })
        .collect::<Result<Vec<_>, ModelError>>()?;
    if n_pairs * 2 != weights.names().count() {
        let reason = format!(
            "{} of its tensors belong to no projection of the base model",
            weights.names().count() - n_pairs * 2
        );
        return Err(ModelError::InvalidConfig { path: dir.join(ADAPTER_WEIGHTS), reason });
    }
    Ok(Adapter::from_pairs(LoraConfig { rank, alpha: alpha as f32 }, layers))
}

/// Adds an adapter to its decoder's weights: `W += s·A·B`.
pub fn merge(decoder: &mut Decoder, adapter: &Adapter) {
    let scale = adapter.scale();
    for (layer, pairs) in decoder.parameters_mut().layers.iter_mut().zip(&adapter.layers) {
        for (weight, pair) in layer.linears.iter_mut().zip(pairs) {
            let Some(pair) = pair else { continue };
            let (k, rank, n) = (weight.k(), pair.a.n(), weight.n());
            let mut a = pair.a.to_rows();
            exsearch_kernels::scale(&mut a, scale);
            let mut rows = weight.to_rows();
            matmul(MatRef::new(&a, k, rank), Operand::Panels(&pair.b), MatMut::new(&mut rows, k, n), true);
            *weight = Panels::from_rows(&rows, k, n);
        }
    }
}
