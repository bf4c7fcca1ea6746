//! Encoders in ONNX files: the same vectors as ours in f32, and what is refused. The files and the script that made them are in
//! tests/golden.
use exsearch_model::encoder::{EncoderConfig, is_onnx, open_encoder};
use exsearch_schema::VectorKind;
use std::path::{Path, PathBuf};

fn golden_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn refusal(path: &Path, kind: Option<VectorKind>) -> String {
    open_encoder(path, kind, &EncoderConfig::default()).err().expect("it is refused").to_string()
}

#[test]
fn a_folder_with_nothing_but_onnx_files_says_which_to_give() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden_dir("sentence").join(name), dir.path().join(name)).expect("copied");
    }
    std::fs::create_dir(dir.path().join("onnx")).expect("made");
    let error = refusal(dir.path(), None);
    assert!(error.contains("it has a folder onnx; give one of the files in it"), "{error}");
    assert!(!is_onnx(&dir.path().join("onnx/model.onnx")), "it is not there");
}

#[cfg(not(feature = "ort"))]
#[test]
fn without_the_feature_it_is_told_how_to_build() {
    let error = refusal(&golden_dir("sentence/onnx/model.onnx"), None);
    assert!(error.contains("model.onnx cannot be run") && error.contains("--features ort"), "{error}");
}

#[cfg(feature = "ort")]
mod with_onnxruntime {
    use super::*;
    use exsearch_model::encoder::load_onnxruntime;
    use exsearch_schema::{Embedding, Encoder, TextRole};

    /// Loads the library of ORT_DYLIB_PATH and opens a golden model.
    fn open(file: &str, kind: Option<VectorKind>, threads: Option<usize>) -> Box<dyn Encoder> {
        let library = std::env::var("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH is the path of libonnxruntime");
        load_onnxruntime(Path::new(&library)).unwrap_or_else(|error| panic!("{error}"));
        let config = EncoderConfig { threads, ..EncoderConfig::default() };
        let path = golden_dir("sentence/onnx").join(file);
        open_encoder(&path, kind, &config).unwrap_or_else(|error| panic!("{error}"))
    }

    fn texts() -> Vec<String> {
        let golden = std::fs::read(golden_dir("sentence/golden.json")).expect("it is there");
        let golden: serde_json::Value = serde_json::from_slice(&golden).expect("JSON");
        serde_json::from_value(golden["texts"].clone()).expect("texts")
    }

    /// The least cosine between the vectors of two encoders, which have the length 1.
    fn least_cosine(one: &[Embedding], other: &[Embedding]) -> f32 {
        let vectors = one.iter().zip(other).flat_map(|(one, other)| {
            assert_eq!(one.values.len(), other.values.len());
            one.values.chunks_exact(one.dim).zip(other.values.chunks_exact(other.dim))
        });
        let cosines = vectors.map(|(one, other)| one.iter().zip(other).map(|(a, b)| a * b).sum::<f32>());
        cosines.min_by(f32::total_cmp).expect("vectors")
    }

    #[ignore = "needs libonnxruntime"]
    #[test]
    fn f32_has_our_vectors_and_int8_is_near_them() {
        let texts = texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for kind in [VectorKind::Single, VectorKind::PerToken] {
            let ours = open_encoder(&golden_dir("sentence"), Some(kind), &EncoderConfig::default()).expect("it opens");
            for role in [TextRole::Query, TextRole::Passage] {
                let ours = ours.encode(&texts, role).expect("encoded");
                for (file, tolerance) in [("model.onnx", 1e-5), ("model_quantized.onnx", 0.005)] {
                    let theirs = open(file, Some(kind), None).encode(&texts, role).expect("encoded");
                    let cosine = least_cosine(&ours, &theirs);
                    assert!(cosine > 1.0 - tolerance, "{file} {kind:?} {role:?}: {cosine}");
                }
            }
        }
    }

    #[ignore = "needs libonnxruntime"]
    #[test]
    fn a_text_has_the_same_bits_in_any_company_and_on_any_threads() {
        let texts: Vec<String> = (0..40).map(|idx| texts()[idx % 7].repeat(1 + idx % 3)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for file in ["model.onnx", "model_quantized.onnx"] {
            let encoder = open(file, None, Some(1));
            let encode = |text: &&str| encoder.encode(&[text], TextRole::Passage).expect("encoded").remove(0);
            let alone: Vec<Embedding> = texts.iter().map(encode).collect();
            for threads in [1, 3] {
                let together = open(file, None, Some(threads)).encode(&texts, TextRole::Passage).expect("encoded");
                assert!(together == alone, "{file} {threads}");
            }
        }
    }

    #[ignore = "needs libonnxruntime"]
    #[test]
    fn the_fingerprint_tells_files_apart() {
        let ours = open_encoder(&golden_dir("sentence"), None, &EncoderConfig::default()).expect("it opens");
        let [plain, int8] = ["model.onnx", "model_quantized.onnx"].map(|file| open(file, None, None));
        assert_eq!(plain.fingerprint(), open("model.onnx", None, None).fingerprint());
        assert_ne!(plain.fingerprint(), int8.fingerprint());
        assert_ne!(plain.fingerprint(), ours.fingerprint());
    }

    #[ignore = "needs libonnxruntime"]
    #[test]
    fn what_is_no_encoder_is_refused() {
        open("model.onnx", None, None);
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(golden_dir("sentence").join(name), dir.path().join(name)).expect("copied");
        }
        let path = dir.path().join("model.onnx");
        std::fs::write(&path, b"not a model").expect("written");
        let error = refusal(&path, None);
        assert!(error.contains("model.onnx cannot be run"), "{error}");
        // A model of another width: config.json says what is expected.
        std::fs::copy(golden_dir("sentence/onnx/model.onnx"), &path).expect("copied");
        let config = std::fs::read_to_string(dir.path().join("config.json")).expect("it is there");
        std::fs::write(dir.path().join("config.json"), config.replace("\"hidden_size\": 48", "\"hidden_size\": 24"))
            .expect("written");
        let error = refusal(&path, None);
        assert!(error.contains("it has no output [batch, tokens, 24]"), "{error}");
    }
}
