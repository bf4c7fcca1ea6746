//! A folder with an encoder -> what someone who wants to use it asks first. Reads the headers of the weights, not the weights.
use super::sentence::MODULES;
use super::text_encoder::{Head, Pooling, TextForm};
use super::{BertConfig, EncoderConfig, ProjectionSource, Recipe, is_colbert, open_weights};
use crate::weights::Weights;
use crate::{ModelError, files};
use exsearch_schema::VectorKind;
use std::collections::BTreeSet;
use std::path::Path;

/// What a folder with an encoder holds.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderInfo {
    /// Whose files it has.
    pub layout: Layout,
    /// How many vectors a text gets, unless the user asks for the other kind.
    pub kind: VectorKind,
    /// The length of a vector.
    pub dim: usize,
    /// How the hidden states of a text become its vector; `None` where each gives one.
    pub pooling: Option<&'static str>,
    /// The encoder's shape.
    pub bert: BertConfig,
    /// How queries become tokens.
    pub query: TextInfo,
    /// How passages become tokens.
    pub passage: TextInfo,
    /// Numbers in all weights that are there, those that encoding does not use included.
    pub n_parameters: u64,
    /// Tensors with these numbers.
    pub n_tensors: usize,
    /// The tensors' bytes on disk.
    pub n_bytes: u64,
    /// The number formats of the tensors, as safetensors names them.
    pub dtypes: BTreeSet<String>,
}

/// Whose files a folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// colbert-ai's: artifact.metadata.
    Colbert,
    /// sentence-transformers': modules.json.
    SentenceTransformers,
    /// A plain BERT: config.json alone.
    Bert,
}

/// How texts of one role become tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextInfo {
    /// Put before the text, as text.
    pub prefix: String,
    /// The token that says the role.
    pub marker: Option<String>,
    /// The longest text in tokens, markers included.
    pub max_tokens: usize,
    /// Whether shorter ones are filled up with `[MASK]`.
    pub is_filled: bool,
    /// Tokens of the vocabulary that get no vector of their own, such as punctuation.
    pub n_skipped: usize,
}

/// Whether a folder is one with a text encoder, as far as its files' names and its model type say.
pub fn is_encoder(dir: &Path) -> bool {
    let has_model_type = || {
        let config = files::read_json(&dir.join("config.json")).ok();
        let model_type = config.as_ref().and_then(|config| config["model_type"].as_str());
        model_type.is_some_and(|model_type| super::KNOWN_MODEL_TYPES.contains(&model_type))
    };
    is_colbert(dir) || dir.join(MODULES).is_file() || has_model_type()
}

/// Describes the encoder of a folder as [`open_encoder`](super::open_encoder) would open it. Errors where that would, but for
/// what only reading the weights shows.
pub fn describe_encoder(dir: &Path) -> Result<EncoderInfo, ModelError> {
    let mut recipe = match is_colbert(dir) {
        true => Recipe::of_colbert(dir)?,
        false => Recipe::of_sentences(dir, VectorKind::Single)?,
    };
    let invalid = |reason: String| ModelError::InvalidConfig { path: dir.to_owned(), reason };
    recipe.apply(&EncoderConfig::default()).map_err(invalid)?;
    let mut weights = vec![open_weights(&recipe.transformer)?];
    let dim = match &recipe.projection {
        None => recipe.bert.hidden_size,
        Some(ProjectionSource::Own(dim)) => *dim,
        Some(ProjectionSource::File(file)) => {
            weights.push(Weights::open_file(file)?);
            let shape = weights.last().and_then(|weights| weights.shape(super::PROJECTION));
            shape.and_then(|shape| shape.first()).copied().unwrap_or(0)
        }
    };
    let (kind, pooling) = match recipe.head {
        Head::PerToken => (VectorKind::PerToken, None),
        Head::Pooled(Pooling::Mean) => (VectorKind::Single, Some("mean")),
        Head::Pooled(Pooling::Cls) => (VectorKind::Single, Some("first token")),
        Head::Pooled(Pooling::Max) => (VectorKind::Single, Some("maximum")),
    };
    let layout = match dir {
        _ if is_colbert(dir) => Layout::Colbert,
        _ if dir.join(MODULES).is_file() => Layout::SentenceTransformers,
        _ => Layout::Bert,
    };
    let text = |form: &TextForm| TextInfo {
        prefix: form.prefix.clone(),
        marker: form.marker.and_then(|id| recipe.tokenizer.token_of(id)),
        max_tokens: form.max_tokens,
        is_filled: form.fill.is_some(),
        n_skipped: form.skipped.len(),
    };
    let sizes = weights.iter().map(Weights::size);
    Ok(EncoderInfo {
        layout,
        kind,
        dim,
        pooling,
        query: text(&recipe.query),
        passage: text(&recipe.passage),
        n_parameters: sizes.clone().map(|(n_numbers, _)| n_numbers).sum(),
        n_bytes: sizes.map(|(_, n_bytes)| n_bytes).sum(),
        n_tensors: weights.iter().map(|weights| weights.names().count()).sum(),
        dtypes: weights.iter().flat_map(Weights::dtypes).collect(),
        bert: recipe.bert,
    })
}
