//! A stage's artifacts to alarms: signs that training collapses or drifts, each with what to look at.
//!
//! A stage's training, the trajectories and weights that it learned from, and what its model does on dev are measured, and held
//! against limits and against the first trained stage: compared with the stage before, a slow drift would never show. The
//! untrained model, which does not search, is not judged. Less than [`MIN_TRAJECTORIES`] trajectories tell nothing.
use crate::em::EStep;
use crate::error::RunError;
use crate::files;
use exsearch_evaluation::counted_prediction;
use exsearch_schema::{Author, Boundary, Outcome, SegmentKind, Trajectory};
use exsearch_trainer::StepReport;
use exsearch_trainset::{WeightKind, WeightsConfig};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Below this many trajectories shares and means are chance.
pub const MIN_TRAJECTORIES: usize = 16;

/// When a stage is told to be ill, and what is done then. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// What follows an alarm that means collapse. Default `warn`.
    pub on_collapse: OnCollapse,
    /// Optimizer steps left out because loss or gradient was not finite. Default 0.
    pub max_skipped_steps: usize,
    /// Nats a token by which the loss of a stage's last quarter of steps may lie above that of its first. Default 0.5.
    pub max_loss_growth: f64,
    /// The greatest gradient norm of a stage over its median. Default 30. No collapse.
    pub max_grad_norm_ratio: f64,
    /// The share of questions whose weights have the least effective sample size there can be. Default 0.95. No collapse.
    pub max_floor_share: f64,
    /// The share of questions without support. Default 0.9.
    pub max_zero_support_rate: f64,
    /// The share of trajectories that fail or predict nothing. Default 0.2.
    pub max_failure_rate: f64,
    /// The share of trajectories that ask a query again. Default 0.4.
    pub max_repeat_rate: f64,
    /// Empty records a step. Default 0.5.
    pub max_empty_records: f64,
    /// Steps a question over those of the first trained stage. Default 1.75.
    pub max_steps_ratio: f64,
    /// The same from below. Default 0.5.
    pub min_steps_ratio: f64,
    /// Tokens of a turn, or of an answer, over those of the first trained stage. Default 2.5.
    pub max_length_ratio: f64,
    /// The same from below. Default 0.4.
    pub min_length_ratio: f64,
    /// The mean -log p of sampled tokens over that of the first iteration. Default 0.25.
    pub min_entropy_ratio: f64,
    /// F1 on dev over that of the best stage before. Default 0.5.
    pub min_score_ratio: f64,
}

/// What follows an alarm that means collapse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCollapse {
    /// It is told.
    #[default]
    Warn,
    /// The next iteration starts from the checkpoint of the best stage so far, by F1 on dev.
    Rollback,
    /// The loop ends.
    Stop,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmKind {
    /// Steps were left out.
    SkippedSteps,
    /// Training was given up.
    Divergence,
    /// The loss rises.
    LossGrowth,
    /// A gradient is far longer than others.
    GradNorm,
    /// One trajectory takes all the weight.
    EffectiveSampleSize,
    /// Gold answers are improbable after every trajectory.
    ZeroSupport,
    /// Trajectories fail.
    Failures,
    /// Queries come again.
    RepeatedQueries,
    /// Nothing is recorded.
    EmptyRecords,
    /// Longer searches than at first.
    OverSearch,
    /// Shorter ones.
    UnderSearch,
    /// Turns of other lengths.
    TurnLength,
    /// Answers of other lengths.
    AnswerLength,
    /// Samples are all but the same.
    Entropy,
    /// Worse on dev.
    Score,
}

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The optimizer steps.
    Training,
    /// The sampled trajectories and their weights, of the model before the stage trained it.
    Sampling,
    /// What the stage's model does on dev.
    Dev,
}

/// A sign of illness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// What is wrong.
    pub name: AlarmKind,
    /// What it was seen in.
    pub of: Source,
    /// What was measured.
    pub value: f64,
    /// What it may be at most, or at least.
    pub limit: f64,
    /// Whether `on_collapse` follows.
    pub is_collapse: bool,
    /// What to look at.
    pub look_at: String,
}

/// A stage's health: `health.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// What is wrong.
    pub alarms: Vec<Alarm>,
    /// What was measured.
    pub measures: Measures,
}

