//! The decoder against itself, for every family: batches and prefixes against single passes (to the bit), gradients against
//! differences. Agreement with transformers is tested in the engine's and the trainer's `tests/golden_decoders.rs`.
use super::*;
use crate::config::DecoderConfig;
use exsearch_kernels::LANES;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;

const VOCABULARY: usize = 50;
/// Shorter than every sequence of these tests.
const WINDOW: usize = 7;

/// What makes each family what it is.
fn families() -> Vec<Value> {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    vec![
        json!({"architectures": ["LlamaForCausalLM"]}),
        json!({"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": false, "attention_bias": true, "mlp_bias": true}),
        json!({"architectures": ["MistralForCausalLM"], "sliding_window": WINDOW}),
        json!({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": true, "sliding_window": WINDOW,
            "max_window_layers": 1, "rope_scaling": yarn}),
        json!({"architectures": ["Qwen3ForCausalLM"]}),
        json!({"architectures": ["Gemma3ForCausalLM"], "sliding_window": WINDOW, "sliding_window_pattern": 2,
            "rope_theta": 1e6, "query_pre_attn_scalar": 20}),
    ]
}

fn config(family: &Value) -> DecoderConfig {
    let mut config = json!({
        "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8,
        "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 256,
        "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1,
    });
    for (name, value) in family.as_object().expect("fields") {
        config[name] = value.clone();
    }
    DecoderConfig::from_json(Path::new("config.json"), config).expect("a valid configuration")
}

fn noise(count: usize, seed: &mut u32) -> Vec<f32> {
    let next = || {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn decoder(family: &Value) -> Decoder {
    let config = config(family);
    let mut seed = 7;
    // Norms between 0.5 and 1.5, biases within 0.5, the variance of a product that of its input.
    let tensor = |name: &str, shape: &[usize]| {
        let (start, scale) = match shape {
            [_, k] => (0.0, 2.0 / (*k as f32).sqrt()),
            _ if name.ends_with("bias") => (0.0, 0.5),
            _ => (1.0 - config.norm_offset, 0.5),
        };
        let noise = noise(shape.iter().product(), &mut seed);
        Ok::<_, Infallible>(noise.iter().map(|x| start + x * scale).collect())
    };
    let Ok(parameters) = Parameters::from_tensors(&config, tensor);
    Decoder::new(config, parameters, 256)
}

fn llama() -> Decoder {
    decoder(&families()[0])
}

fn adapter(decoder: &Decoder) -> Adapter {
    let mut adapter = Adapter::new(&LoraConfig { rank: 3, alpha: 6.0 }, decoder.config(), 5);
    let mut seed = 11;
    for pair in adapter.layers.iter_mut().flatten().flatten() {
        let (k, n) = (pair.b.k(), pair.b.n());
        pair.b = Panels::from_rows(&noise(k * n, &mut seed), k, n);
    }
    adapter
}

fn ids(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 17 + 3) % VOCABULARY as u32).collect()
}

fn all_hidden(decoder: &Decoder, adapter: Option<&Adapter>, ids: &[u32]) -> Vec<f32> {
    let mut cache = KvCache::new(decoder.config());
    let wanted: Vec<usize> = (0..ids.len()).collect();
    decoder.forward(adapter, &mut [Chunk { cache: &mut cache, tokens: ids }], &wanted, &mut Workspace::default())
}

