//! Training examples to a trained model: weighted token loss, AdamW, warm-up and cosine, clipping, accumulation.
//!
//! The loss of an optimizer step is `sum_e w_e sum_t mask_t · -log p(token_t) / sum_e sum_t mask_t` over the step's
//! examples e: the M-step's objective of arXiv 2505.20128 equation 8 up to the constant that the optimizer does not see.
//! The weight stands in the numerator only, so a sample that explains the answer badly teaches less, not the same. An example may
//! weigh its tokens differently ([`Example::target_weights`]), and the loss may hold penalties (`lesson.rs`).
//!
//! Knows nothing of agents, questions or retrieval: it meets them in `train.jsonl`.
mod lesson;
mod on_cpu;

pub use exsearch_kernels::Adamw;
pub use lesson::{Lesson, Settled};

use exsearch_kernels::SplitMix64;
use exsearch_model::decoder::{Adapter, Decoder, LoraConfig};
use exsearch_schema::Example;
use lesson::Penalties;
use on_cpu::OnCpu;
use serde::{Deserialize, Serialize};

/// How to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// What is trained: `lora` adapters beside the frozen model, or `full`, every parameter.
    pub method: Method,
    /// r of the adapters.
    pub lora_rank: usize,
    /// α of the adapters: what a pair adds is scaled by α / r.
    pub lora_alpha: f32,
    /// The learning rate after warm-up.
    pub learning_rate: f32,
    /// How often every example is seen.
    pub epochs: usize,
    /// Examples an optimizer step; their gradients are added.
    pub batch_size: usize,
    /// The part of all steps in which the learning rate rises from 0.
    pub warmup_ratio: f32,
    /// The learning rate's course after the rise.
    pub schedule: Schedule,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f32,
    /// AdamW's β1.
    pub beta1: f32,
    /// AdamW's β2.
    pub beta2: f32,
    /// AdamW's ε.
    pub epsilon: f32,
    /// The gradient is scaled down to this norm when it is longer.
    pub max_grad_norm: f32,
    /// How much a target's distance from where training began counts: `½ (log p - log p_start)²`, which is the KL divergence to the
    /// stage's first policy to second order. Costs a forward pass over all examples before the first step. Default 0, off.
    pub anchor_kl: f32,
    /// How much falling likelihood of good turns counts (λ of arXiv 2512.04220): `weight · (log p_start - log p)` of tokens
    /// that fell, in turns that fell. Costs as `anchor_kl` does. Default 0, off.
    pub likelihood_drop_penalty: f32,
    /// Memory in MB for what the layers keep for the backward pass: 0.7 MB a token of SmolLM2-135M. Of longer examples the
    /// first layers are computed again instead. Changes speed and memory, never results.
    pub activation_mb: usize,
    /// The order of the examples and the start of the adapters depend on it.
    pub seed: u64,
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Low-rank adapters.
    Lora,
    /// Every parameter.
    Full,
}

/// The learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine down to 0.
    Cosine,
    /// Stays.
    Constant,
}

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// From 1.
    pub step: usize,
    /// Steps in all.
    pub n_steps: usize,
    /// The step's weighted loss, in nats a token. Not finite is `null` in JSON, as of the two below it.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// The same without weights.
    #[serde(deserialize_with = "null_as_nan")]
    pub nll: f64,
    /// The gradient's norm before clipping.
    #[serde(deserialize_with = "null_as_nan")]
    pub grad_norm: f64,
    /// The step's learning rate.
    pub learning_rate: f32,
    /// Tokens learned.
    pub n_target_tokens: usize,
    /// Tokens computed.
    pub n_tokens: usize,
    /// Whether the step was left out because loss or gradient was not finite.
    pub skipped: bool,
}

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrainError {
    /// Nothing to learn from.
    #[error("there is no training example with a token to learn")]
    NoExamples,
    /// An example does not fit the model.
    #[error(
        "the example of question {question_id} has {length} tokens, the model takes {limit}; lower max_tokens where the training set is made"
    )]
    TooLong {
        /// Whose example it is.
        question_id: String,
        /// Its length.
        length: usize,
        /// The model's limit.
        limit: usize,
    },
    /// An example is not well formed.
    #[error("the example of question {question_id} is malformed: {reason}")]
    Malformed {
        /// Whose example it is.
        question_id: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Config(String),
    /// Too many steps in a row gave no finite gradient.
    #[error("{0} steps in a row gave a loss or gradient that is not finite; lower learning_rate")]
    Diverged(usize),
    /// The model that the steps came to is of no use.
    #[error("training ended at a model whose log-probs are not finite; lower learning_rate")]
    Broken,
}

