//! Text encoders on CPU: a folder with a BERT checkpoint -> an [`Encoder`] of the seam crate.
//!
//! Three layouts are known: ColBERT's (artifact.metadata), sentence-transformers' (modules.json) and a plain BERT
//! (config.json alone). What a folder asks for and cannot be computed faithfully is refused with its name. Numbers do not
//! depend on the batch, the threads or the instruction set.
mod attention;
mod bert;
mod colbert;
mod config;
mod hash;
mod info;
mod sentence;
mod text_encoder;
mod tokens;

pub use config::{Activation, BertConfig, KNOWN_MODEL_TYPES};
pub use info::{EncoderInfo, Layout, TextInfo, describe_encoder, is_encoder};

use crate::ModelError;
use crate::weights::Weights;
use bert::Bert;
use colbert::{ColbertSettings, is_colbert};
use exsearch_kernels::Panels;
use exsearch_schema::{Encoder, VectorKind};
use hash::ContentHash;
use sentence::SentenceSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use text_encoder::{Head, TextEncoder, TextForm};
use tokens::BertTokenizer;

/// What a user may want otherwise than the checkpoint says. The default is all as it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderConfig {
    /// The longest query in tokens, markers included. For ColBERT also the length that shorter ones are filled to.
    pub max_query_tokens: Option<usize>,
    /// The longest passage in tokens, markers included; the end of a longer one is cut off.
    pub max_passage_tokens: Option<usize>,
    /// Put before every query instead of the checkpoint's prompt, such as `query: ` for E5.
    pub query_prefix: Option<String>,
    /// Put before every passage instead of the checkpoint's prompt, such as `passage: ` for E5.
    pub passage_prefix: Option<String>,
    /// For token vectors of a checkpoint without a projection: a safetensors file with `linear.weight` `[dim, hidden]`.
    pub projection: Option<PathBuf>,
    /// Whether punctuation of passages gets no token vectors. Unset: as ColBERT's metadata says; elsewhere it gets them.
    pub skip_punctuation: Option<bool>,
    /// Threads. Unset: those of the calling rayon pool.
    pub threads: Option<usize>,
}

/// Opens the encoder of a folder. `kind` chooses between one vector a text and one a token where the checkpoint can do
/// both; unset, ColBERT gives one a token and all others one a text.
///
/// # Errors
/// When the layout, the model type or one of its settings is not known, when files are missing or do not fit together, and
/// when `kind` or `config` asks for what the checkpoint has not.
pub fn open_encoder(
    dir: &Path,
    kind: Option<VectorKind>,
    config: &EncoderConfig,
) -> Result<Box<dyn Encoder>, ModelError> {
    let invalid = |reason: String| ModelError::InvalidConfig { path: dir.to_owned(), reason };
    let mut recipe = if is_colbert(dir) {
        if kind == Some(VectorKind::Single) {
            return Err(invalid("a ColBERT checkpoint gives vectors of tokens, not one vector a text".to_owned()));
        }
        Recipe::of_colbert(dir)?
    } else {
        Recipe::of_sentences(dir, kind.unwrap_or(VectorKind::Single))?
    };
    recipe.apply(config).map_err(invalid)?;
    Ok(Box::new(recipe.load(config.threads)?))
}

/// All that is known of an encoder before its weights are read.
struct Recipe {
    /// Where the weights are.
    transformer: PathBuf,
    bert: BertConfig,
    tokenizer: BertTokenizer,
    query: TextForm,
    passage: TextForm,
    head: Head,
    projection: Option<ProjectionSource>,
}

/// Where a projection `linear.weight` `[dim, h]` is.
enum ProjectionSource {
    /// Among the weights of the encoder, with this `dim`.
    Own(usize),
    /// In a file of its own.
    File(PathBuf),
}

const PROJECTION: &str = "linear.weight";

impl Recipe {
    fn of_colbert(dir: &Path) -> Result<Self, ModelError> {
        let settings = ColbertSettings::open(dir)?;
        let bert = BertConfig::open(dir)?;
        let tokenizer = BertTokenizer::open(dir, bert.vocab_size)?;
        let [query, passage] = settings.forms(&tokenizer)?;
        let projection = Some(ProjectionSource::Own(settings.dim));
        Ok(Self { transformer: dir.to_owned(), bert, tokenizer, query, passage, head: Head::PerToken, projection })
    }

    fn of_sentences(dir: &Path, kind: VectorKind) -> Result<Self, ModelError> {
        let settings = SentenceSettings::open(dir)?;
        let bert = BertConfig::open(&settings.transformer)?;
        let tokenizer = BertTokenizer::open(&settings.transformer, bert.vocab_size)?;
        let max_tokens = settings.max_tokens.unwrap_or(usize::MAX);
        let form = |prefix: String| TextForm { prefix, marker: None, max_tokens, fill: None, skipped: BTreeSet::new() };
        let (head, dense) = match kind {
            VectorKind::Single => (Head::Pooled(settings.pooling), settings.dense),
            // The dense layer was trained on pooled vectors.
            VectorKind::PerToken => (Head::PerToken, None),
        };
        Ok(Self {
            query: form(settings.query_prompt),
            passage: form(settings.passage_prompt),
            projection: dense.map(|folder| ProjectionSource::File(folder.join("model.safetensors"))),
            transformer: settings.transformer,
            bert,
            tokenizer,
            head,
        })
    }

