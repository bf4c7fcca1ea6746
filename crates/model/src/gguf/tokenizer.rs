//! The vocabulary in a GGUF file -> tokenizer.json, tokenizer_config.json and generation_config.json.
//!
//! A GGUF file names its pre-tokenizer instead of holding it (`tokenizer.ggml.pre`); what each name stands for is taken from
//! the tokenizer.json that its models were published with.
use super::{Gguf, GgufValue};
use crate::ModelError;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// The three files.
pub(super) struct Rebuilt {
    pub(super) json: Value,
    pub(super) config: Value,
    pub(super) generation: Value,
}

/// The parts of tokenizer.json that depend on the tokenizer's family.
struct Family {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
}

// `tokenizer.ggml.token_type`, llama.cpp's `llama_token_type`.
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Llama 3's and Qwen2's splits differ in how many digits stay together.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Makes the files, or says why not.
pub(super) fn rebuild(gguf: &Gguf) -> Result<Rebuilt, ModelError> {
    let Some(GgufValue::Texts(tokens)) = gguf.metadata.get("tokenizer.ggml.tokens") else {
        return Err(unsupported(gguf, "the file holds no vocabulary (`tokenizer.ggml.tokens`)".to_owned()));
    };
    let types = match gguf.metadata.get("tokenizer.ggml.token_type") {
        Some(GgufValue::Ints(types)) if types.len() == tokens.len() => types.clone(),
        None => vec![NORMAL; tokens.len()],
        Some(_) => return Err(unsupported(gguf, "its token types do not match its tokens".to_owned())),
    };
    let kind = gguf.text("tokenizer.ggml.model").unwrap_or("(none)");
    let family = match kind {
        "gpt2" => byte_level(gguf, tokens)?,
        "llama" => sentence_piece(gguf, tokens, &types)?,
        other => {
            let reason = format!("its kind is `{other}`; `gpt2` (byte-level BPE) and `llama` (SentencePiece) are read");
            return Err(unsupported(gguf, reason));
        }
    };
    let special = Special::read(gguf, tokens, kind)?;
    Ok(Rebuilt {
        json: json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added_tokens(tokens, &types),
            "normalizer": family.normalizer,
            "pre_tokenizer": family.pre_tokenizer,
            "post_processor": special.post_processor(),
            "decoder": family.decoder,
            "model": family.model
        }),
        config: special.tokenizer_config(gguf),
        generation: special.generation_config(),
    })
}

/// GPT-2's kind: bytes as printable characters, merges in the file.
fn byte_level(gguf: &Gguf, tokens: &[String]) -> Result<Family, ModelError> {
    let Some(GgufValue::Texts(merges)) = gguf.metadata.get("tokenizer.ggml.merges") else {
        return Err(unsupported(gguf, "it is byte-level BPE without merges".to_owned()));
    };
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = |regex: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
    };
    let pre = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
    let pre_tokenizer = match pre {
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            json!({"type": "Sequence", "pretokenizers": [digits, byte_level(true)]})
        }
        "llama-bpe" | "llama3" | "llama-v3" => split(LLAMA3_SPLIT),
        "qwen2" => split(QWEN2_SPLIT),
        // Files from before the key existed are mostly GPT-2's descendants.
        "gpt-2" | "default" => byte_level(true),
        other => {
            let reason = format!("its pre-tokenizer is `{other}`; known: smollm, llama-bpe, qwen2, gpt-2, default");
            return Err(unsupported(gguf, reason));
        }
    };
    // Llama 3 takes a word that is in the vocabulary as it is, whatever its merges say.
    let ignores_merges = matches!(pre, "llama-bpe" | "llama3" | "llama-v3");
    let merges: Option<Vec<_>> = merges.iter().map(|merge| merge.split_once(' ')).collect();
    let Some(merges) = merges else {
        return Err(unsupported(gguf, "a merge is not two tokens with a space between".to_owned()));
    };
    let ids = vocabulary(tokens);
    // The tokenizers library refuses merges of tokens that do not exist; better to say so here.
    let exists = |(left, right): &(&str, &str)| {
        ids.contains_key(*left) && ids.contains_key(*right) && ids.contains_key(format!("{left}{right}").as_str())
    };
    if let Some((left, right)) = merges.iter().find(|merge| !exists(merge)) {
        return Err(unsupported(gguf, format!("the merge of `{left}` and `{right}` makes no token")));
    }
    Ok(Family {
        normalizer: if pre == "qwen2" { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        model: bpe(tokens, json!(merges), ignores_merges, None),
    })
}

