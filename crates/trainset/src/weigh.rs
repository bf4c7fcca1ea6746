//! Scores to weights: `w_m = p(y | x, z_m) / sum_m' p(y | x, z_m')` over the M trajectories of the same question, equation 7
//! of arXiv 2505.20128.
//!
//! All sums are in log space: an answer of 20 tokens at 1e-3 each is 1e-60, below f32.
//! Everything else is an option: other kinds of weights ([`WeightKind`]); `correct_sampling` multiplies by p(z | x) / b(z | x)
//! where trajectories came from another distribution b (temperature, top-p); tempering, a null trajectory and a cap keep single
//! trajectories from taking all; questions that teach nothing can be left out.
use crate::baseline::{Draw, leave_one_out};
use crate::{Rewards, Scored, TrainsetError};
use exsearch_schema::Source;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How trajectories are weighed. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightsConfig {
    /// What the weights are proportional to. Default `posterior`.
    pub kind: WeightKind,
    /// Which score of the trajectory's own answer `reward`, `rejection` and the two `drop` settings look at. Default
    /// `exact_match`.
    pub reward: RewardKind,
    /// Whether posterior weights are multiplied by p(z | x) / b(z | x). Needed when sampling at another temperature than 1
    /// or with top-p below 1; high in variance for long trajectories. Default off.
    pub correct_sampling: bool,
    /// log of the most that this ratio may be (truncated importance sampling, Ionides 2008). Default none.
    pub max_log_ratio: Option<f64>,
    /// The effective sample size that a question's weights must have, at least 1: they become w^beta, normalized, with the largest
    /// beta up to 1 that reaches it, or 0 where too few samples did not fail. Default none.
    pub min_effective_sample_size: Option<f64>,
    /// log of what a trajectory that is never learned from adds to the normalizing sum, in the units of `kind`: a question whose
    /// trajectories are all much less probable contributes little instead of a full weight. Default none.
    pub null_logprob: Option<f64>,
    /// The most that one trajectory may weigh; what is above is lost. Default none.
    pub max_weight: Option<f64>,
    /// What is subtracted from the weight of a trajectory where its path is learned, z in log p(z | x), and not where the answer is.
    /// Where less than nothing is left the path is unlearned, without bound: on SmolLM2 two epochs over the same samples cost what the
    /// warm-up had taught (docs/LOG.md). Default `none`.
    pub control_variate: ControlVariate,
    /// Whether questions that every sample answers right (reward 1) contribute nothing. Default off.
    pub drop_all_right: bool,
    /// Whether questions that no sample answers even partly right (reward 0) contribute nothing. Default off.
    pub drop_all_wrong: bool,
    /// Questions whose best log p(y | x, z) is below this contribute nothing and are counted. Default none.
    pub min_answer_logprob: Option<f64>,
    /// Trajectories over which `reference` weights are normalized, in the order given. Default 4.
    pub reference_batch: usize,
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
    /// The reward of the trajectory's own answer: the goal-oriented variant of arXiv 2505.20128. Nothing where all are 0.
    Reward,
    /// All on the trajectory with the greatest posterior weight, the first of equals.
    BestOf,
    /// The same for every trajectory whose reward is 1, nothing for others (rejection sampling fine-tuning, as in STaR, arXiv
    /// 2203.14465).
    Rejection,
    /// What the published code computes instead of the posterior, for comparison only: the mean cross-entropy over all of the
    /// model's turns and the answer, divided by its sum over `reference_batch` trajectories of whatever questions. It grows with
    /// the loss (github.com/mangopy/SearchLM, `src/tuning/trainer.py`: the exponential goes to a misspelt name).
    Reference,
}

/// A baseline b_m of the weights w_m: `sum_m (w_m - b_m) grad log p(z_m | x)` in place of `sum_m w_m grad log p(z_m | x)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlVariate {
    /// b_m = 0.
    None,
    /// b_m is what w_m would be if sample m were as good as the others in the mean, 1/M in the simplest case: the same mean of the
    /// gradient, in general with less variance (after TRICE, arXiv 2312.02179). `baseline.rs` derives it and says where it is not.
    LeaveOneOut,
}

