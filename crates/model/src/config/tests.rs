//! What is read of a config.json, by family, and what is refused.
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
    let rope = |changes: Value| with(changes).expect("it parses").layers[0].rope;
    let new = rope(json!({"rope_theta": null, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}));
    assert_eq!(new, Rope { theta: 5e5, scaling: RopeScaling::None });
    let linear = rope(json!({"rope_scaling": {"type": "linear", "factor": 2.0}}));
    assert_eq!(linear, Rope { theta: 1e5, scaling: RopeScaling::Linear { factor: 2.0 } });
    let llama3 = rope(json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}));
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    assert_eq!(llama3.scaling, expected);
    let dynamic = rope(json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}));
    assert_eq!(dynamic.scaling, RopeScaling::None, "within max_position_embeddings");
}

#[test]
fn yarn_stretches_as_its_paper_or_its_file_says() {
    let attention_factor = |more: Value| {
        let mut rope = json!({"rope_type": "yarn", "factor": 4.0});
        for (name, value) in more.as_object().expect("fields") {
            rope[name] = value.clone();
        }
        match with(json!({"rope_scaling": rope})).expect("yarn parses").layers[0].rope.scaling {
            RopeScaling::Yarn { attention_factor, original_max_position_embeddings: 512, .. } => attention_factor,
            other => panic!("{other:?}"),
        }
    };
    let near = |actual: f32, expected: f64| assert!((f64::from(actual) - expected).abs() < 1e-6, "{actual}");
    near(attention_factor(json!({})), 0.1 * 4f64.ln() + 1.0);
    near(attention_factor(json!({"attention_factor": 1.5})), 1.5);
    let quotient = (0.1 * 0.7 * 4f64.ln() + 1.0) / (0.1 * 4f64.ln() + 1.0);
    near(attention_factor(json!({"mscale": 0.7, "mscale_all_dim": 1.0})), quotient);
}

#[test]
fn layers_slide_where_their_family_says() {
    let windows = |changes: Value| -> Vec<Option<usize>> {
        with(changes).expect("it parses").layers.iter().map(|layer| layer.window).collect()
    };
    let of = |architecture: &str, mut changes: Value| {
        changes["architectures"] = json!([architecture]);
        changes["num_hidden_layers"] = json!(4);
        windows(changes)
    };
    let (no, w) = (None, Some(64));
    assert_eq!(of("LlamaForCausalLM", json!({"sliding_window": 64})), [no; 4], "transformers' Llama has no windows");
    assert_eq!(of("MistralForCausalLM", json!({"sliding_window": 64})), [w; 4]);
    assert_eq!(of("MistralForCausalLM", json!({"sliding_window": null})), [no; 4]);
    assert_eq!(of("MistralForCausalLM", json!({})), [Some(4096); 4], "the default of its class");
    let qwen = json!({"sliding_window": 64, "max_window_layers": 3});
    assert_eq!(of("Qwen2ForCausalLM", qwen.clone()), [no; 4], "use_sliding_window is false");
    let mut used = qwen;
    used["use_sliding_window"] = json!(true);
    assert_eq!(of("Qwen2ForCausalLM", used.clone()), [no, no, no, w]);
    used["layer_types"] = json!(["full_attention", "sliding_attention", "sliding_attention", "full_attention"]);
    assert_eq!(of("Qwen3ForCausalLM", used), [no, w, w, no]);
    assert_eq!(of("Gemma3ForCausalLM", json!({"sliding_window": 64, "sliding_window_pattern": 2})), [w, no, w, no]);
    assert_eq!(of("Gemma3ForCausalLM", json!({"sliding_window": 64})), [w; 4], "the sixth layer sees everything");
}

#[test]
fn gemma_is_read_as_its_release_and_as_transformers_5_writes_it() {
    let gemma = |changes: Value| {
        let mut json = json!({"architectures": null, "model_type": "gemma3_text", "tie_word_embeddings": null, "head_dim": 16,
            "sliding_window": 512, "sliding_window_pattern": 2, "rope_theta": null});
        for (name, value) in changes.as_object().expect("fields") {
            json[name] = value.clone();
        }
        with(json).expect("it parses")
    };
    let config = gemma(
        json!({"rope_theta": 1e6, "rope_local_base_freq": 2e4, "rope_scaling": {"type": "linear", "factor": 8.0}}),
    );
    let nested = gemma(json!({"rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}}}));
    assert_eq!(config.layers, nested.layers);
    let local = LayerConfig { window: Some(512), rope: Rope { theta: 2e4, scaling: RopeScaling::None } };
    let global = LayerConfig { window: None, rope: Rope { theta: 1e6, scaling: RopeScaling::Linear { factor: 8.0 } } };
    assert_eq!(config.layers, [local, global]);
    assert!(config.tie_word_embeddings && config.query_key_norms && config.output_norms);
    assert_eq!((config.norm_offset, config.embedding_scale, config.attention_scale), (1.0, 8.0, 1.0 / 16.0));
    assert_eq!(config.activation, Activation::GeluTanh);
}

#[test]
fn what_the_decoder_would_get_wrong_is_refused() {
    refuses(
        json!({"architectures": ["MixtralForCausalLM"]}),
        "`MixtralForCausalLM`; known ones: LlamaForCausalLM, Mistral",
    );
    refuses(json!({"architectures": ["Gemma3ForConditionalGeneration"]}), "Gemma3ForCausalLM");
    refuses(json!({"architectures": null, "model_type": "bert"}), "`bert`");
    refuses(json!({"architectures": ["MistralForCausalLM"], "attention_bias": true}), "attention_bias");
    refuses(json!({"architectures": ["Qwen2ForCausalLM"], "mlp_bias": true}), "mlp_bias");
    refuses(json!({"architectures": ["Gemma3ForCausalLM"], "use_bidirectional_attention": true}), "bidirectional");
    refuses(json!({"final_logit_softcapping": 30.0}), "final_logit_softcapping");
    refuses(json!({"quantization_config": {"bits": 4}}), "quantization_config");
    refuses(json!({"hidden_act": "gelu"}), "gelu");
    refuses(json!({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}), "longrope");
    refuses(json!({"rope_scaling": {"rope_type": "linear"}}), "lacks `factor`");
    refuses(json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}), "partial_rotary_factor");
    refuses(json!({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}), "rope_parameters");
    refuses(json!({"architectures": ["Gemma3ForCausalLM"], "rope_parameters": {"rope_theta": 1e4}}), "rope_parameters");
    refuses(json!({"layer_types": ["full_attention"]}), "1 layer_types for 2 layers");
    refuses(json!({"layer_types": ["full_attention", "linear_attention"]}), "linear_attention");
    refuses(json!({"layer_types": ["full_attention", "sliding_attention"]}), "no `sliding_window`");
    refuses(json!({"architectures": ["MistralForCausalLM"], "sliding_window": 0}), "no `sliding_window`");
    refuses(json!({"architectures": ["Gemma3ForCausalLM"], "query_pre_attn_scalar": 0}), "query_pre_attn_scalar");
    refuses(json!({"num_hidden_layers": 1_000_000_000}), "num_hidden_layers is 1000000000");
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
