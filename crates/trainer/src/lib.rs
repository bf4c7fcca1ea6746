//! Training examples to a trained model: weighted token loss, AdamW, warm-up and cosine, clipping, accumulation.
//!
//! The loss of an optimizer step is `sum_e w_e sum_t mask_t · -log p(token_t) / sum_e sum_t mask_t` over the step's
//! examples e: the M-step's objective of arXiv 2505.20128 equation 8 up to the constant that the optimizer does not see.
//! The weight stands in the numerator only, so a sample that explains the answer badly teaches less, not the same.
//!
//! Knows nothing of agents, questions or retrieval: it meets them in `train.jsonl`.
use exsearch_kernels::{Adamw, SplitMix64};
use exsearch_model::decoder::{Adapter, Decoder, Gradients, LoraConfig, Sequence, Tape};
use exsearch_schema::Example;
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
    /// The step's weighted loss, in nats a token.
    pub loss: f64,
    /// The same without weights.
    pub nll: f64,
    /// The gradient's norm before clipping.
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
}

/// What is trained, and on what.
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
            activation_mb: 1024,
            seed: 42,
        }
    }
}

impl TrainConfig {
    /// A fresh adapter as these settings want it.
    pub fn new_adapter(&self, decoder: &Decoder) -> Adapter {
        let lora = LoraConfig { rank: self.lora_rank, alpha: self.lora_alpha };
        Adapter::new(&lora, decoder.config(), self.seed)
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
    mut student: Student<'_>,
    examples: &[Example],
    config: &TrainConfig,
    on_step: &mut dyn FnMut(&StepReport),
) -> Result<(), TrainError> {
    config.check()?;
    let examples: Vec<&Example> =
        examples.iter().filter(|example| example.weight != 0.0 && example.n_target_tokens() > 0).collect();
    check_examples(&examples, student.decoder())?;
    let n_steps = config.epochs * examples.len().div_ceil(config.batch_size);
    let mut gradients = student.gradients();
    let mut tape = Tape::new(config.activation_mb.saturating_mul(1 << 20));
    let mut moments: Vec<[Vec<f32>; 2]> =
        gradients.slices_mut().iter().map(|slice| [vec![0.0; slice.len()], vec![0.0; slice.len()]]).collect();
    let (mut step, mut n_updates, mut n_skipped_in_a_row) = (0, 0, 0);
    for epoch in 0..config.epochs {
        let order = shuffled(examples.len(), config.seed.wrapping_add(epoch as u64));
        for batch in order.chunks(config.batch_size) {
            step += 1;
            let batch: Vec<&Example> = batch.iter().map(|&idx| examples[idx]).collect();
            let mut report = accumulate(&student, &batch, &mut gradients, &mut tape);
            report.step = step;
            report.n_steps = n_steps;
            report.learning_rate = config.learning_rate_at(step, n_steps);
            report.grad_norm = gradients.norm();
            report.skipped = !(report.loss.is_finite() && report.grad_norm.is_finite());
            if report.skipped {
                gradients.clear();
                n_skipped_in_a_row += 1;
                if n_skipped_in_a_row == MAX_SKIPPED_IN_A_ROW {
                    return Err(TrainError::Diverged(n_skipped_in_a_row));
                }
            } else {
                n_skipped_in_a_row = 0;
                n_updates += 1;
                let clip = (f64::from(config.max_grad_norm) / (report.grad_norm + 1e-6)).min(1.0) as f32;
                let adamw = config.adamw(report.learning_rate, n_updates);
                update(&mut student, &mut gradients, &mut moments, clip, &adamw);
            }
            on_step(&report);
        }
    }
    Ok(())
}

const MAX_SKIPPED_IN_A_ROW: usize = 5;

fn check_examples(examples: &[&Example], decoder: &Decoder) -> Result<(), TrainError> {
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
        if example.ids.iter().any(|id| *id as usize >= decoder.config().vocab_size) {
            return Err(malformed("a token id is outside the model's vocabulary; was it made with another tokenizer?"));
        }
        if !example.weight.is_finite() {
            return Err(malformed("the weight is not finite"));
        }
        let (length, limit) = (example.ids.len(), decoder.max_positions());
        if length > limit {
            return Err(TrainError::TooLong { question_id, length, limit });
        }
    }
    Ok(())
}