/// A score of the trajectory's own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// Exact match.
    ExactMatch,
    /// Token F1.
    F1,
    /// A gold answer is contained, on whole tokens.
    Accuracy,
}

impl RewardKind {
    fn of(self, rewards: &Rewards) -> f64 {
        match self {
            Self::ExactMatch => rewards.exact_match,
            Self::F1 => rewards.f1,
            Self::Accuracy => rewards.accuracy,
        }
    }
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
    /// b_m: what the path of the trajectory counts less than its answer, 0 without a control variate.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub baseline: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
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
    /// log( 1/M sum_m p(y | x, z_m) ) over the fresh draws, failures counting as p = 0; absent when all of them failed.
    pub log_mean_likelihood: Option<f64>,
    /// max_m log p(y | x, z_m); absent when all failed.
    pub best_answer_logprob: Option<f64>,
    /// The exponent that `min_effective_sample_size` took, 1 where it changed nothing.
    pub temper: f64,
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
    /// Questions left out because every sample is right, or none is.
    #[serde(default)]
    pub n_dropped: usize,
    /// Questions whose weights were tempered.
    #[serde(default)]
    pub n_tempered: usize,
    /// Questions whose fresh draws have no support, those that failed altogether included.
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
            reward: RewardKind::ExactMatch,
            correct_sampling: false,
            max_log_ratio: None,
            min_effective_sample_size: None,
            null_logprob: None,
            max_weight: None,
            control_variate: ControlVariate::None,
            drop_all_right: false,
            drop_all_wrong: false,
            min_answer_logprob: None,
            reference_batch: 4,
            zero_support_logprob: -14.0,
            failed_logprob: -100.0,
        }
    }
}