/// SentencePiece's BPE kind: pieces with scores, from which transformers makes merges
/// (`generate_merges` in transformers/convert_slow_tokenizer.py).
fn sentence_piece(gguf: &Gguf, tokens: &[String], types: &[i64]) -> Result<Family, ModelError> {
    let scores = match gguf.metadata.get("tokenizer.ggml.scores") {
        Some(GgufValue::Floats(scores)) if scores.len() == tokens.len() => scores,
        _ => return Err(unsupported(gguf, "it is SentencePiece without a score for each piece".to_owned())),
    };
    let ids = vocabulary(tokens);
    if !(0..=255).all(|byte| ids.contains_key(format!("<0x{byte:02X}>").as_str())) {
        return Err(unsupported(gguf, "it is SentencePiece without a token for each byte".to_owned()));
    }
    let is_normal = |piece: &str| ids.get(piece).is_some_and(|&id| types[id] == NORMAL);
    let mut merges: Vec<(&str, &str, f64)> = Vec::new();
    for (id, piece) in tokens.iter().enumerate().filter(|&(id, _)| types[id] == NORMAL) {
        let splits = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let mut halves: Vec<_> = splits.filter(|(left, right)| is_normal(left) && is_normal(right)).collect();
        halves.sort_by_key(|(left, right)| (ids[*left], ids[*right]));
        merges.extend(halves.into_iter().map(|(left, right)| (left, right, scores[id])));
    }
    // Best score first, then longer halves first; equals stay in the order of their pieces.
    let key = |merge: &(&str, &str, f64)| (merge.0.chars().count(), merge.1.chars().count());
    merges.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| key(b).cmp(&key(a))));
    let merges: Vec<_> = merges.into_iter().map(|(left, right, _)| (left, right)).collect();

    let has_prefix = gguf.metadata.get("tokenizer.ggml.add_space_prefix") != Some(&GgufValue::Bool(false));
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if has_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = types.iter().position(|&kind| kind == UNKNOWN).map(|id| tokens[id].as_str());
    Ok(Family {
        normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: bpe(tokens, json!(merges), false, Some(unknown)),
    })
}

/// `fallback` is set for SentencePiece: bytes where no piece fits, and its unknown token.
fn bpe(tokens: &[String], merges: Value, ignores_merges: bool, fallback: Option<Option<&str>>) -> Value {
    let vocab: Map<String, Value> = tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": fallback.flatten(),
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": fallback.is_some(),
        "byte_fallback": fallback.is_some(),
        "ignore_merges": ignores_merges,
        "vocab": vocab,
        "merges": merges
    })
}

fn vocabulary(tokens: &[String]) -> HashMap<&str, usize> {
    tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect()
}

/// Tokens that are cut out of a text before anything else.
fn added_tokens(tokens: &[String], types: &[i64]) -> Vec<Value> {
    let added = tokens.iter().zip(types).enumerate();
    let added = added.filter(|(_, (_, kind))| matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED));
    added
        .map(|(id, (content, kind))| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != USER_DEFINED})
        })
        .collect()
}

/// The tokens that have a role, as (id, text).
struct Special<'g> {
    bos: Option<(usize, &'g str)>,
    eos: Option<(usize, &'g str)>,
    unknown: Option<(usize, &'g str)>,
    padding: Option<(usize, &'g str)>,
    /// All ids that end a generation, `eos` first.
    end_ids: Vec<usize>,
    adds_bos: bool,
}

impl<'g> Special<'g> {
    fn read(gguf: &Gguf, tokens: &'g [String], kind: &str) -> Result<Self, ModelError> {
        let token = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match gguf.count(&key) {
                Some(id) if id < tokens.len() => Ok(Some((id, tokens[id].as_str()))),
                Some(id) => Err(unsupported(gguf, format!("{key} {id} lies outside its {} tokens", tokens.len()))),
                None => Ok(None),
            }
        };
        let (eos, end_of_turn) = (token("eos")?, token("eot")?);
        let mut end_ids: Vec<usize> = eos.iter().chain(&end_of_turn).map(|(id, _)| *id).collect();
        end_ids.dedup();
        // Absent keys mean llama.cpp's defaults.
        let adds_by_default = kind == "llama" || gguf.text("tokenizer.ggml.pre") == Some("llama-bpe");
        let adds_bos = match gguf.metadata.get("tokenizer.ggml.add_bos_token") {
            Some(GgufValue::Bool(adds)) => *adds,
            _ => adds_by_default,
        };
        let (bos, unknown, padding) = (token("bos")?, token("unknown")?, token("padding")?);
        Ok(Self { bos, eos, unknown, padding, end_ids, adds_bos })
    }

    fn post_processor(&self) -> Value {
        match self.bos {
            Some((id, token)) if self.adds_bos => {
                let bos = json!({"SpecialToken": {"id": token, "type_id": 0}});
                let (a, b) =
                    (json!({"Sequence": {"id": "A", "type_id": 0}}), json!({"Sequence": {"id": "B", "type_id": 1}}));
                json!({
                    "type": "TemplateProcessing",
                    "single": [bos, a],
                    "pair": [bos, a, bos, b],
                    "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}
                })
            }
            _ => Value::Null,
        }
    }

    fn tokenizer_config(&self, gguf: &Gguf) -> Value {
        let mut config = Map::new();
        let roles = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", self.padding),
        ];
        for (name, token) in roles {
            if let Some((_, text)) = token {
                config.insert(name.to_owned(), json!(text));
            }
        }
        config.insert("add_bos_token".to_owned(), json!(self.adds_bos));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
        config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
        if let Some(length) = gguf.model_count("context_length") {
            config.insert("model_max_length".to_owned(), json!(length));
        }
        if let Some(template) = gguf.text("tokenizer.chat_template") {
            config.insert("chat_template".to_owned(), json!(template));
        }
        Value::Object(config)
    }

    fn generation_config(&self) -> Value {
        let end = match self.end_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        json!({
            "bos_token_id": self.bos.map(|(id, _)| id),
            "eos_token_id": end,
            "pad_token_id": self.padding.map(|(id, _)| id)
        })
    }
}

fn unsupported(gguf: &Gguf, reason: String) -> ModelError {
    ModelError::UnsupportedTokenizer { path: gguf.path().to_owned(), reason }
}