/// What is measured of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Of its optimizer steps; absent where nothing was trained.
    pub training: Option<TrainingMeasures>,
    /// Of the weights that it learned by.
    pub weights: Option<WeightMeasures>,
    /// Of the trajectories that it learned from.
    pub sampling: Option<Behaviour>,
    /// Of its model on dev.
    pub dev: Behaviour,
    /// F1 on dev.
    pub dev_f1: f64,
}

/// Of a stage's optimizer steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingMeasures {
    /// Whether it was given up.
    #[serde(default)]
    pub has_diverged: bool,
    /// Steps that were left out.
    pub n_skipped: usize,
    /// Mean loss of the last quarter of the others minus that of their first, in nats a token; absent for less than 8.
    pub loss_growth: Option<f64>,
    /// Their greatest gradient norm over the median; absent for less than 8.
    pub grad_norm_ratio: Option<f64>,
}

/// Of an E-step's weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightMeasures {
    /// Questions, those that contribute nothing included.
    pub n_questions: usize,
    /// Of those that contribute, the share with the least effective sample size there can be: 1, or what tempering sees to. Absent
    /// where the settings leave nothing else.
    pub floor_share: Option<f64>,
    /// The share without support.
    pub zero_support_rate: f64,
}

/// Of trajectories.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Behaviour {
    /// How many.
    pub n_trajectories: usize,
    /// The share that failed or predicted nothing.
    pub failure_rate: f64,
    /// The share that asked a query again.
    pub repeat_rate: f64,
    /// Empty records a step.
    pub empty_records: f64,
    /// Steps a trajectory.
    pub mean_steps: f64,
    /// Tokens of a search turn.
    pub turn_tokens: f64,
    /// Tokens of an answer.
    pub answer_tokens: f64,
    /// The mean -log p under the model of the tokens of search turns, in nats: of samples an estimate of the entropy. Absent where no
    /// log-probs are known.
    pub token_surprise: Option<f64>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            on_collapse: OnCollapse::Warn,
            max_skipped_steps: 0,
            max_loss_growth: 0.5,
            max_grad_norm_ratio: 30.0,
            max_floor_share: 0.95,
            max_zero_support_rate: 0.9,
            max_failure_rate: 0.2,
            max_repeat_rate: 0.4,
            max_empty_records: 0.5,
            max_steps_ratio: 1.75,
            min_steps_ratio: 0.5,
            max_length_ratio: 2.5,
            min_length_ratio: 0.4,
            min_entropy_ratio: 0.25,
            min_score_ratio: 0.5,
        }
    }
}

impl HealthConfig {
    /// The settings as far as a run's artifacts depend on them: on the limits only where the model may be rolled back.
    pub(crate) fn reaching_artifacts(&self) -> Self {
        if self.on_collapse == OnCollapse::Rollback { self.clone() } else { Self::default() }
    }

    /// Whether a collapse changes what the run does.
    pub(crate) fn acts(&self) -> bool {
        self.on_collapse != OnCollapse::Warn
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let limits = [
            ("max_loss_growth", self.max_loss_growth),
            ("max_grad_norm_ratio", self.max_grad_norm_ratio),
            ("max_floor_share", self.max_floor_share),
            ("max_zero_support_rate", self.max_zero_support_rate),
            ("max_failure_rate", self.max_failure_rate),
            ("max_repeat_rate", self.max_repeat_rate),
            ("max_empty_records", self.max_empty_records),
            ("max_steps_ratio", self.max_steps_ratio),
            ("min_steps_ratio", self.min_steps_ratio),
            ("max_length_ratio", self.max_length_ratio),
            ("min_length_ratio", self.min_length_ratio),
            ("min_entropy_ratio", self.min_entropy_ratio),
            ("min_score_ratio", self.min_score_ratio),
        ];
        match limits.iter().find(|(_, limit)| !(limit.is_finite() && *limit >= 0.0)) {
            Some((name, _)) => Err(format!("health.{name} must be a number that is not negative")),
            None => Ok(()),
        }
    }
}

impl Health {
    /// Whether an alarm means collapse.
    pub fn has_collapsed(&self) -> bool {
        self.alarms.iter().any(|alarm| alarm.is_collapse)
    }
}

impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = match self.of {
            Source::Training => "training",
            Source::Sampling => "sampling",
            Source::Dev => "dev",
        };
        let Self { value, limit, look_at, .. } = self;
        write!(f, "{} in {of} is {value:.2}, limit {limit:.2}: {look_at}", self.name.name())
    }
}

impl AlarmKind {
    /// Its name in files and on terminals.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkippedSteps => "skipped_steps",
            Self::Divergence => "divergence",
            Self::LossGrowth => "loss_growth",
            Self::GradNorm => "grad_norm",
            Self::EffectiveSampleSize => "effective_sample_size",
            Self::ZeroSupport => "zero_support",
            Self::Failures => "failures",
            Self::RepeatedQueries => "repeated_queries",
            Self::EmptyRecords => "empty_records",
            Self::OverSearch => "over_search",
            Self::UnderSearch => "under_search",
            Self::TurnLength => "turn_length",
            Self::AnswerLength => "answer_length",
            Self::Entropy => "entropy",
            Self::Score => "score",
        }
    }

    /// Single long gradients are clipped, and sharp weights may be right.
    fn is_collapse(self) -> bool {
        !matches!(self, Self::GradNorm | Self::EffectiveSampleSize)
    }

    fn look_at(self) -> &'static str {
        match self {
            Self::SkippedSteps => {
                "steps without a finite loss or gradient were left out: look at checkpoint.steps.jsonl, and lower learning_rate"
            }
            Self::Divergence => {
                "training left no model with finite log-probs, and the stage's scores are those of the best model before it: look at \
                 checkpoint.steps.jsonl, and lower learning_rate"
            }
            Self::LossGrowth => {
                "the loss rises while the stage trains: look at checkpoint.steps.jsonl, and lower learning_rate or raise batch_size"
            }
            Self::GradNorm => {
                "one step's gradient is far longer than the others: look at its step in checkpoint.steps.jsonl and at its examples in \
                 train.jsonl"
            }
            Self::EffectiveSampleSize => {
                "one trajectory takes all the weight of nearly every question: look at weights.jsonl, and raise em.samples or set \
                 weights.min_effective_sample_size"
            }
            Self::ZeroSupport => {
                "gold answers are improbable after every sample of nearly every question: look at scores.jsonl and at what the searches \
                 found, and warm up longer or begin with easier questions"
            }
            Self::Failures => {
                "many trajectories fail or predict nothing: look at their outcomes and incidents in trajectories.jsonl"
            }
            Self::RepeatedQueries => {
                "many trajectories ask the same query again: look at their queries, and set agent.repeated_query = \"refuse\""
            }
            Self::EmptyRecords => {
                "most records are empty: look at what the searches found, and at the turns after them"
            }
            Self::OverSearch => {
                "searches have become much longer: look at the last steps of trajectories, and whether answered questions are searched on"
            }
            Self::UnderSearch => {
                "searches have become much shorter: look whether the model answers without evidence, or stops on a wrong entity"
            }
            Self::TurnLength => {
                "turns have another length than at first: look at the words of the turns for loops or lost parts"
            }
            Self::AnswerLength => {
                "answers have another length than at first: look at the predictions in eval-dev/trajectories.jsonl"
            }
            Self::Entropy => {
                "samples of a question are all but the same: look at n_merged in diagnostics.json, and lower learning_rate or the \
                 number of iterations, or raise agent.temperature"
            }
            Self::Score => "the model is much worse on dev than the best stage was: go on from that one's checkpoint",
        }
    }
}

/// Measures a stage in its folder `dir`. `steps` are its optimizer steps.
pub(crate) fn measure(
    dir: &Path,
    steps: &[StepReport],
    weights: &WeightsConfig,
    dev_f1: f64,
) -> Result<Measures, RunError> {
    let behaviour = |path: &Path| -> Result<Behaviour, RunError> { Ok(Behaviour::of(&files::read_jsonl(path)?)) };
    let e_step_path = dir.join("diagnostics.json");
    let (mut weight_measures, mut sampling) = (None, None);
    if e_step_path.is_file() {
        weight_measures = Some(WeightMeasures::of(&files::read_json(&e_step_path)?, weights));
        sampling = Some(behaviour(&dir.join("trajectories.jsonl"))?);
    }
    Ok(Measures {
        training: (!steps.is_empty()).then(|| TrainingMeasures::of(steps, !dir.join("checkpoint").is_dir())),
        weights: weight_measures,
        sampling,
        dev: behaviour(&dir.join("eval-dev").join("trajectories.jsonl"))?,
        dev_f1,
    })
}

