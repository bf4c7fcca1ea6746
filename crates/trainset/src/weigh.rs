//! Scores to weights: `w_m = p(y | x, z_m) / sum_m' p(y | x, z_m')` over the M trajectories of the same question, equation 7
//! of arXiv 2505.20128.
//!
//! All sums are in log space: an answer of 20 tokens at 1e-3 each is 1e-60, below f32.
//! Deviations from the paper, both options: `correct_sampling` multiplies by p(z | x) / b(z | x) where trajectories came from
//! another distribution b (temperature, top-p); `min_answer_logprob` leaves out questions that no trajectory supports.
use crate::{Scored, TrainsetError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How trajectories are weighed. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightsConfig {
    /// What the weights are proportional to. Default `posterior`.
    pub kind: WeightKind,
    /// Whether posterior weights are multiplied by p(z | x) / b(z | x). Needed when sampling at another temperature than 1
    /// or with top-p below 1; high in variance for long trajectories. Default off.
    pub correct_sampling: bool,
    /// log of the most that this ratio may be (truncated importance sampling, Ionides 2008). Default none.
    pub max_log_ratio: Option<f64>,
    /// Questions whose best log p(y | x, z) is below this contribute nothing and are counted. Default none.
    pub min_answer_logprob: Option<f64>,
    /// A question has no support when its best log p(y | x, z) is below this. Only counted. Default -14, near ln 1e-6.
    pub zero_support_logprob: f64,
    /// What the bound counts for a question none of whose trajectories could be scored, in nats. Leaving it out would let
    /// failures raise the bound. Default -100.
    pub failed_logprob: f64,
}

/// What weights are proportional to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightKind {
    /// p(y | x, z): the method.
    Posterior,
    /// 1/M for every trajectory that did not fail: the ablation without w(z).
    Uniform,
}

/// The weight of a trajectory: a line of `weights.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    /// The question.
    pub question_id: String,
    /// Which of its samples.
    pub sample_idx: u32,
    /// w_m; 0 for failed trajectories.
    pub weight: f64,
    /// log p(y | x, z), in nats, all aliases together; absent when the trajectory failed.
    pub answer_logprob: Option<f64>,
    /// The most probable answer, a position in [`crate::answer_turns`]; ties go to the first.
    pub best_alias: Option<usize>,
    /// log p(z | x) - log b(z | x); absent where the generator did not tell its log-probs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_importance_ratio: Option<f64>,
}

/// The weights of an iteration and what they tell about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// One a trajectory, in the order given.
    pub weights: Vec<Weight>,
    /// One a question, in the order of their first trajectories.
    pub questions: Vec<QuestionDiagnostics>,
    /// Over all questions.
    pub diagnostics: Diagnostics,
}

/// What the weights tell about a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionDiagnostics {
    /// The question.
    pub question_id: String,
    /// M, failures included.
    pub n_samples: usize,
    /// Trajectories without a score.
    pub n_failed: usize,
    /// `(sum w)^2 / sum w^2`: between 1 and M, 0 when the question contributes nothing.
    pub effective_sample_size: f64,
    /// log( 1/M sum_m p(y | x, z_m) ), failures counting as p = 0; absent when all failed.
    pub log_mean_likelihood: Option<f64>,
    /// max_m log p(y | x, z_m); absent when all failed.
    pub best_answer_logprob: Option<f64>,
}

/// What the weights tell about an iteration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Questions with at least one trajectory, failed or not.
    pub n_questions: usize,
    /// Trajectories, failed ones included.
    pub n_trajectories: usize,
    /// Trajectories without a score: weight 0.
    pub n_failed: usize,
    /// Questions all of whose trajectories failed.
    pub n_all_failed: usize,
    /// Questions left out by `min_answer_logprob`, those that failed altogether excluded.
    pub n_below_min: usize,
    /// Questions without support, those that failed altogether included.
    pub n_zero_support: usize,
    /// `n_zero_support / n_questions`.
    pub zero_support_rate: f64,
    /// Mean over all questions; those that contribute nothing count as 0.
    pub mean_effective_sample_size: f64,
    /// The multi-sample bound mean_x log( 1/M sum_m p(y | x, z_m) ), in nats, over all questions, without the correction of
    /// sampling; those that failed altogether count as `failed_logprob`.
    pub bound: f64,
}

impl Default for WeightsConfig {
    fn default() -> Self {
        Self {
            kind: WeightKind::Posterior,
            correct_sampling: false,
            max_log_ratio: None,
            min_answer_logprob: None,
            zero_support_logprob: -14.0,
            failed_logprob: -100.0,
        }
    }
}

