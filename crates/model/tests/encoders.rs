//! Vectors against sentence-transformers, transformers and colbert-ai on small random checkpoints, and what is refused. The
//! golden files and the script that made them are in tests/golden.
use exsearch_model::encoder::{EncoderConfig, Layout, describe_encoder, is_encoder, open_encoder};
use exsearch_model::weights::{WeightDtype, write_safetensors};
use exsearch_schema::{Embedding, Encoder, TextRole, VectorKind};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const TOLERANCE: f32 = 2e-5;

fn golden_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("JSON")
}

fn golden(name: &str) -> Value {
    read_json(&golden_dir(name).join("golden.json"))
}

fn texts(golden: &Value) -> Vec<&str> {
    golden["texts"].as_array().expect("texts").iter().map(|text| text.as_str().expect("a text")).collect()
}

/// A copy of a golden checkpoint, to be changed.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(golden_dir(name)).expect("listed") {
        let path = file.expect("an entry").path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    if name == "sentence" {
        write_json(dir.path(), "1_Pooling/config.json", &read_json(&golden_dir(name).join("1_Pooling/config.json")));
    }
    dir
}

fn write_json(dir: &Path, name: &str, json: &Value) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, json.to_string()).expect("written");
}

fn edit_json(dir: &Path, name: &str, field: &str, value: Value) {
    let mut json = read_json(&dir.join(name));
    json[field] = value;
    write_json(dir, name, &json);
}

fn open(dir: &Path, kind: Option<VectorKind>) -> Box<dyn Encoder> {
    open_encoder(dir, kind, &EncoderConfig::default()).expect("it opens")
}

fn refusal(dir: &Path, kind: Option<VectorKind>, config: &EncoderConfig) -> String {
    open_encoder(dir, kind, config).err().expect("it is refused").to_string()
}

/// Asserts that each text has the vectors of `expected`: a vector or a list of vectors a text.
#[track_caller]
fn check(encoder: &dyn Encoder, texts: &[&str], role: TextRole, expected: &Value) {
    let embeddings = encoder.encode(texts, role).expect("encoded");
    let expected = expected.as_array().expect("a list");
    assert_eq!(embeddings.len(), expected.len());
    for ((text, embedding), expected) in texts.iter().zip(&embeddings).zip(expected) {
        let numbers = |row: &Value| serde_json::from_value::<Vec<f32>>(row.clone()).expect("numbers");
        let expected = match expected[0].is_array() {
            true => expected.as_array().expect("rows").iter().flat_map(numbers).collect(),
            false => numbers(expected),
        };
        assert_eq!(embedding.values.len(), expected.len(), "{text}");
        for (actual, expected) in embedding.values.iter().zip(&expected) {
            assert!((actual - expected).abs() < TOLERANCE, "{text}: {actual} != {expected}");
        }
    }
}

#[test]
fn sentence_vectors_agree_with_sentence_transformers() {
    let golden = golden("sentence");
    let encoder = open(&golden_dir("sentence"), None);
    assert_eq!((encoder.dim(), encoder.kind()), (48, VectorKind::Single));
    check(&*encoder, &texts(&golden), TextRole::Query, &golden["query"]);
    check(&*encoder, &texts(&golden), TextRole::Passage, &golden["passage"]);
}

#[test]
fn pooling_and_length_are_read_from_the_files_of_every_version() {
    let golden = golden("sentence");
    let without_prompts = EncoderConfig {
        query_prefix: Some(String::new()),
        passage_prefix: Some(String::new()),
        ..EncoderConfig::default()
    };
    for (expected, pooling) in [
        (
            "cls",
            json!({"word_embedding_dimension": 48, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}),
        ),
        ("cls", json!({"embedding_dimension": 48, "pooling_mode": "cls"})),
        ("max", json!({"pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": true})),
    ] {
        let dir = copy("sentence");
        write_json(dir.path(), "1_Pooling/config.json", &pooling);
        // Before version 6 the length was here; the tokenizer's own is the longer one.
        write_json(dir.path(), "sentence_bert_config.json", &json!({"max_seq_length": 24, "do_lower_case": false}));
        edit_json(dir.path(), "tokenizer_config.json", "model_max_length", json!(1e30));
        let encoder = open_encoder(dir.path(), None, &without_prompts).expect("it opens");
        check(&*encoder, &texts(&golden), TextRole::Query, &golden[expected]);
    }
}