/// The alarms of a stage. `before` are the measures of the trained stages before it, in order; `best_f1` is the best on dev of all
/// stages before it.
pub(crate) fn alarms(now: &Measures, before: &[Measures], best_f1: Option<f64>, config: &HealthConfig) -> Vec<Alarm> {
    let mut found = Found { alarms: Vec::new(), of: Source::Training };
    if let Some(training) = &now.training {
        found.above(AlarmKind::Divergence, f64::from(u8::from(training.has_diverged)), 0.0);
        found.above(AlarmKind::SkippedSteps, training.n_skipped as f64, config.max_skipped_steps as f64);
        found.above_some(AlarmKind::LossGrowth, training.loss_growth, config.max_loss_growth);
        found.above_some(AlarmKind::GradNorm, training.grad_norm_ratio, config.max_grad_norm_ratio);
    }
    found.of = Source::Sampling;
    if let Some(weights) = now.weights.as_ref().filter(|weights| weights.n_questions >= MIN_TRAJECTORIES) {
        found.above_some(AlarmKind::EffectiveSampleSize, weights.floor_share, config.max_floor_share);
        found.above(AlarmKind::ZeroSupport, weights.zero_support_rate, config.max_zero_support_rate);
    }
    if let Some(sampling) = &now.sampling {
        let first = before.iter().find_map(|stage| stage.sampling.as_ref());
        found.behaviour(sampling, first, config);
        let surprise = first.and_then(|first| first.token_surprise).zip(sampling.token_surprise);
        if let Some((first, now)) = surprise.filter(|_| sampling.tells()) {
            found.below(AlarmKind::Entropy, ratio(now, first), config.min_entropy_ratio);
        }
    }
    found.of = Source::Dev;
    found.behaviour(&now.dev, before.first().map(|stage| &stage.dev), config);
    if let Some(best) = best_f1.filter(|_| now.dev.tells()) {
        found.below(AlarmKind::Score, ratio(now.dev_f1, best), config.min_score_ratio);
    }
    found.alarms
}

struct Found {
    alarms: Vec<Alarm>,
    of: Source,
}

impl Found {
    fn push(&mut self, name: AlarmKind, value: f64, limit: f64) {
        let (of, is_collapse, look_at) = (self.of, name.is_collapse(), name.look_at().to_owned());
        self.alarms.push(Alarm { name, of, value, limit, is_collapse, look_at });
    }

    fn above(&mut self, name: AlarmKind, value: f64, limit: f64) {
        if value > limit {
            self.push(name, value, limit);
        }
    }

    fn above_some(&mut self, name: AlarmKind, value: Option<f64>, limit: f64) {
        if let Some(value) = value {
            self.above(name, value, limit);
        }
    }

    fn below(&mut self, name: AlarmKind, value: f64, limit: f64) {
        if value < limit {
            self.push(name, value, limit);
        }
    }

    fn behaviour(&mut self, now: &Behaviour, first: Option<&Behaviour>, config: &HealthConfig) {
        if !now.tells() {
            return;
        }
        self.above(AlarmKind::Failures, now.failure_rate, config.max_failure_rate);
        self.above(AlarmKind::RepeatedQueries, now.repeat_rate, config.max_repeat_rate);
        self.above(AlarmKind::EmptyRecords, now.empty_records, config.max_empty_records);
        let Some(first) = first.filter(|first| first.tells()) else { return };
        self.above(AlarmKind::OverSearch, ratio(now.mean_steps, first.mean_steps), config.max_steps_ratio);
        self.below(AlarmKind::UnderSearch, ratio(now.mean_steps, first.mean_steps), config.min_steps_ratio);
        for (name, now, first) in [
            (AlarmKind::TurnLength, now.turn_tokens, first.turn_tokens),
            (AlarmKind::AnswerLength, now.answer_tokens, first.answer_tokens),
        ] {
            self.above(name, ratio(now, first), config.max_length_ratio);
            self.below(name, ratio(now, first), config.min_length_ratio);
        }
    }
}