/// What [`train_learner`] asks of a model, wherever its parameters lie.
pub trait Learner {
    /// Ids are below this.
    fn vocab_size(&self) -> usize;

    /// The longest example it takes, in tokens.
    fn max_positions(&self) -> usize;

    /// Computes the gradient of a step's loss, the sum of its lessons', in place of the one before, and keeps it.
    fn learn(&mut self, batch: &[Lesson<'_>]) -> Measured;

    /// log p of each target of each lesson, as [`Learner::learn`] would find it. The kept gradient is lost.
    fn logprobs(&mut self, batch: &[Lesson<'_>]) -> Vec<Vec<f32>>;

    /// Updates the parameters by the kept gradient, multiplied with `factor` first.
    fn update(&mut self, settings: &Adamw, factor: f32);
}

/// What [`Learner::learn`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// The step's loss.
    pub loss: f64,
    /// Sum over targets of -log p.
    pub nll: f64,
    /// The Euclidean norm of the gradient.
    pub grad_norm: f64,
}

/// What is trained on CPU, and on what.
pub enum Student<'a> {
    /// An adapter beside a frozen decoder.
    Adapter {
        /// Frozen.
        decoder: &'a Decoder,
        /// Trained.
        adapter: &'a mut Adapter,
    },
    /// Every parameter.
    Full(&'a mut Decoder),
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            lora_rank: 16,
            lora_alpha: 32.0,
            learning_rate: 1e-3,
            epochs: 2,
            batch_size: 4,
            warmup_ratio: 0.1,
            schedule: Schedule::Cosine,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 1.0,
            anchor_kl: 0.0,
            likelihood_drop_penalty: 0.0,
            activation_mb: 1024,
            seed: 42,
        }
    }
}

impl TrainConfig {
    /// The shape of the adapters.
    pub fn lora(&self) -> LoraConfig {
        LoraConfig { rank: self.lora_rank, alpha: self.lora_alpha }
    }

    /// A fresh adapter as these settings want it.
    pub fn new_adapter(&self, decoder: &Decoder) -> Adapter {
        Adapter::new(&self.lora(), decoder.config(), self.seed)
    }

    /// Memory for what layers keep for the backward pass.
    pub fn activation_bytes(&self) -> usize {
        self.activation_mb.saturating_mul(1 << 20)
    }

    /// Refuses settings that make no sense.
    pub fn check(&self) -> Result<(), TrainError> {
        let positive = [
            ("lora_rank", self.lora_rank as f32),
            ("learning_rate", self.learning_rate),
            ("epochs", self.epochs as f32),
            ("batch_size", self.batch_size as f32),
            ("max_grad_norm", self.max_grad_norm),
        ];
        for (name, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(TrainError::Config(format!("train.{name} must be positive, not {value}")));
            }
        }
        let not_negative = [("anchor_kl", self.anchor_kl), ("likelihood_drop_penalty", self.likelihood_drop_penalty)];
        for (name, value) in not_negative {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(TrainError::Config(format!("train.{name} must be 0 (off) or more, not {value}")));
            }
        }
        if !(0.0..=1.0).contains(&self.warmup_ratio) {
            return Err(TrainError::Config(format!("train.warmup_ratio must be in 0..=1, not {}", self.warmup_ratio)));
        }
        Ok(())
    }

    /// The learning rate of a step from 1: linear from 0 over the first steps, then the schedule.
    pub fn learning_rate_at(&self, step: usize, n_steps: usize) -> f32 {
        let n_warmup = (self.warmup_ratio * n_steps as f32).ceil();
        let done = (step - 1) as f32;
        if done < n_warmup {
            return self.learning_rate * (done + 1.0) / n_warmup;
        }
        match self.schedule {
            Schedule::Constant => self.learning_rate,
            Schedule::Cosine => {
                let progress = (done - n_warmup) / (n_steps as f32 - n_warmup).max(1.0);
                self.learning_rate * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos())
            }
        }
    }
}