#[test]
fn token_vectors_agree_with_transformers() {
    let golden = golden("sentence");
    // Without the files of sentence-transformers it is a plain BERT.
    let dir = copy("sentence");
    std::fs::remove_file(dir.path().join("modules.json")).expect("deleted");
    let encoder = open(dir.path(), Some(VectorKind::PerToken));
    assert_eq!((encoder.dim(), encoder.kind()), (48, VectorKind::PerToken));
    check(&*encoder, &texts(&golden)[..3], TextRole::Passage, &golden["tokens"]);
}

#[test]
fn token_vectors_agree_with_colbert_ai() {
    let golden = golden("colbert");
    let dir = copy("colbert");
    for (attends, expected) in [(false, "query"), (true, "query_attending")] {
        edit_json(dir.path(), "artifact.metadata", "attend_to_mask_tokens", json!(attends));
        let encoder = open(dir.path(), None);
        assert_eq!((encoder.dim(), encoder.kind()), (24, VectorKind::PerToken));
        check(&*encoder, &texts(&golden), TextRole::Query, &golden[expected]);
        check(&*encoder, &texts(&golden), TextRole::Passage, &golden["passage"]);
    }
}

#[test]
fn a_vocabulary_alone_makes_the_same_tokenizer() {
    let dir = copy("sentence");
    let mut tokens: Vec<(u64, String)> = read_json(&dir.path().join("tokenizer.json"))["model"]["vocab"]
        .as_object()
        .expect("a vocabulary")
        .iter()
        .map(|(token, id)| (id.as_u64().expect("an id"), token.clone()))
        .collect();
    tokens.sort();
    let lines: Vec<String> = tokens.into_iter().map(|(_, token)| token).collect();
    std::fs::remove_file(dir.path().join("tokenizer.json")).expect("deleted");
    let golden = golden("sentence");
    let error = refusal(dir.path(), None, &EncoderConfig::default());
    assert!(error.contains("has no tokenizer.json or vocab.txt"), "{error}");
    std::fs::write(dir.path().join("vocab.txt"), lines.join("\n")).expect("written");
    let encoder = open(dir.path(), None);
    check(&*encoder, &texts(&golden), TextRole::Passage, &golden["passage"]);
    assert_eq!(encoder.fingerprint(), open(&golden_dir("sentence"), None).fingerprint());
}

