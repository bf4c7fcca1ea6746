//! The tokenizer of a BERT checkpoint: text -> ids without markers, and the ids of the markers.
//!
//! What a text spells is never taken for a marker: `[MASK]` in a passage is six characters or so many word pieces.
use super::hash::ContentHash;
use crate::tokenizer::{encode_ids, guarded, token_text};
use crate::{ModelError, files};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

/// A BERT tokenizer.
pub(super) struct BertTokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// `[CLS]`: opens every text.
    pub(super) open_id: u32,
    /// `[SEP]`: closes every text.
    pub(super) close_id: u32,
    /// `[MASK]`, where there is one.
    pub(super) mask_id: Option<u32>,
}

impl BertTokenizer {
    /// Reads `dir/tokenizer.json`, or else makes a WordPiece tokenizer of `dir/vocab.txt`, with the settings of
    /// tokenizer_config.json. A tokenizer with ids past the `vocab_size` of the model is refused.
    pub(super) fn open(dir: &Path, vocab_size: usize) -> Result<Self, ModelError> {
        let settings = match dir.join("tokenizer_config.json") {
            path if path.is_file() => files::read_json(&path)?,
            _ => Value::Null,
        };
        let (json, vocabulary) = (dir.join("tokenizer.json"), dir.join("vocab.txt"));
        let (path, mut inner) = if json.is_file() {
            let inner = guarded(&json, || tokenizers::Tokenizer::from_file(&json))?;
            (json, inner)
        } else if vocabulary.is_file() {
            let inner = word_piece(&vocabulary, &settings)?;
            (vocabulary, inner)
        } else {
            return Err(ModelError::MissingFile {
                folder: dir.to_owned(),
                file: "tokenizer.json or vocab.txt",
                advice: "pull the model again",
            });
        };
        inner.with_padding(None);
        guarded(&path, || inner.with_truncation(None).map(|_| ()))?;
        let markers = |field: &str, default: &str| token_text(&settings[field]).unwrap_or_else(|| default.to_owned());
        let id = |token: &str| {
            inner.token_to_id(token).ok_or_else(|| ModelError::Tokenizer {
                path: path.clone(),
                reason: format!("its vocabulary lacks `{token}`"),
            })
        };
        let (open_id, close_id) = (id(&markers("cls_token", "[CLS]"))?, id(&markers("sep_token", "[SEP]"))?);
        let mask_id = inner.token_to_id(&markers("mask_token", "[MASK]"));
        let n_tokens = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if n_tokens > vocab_size {
            return Err(ModelError::TokenizerMismatch { path, n_tokens, vocab_size });
        }
        // What this module puts around a text must be what the model was trained with.
        let around = encode_ids(&path, &inner, "", true)?;
        if !around.is_empty() && around != [open_id, close_id] {
            let feature = format!("the ids {around:?} around a text, not one opening and one closing marker");
            return Err(ModelError::UnsupportedFeature { path, feature });
        }
        inner.set_encode_special_tokens(true);
        let tokenizer = Self { path, inner, open_id, close_id, mask_id };
        // A tokenizer that has no way to say "unknown" would fail in the middle of a corpus.
        tokenizer.encode("\u{10FFFF}\u{E000}\u{2603} a1\n")?;
        Ok(tokenizer)
    }

    /// Errors unless pairs are marked as `[CLS] .. [SEP] .. [SEP]`, the token types 0, 0 and 1, where the tokenizer says it.
    pub(super) fn check_pairs(&self) -> Result<(), ModelError> {
        let around = guarded(&self.path, || self.inner.encode(("", ""), true))?;
        let (ids, types) = (around.get_ids(), around.get_type_ids());
        if ids.is_empty() || (ids == [self.open_id, self.close_id, self.close_id] && types == [0, 0, 1]) {
            return Ok(());
        }
        let feature = format!("the ids {ids:?} with types {types:?} around a pair of texts");
        Err(ModelError::UnsupportedFeature { path: self.path.clone(), feature })
    }

    /// The ids of a text, without markers.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        encode_ids(&self.path, &self.inner, text, false)
    }

    /// Adds what decides about the ids of a text: the vocabulary, and samples of what happens to letters before it.
    pub(super) fn hash_into(&self, hash: &mut ContentHash) -> Result<(), ModelError> {
        let mut vocabulary: Vec<_> = self.inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        vocabulary.sort();
        for (id, token) in vocabulary {
            hash.add_text(&token);
            hash.add_ids(&[id]);
        }
        hash.add_ids(&[self.open_id, self.close_id]);
        for sample in ["\u{c0} la Carte", "na\u{ef}ve don't, U.S.A.", "\u{6771}\u{4eac} 3.14\t[MASK]"] {
            hash.add_ids(&self.encode(sample)?);
        }
        Ok(())
    }

    /// The id of one token of the vocabulary.
    pub(super) fn id_of(&self, token: &str) -> Result<u32, ModelError> {
        let reason = || format!("its vocabulary lacks `{token}`");
        let lacking = || ModelError::Tokenizer { path: self.path.clone(), reason: reason() };
        self.inner.token_to_id(token).ok_or_else(lacking)
    }

    /// The token with an id.
    pub(super) fn token_of(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The file that it was read from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// One word piece a line, its number the id; what transformers' BertTokenizer makes of it.
fn word_piece(vocabulary: &Path, settings: &Value) -> Result<tokenizers::Tokenizer, ModelError> {
    let file = vocabulary.to_str().ok_or_else(|| ModelError::Tokenizer {
        path: vocabulary.to_owned(),
        reason: "its path is not valid UTF-8".to_owned(),
    })?;
    let unknown = token_text(&settings["unk_token"]).unwrap_or_else(|| "[UNK]".to_owned());
    let model = guarded(vocabulary, || WordPiece::from_file(file).unk_token(unknown).build())?;
    let flag = |name: &str, default: bool| settings[name].as_bool().unwrap_or(default);
    let lowercase = flag("do_lower_case", true);
    let chinese = flag("tokenize_chinese_chars", true);
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let strip_accents = settings["strip_accents"].as_bool();
    let normalizer = BertNormalizer::new(true, chinese, strip_accents, lowercase);
    guarded(vocabulary, || tokenizer.with_normalizer(Some(normalizer)).map(|_| ()))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}