/// Trains on `examples` and calls `on_step` after every step. The same student, examples and settings give the same result
/// to the bit, on any number of threads. Examples without a target or with weight 0 are left out.
pub fn train(
    student: Student<'_>,
    examples: &[Example],
    config: &TrainConfig,
    on_step: &mut dyn FnMut(&StepReport),
) -> Result<(), TrainError> {
    train_learner(&mut OnCpu::new(student, config.activation_bytes()), examples, config, on_step)
}

/// [`train`] for any learner; what its numbers depend on is the learner's affair.
pub fn train_learner(
    learner: &mut dyn Learner,
    examples: &[Example],
    config: &TrainConfig,
    on_step: &mut dyn FnMut(&StepReport),
) -> Result<(), TrainError> {
    config.check()?;
    let examples: Vec<&Example> =
        examples.iter().filter(|example| example.token_weights().iter().any(|weight| *weight != 0.0)).collect();
    check_examples(&examples, learner)?;
    let penalties = config.penalties();
    let logprobs = |learner: &mut dyn Learner, batch: &[&Example]| {
        let lessons = batch.iter().map(|example| Lesson::new(example, 1, penalties, None));
        learner.logprobs(&lessons.collect::<Vec<_>>())
    };
    let starts: Option<Vec<Vec<f32>>> = (!penalties.are_off())
        .then(|| examples.chunks(config.batch_size).flat_map(|batch| logprobs(learner, batch)).collect());
    let n_steps = config.epochs * examples.len().div_ceil(config.batch_size);
    let (mut step, mut n_updates, mut n_skipped_in_a_row) = (0, 0, 0);
    for epoch in 0..config.epochs {
        let order = shuffled(examples.len(), config.seed.wrapping_add(epoch as u64));
        for batch in order.chunks(config.batch_size) {
            step += 1;
            let n_target_tokens = batch.iter().map(|&idx| examples[idx].n_target_tokens()).sum();
            let lesson = |&idx: &usize| {
                let start = starts.as_ref().map(|starts| starts[idx].as_slice());
                Lesson::new(examples[idx], n_target_tokens, penalties, start)
            };
            let measured = learner.learn(&batch.iter().map(lesson).collect::<Vec<_>>());
            let report = StepReport {
                step,
                n_steps,
                loss: measured.loss,
                nll: measured.nll / n_target_tokens as f64,
                grad_norm: measured.grad_norm,
                learning_rate: config.learning_rate_at(step, n_steps),
                n_target_tokens,
                n_tokens: batch.iter().map(|&idx| examples[idx].ids.len()).sum(),
                skipped: !(measured.loss.is_finite() && measured.grad_norm.is_finite()),
            };
            if report.skipped {
                n_skipped_in_a_row += 1;
                if n_skipped_in_a_row == MAX_SKIPPED_IN_A_ROW {
                    return Err(TrainError::Diverged(n_skipped_in_a_row));
                }
            } else {
                n_skipped_in_a_row = 0;
                n_updates += 1;
                let clip = (f64::from(config.max_grad_norm) / (report.grad_norm + 1e-6)).min(1.0) as f32;
                learner.update(&config.adamw(report.learning_rate, n_updates), clip);
            }
            on_step(&report);
        }
    }
    // The last update has no step after it that would tell.
    let batch = &examples[..examples.len().min(config.batch_size)];
    let is_finite = logprobs(learner, batch).iter().flatten().all(|logprob| logprob.is_finite());
    if is_finite { Ok(()) } else { Err(TrainError::Broken) }
}

