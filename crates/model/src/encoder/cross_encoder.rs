//! A BERT with a classifier of one label -> scores of pairs: `[CLS] query [SEP] passage [SEP]`, pooled, one number.
//!
//! The layout is transformers' BertForSequenceClassification, with the settings that sentence-transformers' CrossEncoder saves
//! beside it (cross-encoder/ms-marco-MiniLM-L6-v2 and its family). Where this departs from them: texts that spell a marker do
//! not become one. What a folder asks for and cannot be computed faithfully is refused with its name.
//!
//! Legend: n = tokens of a pair, h = hidden size.
use super::bert::{Bert, TokenIds};
use super::config::BertConfig;
use super::hash::ContentHash;
use super::open_weights;
use super::packs::PackedBert;
use super::sentence::{MODULES, PROMPTS, read_max_tokens};
use super::tokens::BertTokenizer;
use crate::weights::Weights;
use crate::{ModelError, files};
use exsearch_kernels::{MatMut, MatRef, Operand, Panels, dot, exp_in_place, matmul_serial, scale};
use exsearch_schema::{CrossEncoder, EncodeError};
use serde_json::Value;
use std::path::Path;

/// Opens the cross-encoder of a folder. It runs on the threads of the calling rayon pool.
///
/// # Errors
/// When the folder holds no BERT with a classifier of one label, when files are missing or do not fit together, and when it
/// asks for an activation, a prompt or a module that is not known.
pub fn open_cross_encoder(dir: &Path) -> Result<Box<dyn CrossEncoder>, ModelError> {
    let config = BertConfig::open(dir)?;
    let invalid = |reason: String| ModelError::InvalidConfig { path: dir.to_owned(), reason };
    if config.n_token_types < 2 {
        return Err(invalid("its `type_vocab_size` is 1: it cannot tell a query from a passage".to_owned()));
    }
    // First what tells whether it is one at all.
    let weights = open_weights(dir)?;
    let head = ClassifierHead::load(dir, &weights, config.hidden_size, ScoreActivation::open(dir)?)?;
    check_modules(dir)?;
    let tokenizer = BertTokenizer::open(dir, config.vocab_size)?;
    tokenizer.check_pairs()?;
    let max_tokens = read_max_tokens(dir)?.unwrap_or(usize::MAX).min(config.max_position_embeddings);
    if max_tokens < MIN_TOKENS {
        return Err(invalid(format!("pairs of at most {max_tokens} tokens: they need {MIN_TOKENS}")));
    }
    // Scores are not stored, so that nothing asks for a fingerprint.
    let bert = PackedBert::new(Bert::load(&weights, config, &mut ContentHash::new())?, None)?;
    Ok(Box::new(PairScorer { bert, tokenizer, max_tokens, head }))
}

/// Whether the config.json of a folder says that it is a BERT for sequence classification.
pub(super) fn is_cross_encoder(dir: &Path) -> bool {
    let config = files::read_json(&dir.join("config.json")).unwrap_or_default();
    config["architectures"][0] == "BertForSequenceClassification"
}

/// Room for the three markers and a token of each text.
const MIN_TOKENS: usize = 5;

struct PairScorer {
    bert: PackedBert,
    tokenizer: BertTokenizer,
    /// All ids of a pair together.
    max_tokens: usize,
    head: ClassifierHead,
}

impl CrossEncoder for PairScorer {
    fn score(&self, query: &str, passages: &[&str]) -> Result<Vec<f32>, EncodeError> {
        let scores = self.tokenizer.encode(query).and_then(|query| {
            self.bert.run(passages, |passage| self.pair(&query, passage), |_, hidden| self.head.score(hidden))
        });
        scores.map_err(|error| EncodeError(error.to_string()))
    }
}

impl PairScorer {
    fn pair(&self, query: &[u32], passage: &str) -> Result<TokenIds, ModelError> {
        let passage = self.tokenizer.encode(passage)?;
        let (n_query, n_passage) = longest_first(query.len(), passage.len(), self.max_tokens - 3);
        let mut ids = Vec::with_capacity(n_query + n_passage + 3);
        ids.push(self.tokenizer.open_id);
        ids.extend(&query[..n_query]);
        ids.push(self.tokenizer.close_id);
        let n_first_type = ids.len();
        ids.extend(&passage[..n_passage]);
        ids.push(self.tokenizer.close_id);
        Ok(TokenIds { n_attended: ids.len(), n_first_type, ids })
    }
}

/// How many tokens of two texts are kept so that both fit into `room`: the longer one loses its end first. Of two that are
/// both cut the longer one keeps the odd token, of equals the second (`longest_first` of the crate tokenizers 0.23).
fn longest_first(n_first: usize, n_second: usize, room: usize) -> (usize, usize) {
    if n_first + n_second <= room {
        return (n_first, n_second);
    }
    let n_shorter = n_first.min(n_second).min(room / 2);
    if n_first <= n_second { (n_shorter, room - n_shorter) } else { (room - n_shorter, n_shorter) }
}

/// `activation(w · tanh(W x + b) + c)` of the first hidden state x: BERT's pooler and a classifier of one label.
struct ClassifierHead {
    /// W `[h, h]`.
    pooler: Panels,
    pooler_bias: Vec<f32>,
    /// w `[h]`.
    classifier: Vec<f32>,
    classifier_bias: f32,
    activation: ScoreActivation,
}

const CLASSIFIER: &str = "classifier.weight";

