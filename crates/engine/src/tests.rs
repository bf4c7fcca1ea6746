//! Batches against single runs, to the bit, on a small random decoder.
use super::*;
use exsearch_model::config::DecoderConfig;
use exsearch_model::decoder::{Gradients, LoraConfig, Parameters, Sequence, Tape};
use exsearch_schema::{Finish, Sampling};
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

const PAGE: usize = 64 * 2 * 2 * 8 * 4;

fn config(max_sequences: usize, max_rows: usize, pages: usize, weights: GenerationWeights) -> EngineConfig {
    EngineConfig { max_sequences, max_rows, kv_cache_bytes: pages * PAGE, weights }
}

/// 40 requests of 10 questions, each answered by an engine of its own that runs nothing else.
fn requests_and_answers(
    decoder: &Decoder,
    adapter: Option<&Adapter>,
    weights: GenerationWeights,
) -> (Vec<GenerateRequest>, Vec<Result<Generation, GenerateError>>) {
    let requests: Vec<GenerateRequest> = (0..40).map(|idx| request(context(idx / 4), u64::from(idx))).collect();
    let alone = |request: &GenerateRequest| {
        let engine = Engine::new(decoder, adapter, &Letters, config(1, 3, 2, weights));
        run_all(&engine, vec![request.clone()]).pop().expect("one result")
    };
    let answers = requests.iter().map(alone).collect();
    (requests, answers)
}

#[test]
fn a_sequence_depends_on_its_context_and_seed_alone() {
    let decoder = decoder();
    let adapter = Adapter::new(&LoraConfig::default(), decoder.config(), 3);
    let mut answers = Vec::new();
    for weights in [GenerationWeights::F32, GenerationWeights::Int8] {
        let (requests, alone) = requests_and_answers(&decoder, Some(&adapter), weights);
        for (max_sequences, max_rows) in [(40, 512), (5, 16), (7, 1)] {
            let engine = Engine::new(&decoder, Some(&adapter), &Letters, config(max_sequences, max_rows, 128, weights));
            assert_eq!(run_all(&engine, requests.clone()), alone);
            assert!(engine.stats().n_reused > 24 * 30, "shared beginnings are computed once: {:?}", engine.stats());
        }
        let finishes: Vec<Finish> = alone.iter().flatten().map(|generation| generation.finish).collect();
        assert!(finishes.contains(&Finish::EndOfTurn) && finishes.contains(&Finish::MaxTokens), "{finishes:?}");
        answers.push(alone);
    }
    assert_ne!(answers[0], answers[1], "rounded weights have other log-probs");
}

/// With room for 5 pages, 40 sequences of up to 100 tokens stop each other again and again.
#[test]
fn a_sequence_that_had_to_wait_again_gives_the_same_bits_within_the_budget() {
    let decoder = decoder();
    for weights in [GenerationWeights::F32, GenerationWeights::Int8] {
        let mut requests: Vec<GenerateRequest> = (0..40).map(|idx| request(context(idx / 4), u64::from(idx))).collect();
        for request in &mut requests {
            request.sampling.max_new_tokens = 90;
            request.sampling.stop.clear();
        }
        let answers = run_all(&Engine::new(&decoder, None, &Letters, config(1, 512, 128, weights)), requests.clone());
        for pages in [2, 3, 5, 20] {
            let engine = Engine::new(&decoder, None, &Letters, config(40, 64, pages, weights));
            assert_eq!(run_all(&engine, requests.clone()), answers);
            let stats = engine.stats();
            assert!(stats.max_kv_bytes <= pages * PAGE, "{stats:?}");
            // Two pages hold one such sequence at a time, and twenty all that are let in.
            assert!(stats.n_put_back > 0 || ![3, 5].contains(&pages), "{stats:?}");
        }
    }
}

#[test]
fn samples_of_a_question_share_its_pages() {
    let decoder = decoder();
    let prompt: Vec<u32> = (0..100).map(|i| (i * 7 + 1) % VOCABULARY).collect();
    let engine = Engine::new(&decoder, None, &Letters, config(8, 512, 128, GenerationWeights::F32));
    run_all(&engine, (0..8).map(|seed| request(prompt.clone(), seed)).collect());
    // One whole page for all, and for each the one that it writes to.
    assert!(engine.stats().max_kv_bytes <= 10 * PAGE, "{:?}", engine.stats());
}

