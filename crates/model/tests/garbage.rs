//! Model folders from anywhere: whatever their files hold, opening one ends in an error or in a model that works.
use exsearch_model::chat::HfChat;
use exsearch_model::checkpoint::{load_adapter, load_decoder};
use exsearch_model::config::DecoderConfig;
use exsearch_model::encoder::{EncoderConfig, describe_encoder, open_encoder};
use exsearch_model::tokenizer::Tokenizer;
use exsearch_model::weights::Weights;
use exsearch_schema::TextRole;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A copy of a folder and those inside it.
fn copy(name: &str) -> TempDir {
    fn copy_into(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).expect("made");
        for entry in std::fs::read_dir(from).expect("listed") {
            let path = entry.expect("an entry").path();
            let target = to.join(path.file_name().expect("a name"));
            match path.is_dir() {
                true => copy_into(&path, &target),
                false => _ = std::fs::copy(&path, &target).expect("copied"),
            }
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    copy_into(&golden(name), dir.path());
    dir
}

/// What becomes of a file.
#[derive(Clone, Debug)]
enum Change {
    /// Bytes are put in place of some others.
    Bytes { at: prop::sample::Index, replacement: Vec<u8>, n_cut: usize },
    /// A value somewhere in the JSON becomes another.
    Json { at: prop::sample::Index, value: Value },
}

fn any_change() -> impl Strategy<Value = Change> {
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(-1),
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(1.5),
        json!(1e308),
        json!(1u64 << 31),
        json!(1u64 << 40),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("gelu"),
        json!("../../x"),
        json!([]),
        json!([[]]),
        json!([-1]),
        json!({}),
        json!({"x": 1}),
    ];
    let bytes = (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..9), 0usize..40);
    prop_oneof![
        1 => bytes.prop_map(|(at, replacement, n_cut)| Change::Bytes { at, replacement, n_cut }),
        3 => (any::<prop::sample::Index>(), prop::sample::select(values.to_vec()))
            .prop_map(|(at, value)| Change::Json { at, value }),
    ]
}

impl Change {
    fn apply(&self, path: &Path) {
        let whole = std::fs::read(path).expect("it is there");
        let changed = match self {
            Self::Bytes { at, replacement, n_cut } => {
                let at = at.index(whole.len());
                [&whole[..at], replacement, &whole[(at + n_cut).min(whole.len())..]].concat()
            }
            Self::Json { at, value } => {
                let mut json: Value = serde_json::from_slice(&whole).expect("JSON");
                let mut pointers = Vec::new();
                list_pointers(&json, String::new(), &mut pointers);
                *json.pointer_mut(&pointers[at.index(pointers.len())]).expect("it was listed") = value.clone();
                json.to_string().into_bytes()
            }
        };
        std::fs::write(path, changed).expect("written");
    }
}