/// Weighs trajectories. They may come in any order: those of the same question are found by its id, and weights are
/// normalized among them and nothing else (but for [`WeightKind::Reference`]).
pub fn weigh(scored: &[Scored], config: &WeightsConfig) -> Result<Weighed, TrainsetError> {
    config.check()?;
    check_logprobs(scored, config)?;
    let mut weights: Vec<Weight> = scored.iter().map(unweighed).collect();
    let rewards = rewards(scored, config)?;
    let log_ratios: Vec<f64> = scored.iter().map(|scored| log_ratio(scored, config)).collect();
    let reference = match config.kind {
        WeightKind::Reference => reference_weights(scored, config.reference_batch),
        _ => Vec::new(),
    };
    let groups = group_by_question(scored)?;
    let mut questions = Vec::with_capacity(groups.len());
    let mut diagnostics =
        Diagnostics { n_questions: groups.len(), n_trajectories: scored.len(), ..Diagnostics::default() };
    for sample_positions in &groups {
        let samples: Vec<&Weight> = samples_of(&weights, sample_positions).collect();
        let of = |all: &[f64]| -> Vec<f64> {
            sample_positions.iter().filter_map(|&position| all.get(position).copied()).collect()
        };
        let is_fresh: Vec<bool> = sample_positions.iter().map(|&position| scored[position].source.is_none()).collect();
        let mut question = question_diagnostics(&samples, &is_fresh);
        let is_below_min = match (question.best_answer_logprob, config.min_answer_logprob) {
            (Some(best), Some(min)) => best < min,
            _ => false,
        };
        let rewards = of(&rewards);
        let is_dropped = config.drop_all_right && rewards.iter().all(|&reward| reward >= 1.0)
            || config.drop_all_wrong && rewards.iter().all(|&reward| reward == 0.0);
        let log_weights = log_weights(&samples, &of(&log_ratios), &rewards, config);
        let (uncapped, temper) = match (is_below_min || is_dropped, config.kind) {
            (true, _) => (vec![0.0; samples.len()], 1.0),
            (false, WeightKind::Reference) => (of(&reference), 1.0),
            (false, WeightKind::Uniform) => (uniform(&samples), 1.0),
            (false, _) => normalized(&log_weights, config),
        };
        let cap = config.max_weight.unwrap_or(f64::INFINITY);
        let normalized: Vec<f64> = uncapped.into_iter().map(|weight| weight.min(cap)).collect();
        question.temper = temper;
        question.effective_sample_size = effective_sample_size(&normalized);
        let baselines = match config.control_variate {
            ControlVariate::LeaveOneOut if !(is_below_min || is_dropped) => {
                let draw = |(&position, &log_weight): (&usize, &f64)| Draw {
                    log_weight,
                    log_ratio: log_ratios[position],
                    is_fresh: !matches!(scored[position].source, Some(Source::Kept { .. })),
                };
                let draws: Vec<Draw> = sample_positions.iter().zip(&log_weights).map(draw).collect();
                leave_one_out(&draws, |log_weights, idx| self::normalized(log_weights, config).0[idx].min(cap))
            }
            _ => vec![0.0; samples.len()],
        };
        for ((&position, weight), baseline) in sample_positions.iter().zip(normalized).zip(baselines) {
            (weights[position].weight, weights[position].baseline) = (weight, baseline);
        }
        let best = question.best_answer_logprob;
        diagnostics.n_failed += question.n_failed;
        diagnostics.n_all_failed += usize::from(best.is_none());
        diagnostics.n_below_min += usize::from(is_below_min);
        diagnostics.n_dropped += usize::from(is_dropped);
        diagnostics.n_tempered += usize::from(question.temper < 1.0);
        let fresh = samples_of(&weights, sample_positions).zip(&is_fresh).filter(|(_, is_fresh)| **is_fresh);
        let is_supported = |logprob: f64| logprob >= config.zero_support_logprob;
        let has_support = fresh.filter_map(|(sample, _)| sample.answer_logprob).any(is_supported);
        diagnostics.n_zero_support += usize::from(!has_support);
        diagnostics.mean_effective_sample_size += question.effective_sample_size;
        diagnostics.bound += question.log_mean_likelihood.unwrap_or(config.failed_logprob);
        questions.push(question);
    }
    let n_questions = groups.len().max(1) as f64;
    diagnostics.zero_support_rate = diagnostics.n_zero_support as f64 / n_questions;
    diagnostics.mean_effective_sample_size /= n_questions;
    diagnostics.bound /= n_questions;
    Ok(Weighed { weights, questions, diagnostics })
}

impl WeightsConfig {
    /// Refuses settings that make no sense.
    pub fn check(&self) -> Result<(), TrainsetError> {
        let fields = [
            ("max_log_ratio", self.max_log_ratio, f64::MIN, "must be a finite number"),
            ("min_answer_logprob", self.min_answer_logprob, f64::MIN, "must be a finite number"),
            ("zero_support_logprob", Some(self.zero_support_logprob), f64::MIN, "must be a finite number"),
            ("failed_logprob", Some(self.failed_logprob), f64::MIN, "must be a finite number"),
            ("null_logprob", self.null_logprob, f64::MIN, "must be a finite number"),
            ("min_effective_sample_size", self.min_effective_sample_size, 1.0, "must be a finite number from 1"),
            ("max_weight", self.max_weight, f64::MIN_POSITIVE, "must be a finite number above 0"),
            ("reference_batch", Some(self.reference_batch as f64), 1.0, "must be at least 1"),
        ];
        let is_bad = |value: f64, least: f64| !value.is_finite() || value < least;
        match fields.into_iter().find(|(_, value, least, _)| value.is_some_and(|value| is_bad(value, *least))) {
            Some((field, _, _, reason)) => Err(TrainsetError::BadSetting { field, reason }),
            None if self.control_variate != ControlVariate::None && !has_baseline(self.kind) => {
                let reason = "needs `kind` to be posterior, reward or rejection";
                Err(TrainsetError::BadSetting { field: "control_variate", reason })
            }
            None => Ok(()),
        }
    }
}

