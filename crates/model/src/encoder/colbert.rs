//! artifact.metadata of a ColBERT checkpoint (arXiv 2004.12832, 2112.01488) -> how its texts are marked, cut and filled.
//!
//! The layout is that of colbert-ir/colbertv2.0, which the package colbert-ai writes: a BERT with a head, `linear.weight`
//! `[dim, h]`, and the training's settings in artifact.metadata. Where this departs from colbert-ai: texts that spell a
//! marker do not become one, and vectors stay f32.
use super::text_encoder::{Fill, TextForm};
use super::tokens::BertTokenizer;
use crate::config::Fields;
use crate::{ModelError, files};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

pub(super) const METADATA: &str = "artifact.metadata";

/// What artifact.metadata says of encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColbertSettings {
    /// The length of a vector.
    pub(super) dim: usize,
    query_maxlen: usize,
    doc_maxlen: usize,
    query_token: String,
    doc_token: String,
    mask_punctuation: bool,
    attend_to_mask_tokens: bool,
}

/// Whether a folder is a ColBERT checkpoint.
pub(super) fn is_colbert(dir: &Path) -> bool {
    dir.join(METADATA).is_file()
}

impl ColbertSettings {
    /// Reads `dir/artifact.metadata`; what it lacks is as colbert-ai 0.2.22 has it.
    pub(super) fn open(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join(METADATA);
        let json = files::read_json(&path)?;
        // Written by an indexer, the settings lie one level deeper.
        let json = json.get("config").unwrap_or(&json);
        let Value::Object(map) = json else {
            return Err(ModelError::Json { path, reason: "it holds no object".to_owned() });
        };
        let fields = Fields { path: &path, map };
        let text = |name: &str, default: &str| Ok(fields.text(name)?.unwrap_or(default).to_owned());
        let settings = Self {
            dim: fields.count("dim")?.unwrap_or(128),
            query_maxlen: fields.count("query_maxlen")?.unwrap_or(32),
            doc_maxlen: fields.count("doc_maxlen")?.unwrap_or(220),
            query_token: text("query_token_id", "[unused0]")?,
            doc_token: text("doc_token_id", "[unused1]")?,
            mask_punctuation: fields.get("mask_punctuation").is_none() || fields.flag("mask_punctuation")?,
            attend_to_mask_tokens: fields.flag("attend_to_mask_tokens")?,
        };
        for (name, length) in [("query_maxlen", settings.query_maxlen), ("doc_maxlen", settings.doc_maxlen)] {
            if length < MIN_TOKENS {
                return Err(fields.invalid(format!("`{name}` is {length}: too short for the markers")));
            }
        }
        Ok(settings)
    }

    /// How queries and passages become token ids.
    pub(super) fn forms(&self, tokenizer: &BertTokenizer) -> Result<[TextForm; 2], ModelError> {
        let Some(mask_id) = tokenizer.mask_id else {
            let reason = "its vocabulary lacks the mask token that fills queries".to_owned();
            return Err(ModelError::Tokenizer { path: tokenizer.path().to_owned(), reason });
        };
        let form = |marker: &str, max_tokens: usize| {
            let marker = Some(tokenizer.id_of(marker)?);
            Ok(TextForm { prefix: String::new(), marker, max_tokens, fill: None, skipped: BTreeSet::new() })
        };
        let mut query: TextForm = form(&self.query_token, self.query_maxlen)?;
        query.fill = Some(Fill { id: mask_id, is_attended: self.attend_to_mask_tokens });
        let mut passage: TextForm = form(&self.doc_token, self.doc_maxlen)?;
        if self.mask_punctuation {
            passage.skipped = punctuation(tokenizer)?;
        }
        Ok([query, passage])
    }
}

/// Room for `[CLS]`, the role's marker and `[SEP]`, and one token between them.
pub(super) const MIN_TOKENS: usize = 4;

/// The ids of Python's `string.punctuation`: each character's first token.
pub(super) fn punctuation(tokenizer: &BertTokenizer) -> Result<BTreeSet<u32>, ModelError> {
    let symbols = (b'!'..=b'~').filter(u8::is_ascii_punctuation);
    let mut ids = BTreeSet::new();
    for symbol in symbols {
        ids.extend(tokenizer.encode(char::from(symbol).encode_utf8(&mut [0; 4]))?.first());
    }
    Ok(ids)
}