#[test]
fn a_text_has_the_same_bits_in_any_company_and_on_any_threads() {
    let words = ["the capital", "paris, city!", "x", "who wrote what of the largest play in france", ""];
    let texts: Vec<String> = (0..120).map(|idx| words[idx % 5].repeat(1 + idx % 7)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (name, role) in [("sentence", TextRole::Passage), ("colbert", TextRole::Passage), ("colbert", TextRole::Query)]
    {
        let with_threads = |threads| {
            let config = EncoderConfig { threads: Some(threads), ..EncoderConfig::default() };
            open_encoder(&golden_dir(name), None, &config).expect("it opens")
        };
        let encoder = with_threads(1);
        let alone: Vec<Embedding> =
            texts.iter().map(|text| encoder.encode(&[text], role).expect("encoded").remove(0)).collect();
        for threads in [1, 2, 5] {
            assert!(with_threads(threads).encode(&texts, role).expect("encoded") == alone, "{name} {threads}");
            // Fewer packs than threads: each step is spread over them.
            assert!(
                with_threads(threads).encode(&texts[..3], role).expect("encoded") == alone[..3],
                "{name} {threads}"
            );
        }
        assert!(encoder.encode(&[], role).expect("nothing").is_empty());
    }
}

#[test]
fn markers_in_a_text_are_text() {
    let encoder = open(&golden_dir("colbert"), None);
    let of = |text: &str| encoder.encode(&[text], TextRole::Passage).expect("encoded").remove(0).n_vectors();
    // [CLS], [D], m, ##a, ##s, ##k, [SEP]; the brackets are punctuation.
    assert_eq!(of("[MASK]"), 7);
}

#[test]
fn a_learned_projection_and_punctuation() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("projection.safetensors");
    // The second vector is the first column of the hidden state, the first the 8th: enough to see the orientation.
    let mut rows = vec![0.0; 2 * 48];
    rows[8] = 1.0;
    rows[48] = 1.0;
    let tensors = [("linear.weight".to_owned(), vec![2, 48], rows.as_slice())];
    write_safetensors(&file, tensors, WeightDtype::F32).expect("written");
    let per_token = |config: &EncoderConfig| {
        open_encoder(&golden_dir("sentence"), Some(VectorKind::PerToken), config).expect("it opens")
    };
    let (plain, config) = (per_token(&EncoderConfig::default()), EncoderConfig::default());
    let projected = per_token(&EncoderConfig { projection: Some(file.clone()), ..config.clone() });
    assert_eq!(projected.dim(), 2);
    assert_ne!(plain.fingerprint(), projected.fingerprint());
    let one =
        |encoder: &dyn Encoder, text: &str| encoder.encode(&[text], TextRole::Passage).expect("encoded").remove(0);
    let (whole, cut) = (one(&*plain, "paris, city"), one(&*projected, "paris, city"));
    for (whole, cut) in whole.values.chunks_exact(48).zip(cut.values.chunks_exact(2)) {
        let length = whole[8].hypot(whole[0]);
        assert!((cut[0] - whole[8] / length).abs() < 1e-5 && (cut[1] - whole[0] / length).abs() < 1e-5);
    }
    let skipping = per_token(&EncoderConfig { skip_punctuation: Some(true), ..config.clone() });
    // The comma, and the colon of the prompt.
    assert_eq!(one(&*skipping, "paris, city").n_vectors() + 2, whole.n_vectors());
    let error =
        refusal(&golden_dir("sentence"), None, &EncoderConfig { projection: Some(file.clone()), ..config.clone() });
    assert!(error.contains("for token vectors"), "{error}");
    let error = refusal(&golden_dir("colbert"), None, &EncoderConfig { projection: Some(file), ..config });
    assert!(error.contains("a projection of its own"), "{error}");
}