    /// Changes what the user wants otherwise, and checks that every text fits into the model.
    fn apply(&mut self, config: &EncoderConfig) -> Result<(), String> {
        let max_positions = self.bert.max_position_embeddings;
        let wanted = [
            (&mut self.query, config.max_query_tokens, &config.query_prefix),
            (&mut self.passage, config.max_passage_tokens, &config.passage_prefix),
        ];
        for (form, max_tokens, prefix) in wanted {
            form.max_tokens = max_tokens.unwrap_or(form.max_tokens.min(max_positions));
            if form.max_tokens < colbert::MIN_TOKENS || form.max_tokens > max_positions {
                let limits = format!("{} to {max_positions}", colbert::MIN_TOKENS);
                return Err(format!("texts of at most {} tokens: give {limits}", form.max_tokens));
            }
            if let Some(prefix) = prefix {
                form.prefix.clone_from(prefix);
            }
        }
        if self.head != Head::PerToken && (config.projection.is_some() || config.skip_punctuation.is_some()) {
            return Err(
                "`projection` and `skip_punctuation` are for token vectors, and this gives one a text".to_owned()
            );
        }
        if let Some(file) = &config.projection {
            if self.projection.is_some() {
                return Err("it has a projection of its own; leave `projection` out".to_owned());
            }
            self.projection = Some(ProjectionSource::File(file.clone()));
        }
        if let Some(skip) = config.skip_punctuation {
            let punctuation = || colbert::punctuation(&self.tokenizer).map_err(|error| error.to_string());
            self.passage.skipped = if skip { punctuation()? } else { BTreeSet::new() };
        }
        if config.threads == Some(0) {
            return Err("`threads` is 0".to_owned());
        }
        Ok(())
    }

    /// Reads the weights.
    fn load(self, threads: Option<usize>) -> Result<TextEncoder, ModelError> {
        let weights = open_weights(&self.transformer)?;
        let mut hash = ContentHash::new();
        self.tokenizer.hash_into(&mut hash)?;
        for form in [&self.query, &self.passage] {
            // Lengths are left out: an index of long passages and one of short ones take the same queries.
            let TextForm { prefix, marker, fill, skipped, .. } = form;
            hash.add_text(&format!("{prefix:?} {marker:?} {fill:?} {skipped:?}"));
        }
        hash.add_text(&format!("{:?}", self.head));
        let h = self.bert.hidden_size;
        let projection = match &self.projection {
            None => None,
            Some(ProjectionSource::Own(dim)) => Some(read_projection(&weights, *dim, h, &mut hash)?),
            Some(ProjectionSource::File(file)) => {
                let weights = Weights::open_file(file)?;
                let dim = weights.shape(PROJECTION).and_then(|shape| shape.first()).copied().unwrap_or(0);
                Some(read_projection(&weights, dim, h, &mut hash)?)
            }
        };
        let bert = Bert::load(&weights, self.bert, &mut hash)?;
        let pool = threads.map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build()).transpose();
        let pool = pool.map_err(|error| ModelError::Threads { reason: error.to_string() })?;
        Ok(TextEncoder {
            bert,
            tokenizer: self.tokenizer,
            query: self.query,
            passage: self.passage,
            head: self.head,
            projection,
            fingerprint: hash.finish(),
            pool,
            workspaces: Mutex::new(Vec::new()),
        })
    }
}

fn read_projection(weights: &Weights, dim: usize, h: usize, hash: &mut ContentHash) -> Result<Panels, ModelError> {
    let rows = weights.tensor_f32(PROJECTION, &[dim, h])?;
    hash.add_numbers(&rows);
    Ok(Panels::from_transposed(&rows, dim, h))
}

/// [`Weights::open`], with the way out for checkpoints that were published as PyTorch's files alone.
fn open_weights(dir: &Path) -> Result<Weights, ModelError> {
    Weights::open(dir).map_err(|error| match error {
        ModelError::MissingFile { folder, file, .. } if folder.join("pytorch_model.bin").is_file() => {
            ModelError::MissingFile { folder, file, advice: CONVERT }
        }
        other => other,
    })
}

const CONVERT: &str = "it has pytorch_model.bin, which is not read; convert it once, in that folder, with \
    `python -c \"import torch, safetensors.torch as s; w = torch.load('pytorch_model.bin', weights_only=True); \
    s.save_file({k: v.clone().contiguous() for k, v in w.items()}, 'model.safetensors')\"`";