/// Adds the gradients of a step's examples.
fn accumulate(student: &Student<'_>, batch: &[&Example], gradients: &mut Gradients, tape: &mut Tape) -> StepReport {
    let n_targets: usize = batch.iter().map(|example| example.n_target_tokens()).sum();
    let weights = |example: &&Example| -> Vec<f32> {
        let weight = example.weight / n_targets as f32;
        example.loss_mask.iter().map(|mask| f32::from(*mask) * weight).collect()
    };
    let weights: Vec<Vec<f32>> = batch.iter().map(weights).collect();
    let sequences: Vec<Sequence<'_>> =
        batch.iter().zip(&weights).map(|(example, weights)| Sequence { ids: &example.ids, weights }).collect();
    let (mut loss, mut nll) = (0.0, 0.0);
    for sequences in passes(&sequences) {
        let learned = match student {
            Student::Adapter { decoder, adapter } => decoder.learn(Some(adapter), sequences, gradients, tape),
            Student::Full(decoder) => decoder.learn(None, sequences, gradients, tape),
        };
        loss += learned.loss;
        nll += learned.nll / n_targets as f64;
    }
    StepReport {
        step: 0,
        n_steps: 0,
        loss,
        nll,
        grad_norm: 0.0,
        learning_rate: 0.0,
        n_target_tokens: n_targets,
        n_tokens: batch.iter().map(|example| example.ids.len()).sum(),
        skipped: false,
    }
}

/// Cuts a step's sequences into passes: as many neighbours as [`PASS_TOKENS`] holds, or one that is longer.
fn passes<'s, 'a>(sequences: &'s [Sequence<'a>]) -> impl Iterator<Item = &'s [Sequence<'a>]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let ends = rest.iter().scan(0, |n_tokens, sequence| {
            *n_tokens += sequence.ids.len();
            Some(*n_tokens)
        });
        let n_fit = ends.take_while(|n_tokens| *n_tokens <= PASS_TOKENS).count();
        let (pass, later) = rest.split_at(n_fit.max(1).min(rest.len()));
        rest = later;
        (!pass.is_empty()).then_some(pass)
    })
}

/// Tokens of short examples that are computed in one pass: what a pass costs beside its tokens, such as reading all weights,
/// is then nothing.
const PASS_TOKENS: usize = 512;

/// One step of AdamW; leaves the gradients at zero.
fn update(
    student: &mut Student<'_>,
    gradients: &mut Gradients,
    moments: &mut [[Vec<f32>; 2]],
    clip: f32,
    settings: &Adamw,
) {
    let parameters = match student {
        Student::Adapter { adapter, .. } => adapter.slices_mut(),
        Student::Full(decoder) => decoder.parameters_mut().slices_mut(),
    };
    for ((parameters, gradient), [first, second]) in parameters.into_iter().zip(gradients.slices_mut()).zip(moments) {
        settings.update(clip, parameters, gradient, [first, second]);
    }
}

impl TrainConfig {
    fn adamw(&self, learning_rate: f32, step: i32) -> Adamw {
        let Self { beta1, beta2, epsilon, weight_decay, .. } = *self;
        Adamw { learning_rate, beta1, beta2, epsilon, weight_decay, step }
    }
}

impl Student<'_> {
    fn decoder(&self) -> &Decoder {
        match self {
            Self::Adapter { decoder, .. } => decoder,
            Self::Full(decoder) => decoder,
        }
    }

    fn gradients(&self) -> Gradients {
        match self {
            Self::Adapter { adapter, .. } => Gradients::of_adapter(adapter),
            Self::Full(decoder) => Gradients::of_parameters(decoder.parameters()),
        }
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
    fn short_neighbours_share_a_pass_and_a_long_one_has_its_own() {
        let ids = vec![0; 3 * PASS_TOKENS];
        let weights = vec![0.0; ids.len()];
        let check = |lengths: &[usize], expected: &[usize]| {
            let sequences: Vec<Sequence<'_>> =
                lengths.iter().map(|&n| Sequence { ids: &ids[..n], weights: &weights[..n] }).collect();
            let sizes: Vec<usize> = passes(&sequences).map(<[_]>::len).collect();
            assert_eq!(sizes, expected, "{lengths:?}");
        };
        check(&[], &[]);
        check(&[100, 200, 212, 1], &[3, 1]);
        check(&[513, 10, 1500, 512], &[1, 1, 1, 1]);
    }

    #[test]
    fn unknown_settings_are_refused() {
        let error = serde_json::from_str::<TrainConfig>(r#"{"learning_rat": 1}"#).expect_err("a typo");
        assert!(error.to_string().contains("learning_rat"), "{error}");
        let config = TrainConfig { learning_rate: 0.0, ..TrainConfig::default() };
        assert!(config.check().is_err());
    }
}