#[test]
fn the_fingerprint_is_that_of_the_content() {
    let original = open(&golden_dir("sentence"), None).fingerprint().to_owned();
    assert!(original.starts_with("sha256:") && original.len() == 71, "{original}");
    let dir = copy("sentence");
    edit_json(dir.path(), "config.json", "transformers_version", json!("0"));
    edit_json(dir.path(), "config.json", "dtype", json!("other"));
    let shorter = EncoderConfig { max_passage_tokens: Some(8), threads: Some(1), ..EncoderConfig::default() };
    let same = open_encoder(dir.path(), None, &shorter).expect("it opens");
    assert_eq!(same.fingerprint(), original, "neither notes nor lengths are content");
    let prefixed = EncoderConfig { query_prefix: Some("ask: ".to_owned()), ..EncoderConfig::default() };
    let other = open_encoder(dir.path(), None, &prefixed).expect("it opens");
    assert_ne!(other.fingerprint(), original);
    assert_ne!(open(dir.path(), Some(VectorKind::PerToken)).fingerprint(), original);
    edit_json(dir.path(), "1_Pooling/config.json", "pooling_mode", json!("cls"));
    assert_ne!(open(dir.path(), None).fingerprint(), original);
    write_json(dir.path(), "1_Pooling/config.json", &json!({"pooling_mode": "mean"}));
    assert_eq!(open(dir.path(), None).fingerprint(), original);
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).expect("it is there");
    // The last numbers of the file may be those of the pooler, which is not read; these are not.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    assert_ne!(open(dir.path(), None).fingerprint(), original);
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    let config = EncoderConfig::default();
    let empty = tempfile::tempdir().expect("a folder");
    let error = refusal(empty.path(), None, &config);
    assert!(error.contains("has no config.json"), "{error}");
    let error = refusal(&golden_dir("llama_tied"), None, &config);
    assert!(error.contains("architecture `llama`; known ones: bert"), "{error}");
    let error = refusal(&golden_dir("colbert"), Some(VectorKind::Single), &config);
    assert!(error.contains("not one vector a text"), "{error}");
    let longer = EncoderConfig { max_passage_tokens: Some(65), ..config.clone() };
    let error = refusal(&golden_dir("colbert"), None, &longer);
    assert!(error.contains("at most 65 tokens: give 4 to 64"), "{error}");

    let dir = copy("sentence");
    std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("pytorch_model.bin")).expect("renamed");
    let error = refusal(dir.path(), None, &config);
    assert!(
        error.contains("pytorch_model.bin, which is not read; convert it") && error.contains("save_file"),
        "{error}"
    );
    for (file, field, value, message) in [
        ("1_Pooling/config.json", "pooling_mode", json!("lasttoken"), "pooling by [\"lasttoken\"]"),
        ("1_Pooling/config.json", "pooling_mode", json!(["mean", "cls"]), "pooling by [\"mean\", \"cls\"]"),
        ("1_Pooling/config.json", "include_prompt", json!(false), "`include_prompt` false"),
        ("modules.json", "", json!([{"type": "x.CLIPModel", "path": ""}]), "the module `x.CLIPModel` in place 0"),
        ("modules.json", "", json!([{"type": "x.Transformer", "path": ""}]), "no Transformer and Pooling"),
        ("tokenizer_config.json", "cls_token", json!("<s>"), "lacks `<s>`"),
        ("config.json", "vocab_size", json!(50), "belongs to another model"),
        ("config.json", "hidden_size", json!(24), "different models"),
    ] {
        let dir = copy("sentence");
        match field {
            "" => write_json(dir.path(), file, &value),
            field => edit_json(dir.path(), file, field, value),
        }
        let error = refusal(dir.path(), None, &config);
        assert!(error.contains(message), "{error}");
    }
    let dir = copy("colbert");
    edit_json(dir.path(), "artifact.metadata", "query_maxlen", json!(2));
    let error = refusal(dir.path(), None, &config);
    assert!(error.contains("`query_maxlen` is 2: too short"), "{error}");
    edit_json(dir.path(), "artifact.metadata", "query_maxlen", json!(16));
    edit_json(dir.path(), "artifact.metadata", "dim", json!(128));
    let error = refusal(dir.path(), None, &config);
    assert!(error.contains("`linear.weight` has shape [24, 72] where [128, 72] is needed"), "{error}");
}

#[test]
fn what_is_told_of_an_encoder_is_what_it_does() {
    let check = |name: &str, expected_layout: Layout| {
        let dir = golden_dir(name);
        let (info, encoder) = (describe_encoder(&dir).expect("described"), open(&dir, None));
        assert!(is_encoder(&dir), "{name}");
        assert_eq!((info.layout, info.kind, info.dim), (expected_layout, encoder.kind(), encoder.dim()), "{name}");
        // A long text has as many vectors as there are tokens, where each has one.
        if info.kind == VectorKind::PerToken {
            let long = "city ".repeat(200);
            let vectors = encoder.encode(&[&long], TextRole::Passage).expect("encoded");
            assert_eq!(vectors[0].n_vectors(), info.passage.max_tokens);
            let short = encoder.encode(&["city"], TextRole::Query).expect("encoded");
            assert!(info.query.is_filled);
            assert_eq!(short[0].n_vectors(), info.query.max_tokens);
        }
        let weights = std::fs::metadata(dir.join("model.safetensors")).expect("it is there").len();
        assert!(info.n_bytes < weights && info.n_bytes > weights - 20_000, "all but the header: {}", info.n_bytes);
        assert_eq!(info.n_bytes, 4 * info.n_parameters);
    };
    check("colbert", Layout::Colbert);
    check("sentence", Layout::SentenceTransformers);
    assert!(!is_encoder(&golden_dir("llama_tied")));
    let dir = copy("sentence");
    std::fs::remove_file(dir.path().join("model.safetensors")).expect("removed");
    assert!(describe_encoder(dir.path()).is_err());
}
