//! Against the Python package gguf (tests/golden/make_gguf.py), and garbage.
use super::dequantize::{Quantization, dequantize};
use super::{Gguf, import_gguf};
use crate::config::{DecoderConfig, LayerConfig, Rope, RopeScaling};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn tiny_bytes() -> Vec<u8> {
    std::fs::read(golden("tiny_llama.gguf")).expect("it is there")
}

#[test]
fn blocks_dequantize_as_in_python() {
    let file = crate::files::read_json(&golden("quants.json")).expect("it is there");
    let kinds = [
        ("Q4_0", Quantization::Q4_0),
        ("Q4_1", Quantization::Q4_1),
        ("Q5_0", Quantization::Q5_0),
        ("Q5_1", Quantization::Q5_1),
        ("Q8_0", Quantization::Q8_0),
        ("Q4_K", Quantization::Q4K),
        ("Q5_K", Quantization::Q5K),
        ("Q6_K", Quantization::Q6K),
        ("F16", Quantization::F16),
        ("BF16", Quantization::Bf16),
    ];
    for (name, quantization) in kinds {
        let kind = &file["kinds"][name];
        let hex = kind["bytes"].as_str().expect("bytes");
        let raw: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|idx| u8::from_str_radix(&hex[idx..idx + 2], 16).expect("hexadecimal"))
            .collect();
        let expected: Vec<f32> = serde_json::from_value(kind["numbers"].clone()).expect("numbers");
        assert_eq!(dequantize(quantization, &raw), expected, "{name}");
    }
}

/// The same tensors, but for f16 and the 1 that was added to Gemma's norms and taken away again.
fn check_tensors(imported: &Path, original: &Path) {
    let (weights, originals) = (Weights::open(imported).expect("it opens"), Weights::open(original).expect("it opens"));
    assert_eq!(weights.names().collect::<Vec<_>>(), originals.names().collect::<Vec<_>>());
    for name in originals.names() {
        let shape = originals.shape(name).expect("a shape");
        let (ours, theirs) =
            (weights.tensor_f32(name, shape).expect("ours"), originals.tensor_f32(name, shape).expect("theirs"));
        let is_same = |(ours, theirs): (&f32, &f32)| {
            *ours == half::f16::from_f32(*theirs).to_f32()
                || (ours - theirs).abs() <= f32::EPSILON * (1.0 + theirs.abs()) && name.ends_with("norm.weight")
                || ours == theirs
        };
        assert!(ours.iter().zip(&theirs).all(is_same), "{name}");
    }
}

#[test]
fn other_families_come_with_their_biases_norms_and_windows() {
    for name in ["qwen2", "qwen3", "gemma3"] {
        let dir = tempfile::tempdir().expect("a folder");
        import_gguf(&golden(&format!("tiny_{name}.gguf")), dir.path()).expect("it imports");
        let original = DecoderConfig::open(&golden(name)).expect("it opens");
        let imported = DecoderConfig::open(dir.path()).expect("it opens");
        let (raw, layers, attention_scale) = (imported.raw.clone(), imported.layers.clone(), imported.attention_scale);
        // qwen2/ has windows and YaRN, and gemma3/ a query_pre_attn_scalar that is not its head's width: no GGUF file tells.
        let expected = DecoderConfig { raw, layers: layers.clone(), attention_scale, ..original };
        assert_eq!(imported, expected, "{name}");
        check_tensors(dir.path(), &golden(name));
        if name == "gemma3" {
            let local = Rope { theta: 1e4, scaling: RopeScaling::None };
            assert_eq!(layers, [LayerConfig { window: Some(33), rope: local }; 3], "the sixth would see everything");
        }
    }
}

/// tiny_llama.gguf is llama_tied/ with matrices in f16.
#[test]
fn an_imported_file_is_the_checkpoint_it_was_made_from() {
    let dir = tempfile::tempdir().expect("a folder");
    import_gguf(&golden("tiny_llama.gguf"), dir.path()).expect("it imports");
    let original = DecoderConfig::open(&golden("llama_tied")).expect("it opens");
    let imported = DecoderConfig::open(dir.path()).expect("it opens");
    assert_eq!(DecoderConfig { raw: original.raw.clone(), ..imported }, original);
    check_tensors(dir.path(), &golden("llama_tied"));
    let (tokenizer, tiny) =
        (Tokenizer::open(dir.path()).expect("it opens"), Tokenizer::open(&golden("tiny_tokenizer")).expect("it opens"));
    assert_eq!(tokenizer.end_of_turn_ids(), [2]);
    for text in ["<|im_start|>user\n12 345<|im_end|>", "def x(): 'é'  y\n\n"] {
        let ids = tokenizer.encode(text).expect("it encodes");
        assert_eq!(tokenizer.decode(&ids, false), text);
        // The first 320 tokens of 512, so only short words have equal ids.
        assert_eq!(
            ids.iter().filter(|&&id| id < 3).count(),
            tiny.encode(text).expect("encodes").iter().filter(|&&id| id < 3).count()
        );
    }
}

