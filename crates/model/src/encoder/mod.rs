//! Text encoders on CPU: a folder with a BERT checkpoint -> an [`Encoder`] or a
//! [`CrossEncoder`](exsearch_schema::CrossEncoder) of the seam crate.
//!
//! Three layouts of encoders are known: ColBERT's (artifact.metadata), sentence-transformers' (modules.json) and a plain BERT
//! (config.json alone); one of cross-encoders, a BERT for sequence classification. What a folder asks for and cannot be computed
//! faithfully is refused with its name. Numbers do not depend on the batch, the threads or the instruction set.
//!
//! With the feature `ort` the weights of an encoder may be an ONNX file instead, for checkpoints that were quantized to int8;
//! onnxruntime computes with it, whose numbers depend on its version and on the processor.
mod attention;
mod backbone;
mod bert;
mod colbert;
mod config;
mod cross_encoder;
mod hash;
mod info;
#[cfg(feature = "ort")]
mod onnx;
mod packs;
mod sentence;
mod text_encoder;
mod tokens;

pub use config::{Activation, BertConfig, KNOWN_MODEL_TYPES};
pub use cross_encoder::open_cross_encoder;
pub use info::{EncoderInfo, Layout, TextInfo, describe_encoder, is_encoder};
#[cfg(feature = "ort")]
pub use onnx::load_onnxruntime;

use crate::ModelError;
use crate::weights::Weights;
use backbone::Backbone;
use bert::Bert;
use colbert::{ColbertSettings, is_colbert};
use cross_encoder::is_cross_encoder;
use exsearch_kernels::Panels;
use exsearch_schema::{Encoder, VectorKind};
use hash::ContentHash;
use packs::PackedBert;
use sentence::SentenceSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
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

/// Errors unless the folder opens as what its config.json says it is, an encoder or a cross-encoder.
pub(crate) fn check_folder(dir: &Path) -> Result<(), ModelError> {
    match is_cross_encoder(dir) {
        true => open_cross_encoder(dir).map(drop),
        false => open_encoder(dir, None, &EncoderConfig::default()).map(drop),
    }
}

/// Opens the encoder of a folder, or with the feature `ort` an ONNX file of one: `FOLDER/NAME.onnx` or, as sentence-transformers
/// publishes them, `FOLDER/onnx/NAME.onnx`, where FOLDER holds all but the weights. `kind` chooses between one vector a text and
/// one a token where the checkpoint can do both; unset, ColBERT gives one a token and all others one a text.
///
/// # Errors
/// When the layout, the model type or one of its settings is not known, when files are missing or do not fit together, and
/// when `kind` or `config` asks for what the checkpoint has not.
pub fn open_encoder(
    path: &Path,
    kind: Option<VectorKind>,
    config: &EncoderConfig,
) -> Result<Box<dyn Encoder>, ModelError> {
    let onnx = is_onnx(path).then_some(path);
    let dir = onnx.map_or(path, folder_of_onnx);
    let invalid = |reason: String| ModelError::InvalidConfig { path: dir.to_owned(), reason };
    let mut recipe = if is_colbert(dir) {
        if kind == Some(VectorKind::Single) {
            return Err(invalid("a ColBERT checkpoint gives vectors of tokens, not one vector a text".to_owned()));
        }
        Recipe::of_colbert(dir)?
    } else if is_cross_encoder(dir) {
        return Err(invalid(
            "it is a cross-encoder, which scores a query and a passage together and gives no vectors; it can rerank"
                .to_owned(),
        ));
    } else {
        Recipe::of_sentences(dir, kind.unwrap_or(VectorKind::Single))?
    };
    recipe.apply(config).map_err(invalid)?;
    Ok(Box::new(recipe.load(onnx, config.threads)?))
}