#[test]
fn what_does_not_fit_the_budget_fails_alone() {
    let decoder = decoder();
    let engine = Engine::new(&decoder, None, &Letters, config(4, 512, 1, GenerationWeights::F32));
    let mut growing = request(context(1), 4);
    growing.sampling = Sampling { stop: Vec::new(), max_new_tokens: 90, ..growing.sampling };
    let seeds = 0..40;
    let requests: Vec<GenerateRequest> = seeds
        .map(|seed| GenerateRequest { sampling: Sampling { seed, ..growing.sampling.clone() }, ..growing.clone() })
        .chain([request(vec![1; 65], 0), request(vec![1; 40], 1)])
        .collect();
    let results = run_all(&engine, requests);
    let failed = |result: &Result<Generation, GenerateError>| matches!(result, Err(GenerateError::Failed(_)));
    assert!(results[..40].iter().any(failed) && !results[..40].iter().all(failed), "some end before the page does");
    assert!(failed(&results[40]) && results[41].is_ok());
    let mut scorer = &engine;
    let scores = scorer.score(&[60, 70].map(|n| ScoreRequest { context: vec![1; n], continuations: vec![vec![1]] }));
    assert!(scores[0].is_ok() && scores[1].is_err());
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

/// Contexts with common beginnings, one of them the beginning of another, equal ones, and continuations that share tokens.
fn score_requests() -> Vec<ScoreRequest> {
    let mut requests: Vec<ScoreRequest> = (0..12)
        .map(|idx| {
            let context =
                context(idx / 3).into_iter().chain((0..idx % 3 * 20).map(|i| (i * i + idx) % VOCABULARY)).collect();
            let continuations = vec![vec![3, 4, 5], vec![3, 4], vec![], vec![7], vec![3, 4, 5]];
            ScoreRequest { context, continuations }
        })
        .collect();
    requests.push(ScoreRequest { context: context(0)[..20].to_vec(), continuations: vec![context(0)[20..].to_vec()] });
    requests.push(requests[4].clone());
    requests
}

#[test]
fn scores_do_not_depend_on_what_else_is_scored() {
    let decoder = decoder();
    let requests = score_requests();
    let alone = |request: &ScoreRequest| {
        let engine = Engine::new(&decoder, None, &Letters, config(1, 3, 2, GenerationWeights::F32));
        (&engine).score(std::slice::from_ref(request)).pop().expect("one result")
    };
    let expected: Vec<_> = requests.iter().map(alone).collect();
    for weights in [GenerationWeights::F32, GenerationWeights::Int8] {
        for (max_rows, pages) in [(512, 128), (16, 2), (1, 3), (64, 5)] {
            let engine = Engine::new(&decoder, None, &Letters, config(4, max_rows, pages, weights));
            // Sequences that run, and caches that finished ones left.
            let mut generator = &engine;
            for (idx, request) in requests.iter().enumerate() {
                generator.submit(self::request(request.context.clone(), idx as u64));
            }
            generator.wait();
            assert_eq!((&engine).score(&requests), expected, "{weights:?}, {max_rows} rows, {pages} pages");
            assert_eq!((&engine).score(&requests), expected);
            assert!(engine.stats().max_kv_bytes <= pages * PAGE);
            while !generator.wait().is_empty() {}
        }
    }
}

#[test]
fn what_contexts_share_is_computed_once() {
    let decoder = decoder();
    let engine = Engine::new(&decoder, None, &Letters, EngineConfig::default());
    let prompt: Vec<u32> = (0..80).map(|i| (i * 7 + 1) % VOCABULARY).collect();
    let with = |tail: [u32; 3]| prompt.iter().copied().chain(tail).collect();
    let continuations = vec![vec![5, 6, 7], vec![5, 6, 8], vec![9]];
    let requests =
        [[1, 2, 3], [1, 2, 4]].map(|tail| ScoreRequest { context: with(tail), continuations: continuations.clone() });
    let scores = (&engine).score(&requests);
    // The prompt with 1 and 2; 3 and 4; 5 and 6 behind each.
    assert_eq!(engine.stats().n_prefilled, 82 + 2 + 4);

    // A turn that went on from one of them left all that they share.
    let engine = Engine::new(&decoder, None, &Letters, EngineConfig::default());
    let mut generator = &engine;
    generator.submit(request(requests[0].context.clone(), 0));
    generator.wait();
    assert_eq!((&engine).score(&requests), scores);
}

#[test]
fn scores_are_the_loss_of_training() {
    let decoder = decoder();
    let engine = Engine::new(&decoder, None, &Letters, EngineConfig::default());
    let requests = score_requests();
    let mut tape = Tape::new(usize::MAX);
    for (request, scores) in requests.iter().zip((&engine).score(&requests)) {
        for (continuation, score) in request.continuations.iter().zip(scores.expect("scored")) {
            let ids: Vec<u32> = request.context.iter().chain(continuation).copied().collect();
            let weights: Vec<f32> =
                (0..ids.len()).map(|idx| f32::from(u8::from(idx >= request.context.len()))).collect();
            let mut gradients = Gradients::of_parameters(decoder.parameters());
            let learned = decoder.learn(None, &[Sequence { ids: &ids, weights: &weights }], &mut gradients, &mut tape);
            assert!((learned.loss + f64::from(score)).abs() < 1e-4, "{} {score}", learned.loss);
        }
    }
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