/// Every place in a JSON, of a long list or object the first few only: a vocabulary would drown all others.
fn list_pointers(json: &Value, here: String, pointers: &mut Vec<String>) {
    const N_LISTED: usize = 12;
    match json {
        Value::Object(map) => {
            for (name, value) in map.iter().take(N_LISTED.max(if here.is_empty() { 60 } else { 0 })) {
                list_pointers(value, format!("{here}/{}", name.replace('~', "~0").replace('/', "~1")), pointers);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate().take(N_LISTED) {
                list_pointers(value, format!("{here}/{at}"), pointers);
            }
        }
        _ => {}
    }
    pointers.push(here);
}

fn check_encoder(dir: &Path) {
    let described = describe_encoder(dir);
    let Ok(encoder) = open_encoder(dir, None, &EncoderConfig::default()) else { return };
    let info = described.expect("what opens can be described");
    assert_eq!((info.dim, info.kind), (encoder.dim(), encoder.kind()));
    for role in [TextRole::Query, TextRole::Passage] {
        if let Ok(embeddings) = encoder.encode(&["the city, of words", ""], role) {
            assert_eq!(embeddings.len(), 2);
            assert!(embeddings.iter().all(|embedding| embedding.values.len() % encoder.dim() == 0));
        }
    }
}

/// The tokenizers library panics on it; a user reads which file is bad.
#[test]
fn a_post_processor_without_its_markers_is_an_error() {
    let dir = copy("sentence");
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).expect("it is there")).expect("JSON");
    json["post_processor"]["special_tokens"] = json!({});
    std::fs::write(&path, json.to_string()).expect("written");
    let error = open_encoder(dir.path(), None, &EncoderConfig::default()).err().expect("refused").to_string();
    assert!(error.contains("tokenizer.json") && error.contains("contradict"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn any_sentence_encoder_is_refused_or_encodes(
        file in prop::sample::select(&[
            "config.json", "modules.json", "1_Pooling/config.json", "config_sentence_transformers.json",
            "sentence_bert_config.json", "tokenizer_config.json", "tokenizer.json",
        ][..]),
        change in any_change(),
    ) {
        let dir = copy("sentence");
        change.apply(&dir.path().join(file));
        check_encoder(dir.path());
    }

    #[test]
    fn any_colbert_checkpoint_is_refused_or_encodes(
        file in prop::sample::select(&["config.json", "artifact.metadata", "tokenizer_config.json", "tokenizer.json"][..]),
        change in any_change(),
    ) {
        let dir = copy("colbert");
        change.apply(&dir.path().join(file));
        check_encoder(dir.path());
    }

    #[test]
    fn any_decoder_config_is_refused_or_fits_its_weights(
        file in prop::sample::select(&["config.json", "generation_config.json"][..]), change in any_change(),
    ) {
        let dir = copy("llama_tied");
        change.apply(&dir.path().join(file));
        if let Ok(decoder) = load_decoder(dir.path(), 16) {
            prop_assert!(decoder.max_positions() <= 16);
        }
    }

    #[test]
    fn any_adapter_is_refused_or_fits_its_model(change in any_change()) {
        let dir = copy("llama_tied");
        let config = DecoderConfig::open(dir.path()).expect("a fine model");
        let adapter = dir.path().join("adapter");
        change.apply(&adapter.join("adapter_config.json"));
        if let Ok(adapter) = load_adapter(&adapter, &config) {
            prop_assert_eq!(adapter.layers.len(), config.layers.len());
        }
    }

    #[test]
    fn any_tokenizer_is_refused_or_works(
        file in prop::sample::select(&["tokenizer.json", "tokenizer_config.json"][..]), change in any_change(),
    ) {
        let dir = copy("tiny_tokenizer");
        change.apply(&dir.path().join(file));
        if let Ok(tokenizer) = Tokenizer::open(dir.path()) {
            if let Ok(ids) = tokenizer.encode_plain("a river <|im_end|> x") {
                let _ = tokenizer.decode(&ids, false);
            }
            let _ = HfChat::open(dir.path(), None);
        }
    }

    /// Of a fine file, its header included: what is read is as long as was asked for.
    #[test]
    fn any_weights_are_refused_or_have_the_shapes_that_they_say(
        at in any::<prop::sample::Index>(), replacement in prop::collection::vec(any::<u8>(), 0..6), n_cut in 0usize..6,
        is_in_header: bool,
    ) {
        let dir = copy("llama_tied");
        let path = dir.path().join("model.safetensors");
        let whole = std::fs::read(&path).expect("it is there");
        let n_header = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
        let at = at.index(if is_in_header { n_header } else { whole.len() });
        let changed = [&whole[..at], &replacement, &whole[(at + n_cut).min(whole.len())..]].concat();
        std::fs::write(&path, changed).expect("written");
        if let Ok(weights) = Weights::open(dir.path()) {
            for name in weights.names() {
                let shape = weights.shape(name).expect("it is listed").to_vec();
                if let Ok(values) = weights.tensor_f32(name, &shape) {
                    prop_assert_eq!(values.len(), shape.iter().product::<usize>());
                }
            }
        }
    }
}