const MAX_SKIPPED_IN_A_ROW: usize = 5;

fn null_as_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn check_examples(examples: &[&Example], learner: &dyn Learner) -> Result<(), TrainError> {
    if examples.is_empty() {
        return Err(TrainError::NoExamples);
    }
    for example in examples {
        let question_id = example.question_id.clone();
        let malformed =
            |reason: &str| TrainError::Malformed { question_id: question_id.clone(), reason: reason.into() };
        if example.ids.len() != example.loss_mask.len() {
            return Err(malformed("ids and loss_mask differ in length"));
        }
        if example.loss_mask[0] != 0 {
            return Err(malformed("the first token has nothing to be predicted from"));
        }
        if example.ids.iter().any(|id| *id as usize >= learner.vocab_size()) {
            return Err(malformed("a token id is outside the model's vocabulary; was it made with another tokenizer?"));
        }
        if !example.token_weights().iter().all(|weight| weight.is_finite()) {
            return Err(malformed("the weight is not finite"));
        }
        if example.weight < 0.0 {
            return Err(malformed("the weight is below 0, as only single tokens' may be (target_weights)"));
        }
        if !example.target_weights.is_empty() && example.target_weights.len() != example.n_target_tokens() {
            return Err(malformed("target_weights and the learned tokens differ in number"));
        }
        let (length, limit) = (example.ids.len(), learner.max_positions());
        if length > limit {
            return Err(TrainError::TooLong { question_id, length, limit });
        }
    }
    Ok(())
}

impl TrainConfig {
    fn penalties(&self) -> Penalties {
        Penalties { drop: self.likelihood_drop_penalty, anchor: self.anchor_kl }
    }

    fn adamw(&self, learning_rate: f32, step: i32) -> Adamw {
        let Self { beta1, beta2, epsilon, weight_decay, .. } = *self;
        Adamw { learning_rate, beta1, beta2, epsilon, weight_decay, step }
    }
}

/// 0..count in an order that depends on the seed alone: Fisher-Yates over splitmix64.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut random = SplitMix64(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_nearly_zero() {
        let config = TrainConfig { learning_rate: 1.0, warmup_ratio: 0.2, ..TrainConfig::default() };
        let rates: Vec<f32> = (1..=10).map(|step| config.learning_rate_at(step, 10)).collect();
        assert_eq!(&rates[..3], [0.5, 1.0, 1.0]);
        assert!(rates[2..].is_sorted_by(|a, b| a >= b), "{rates:?}");
        assert!(rates[9] > 0.0 && rates[9] < 0.05, "{rates:?}");
        let constant = TrainConfig { schedule: Schedule::Constant, warmup_ratio: 0.0, ..config };
        assert!((1..=10).all(|step| constant.learning_rate_at(step, 10) == 1.0));
    }

    #[test]
    fn shuffles_are_permutations_that_follow_the_seed() {
        let mut order = shuffled(100, 1);
        assert_eq!(order, shuffled(100, 1));
        assert_ne!(order, shuffled(100, 2));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..100));
    }

    #[test]
    fn a_step_that_is_not_finite_comes_back_from_json() {
        let text = r#"{"step":1,"n_steps":2,"loss":null,"nll":0.5,"grad_norm":null,"learning_rate":1.0,"n_target_tokens":3,"n_tokens":4,"skipped":true}"#;
        let step: StepReport = serde_json::from_str(text).expect("a step");
        assert!(step.loss.is_nan() && step.grad_norm.is_nan() && step.nll == 0.5);
        assert_eq!(serde_json::to_string(&step).expect("JSON"), text);
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<TrainConfig>(r#"{"learning_rat": 1}"#).expect_err("a typo");
        assert!(error.to_string().contains("learning_rat"), "{error}");
        let config = TrainConfig { learning_rate: 0.0, ..TrainConfig::default() };
        assert!(config.check().is_err());
    }
}