impl ClassifierHead {
    fn load(dir: &Path, weights: &Weights, h: usize, activation: ScoreActivation) -> Result<Self, ModelError> {
        match weights.shape(CLASSIFIER) {
            None => {
                let reason = format!(
                    "it is no cross-encoder: its weights hold no `{CLASSIFIER}`; give a BERT for sequence classification with \
                     one label, such as cross-encoder/ms-marco-MiniLM-L6-v2"
                );
                return Err(ModelError::InvalidConfig { path: dir.to_owned(), reason });
            }
            Some([n_labels, _]) if *n_labels != 1 => {
                let feature = format!("a score for each of {n_labels} labels instead of one");
                return Err(ModelError::UnsupportedFeature { path: dir.to_owned(), feature });
            }
            Some(_) => {}
        }
        Ok(Self {
            pooler: Panels::from_transposed(&weights.tensor_f32("bert.pooler.dense.weight", &[h, h])?, h, h),
            pooler_bias: weights.tensor_f32("bert.pooler.dense.bias", &[h])?,
            classifier: weights.tensor_f32(CLASSIFIER, &[1, h])?,
            classifier_bias: weights.tensor_f32("classifier.bias", &[1])?[0],
            activation,
        })
    }

    /// The score of a pair by its hidden states `[n, h]`.
    fn score(&self, hidden: &[f32]) -> f32 {
        let h = self.classifier.len();
        let mut pooled = self.pooler_bias.clone();
        let (first, product) = (MatRef::new(&hidden[..h], 1, h), MatMut::new(&mut pooled, 1, h));
        matmul_serial(first, Operand::Panels(&self.pooler), product, true);
        tanh(&mut pooled);
        self.activation.apply(dot(&self.classifier, &pooled) + self.classifier_bias)
    }
}

/// `tanh(x) = 1 - 2 / (1 + e^2x)`, by the exponential of the kernels: the system's differs from system to system.
fn tanh(row: &mut [f32]) {
    scale(row, 2.0);
    exp_in_place(row, 0.0);
    row.iter_mut().for_each(|x| *x = 1.0 - 2.0 / (1.0 + *x));
}

/// What sentence-transformers puts behind the classifier. It changes the scores and, but for rounding, no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScoreActivation {
    Identity,
    Sigmoid,
}

impl ScoreActivation {
    /// By the first file that names one: it has moved with the versions of sentence-transformers. None does: the sigmoid,
    /// as that has it for one label.
    fn open(dir: &Path) -> Result<Self, ModelError> {
        let (settings, config) = (dir.join(PROMPTS), dir.join("config.json"));
        let json = files::read_json(&config)?;
        let places = [
            (&settings, read_optional(&settings)?["activation_fn"].clone()),
            (&config, json["sentence_transformers"]["activation_fn"].clone()),
            (&config, json["sbert_ce_default_activation_function"].clone()),
        ];
        for (path, name) in &places {
            let Some(name) = name.as_str() else { continue };
            // `torch.nn.modules.linear.Identity`; where the class lies may change.
            return match name.rsplit('.').next().unwrap_or(name) {
                "Identity" => Ok(Self::Identity),
                "Sigmoid" => Ok(Self::Sigmoid),
                _ => {
                    let feature = format!("the activation `{name}`");
                    Err(ModelError::UnsupportedFeature { path: path.to_path_buf(), feature })
                }
            };
        }
        Ok(Self::Sigmoid)
    }

    fn apply(self, logit: f32) -> f32 {
        match self {
            Self::Identity => logit,
            Self::Sigmoid => {
                let mut power = [-logit];
                exp_in_place(&mut power, 0.0);
                1.0 / (1.0 + power[0])
            }
        }
    }
}

/// Refuses what sentence-transformers would do beside the model: other modules, a prompt before every pair.
fn check_modules(dir: &Path) -> Result<(), ModelError> {
    let path = dir.join(MODULES);
    let modules = read_optional(&path)?;
    for (module_idx, module) in modules.as_array().map_or(&[][..], Vec::as_slice).iter().enumerate() {
        let kind = module["type"].as_str().unwrap_or_default();
        if module_idx > 0 || !kind.ends_with(".Transformer") || module["path"] != "" {
            let feature = format!("the module `{kind}` in place {module_idx}");
            return Err(ModelError::UnsupportedFeature { path, feature });
        }
    }
    let path = dir.join(PROMPTS);
    let settings = read_optional(&path)?;
    if let Some(name) = settings["default_prompt_name"].as_str()
        && settings["prompts"][name].as_str().is_some_and(|prompt| !prompt.is_empty())
    {
        let feature = format!("the prompt `{name}` before every pair");
        return Err(ModelError::UnsupportedFeature { path, feature });
    }
    Ok(())
}

/// A JSON file that need not be there.
fn read_optional(path: &Path) -> Result<Value, ModelError> {
    if path.is_file() { files::read_json(path) } else { Ok(Value::Null) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_is_cut_first() {
        for (lengths, room, expected) in [
            ((3, 7), 10, (3, 7)),
            ((3, 9), 10, (3, 7)),
            ((9, 3), 10, (7, 3)),
            ((20, 30), 10, (5, 5)),
            ((20, 30), 11, (5, 6)),
            ((30, 20), 11, (6, 5)),
            ((20, 20), 11, (5, 6)),
            ((5, 30), 10, (5, 5)),
            ((0, 30), 10, (0, 10)),
        ] {
            assert_eq!(longest_first(lengths.0, lengths.1, room), expected, "{lengths:?} in {room}");
        }
    }

    #[test]
    fn tanh_is_that_of_the_library() {
        let inputs = [-100.0, -9.0, -1.0, -1e-3, 0.0, 1e-5, 0.3, 2.0, 12.0, 1e4];
        let mut row = inputs;
        tanh(&mut row);
        for (x, y) in inputs.iter().zip(row) {
            assert!((x.tanh() - y).abs() < 3e-7, "tanh({x}) = {y}");
        }
    }
}