/// Whether a path is that of an ONNX file.
pub fn is_onnx(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// The folder of which an ONNX file has the weights: its own or, when that is one of weights only, the one above.
fn folder_of_onnx(file: &Path) -> &Path {
    let own = file.parent().unwrap_or(Path::new(""));
    let is_encoder = |dir: &Path| dir.join("config.json").is_file();
    match own.parent() {
        Some(above) if !is_encoder(own) && is_encoder(above) => above,
        _ => own,
    }
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

/// Where the weights of the BERT are.
enum WeightsSource<'p> {
    Safetensors(Weights),
    Onnx(&'p Path),
}

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

    /// Reads the weights, those of `onnx` where it is given.
    fn load(self, onnx: Option<&Path>, threads: Option<usize>) -> Result<TextEncoder, ModelError> {
        let weights = match onnx {
            Some(file) => WeightsSource::Onnx(file),
            None => WeightsSource::Safetensors(open_weights(&self.transformer)?),
        };
        let mut hash = ContentHash::new();
        self.tokenizer.hash_into(&mut hash)?;
        for form in [&self.query, &self.passage] {
            // Lengths are left out: an index of long passages and one of short ones take the same queries.
            let TextForm { prefix, marker, fill, skipped, .. } = form;
            hash.add_text(&format!("{prefix:?} {marker:?} {fill:?} {skipped:?}"));
        }
        hash.add_text(&format!("{:?}", self.head));
        let h = self.bert.hidden_size;
        let projection = match (&self.projection, &weights) {
            (None, _) => None,
            (Some(ProjectionSource::Own(dim)), WeightsSource::Safetensors(weights)) => {
                Some(read_projection(weights, *dim, h, &mut hash)?)
            }
            (Some(ProjectionSource::Own(_)), WeightsSource::Onnx(_)) => {
                let (path, feature) = (self.transformer, "a ColBERT checkpoint in an ONNX file".to_owned());
                return Err(ModelError::UnsupportedFeature { path, feature });
            }
            (Some(ProjectionSource::File(file)), _) => {
                let weights = Weights::open_file(file)?;
                let dim = weights.shape(PROJECTION).and_then(|shape| shape.first()).copied().unwrap_or(0);
                Some(read_projection(&weights, dim, h, &mut hash)?)
            }
        };
        let backbone = match &weights {
            WeightsSource::Safetensors(weights) => {
                Backbone::Bert(PackedBert::new(Bert::load(weights, self.bert, &mut hash)?, threads)?)
            }
            WeightsSource::Onnx(file) => open_onnx(file, h, threads, &mut hash)?,
        };
        Ok(TextEncoder {
            backbone,
            tokenizer: self.tokenizer,
            query: self.query,
            passage: self.passage,
            head: self.head,
            projection,
            fingerprint: hash.finish(),
        })
    }
}

#[cfg(feature = "ort")]
fn open_onnx(file: &Path, h: usize, threads: Option<usize>, hash: &mut ContentHash) -> Result<Backbone, ModelError> {
    onnx::OnnxBert::load(file, h, threads, hash).map(Backbone::Onnx)
}

#[cfg(not(feature = "ort"))]
fn open_onnx(file: &Path, _: usize, _: Option<usize>, _: &mut ContentHash) -> Result<Backbone, ModelError> {
    let reason = "this program was built without onnxruntime; build it with `cargo build --release --features ort`, or give the \
                  folder, where it has model.safetensors";
    Err(ModelError::Onnx { path: file.to_owned(), reason: reason.to_owned() })
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
        ModelError::MissingFile { folder, file, .. } if folder.join("onnx").is_dir() => {
            ModelError::MissingFile { folder, file, advice: "it has a folder onnx; give one of the files in it" }
        }
        other => other,
    })
}

const CONVERT: &str = "it has pytorch_model.bin, which is not read; convert it once, in that folder, with \
    `python -c \"import torch, safetensors.torch as s; w = torch.load('pytorch_model.bin', weights_only=True); \
    s.save_file({k: v.clone().contiguous() for k, v in w.items()}, 'model.safetensors')\"`";
