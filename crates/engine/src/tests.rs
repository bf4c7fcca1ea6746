//! Batches against single runs, to the bit, on a small random decoder.
use super::*;
use exsearch_model::config::DecoderConfig;
use exsearch_model::decoder::Parameters;
use exsearch_schema::Sampling;
use std::convert::Infallible;
use std::path::Path;

const VOCABULARY: u32 = 40;

struct Letters;

impl Decode for Letters {
    fn decode(&self, ids: &[u32]) -> String {
        ids.iter().map(|id| char::from(b'A' + *id as u8)).collect()
    }

    fn end_ids(&self) -> &[u32] {
        &[0]
    }
}

fn decoder() -> Decoder {
    let json = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "tie_word_embeddings": true, "hidden_act": "silu",
        "rope_theta": 10000.0,
    });
    let config = DecoderConfig::from_json(Path::new("config.json"), json).expect("a valid configuration");
    let mut state = 1u32;
    let tensor = |_: &str, shape: &[usize]| {
        let [n, k] = *shape else { return Ok::<_, Infallible>(vec![1.0; shape[0]]) };
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 2.0 / (k as f32).sqrt()
        };
        Ok(std::iter::repeat_with(next).take(k * n).collect())
    };
    let Ok(parameters) = Parameters::from_tensors(&config, tensor);
    Decoder::new(config, parameters, 128)
}

fn request(context: Vec<u32>, seed: u64) -> GenerateRequest {
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_new_tokens: 20, stop: vec!["BC".into()], seed };
    GenerateRequest { context, sampling, messages: Vec::new() }
}

fn context(question: u32) -> Vec<u32> {
    (0..24).map(|i| (i * 7 + 1) % VOCABULARY).chain((0..4).map(|i| (question * 5 + i) % VOCABULARY)).collect()
}

fn run_all(engine: &Engine<'_>, requests: Vec<GenerateRequest>) -> Vec<Result<Generation, GenerateError>> {
    let mut generator = engine;
    let ids: Vec<RequestId> = requests.into_iter().map(|request| generator.submit(request)).collect();
    let mut results = std::collections::BTreeMap::new();
    while results.len() < ids.len() {
        let done = generator.wait();
        assert!(!done.is_empty(), "requests are under way");
        results.extend(done);
    }
    assert!(generator.wait().is_empty(), "nothing is left");
    results.into_values().collect()
}

#[test]
fn a_sequence_depends_on_its_context_and_seed_alone() {
    let decoder = decoder();
    let requests: Vec<GenerateRequest> = (0..40).map(|idx| request(context(idx / 4), u64::from(idx))).collect();
    let alone: Vec<_> = requests
        .iter()
        .map(|request| {
            let config = EngineConfig { max_sequences: 1, max_rows: 3, prefix_cache_bytes: 0 };
            run_all(&Engine::new(&decoder, None, &Letters, config), vec![request.clone()]).pop().expect("one result")
        })
        .collect();
    for (max_sequences, max_rows) in [(40, 512), (5, 16), (7, 1)] {
        let config = EngineConfig { max_sequences, max_rows, prefix_cache_bytes: 1 << 20 };
        let engine = Engine::new(&decoder, None, &Letters, config);
        assert_eq!(run_all(&engine, requests.clone()), alone);
        assert!(engine.stats().n_reused > 24 * 30, "shared beginnings are computed once: {:?}", engine.stats());
    }
    let finishes: Vec<Finish> = alone.iter().flatten().map(|generation| generation.finish).collect();
    assert!(finishes.contains(&Finish::EndOfTurn) && finishes.contains(&Finish::MaxTokens), "{finishes:?}");
}

#[test]
fn a_dialogue_that_goes_on_is_not_computed_again() {
    let decoder = decoder();
    let engine = Engine::new(&decoder, None, &Letters, EngineConfig::default());
    let first = run_all(&engine, vec![request(context(1), 3)]).pop().expect("one").expect("generated");
    let before = engine.stats().n_prefilled;
    let mut longer = context(1);
    longer.extend(&first.ids);
    longer.extend([5, 6, 7]);
    run_all(&engine, vec![request(longer, 4)]).pop().expect("one").expect("generated");
    // The last sampled token was never computed; it and the three new ones are.
    assert_eq!(engine.stats().n_prefilled - before, 4);
}

#[test]
fn scores_are_the_log_probs_that_sampling_records() {
    let decoder = decoder();
    let engine = Engine::new(&decoder, None, &Letters, EngineConfig::default());
    let generation = run_all(&engine, vec![request(context(2), 9)]).pop().expect("one").expect("generated");
    let score = |engine: &Engine<'_>| {
        let request =
            ScoreRequest { context: context(2), continuations: vec![generation.ids.clone(), vec![3], vec![]] };
        let mut scorer = engine;
        scorer.score(&[request]).pop().expect("one").expect("scored")
    };
    let warm = score(&engine);
    assert_eq!(warm, score(&Engine::new(&decoder, None, &Letters, EngineConfig::default())));
    let sampled: f32 = generation.logprobs.iter().sum();
    assert!((warm[0] - sampled).abs() < 1e-4, "{warm:?} {sampled}");
    assert_eq!(warm[2], 0.0);
}

#[test]
fn requests_that_cannot_run_fail_alone() {
    let decoder = decoder();
    let engine = Engine::new(&decoder, None, &Letters, EngineConfig::default());
    let results = run_all(&engine, vec![request(vec![1; 128], 0), request(vec![], 0), request(context(3), 0)]);
    assert_eq!(results[0], Err(GenerateError::ContextTooLong { length: 128, limit: 128 }));
    assert!(matches!(results[1], Err(GenerateError::Failed(_))));
    assert!(results[2].is_ok());
    let mut scorer = &engine;
    let too_long = ScoreRequest { context: vec![1; 120], continuations: vec![vec![1; 20]] };
    assert!(scorer.score(&[too_long])[0].is_err());
}
