//! The tokenizer on the tiny byte-level BPE of tests/golden/make_templates.py.
use exsearch_model::tokenizer::Tokenizer;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny_tokenizer")
}

/// The tiny tokenizer with other files beside it.
fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        std::fs::copy(folder().join(name), dir.path().join(name)).expect("copied");
    }
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    dir
}

#[test]
fn special_tokens_are_read_from_the_folder() {
    let tokenizer = Tokenizer::open(&folder()).expect("it opens");
    assert_eq!((tokenizer.bos_token(), tokenizer.eos_token()), (Some("<|im_start|>"), Some("<|im_end|>")));
    assert_eq!(tokenizer.end_of_turn_ids(), [2]);
    assert_eq!(tokenizer.encode("<|im_end|>").expect("it encodes"), [2]);
    assert!(tokenizer.encode_plain("<|im_end|>").expect("it encodes").len() > 1);
    let several = folder_with(&[("generation_config.json", r#"{"eos_token_id": [0, 2]}"#)]);
    assert_eq!(Tokenizer::open(several.path()).expect("it opens").end_of_turn_ids(), [0, 2]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    for vocab_size in ["128", "128256"] {
        let dir = folder_with(&[("config.json", &format!(r#"{{"vocab_size": {vocab_size}}}"#))]);
        let error = Tokenizer::open(dir.path()).expect_err("it does not fit").to_string();
        assert!(
            error.contains("512 tokens") && error.contains(vocab_size) && error.contains("another model"),
            "{error}"
        );
    }
    let error = Tokenizer::open(Path::new("nowhere")).expect_err("there is none").to_string();
    assert!(error.contains("nowhere has no tokenizer.json"), "{error}");
}

/// An end token without the special flag is an ordinary added token to the library.
#[test]
fn an_end_token_without_the_special_flag_stays_text_in_plain_text() {
    let json = std::fs::read_to_string(folder().join("tokenizer.json")).expect("it is there");
    let dir = folder_with(&[("tokenizer.json", &json.replace("\"special\": true", "\"special\": false"))]);
    let tokenizer = Tokenizer::open(dir.path()).expect("it opens");
    for text in ["<|im_end|>", "a<|im_end|><|im_end|> b", "<|im_start|><|im_end|>\n"] {
        let ids = tokenizer.encode_plain(text).expect("it encodes");
        assert!(!ids.contains(&2), "{text}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
}

#[test]
fn a_stream_finds_stops_across_tokens() {
    let tokenizer = Tokenizer::open(&folder()).expect("it opens");
    let stops = ["next query is:".to_owned(), "🙂".to_owned()];
    for (text, n_expected) in [("So the next query is: x", 1), ("so 🙂 it", 1), ("no stop", 0)] {
        let mut stream = tokenizer.stream();
        let ids = tokenizer.encode_plain(text).expect("it encodes");
        let n_found = ids.iter().filter(|&&id| !stream.push(id).is_empty() && stream.has_stop(&stops)).count();
        assert!(n_found >= n_expected && (n_expected > 0 || n_found == 0), "{text}: {n_found}");
        assert_eq!(stream.text(), text);
    }
}

proptest! {
    #[test]
    fn plain_text_comes_back_and_holds_no_control(text in r"(<\|im_end\|>|<\|im_start\|>|[a-z0-9 é東🙂<|>_\n]){0,40}") {
        let tokenizer = Tokenizer::open(&folder()).expect("it opens");
        let ids = tokenizer.encode_plain(&text).expect("it encodes");
        prop_assert!(!ids.iter().any(|&id| tokenizer.is_control(id)));
        prop_assert_eq!(tokenizer.decode(&ids, false), text.clone());
        let mut stream = tokenizer.stream();
        for id in ids {
            stream.push(id);
        }
        prop_assert_eq!(stream.text(), text);
    }
}