/// Weighs trajectories. They may come in any order: those of the same question are found by its id, and weights are
/// normalized among them and nothing else.
pub fn weigh(scored: &[Scored], config: &WeightsConfig) -> Result<Weighed, TrainsetError> {
    check(config)?;
    let is_unknown = |scored: &&Scored| scored.failure.is_none() && scored.log_importance_ratio.is_none();
    if config.correct_sampling
        && let Some(Scored { question_id, sample_idx, .. }) = scored.iter().find(is_unknown)
    {
        return Err(TrainsetError::NoRatio { question_id: question_id.clone(), sample_idx: *sample_idx });
    }
    let mut weights: Vec<Weight> = scored.iter().map(unweighed).collect();
    let groups = group_by_question(scored)?;
    let mut questions = Vec::with_capacity(groups.len());
    let mut diagnostics =
        Diagnostics { n_questions: groups.len(), n_trajectories: scored.len(), ..Diagnostics::default() };
    for sample_positions in &groups {
        let samples: Vec<&Weight> = sample_positions.iter().map(|&position| &weights[position]).collect();
        let question = question_diagnostics(&samples);
        let is_below_min = match (question.best_answer_logprob, config.min_answer_logprob) {
            (Some(best), Some(min)) => best < min,
            _ => false,
        };
        let normalized = if is_below_min { vec![0.0; samples.len()] } else { question_weights(&samples, config) };
        let effective_sample_size = effective_sample_size(&normalized);
        for (&position, weight) in sample_positions.iter().zip(normalized) {
            weights[position].weight = weight;
        }
        let best = question.best_answer_logprob;
        diagnostics.n_failed += question.n_failed;
        diagnostics.n_all_failed += usize::from(best.is_none());
        diagnostics.n_below_min += usize::from(is_below_min);
        diagnostics.n_zero_support += usize::from(best.is_none_or(|best| best < config.zero_support_logprob));
        diagnostics.mean_effective_sample_size += effective_sample_size;
        diagnostics.bound += question.log_mean_likelihood.unwrap_or(config.failed_logprob);
        questions.push(QuestionDiagnostics { effective_sample_size, ..question });
    }
    let n_questions = groups.len().max(1) as f64;
    diagnostics.zero_support_rate = diagnostics.n_zero_support as f64 / n_questions;
    diagnostics.mean_effective_sample_size /= n_questions;
    diagnostics.bound /= n_questions;
    Ok(Weighed { weights, questions, diagnostics })
}

fn check(config: &WeightsConfig) -> Result<(), TrainsetError> {
    let fields = [
        ("max_log_ratio", config.max_log_ratio),
        ("min_answer_logprob", config.min_answer_logprob),
        ("zero_support_logprob", Some(config.zero_support_logprob)),
        ("failed_logprob", Some(config.failed_logprob)),
    ];
    match fields.into_iter().find(|(_, value)| value.is_some_and(|value| !value.is_finite())) {
        Some((field, _)) => Err(TrainsetError::BadSetting { field, reason: "must be a finite number" }),
        None => Ok(()),
    }
}

/// log p(y | x, z) = logsumexp over the answers' summed log-probs.
fn unweighed(scored: &Scored) -> Weight {
    let logprobs: Vec<f64> = match scored.failure {
        None => scored.alias_logprobs.iter().copied().map(f64::from).collect(),
        Some(_) => Vec::new(),
    };
    // Later aliases win only if they are better: max_by would keep the last of equals.
    let best_alias = (0..logprobs.len()).reduce(|best, at| if logprobs[at] > logprobs[best] { at } else { best });
    let answer_logprob = Some(log_sum_exp(&logprobs)).filter(|logprob| logprob.is_finite());
    Weight {
        question_id: scored.question_id.clone(),
        sample_idx: scored.sample_idx,
        weight: 0.0,
        answer_logprob,
        best_alias: best_alias.filter(|_| answer_logprob.is_some()),
        log_importance_ratio: scored.log_importance_ratio,
    }
}

/// Positions of each question's trajectories, in the order of first appearance.
fn group_by_question(scored: &[Scored]) -> Result<Vec<Vec<usize>>, TrainsetError> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut group_of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut seen: BTreeSet<(&str, u32)> = BTreeSet::new();
    for (position, sample) in scored.iter().enumerate() {
        if !seen.insert((&sample.question_id, sample.sample_idx)) {
            let (question_id, sample_idx) = (sample.question_id.clone(), sample.sample_idx);
            return Err(TrainsetError::DuplicateSample { question_id, sample_idx });
        }
        let group = *group_of.entry(&sample.question_id).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(position);
    }
    Ok(groups)
}

fn question_diagnostics(samples: &[&Weight]) -> QuestionDiagnostics {
    let logprobs: Vec<f64> = samples.iter().filter_map(|sample| sample.answer_logprob).collect();
    let log_mean = log_sum_exp(&logprobs) - (samples.len() as f64).ln();
    QuestionDiagnostics {
        question_id: samples[0].question_id.clone(),
        n_samples: samples.len(),
        n_failed: samples.len() - logprobs.len(),
        effective_sample_size: 0.0,
        log_mean_likelihood: Some(log_mean).filter(|_| !logprobs.is_empty()),
        best_answer_logprob: logprobs.iter().copied().max_by(f64::total_cmp),
    }
}

/// The weights of one question's M samples.
fn question_weights(samples: &[&Weight], config: &WeightsConfig) -> Vec<f64> {
    let log_weight = |sample: &&Weight| {
        let ratio = if config.correct_sampling { sample.log_importance_ratio.unwrap_or(0.0) } else { 0.0 };
        let ratio = config.max_log_ratio.map_or(ratio, |max| ratio.min(max));
        sample.answer_logprob.map_or(f64::NEG_INFINITY, |logprob| logprob + ratio)
    };
    match config.kind {
        WeightKind::Uniform => {
            let each = 1.0 / samples.len() as f64;
            samples.iter().map(|sample| if sample.answer_logprob.is_some() { each } else { 0.0 }).collect()
        }
        WeightKind::Posterior => softmax(&samples.iter().map(log_weight).collect::<Vec<_>>()),
    }
}

/// exp(l - logsumexp(l)); all 0 where every l is minus infinity.
fn softmax(log_weights: &[f64]) -> Vec<f64> {
    let log_total = log_sum_exp(log_weights);
    if log_total == f64::NEG_INFINITY {
        return vec![0.0; log_weights.len()];
    }
    log_weights.iter().map(|log_weight| (log_weight - log_total).exp()).collect()
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + values.iter().map(|value| (value - max).exp()).sum::<f64>().ln()
}

fn effective_sample_size(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let sum_of_squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    if sum_of_squares == 0.0 { 0.0 } else { sum * sum / sum_of_squares }
}