#[test]
fn llama3_rope_and_an_output_matrix_of_its_own_are_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    import_gguf(&golden("tiny_llama3.gguf"), dir.path()).expect("it imports");
    let config = DecoderConfig::open(dir.path()).expect("it opens");
    let expected = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let rope = Rope { theta: 5e5, scaling: expected };
    assert_eq!((config.layers[0].rope, config.tie_word_embeddings), (rope, false));
    let output = Weights::open(dir.path()).and_then(|weights| weights.tensor_f32("lm_head.weight", &[320, 64]));
    let output = output.expect("it is there");
    // Row i holds i; Q8_0 keeps its scale as a half: 319 / 2^11 = 0.16 at most.
    let is_near = |(idx, number): (usize, &f32)| (number - (idx / 64) as f32).abs() < 0.16;
    assert!(output.iter().enumerate().all(is_near));
    // Llama 3's split keeps three digits together where the vocabulary has them.
    Tokenizer::open(dir.path()).expect("it opens").encode("12345 don't").expect("the split compiles");
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let (bytes, dir) = (tiny_bytes(), tempfile::tempdir().expect("a folder"));
    let path = dir.path().join("cut.gguf");
    for n_kept in (0..bytes.len()).step_by(997).chain([bytes.len() - 1]) {
        std::fs::write(&path, &bytes[..n_kept]).expect("written");
        let error = Gguf::open(&path).expect_err("it is cut short").to_string();
        assert!(error.contains("cut.gguf"), "{error}");
    }
}

/// Patches the file's one text `from` into `to`, of equal length.
fn error_with(from: &str, to: &str) -> String {
    let mut bytes = tiny_bytes();
    let start = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("it is in the file");
    bytes[start..start + to.len()].copy_from_slice(to.as_bytes());
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("patched.gguf");
    std::fs::write(&path, bytes).expect("written");
    import_gguf(&path, &dir.path().join("out")).expect_err("it must be refused").to_string()
}

#[test]
fn what_cannot_be_imported_is_named() {
    let error = error_with(
        "architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0llama",
        "architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0qwen9",
    );
    assert!(error.contains("`qwen9`; known ones: llama, qwen2") && error.contains("patched.gguf"), "{error}");
    let error = error_with("\u{6}\0\0\0\0\0\0\0smollm", "\u{6}\0\0\0\0\0\0\0foobar");
    assert!(error.contains("`foobar`") && error.contains("known: smollm"), "{error}");
    let error = error_with("\u{4}\0\0\0\0\0\0\0gpt2", "\u{4}\0\0\0\0\0\0\0bert");
    assert!(error.contains("`bert`"), "{error}");
    let error = error_with("blk.1.ffn_down", "blk.1.ffn_sown");
    assert!(error.contains("`blk.1.ffn_down.weight`"), "{error}");
}

#[test]
fn an_unknown_quantization_is_named() {
    let mut bytes = tiny_bytes();
    // A tensor info: name, two dimensions, kind; the embedding is 320 x 64 of kind 1.
    let name = b"token_embd.weight";
    let start = bytes.windows(name.len()).position(|window| window == name).expect("it is in the file") + name.len();
    let kind = start + 4 + 16;
    assert_eq!(bytes[kind..kind + 4], [1, 0, 0, 0]);
    bytes[kind] = 10;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("q2.gguf");
    std::fs::write(&path, bytes).expect("written");
    let error = import_gguf(&path, &dir.path().join("out")).expect_err("it must be refused").to_string();
    assert!(error.contains("`token_embd.weight`") && error.contains("Q2_K") && error.contains("Q6_K"), "{error}");
}

/// A SentencePiece vocabulary as `rebuild` gets it: bytes, then pieces with scores.
#[test]
fn sentence_pieces_become_merges_with_byte_fallback() {
    use super::GgufValue::{Floats, Int, Ints, Text, Texts};
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "a", "b", "s", "<", ">", "▁a", "ab", "▁ab", "s>"].map(str::to_owned));
    let n_pieces = tokens.len();
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.resize(n_pieces, 1);
    let scores = (0..n_pieces).map(|id| -(id as f64)).collect();
    let mut gguf = Gguf::open(&golden("tiny_llama.gguf")).expect("it opens");
    for (key, value) in [
        ("model", Text("llama".to_owned())),
        ("tokens", Texts(tokens)),
        ("token_type", Ints(types)),
        ("scores", Floats(scores)),
        ("bos_token_id", Int(1)),
        ("eos_token_id", Int(2)),
    ] {
        gguf.metadata.insert(format!("tokenizer.ggml.{key}"), value);
    }
    let rebuilt = super::tokenizer::rebuild(&gguf).expect("it can be rebuilt");
    let dir = tempfile::tempdir().expect("a folder");
    crate::files::write_json(&dir.path().join("tokenizer.json"), &rebuilt.json).expect("written");
    crate::files::write_json(&dir.path().join("tokenizer_config.json"), &rebuilt.config).expect("written");
    let tokenizer = Tokenizer::open(dir.path()).expect("it opens");
    let tokens_of = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode(text).expect("it encodes");
        ids.iter().map(|&id| tokenizer.id_to_token(id).expect("it exists")).collect()
    };
    assert_eq!(tokens_of("ab a"), ["▁ab", "▁a"]);
    assert_eq!(tokens_of("é"), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokens_of("a</s>"), ["▁a", "</s>"]);
    let plain = tokenizer.encode_plain("a<s>").expect("it encodes");
    assert!(!plain.contains(&1));
    assert_eq!(tokenizer.decode(&plain, false), "a<s>");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Flips bytes in the header, where the counts and lengths are.
    #[test]
    fn garbage_is_an_error_or_a_model_and_never_a_panic(
        flips in proptest::collection::vec((0usize..12_000, any::<u8>()), 1..8),
        n_kept in 0usize..200_000,
    ) {
        let mut bytes = tiny_bytes();
        for (position, byte) in flips {
            bytes[position] = byte;
        }
        bytes.truncate(n_kept.max(20_000));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("garbage.gguf");
        std::fs::write(&path, bytes).expect("written");
        // Whatever comes out, it came without a panic and without more memory than the file can fill.
        let _ = import_gguf(&path, &dir.path().join("out"));
    }
}