#[test]
fn prefill_in_pieces_and_beside_others_gives_the_same_bits() {
    for family in families() {
        let decoder = decoder(&family);
        let adapter = adapter(&decoder);
        let (long, other) = (ids(150), ids(9));
        let whole = all_hidden(&decoder, Some(&adapter), &long);
        let (mut cache, mut beside) = (KvCache::new(decoder.config()), KvCache::new(decoder.config()));
        let mut workspace = Workspace::default();
        let mut pieces = Vec::new();
        for piece in [0..70, 70..71, 71..103, 103..150] {
            let n = piece.len();
            let mut chunks =
                [Chunk { cache: &mut beside, tokens: &other }, Chunk { cache: &mut cache, tokens: &long[piece] }];
            let wanted: Vec<usize> = (other.len()..other.len() + n).collect();
            pieces.extend(decoder.forward(Some(&adapter), &mut chunks, &wanted, &mut workspace));
        }
        assert_eq!(pieces, whole, "{family}");
        assert_eq!(cache.n_tokens(), 150);

        let mut prefix = cache.prefix(100);
        let mut chunk = [Chunk { cache: &mut prefix, tokens: &long[100..] }];
        let tail = decoder.forward(Some(&adapter), &mut chunk, &[49], &mut workspace);
        assert_eq!(tail, whole[149 * 24..], "{family}");
        cache.truncate(64);
        let mut chunk = [Chunk { cache: &mut cache, tokens: &long[64..150] }];
        assert_eq!(decoder.forward(Some(&adapter), &mut chunk, &[85], &mut workspace), whole[149 * 24..], "{family}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let on = |n_threads: usize, run: &(dyn Fn() -> Vec<f32> + Sync)| {
        rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool").install(run)
    };
    for family in families() {
        let decoder = decoder(&family);
        let (ids, weights) = (ids(130), token_weights(130));
        let everything = || {
            let mut gradients = Gradients::of_parameters(decoder.parameters());
            learn(&decoder, None, &[(&ids, &weights)], &mut gradients, usize::MAX);
            [all_hidden(&decoder, None, &ids), values(&mut gradients)].concat()
        };
        assert_eq!(on(1, &everything), on(3, &everything), "{family}");
    }
}

/// A window that holds every token changes no bit, and in a shorter one a token does not feel those before it.
#[test]
fn a_window_is_what_a_token_sees() {
    let hidden = |window: usize, first_id: u32| {
        let family = json!({"architectures": ["MistralForCausalLM"], "sliding_window": window});
        let ids: Vec<u32> = std::iter::once(first_id).chain(ids(99)).collect();
        all_hidden(&decoder(&family), None, &ids)
    };
    let unlimited = decoder(&json!({"architectures": ["MistralForCausalLM"], "sliding_window": null}));
    let ids: Vec<u32> = std::iter::once(5).chain(ids(99)).collect();
    assert_eq!(hidden(100, 5), all_hidden(&unlimited, None, &ids));
    // Two layers of 30 reach back 58 tokens.
    let (five, six) = (hidden(30, 5), hidden(30, 6));
    assert_eq!(five[59 * 24..], six[59 * 24..]);
    assert_ne!(five[58 * 24..59 * 24], six[58 * 24..59 * 24]);
}

/// The weighted loss through the inference path.
fn loss(decoder: &Decoder, adapter: Option<&Adapter>, ids: &[u32], weights: &[f32]) -> f64 {
    let hidden = all_hidden(decoder, adapter, ids);
    let mut logits = Vec::new();
    decoder.logits(&hidden, &mut logits);
    let rows: Vec<&[f32]> = logits.chunks_exact(VOCABULARY).collect();
    let nll = |idx: usize| -f64::from(exsearch_kernels::log_softmax_at(rows[idx - 1], ids[idx] as usize));
    (1..ids.len()).map(|idx| f64::from(weights[idx]) * nll(idx)).sum()
}

/// A pass over sequences, each its ids and their weights.
fn learn(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    sequences: &[(&[u32], &[f32])],
    gradients: &mut Gradients,
    budget_bytes: usize,
) -> Learned {
    let sequences: Vec<Sequence<'_>> = sequences.iter().map(|&(ids, weights)| Sequence { ids, weights }).collect();
    decoder.learn(adapter, &sequences, gradients, &mut Tape::new(budget_bytes))
}

fn values(gradients: &mut Gradients) -> Vec<f32> {
    gradients.slices_mut().into_iter().flat_map(|slice| slice.to_vec()).collect()
}

/// Compares gradients with central differences at a few places of every tensor.
fn check_gradients(
    slices: usize,
    gradients: &mut Gradients,
    mut loss_at: impl FnMut(usize, usize, f32) -> f64,
    stored: impl Fn(usize, usize) -> bool,
) {
    let gradients: Vec<Vec<f32>> = gradients.slices_mut().into_iter().map(|slice| slice.to_vec()).collect();
    assert_eq!(gradients.len(), slices);
    let step = 2e-3;
    let mut n_checked = 0;
    for (slice_idx, gradient) in gradients.iter().enumerate() {
        for idx in [0, 1, gradient.len() / 2, gradient.len() / 3] {
            if !stored(slice_idx, idx) {
                continue;
            }
            let expected = (loss_at(slice_idx, idx, step) - loss_at(slice_idx, idx, -step)) / (2.0 * f64::from(step));
            let actual = f64::from(gradient[idx]);
            assert!(
                (actual - expected).abs() < 2e-2 * (0.5 + expected.abs()),
                "slice {slice_idx} value {idx}: {actual} != {expected}"
            );
            n_checked += 1;
        }
    }
    assert!(n_checked > 3 * slices / 2, "enough places were checked: {n_checked}");
}

fn token_weights(count: usize) -> Vec<f32> {
    (0..count).map(|i| if i == 0 || i % 3 == 1 { 0.0 } else { 0.1 + 0.01 * i as f32 }).collect()
}

#[test]
fn full_gradients_agree_with_differences() {
    for family in families() {
        let mut decoder = decoder(&family);
        let (ids, weights) = (ids(20), token_weights(20));
        let mut gradients = Gradients::of_parameters(decoder.parameters());
        let learned = learn(&decoder, None, &[(&ids, &weights)], &mut gradients, usize::MAX);
        assert!((learned.loss - loss(&decoder, None, &ids, &weights)).abs() < 1e-4, "{family}");
        let slices = decoder.parameters_mut().slices_mut().len();
        check_gradients(
            slices,
            &mut gradients,
            |slice, idx, step| {
                decoder.parameters_mut().slices_mut()[slice][idx] += step;
                let value = loss(&decoder, None, &ids, &weights);
                decoder.parameters_mut().slices_mut()[slice][idx] -= step;
                value
            },
            // Within a panel only the first columns of the narrowest matrix are there.
            |_, idx| idx % LANES < 8,
        );
    }
}

/// A loss that is no weighted log-likelihood, `sum ½ (log p - r)²`, by weights that depend on log p; the second sequence has no target.
#[test]
fn gradients_by_weights_that_depend_on_log_probs_agree_with_differences() {
    let decoder = decoder(&families()[0]);
    let mut adapter = adapter(&decoder);
    let (ids, weights) = (ids(20), token_weights(20));
    let goal = |idx: usize| -2.0 - 0.1 * idx as f32;
    let mut gradients = Gradients::of_adapter(&adapter);
    let sequences = [
        Sequence { ids: &ids[..7], weights: &[0.0; 7] },
        Sequence { ids: &ids, weights: &weights },
        Sequence { ids: &ids[..9], weights: &weights[..9] },
    ];
    let mut seen = Vec::new();
    let learned = decoder.learn_reweighed(
        Some(&adapter),
        &sequences,
        Some(&mut |number, logprobs| {
            seen.push((number, logprobs.len()));
            let pull = |(idx, logprob): (usize, &f32)| if number == 1 { goal(idx) - logprob } else { 0.0 };
            logprobs.iter().enumerate().map(pull).collect()
        }),
        &mut gradients,
        &mut Tape::new(usize::MAX),
    );
    let n_targets = weights.iter().filter(|weight| **weight != 0.0).count();
    assert_eq!((seen, learned.n_targets), (vec![(1, n_targets), (2, 5)], n_targets));
    let slices = adapter.slices_mut().len();
    check_gradients(
        slices,
        &mut gradients,
        |slice, idx, step| {
            adapter.slices_mut()[slice][idx] += step;
            let hidden = all_hidden(&decoder, Some(&adapter), &ids);
            adapter.slices_mut()[slice][idx] -= step;
            let mut logits = Vec::new();
            decoder.logits(&hidden, &mut logits);
            let rows: Vec<&[f32]> = logits.chunks_exact(VOCABULARY).collect();
            let targets = (1..ids.len()).filter(|position| weights[*position] != 0.0).enumerate();
            let distance = |(idx, position): (usize, usize)| {
                f64::from(exsearch_kernels::log_softmax_at(rows[position - 1], ids[position] as usize) - goal(idx))
            };
            targets.map(distance).map(|distance| 0.5 * distance * distance).sum()
        },
        |slice, idx| if slice % 2 == 0 { idx % LANES < 3 } else { idx % LANES < 8 },
    );
    let mut untouched = Gradients::of_adapter(&adapter);
    let none = |_: usize, logprobs: &[f32]| vec![0.0; logprobs.len()];
    decoder.learn_reweighed(Some(&adapter), &sequences, Some(&mut { none }), &mut untouched, &mut Tape::new(0));
    assert!(values(&mut untouched).iter().all(|value| *value == 0.0));
}

#[test]
fn adapter_gradients_agree_with_differences() {
    for family in families() {
        let decoder = decoder(&family);
        let mut adapter = adapter(&decoder);
        let (ids, weights) = (ids(20), token_weights(20));
        let mut gradients = Gradients::of_adapter(&adapter);
        learn(&decoder, Some(&adapter), &[(&ids, &weights)], &mut gradients, usize::MAX);
        let slices = adapter.slices_mut().len();
        check_gradients(
            slices,
            &mut gradients,
            |slice, idx, step| {
                adapter.slices_mut()[slice][idx] += step;
                let value = loss(&decoder, Some(&adapter), &ids, &weights);
                adapter.slices_mut()[slice][idx] -= step;
                value
            },
            |slice, idx| if slice % 2 == 0 { idx % LANES < 3 } else { idx % LANES < 8 },
        );
    }
}

#[test]
fn recomputing_layers_changes_no_bit_and_gradients_add_up() {
    for family in families() {
        let decoder = decoder(&family);
        let adapter = adapter(&decoder);
        let (ids, weights) = (ids(130), token_weights(130));
        let run = |budget_bytes: usize, times: usize| {
            let mut gradients = Gradients::of_adapter(&adapter);
            for _ in 0..times {
                learn(&decoder, Some(&adapter), &[(&ids, &weights)], &mut gradients, budget_bytes);
            }
            values(&mut gradients)
        };
        let kept = run(usize::MAX, 1);
        // 130 tokens of a layer take about 130 x 250 x 4 B: nothing fits, one more layer, all of them.
        for budget_bytes in [0, 180_000, 10_000_000] {
            assert_eq!(run(budget_bytes, 1), kept, "{family}");
        }
        for (twice, once) in run(0, 2).iter().zip(&kept) {
            assert!((twice - 2.0 * once).abs() <= 1e-4 * (1.0 + once.abs()), "{family}");
        }
    }
}

/// What a pass of several sequences gives is what they give one after the other: to the bit, but for an embedding that is the
/// head as well.
#[test]
fn sequences_in_one_pass_learn_what_they_learn_alone() {
    for family in families() {
        let decoder = decoder(&family);
        let adapter = adapter(&decoder);
        let sequences = [(ids(40), token_weights(40)), (ids(2), vec![0.0, 0.5]), (ids(7), vec![0.0; 7]), {
            let weights = token_weights(100).into_iter().enumerate();
            (ids(100), weights.map(|(idx, weight)| if idx < 90 { weight } else { 0.0 }).collect())
        }];
        let sequences: Vec<(&[u32], &[f32])> =
            sequences.iter().map(|(ids, weights)| (&ids[..], &weights[..])).collect();
        let mut together = Gradients::of_adapter(&adapter);
        let learned = learn(&decoder, Some(&adapter), &sequences, &mut together, usize::MAX);
        let mut alone = Gradients::of_adapter(&adapter);
        let mut full = [Gradients::of_parameters(decoder.parameters()), Gradients::of_parameters(decoder.parameters())];
        let mut loss = 0.0;
        for sequence in &sequences {
            loss += learn(&decoder, Some(&adapter), &[*sequence], &mut alone, usize::MAX).loss;
            learn(&decoder, None, &[*sequence], &mut full[0], usize::MAX);
        }
        assert!((learned.loss - loss).abs() < 1e-9 * loss, "{family}");
        assert_eq!(values(&mut together), values(&mut alone), "{family}");

        learn(&decoder, None, &sequences, &mut full[1], usize::MAX);
        let [alone, together] = full
            .each_mut()
            .map(|gradients| gradients.slices_mut().into_iter().map(|slice| slice.to_vec()).collect::<Vec<_>>());
        for (slice_idx, (alone, together)) in alone.iter().zip(&together).enumerate() {
            if slice_idx > 0 || decoder.parameters().head.is_some() {
                assert_eq!(alone, together, "{family}, slice {slice_idx}");
            } else {
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * (1.0 + a.abs());
                assert!(alone.iter().zip(together).all(close), "{family}");
            }
        }
    }
}

#[test]
fn a_sequence_without_targets_teaches_nothing() {
    let decoder = llama();
    let adapter = adapter(&decoder);
    let mut gradients = Gradients::of_adapter(&adapter);
    let learned = learn(&decoder, Some(&adapter), &[(&ids(5), &[0.0; 5])], &mut gradients, usize::MAX);
    assert_eq!(learned, Learned::default());
    assert_eq!(gradients.norm(), 0.0);
}