/// Whether weights of this kind can have a baseline: others are the same for all, go to one trajectory alone, or cross questions.
fn has_baseline(kind: WeightKind) -> bool {
    matches!(kind, WeightKind::Posterior | WeightKind::Reward | WeightKind::Rejection)
}

/// Errors where a setting needs log-probs of turns whose generator did not tell them.
fn check_logprobs(scored: &[Scored], config: &WeightsConfig) -> Result<(), TrainsetError> {
    let missing = |scored: &Scored| match scored.log_importance_ratio {
        _ if scored.failure.is_some() => None,
        _ if config.kind == WeightKind::Reference => scored.path_logprob.is_none().then_some("kind = \"reference\""),
        None if config.correct_sampling => Some("correct_sampling"),
        None if scored.source == Some(Source::Hinted) => Some("em.hinted_samples"),
        _ => None,
    };
    match scored.iter().find_map(|scored| Some((scored, missing(scored)?))) {
        Some((Scored { question_id, sample_idx, .. }, setting)) => {
            Err(TrainsetError::NoLogprobs { question_id: question_id.clone(), sample_idx: *sample_idx, setting })
        }
        None => Ok(()),
    }
}

/// The reward of each trajectory, 0 where it failed; none where no setting looks at rewards.
fn rewards(scored: &[Scored], config: &WeightsConfig) -> Result<Vec<f64>, TrainsetError> {
    let by_reward = matches!(config.kind, WeightKind::Reward | WeightKind::Rejection);
    if !(by_reward || config.drop_all_right || config.drop_all_wrong) {
        return Ok(Vec::new());
    }
    let reward = |scored: &Scored| match (&scored.rewards, &scored.failure) {
        (_, Some(_)) => Ok(0.0),
        (Some(rewards), None) => Ok(config.reward.of(rewards)),
        (None, None) => Err(TrainsetError::NoReward { question_id: scored.question_id.clone() }),
    };
    scored.iter().map(reward).collect()
}

/// [`WeightKind::Reference`]: the mean cross-entropy over turns and answer, normalized over so many in a row.
fn reference_weights(scored: &[Scored], batch: usize) -> Vec<f64> {
    let cross_entropy = |scored: &Scored| match scored.alias_logprobs.first() {
        None => 0.0,
        Some(answer) => {
            let n_tokens = scored.n_path_tokens + scored.n_answer_tokens;
            -(scored.path_logprob.unwrap_or(0.0) + f64::from(*answer)) / n_tokens.max(1) as f64
        }
    };
    let losses: Vec<f64> = scored.iter().map(cross_entropy).collect();
    let shares = losses.chunks(batch).flat_map(|losses| {
        let sum: f64 = losses.iter().sum();
        losses.iter().map(move |loss| if sum > 0.0 { loss / sum } else { 0.0 })
    });
    shares.collect()
}