/// 1 where there was nothing before: what begins is no drift.
fn ratio(now: f64, before: f64) -> f64 {
    if before > 0.0 { now / before } else { 1.0 }
}

impl TrainingMeasures {
    fn of(steps: &[StepReport], has_diverged: bool) -> Self {
        let done: Vec<&StepReport> = steps.iter().filter(|step| !step.skipped).collect();
        let quarter = done.len() / 4;
        let mean = |steps: &[&StepReport]| steps.iter().map(|step| step.nll).sum::<f64>() / steps.len() as f64;
        let mut norms: Vec<f64> = done.iter().map(|step| step.grad_norm).collect();
        norms.sort_unstable_by(f64::total_cmp);
        let is_enough = done.len() >= 8;
        Self {
            has_diverged,
            n_skipped: steps.len() - done.len(),
            loss_growth: is_enough.then(|| mean(&done[done.len() - quarter..]) - mean(&done[..quarter])),
            grad_norm_ratio: is_enough.then(|| ratio(norms[norms.len() - 1], norms[norms.len() / 2])),
        }
    }
}

impl WeightMeasures {
    fn of(e_step: &EStep, config: &WeightsConfig) -> Self {
        let sizes = &e_step.effective_sample_sizes;
        let floor = config.min_effective_sample_size.unwrap_or(1.0).max(1.0);
        let at_floor = sizes.iter().filter(|size| **size <= floor + 0.01).count();
        let diagnostics = &e_step.diagnostics;
        let can_vary = config.kind != WeightKind::BestOf && diagnostics.n_trajectories > diagnostics.n_questions;
        Self {
            n_questions: diagnostics.n_questions,
            floor_share: (can_vary && !sizes.is_empty()).then(|| at_floor as f64 / sizes.len() as f64),
            zero_support_rate: diagnostics.zero_support_rate,
        }
    }
}

impl Behaviour {
    fn of(trajectories: &[Trajectory]) -> Self {
        let share = |holds: &dyn Fn(&Trajectory) -> bool| {
            let n_held = trajectories.iter().filter(|trajectory| holds(trajectory)).count();
            n_held as f64 / trajectories.len().max(1) as f64
        };
        let has_met = |it: &Trajectory, boundary| it.incidents.iter().filter(|it| it.boundary == boundary).count();
        let n_steps: usize = trajectories.iter().map(|trajectory| trajectory.steps.len()).sum();
        let n_empty: usize = trajectories.iter().map(|it| has_met(it, Boundary::EmptyRecord)).sum();
        let by_model = || {
            let segments = trajectories.iter().flat_map(|trajectory| &trajectory.segments);
            segments.filter(|segment| segment.author == Author::Model)
        };
        let mean_tokens = |of_answers: bool| {
            let turns = || by_model().filter(|turn| (turn.kind == SegmentKind::Answer) == of_answers);
            turns().map(|turn| turn.ids.len()).sum::<usize>() as f64 / turns().count().max(1) as f64
        };
        let searches = by_model().filter(|turn| turn.kind != SegmentKind::Answer);
        let logprobs: Vec<f64> = searches.flat_map(|turn| &turn.logprobs).map(|it| f64::from(*it)).collect();
        let surprise = -logprobs.iter().sum::<f64>() / logprobs.len().max(1) as f64;
        Self {
            n_trajectories: trajectories.len(),
            failure_rate: share(&|it| matches!(it.outcome, Outcome::Failed(_)) || counted_prediction(it).is_none()),
            repeat_rate: share(&|it| has_met(it, Boundary::RepeatedQuery) > 0),
            empty_records: n_empty as f64 / n_steps.max(1) as f64,
            mean_steps: n_steps as f64 / trajectories.len().max(1) as f64,
            turn_tokens: mean_tokens(false),
            answer_tokens: mean_tokens(true),
            token_surprise: (!logprobs.is_empty()).then_some(surprise),
        }
    }

    fn tells(&self) -> bool {
        self.n_trajectories >= MIN_TRAJECTORIES
    }
}

#[cfg(test)]
mod tests;
