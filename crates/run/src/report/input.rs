//! What a page is made of: a run's evaluations, E-steps, trajectories and times, as plain data.
use crate::work::Work;
use exsearch_evaluation::{PairedDifference, Report};
use exsearch_schema::{Incident, Outcome, QaRecord, Trajectory};
use serde::{Deserialize, Serialize};

/// What the page shows. Lists may be empty: their part of the page is then left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportInput {
    /// The heading.
    pub title: String,
    /// What was run on what, in a sentence or two.
    pub description: String,
    /// Untrained, warm-up, iteration 1, ...: in the order of training, all on the same questions.
    pub stages: Vec<StageResult>,
    /// The questions that the stages answered.
    pub gold: Vec<QaRecord>,
    /// Stages against each other.
    pub differences: Vec<StageDifference>,
    /// The training loss, in the order of training.
    pub loss: Vec<LossPoint>,
    /// What took how long, in the order in which it was done.
    pub timings: Vec<PartTime>,
    /// The resolved configuration.
    pub config_toml: String,
    /// The training questions of [`StageResult::samples`].
    #[serde(default)]
    pub train_gold: Vec<QaRecord>,
    /// How many training questions were sampled in all, where `samples` holds some of them only.
    #[serde(default)]
    pub n_train_questions: usize,
    /// The trajectories of at most this many held-out questions go into the page, which says so.
    #[serde(default = "default_max_questions")]
    pub max_questions: usize,
}

/// One evaluated checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageResult {
    /// As tables and curves call it.
    pub name: String,
    /// Its evaluation.
    pub report: Report,
    /// The E-step that ran on this checkpoint's trajectories, where one did.
    #[serde(default)]
    pub diagnostics: Option<Diagnostics>,
    /// What was found to be ill in it, in words.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// The evaluated trajectories, for the browser.
    pub trajectories: Vec<TrajectoryView>,
    /// Trajectories of that E-step, of the questions in [`ReportInput::train_gold`].
    #[serde(default)]
    pub samples: Vec<TrajectoryView>,
}

/// How long a part of a stage took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartTime {
    /// The stage.
    pub stage: String,
    /// What was done.
    pub part: String,
    /// Seconds of wall time.
    pub secs: f64,
    /// What was done in it, where that was measured.
    #[serde(default)]
    pub work: Option<Work>,
    /// Tokens that were trained on in it, with their contexts; absent where it is no training.
    #[serde(default)]
    pub n_trained_tokens: Option<u64>,
}

/// What an E-step tells about its trajectories and weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Diagnostics {
    /// M: trajectories a question.
    pub n_samples: u32,
    /// Mean over questions of 1 / sum_m w_m^2, between 1 and M.
    pub ess_mean: f64,
    /// Questions by effective sample size, in bins of equal width from 1 to M.
    pub ess_hist: Vec<u64>,
    /// Trajectories that have a weight by it, in bins of equal width from 0 to 1; those of questions that contribute.
    #[serde(default)]
    pub weight_hist: Vec<u64>,
    /// mean_x log( 1/M sum_m p(y | x, z_m) ) on the training questions, in nats.
    pub bound_train: f64,
    /// The same on held-out questions.
    #[serde(default)]
    pub bound_dev: Option<f64>,
    /// The share of training questions that no trajectory supports.
    pub zero_support_rate: f64,
}

/// A trajectory without its tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrajectoryView {
    /// The id of its question.
    pub question_id: String,
    /// Which of the question's samples.
    pub sample_idx: u32,
    /// What was searched and found.
    pub steps: Vec<StepView>,
    /// The predicted answer.
    pub prediction: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong on the way.
    pub incidents: Vec<Incident>,
    /// Its weight in the E-step, where it has one.
    #[serde(default)]
    pub weight: Option<f64>,
    /// log p(gold answer | trajectory) in nats, where it was scored.
    #[serde(default)]
    pub answer_logprob: Option<f64>,
}

/// One search step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepView {
    /// The sub-query.
    pub query: String,
    /// The passages, best first.
    pub hits: Vec<HitView>,
    /// Positions among the hits that a select turn chose, from 0; absent without select.
    pub chosen: Option<Vec<usize>>,
    /// The recorded evidence.
    pub record: Option<String>,
}

/// A passage as it was shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HitView {
    /// Its id in the corpus.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its words.
    pub text: String,
}

/// `after` minus `before`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageDifference {
    /// The name of the stage that is compared with.
    pub before: String,
    /// The name of the stage that is compared.
    pub after: String,
    /// The difference.
    pub difference: PairedDifference,
}

/// The training loss of one optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossPoint {
    /// The stage that was being trained.
    pub stage: String,
    /// The step within the stage.
    pub step: u64,
    /// The loss.
    pub loss: f64,
}

impl From<&Trajectory> for TrajectoryView {
    fn from(trajectory: &Trajectory) -> Self {
        let hit = |hit: &exsearch_schema::Hit| HitView {
            id: hit.id.0.clone(),
            title: hit.title.clone(),
            text: hit.text.clone(),
        };
        let step = |step: &exsearch_schema::Step| StepView {
            query: step.query.clone(),
            hits: step.hits.iter().map(hit).collect(),
            chosen: step.select.as_ref().map(|select| select.chosen.clone()),
            record: step.record.clone(),
        };
        Self {
            question_id: trajectory.question_id.clone(),
            sample_idx: trajectory.sample_idx,
            steps: trajectory.steps.iter().map(step).collect(),
            prediction: trajectory.prediction.clone(),
            outcome: trajectory.outcome.clone(),
            incidents: trajectory.incidents.clone(),
            weight: None,
            answer_logprob: None,
        }
    }
}

/// Questions of a set whose trajectories go into a page, unless another number is given.
pub const DEFAULT_MAX_QUESTIONS: usize = 40;

fn default_max_questions() -> usize {
    DEFAULT_MAX_QUESTIONS
}