/// The samples at some positions.
fn samples_of<'a>(weights: &'a [Weight], positions: &'a [usize]) -> impl Iterator<Item = &'a Weight> {
    positions.iter().map(|position| &weights[*position])
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
        baseline: 0.0,
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

fn question_diagnostics(samples: &[&Weight], is_fresh: &[bool]) -> QuestionDiagnostics {
    let logprobs: Vec<f64> = samples.iter().filter_map(|sample| sample.answer_logprob).collect();
    let fresh = || samples.iter().zip(is_fresh).filter(|(_, is_fresh)| **is_fresh).map(|(sample, _)| sample);
    let log_mean = log_sum_exp(&fresh().filter_map(|sample| sample.answer_logprob).collect::<Vec<_>>());
    let log_mean = log_mean - (fresh().count() as f64).ln();
    QuestionDiagnostics {
        question_id: samples[0].question_id.clone(),
        n_samples: samples.len(),
        n_failed: samples.len() - logprobs.len(),
        effective_sample_size: 0.0,
        log_mean_likelihood: Some(log_mean).filter(|log_mean| log_mean.is_finite()),
        best_answer_logprob: logprobs.iter().copied().max_by(f64::total_cmp),
        temper: 1.0,
    }
}

/// log of what the weights of one question's M samples are proportional to.
fn log_weights(samples: &[&Weight], log_ratios: &[f64], rewards: &[f64], config: &WeightsConfig) -> Vec<f64> {
    let posterior =
        |(sample, ratio): (&&Weight, &f64)| sample.answer_logprob.map_or(f64::NEG_INFINITY, |logprob| logprob + ratio);
    let posteriors = || samples.iter().zip(log_ratios).map(posterior).collect::<Vec<f64>>();
    let by_reward = |reward: fn(f64) -> f64| rewards.iter().map(|&it| reward(it).ln()).collect();
    match config.kind {
        WeightKind::Posterior | WeightKind::Uniform | WeightKind::Reference => posteriors(),
        WeightKind::Reward => by_reward(|reward| reward),
        WeightKind::Rejection => by_reward(|reward| if reward >= 1.0 { 1.0 } else { 0.0 }),
        WeightKind::BestOf => {
            let all = posteriors();
            let best = (0..all.len()).reduce(|best, at| if all[at] > all[best] { at } else { best });
            let is_best = |at: usize| Some(at) == best && all[at] > f64::NEG_INFINITY;
            (0..all.len()).map(|at| if is_best(at) { all[at] } else { f64::NEG_INFINITY }).collect()
        }
    }
}

/// 1/M for every sample that did not fail.
fn uniform(samples: &[&Weight]) -> Vec<f64> {
    let each = 1.0 / samples.len() as f64;
    samples.iter().map(|sample| if sample.answer_logprob.is_some() { each } else { 0.0 }).collect()
}

/// log r of a sample, as far as it counts: the correction is asked for, or the sample was drawn with a hint.
fn log_ratio(scored: &Scored, config: &WeightsConfig) -> f64 {
    let is_needed = config.correct_sampling || scored.source == Some(Source::Hinted);
    let ratio = scored.log_importance_ratio.filter(|_| is_needed).unwrap_or(0.0);
    config.max_log_ratio.map_or(ratio, |max| ratio.min(max))
}

/// The weights of log weights, tempered as `config` asks, and the exponent that it took.
fn normalized(log_weights: &[f64], config: &WeightsConfig) -> (Vec<f64>, f64) {
    let temper = config.min_effective_sample_size.map_or(1.0, |floor| exponent(log_weights, floor));
    // 0 x infinity is no number.
    let tempered = |log_weight: f64| if log_weight == f64::NEG_INFINITY { log_weight } else { temper * log_weight };
    let log_weights: Vec<f64> = log_weights.iter().copied().map(tempered).collect();
    (softmax(&log_weights, config.null_logprob.map(tempered)), temper)
}

/// The largest exponent up to 1 with which the weights have an effective sample size of `floor`, or as much as they can have.
/// The effective sample size of w^beta falls with beta.
fn exponent(log_weights: &[f64], floor: f64) -> f64 {
    let finite: Vec<f64> = log_weights.iter().copied().filter(|log_weight| log_weight.is_finite()).collect();
    let size = |beta: f64| {
        effective_sample_size(&softmax(&finite.iter().map(|log_weight| beta * log_weight).collect::<Vec<_>>(), None))
    };
    if finite.is_empty() || size(1.0) >= floor {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // 2^-40 of 1000 nats is 1e-9.
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if size(middle) >= floor { low = middle } else { high = middle }
    }
    low
}

/// exp(l - logsumexp(l and `null`)); all 0 where every l is minus infinity.
fn softmax(log_weights: &[f64], null: Option<f64>) -> Vec<f64> {
    let log_total = log_sum_exp(&log_weights.iter().copied().chain(null).collect::<Vec<_>>());
    if log_total == f64::NEG_INFINITY {
        return vec![0.0; log_weights.len()];
    }
    log_weights.iter().map(|log_weight| (log_weight - log_total).exp()).collect()
}

pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
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
