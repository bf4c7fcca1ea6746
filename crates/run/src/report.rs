//! A run's numbers and trajectories to one HTML page that needs nothing but itself: `report.html` beside this file is the
//! page, this file puts the data in as JSON.
//!
//! Knows nothing of run folders: the caller reads them. Passages and answers come from corpora and models and may hold
//! anything, markup included; the page shows them as text only.
use exsearch_evaluation::{
    Effort, Estimate, Group, Outcomes, PairedDifference, Report, RetrievalScores, Scores, metrics,
};
use exsearch_schema::{Incident, Outcome, QaRecord, Trajectory};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

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
    /// What took how many seconds of wall time.
    pub timings: Vec<(String, f64)>,
    /// The resolved configuration.
    pub config_toml: String,
    /// The trajectories of at most this many questions go into the page, which says so.
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
    /// The evaluated trajectories, for the browser.
    pub trajectories: Vec<TrajectoryView>,
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

/// The page as HTML text.
pub fn render(input: &ReportInput) -> String {
    let json = serde_json::to_string(&Page::new(input)).expect("the page's maps have string keys");
    // In JSON "<" stands in strings only. Escaped, the text can neither end the script element nor open a comment.
    let data = json.replace('<', "\\u003c");
    // The template is cut before anything goes in, so that nothing in the input is taken for a mark of the template.
    let (before, after) =
        include_str!("report.html").split_once("{{data}}").expect("the template has a place for data");
    let before = before.replace("{{title}}", &escape_html(&input.title));
    [&before, &data, after].concat()
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
        }
    }
}

/// The curve of the loss has at most this many points; more are averaged in runs of equal length.
const MAX_LOSS_POINTS: usize = 600;

fn default_max_questions() -> usize {
    40
}

/// The embedded JSON: the input without what the page does not show, every passage once.
#[derive(Serialize)]
struct Page<'a> {
    description: &'a str,
    stages: Vec<PageStage<'a>>,
    differences: &'a [StageDifference],
    loss: Vec<LossPoint>,
    steps_per_loss_point: usize,
    timings: &'a [(String, f64)],
    config_toml: &'a str,
    n_questions_with_trajectories: usize,
    questions: Vec<PageQuestion<'a>>,
    passages: Vec<&'a HitView>,
}

#[derive(Serialize)]
struct PageStage<'a> {
    name: &'a str,
    n_questions: usize,
    confidence: f64,
    scores: &'a Scores,
    by_hops: &'a [Group],
    by_type: &'a [Group],
    retrieval: &'a RetrievalScores,
    effort: &'a Effort,
    outcomes: &'a Outcomes,
    diagnostics: Option<&'a Diagnostics>,
    /// All gold passages shown, at the largest k.
    all_gold: Option<Estimate>,
}

#[derive(Serialize)]
struct PageQuestion<'a> {
    id: &'a str,
    question: &'a str,
    answers: &'a [String],
    hops: Option<u32>,
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    gold_ids: Vec<&'a str>,
    trajectories: Vec<PageTrajectory<'a>>,
}

#[derive(Serialize)]
struct PageTrajectory<'a> {
    stage_idx: usize,
    sample_idx: u32,
    steps: Vec<PageStep<'a>>,
    prediction: Option<&'a str>,
    outcome: &'a Outcome,
    incidents: &'a [Incident],
    exact_match: bool,
    accuracy_boundary: bool,
    f1: f64,
}

#[derive(Serialize)]
struct PageStep<'a> {
    query: &'a str,
    /// Positions in [`Page::passages`].
    hits: Vec<usize>,
    chosen: Option<&'a [usize]>,
    record: Option<&'a str>,
}

/// Every distinct passage once, in the order of first use.
#[derive(Default)]
struct Passages<'a> {
    positions: HashMap<&'a HitView, usize>,
    list: Vec<&'a HitView>,
}

impl<'a> Page<'a> {
    fn new(input: &'a ReportInput) -> Self {
        let answered: HashSet<&str> = input
            .stages
            .iter()
            .flat_map(|stage| &stage.trajectories)
            .map(|trajectory| trajectory.question_id.as_str())
            .collect();
        let candidates: Vec<&QaRecord> =
            input.gold.iter().filter(|record| answered.contains(record.id.as_str())).collect();
        let chosen = evenly_spaced(&candidates, input.max_questions);
        let mut passages = Passages::default();
        let questions = page_questions(input, &chosen, &mut passages);
        let (loss, steps_per_loss_point) = thin_loss(&input.loss, MAX_LOSS_POINTS);
        Self {
            description: &input.description,
            stages: input.stages.iter().map(PageStage::new).collect(),
            differences: &input.differences,
            loss,
            steps_per_loss_point,
            timings: &input.timings,
            config_toml: &input.config_toml,
            n_questions_with_trajectories: candidates.len(),
            questions,
            passages: passages.list,
        }
    }
}

impl<'a> PageStage<'a> {
    fn new(stage: &'a StageResult) -> Self {
        let report = &stage.report;
        let widest = report.retrieval.at_k.iter().max_by_key(|at_k| at_k.top_k);
        Self {
            name: &stage.name,
            n_questions: report.n_questions,
            confidence: report.config.confidence,
            scores: &report.scores,
            by_hops: &report.by_hops,
            by_type: &report.by_type,
            retrieval: &report.retrieval,
            effort: &report.effort,
            outcomes: &report.outcomes,
            diagnostics: stage.diagnostics.as_ref(),
            all_gold: widest.and_then(|at_k| at_k.all_gold),
        }
    }
}

impl<'a> Passages<'a> {
    fn position(&mut self, passage: &'a HitView) -> usize {
        *self.positions.entry(passage).or_insert_with(|| {
            self.list.push(passage);
            self.list.len() - 1
        })
    }
}

fn page_questions<'a>(
    input: &'a ReportInput,
    chosen: &[&'a QaRecord],
    passages: &mut Passages<'a>,
) -> Vec<PageQuestion<'a>> {
    let mut by_question: HashMap<&str, Vec<(usize, &TrajectoryView)>> = HashMap::new();
    for (stage_idx, stage) in input.stages.iter().enumerate() {
        for trajectory in &stage.trajectories {
            by_question.entry(&trajectory.question_id).or_default().push((stage_idx, trajectory));
        }
    }
    let mut questions = Vec::with_capacity(chosen.len());
    for record in chosen {
        let mut trajectories = by_question.remove(record.id.as_str()).unwrap_or_default();
        trajectories.sort_by_key(|(stage_idx, trajectory)| (*stage_idx, trajectory.sample_idx));
        questions.push(PageQuestion {
            id: &record.id,
            question: &record.question,
            answers: record.answers.aliases(),
            hops: record.hops,
            kind: record.kind.as_deref(),
            gold_ids: record.supporting.iter().map(|supporting| supporting.id.0.as_str()).collect(),
            trajectories: trajectories
                .into_iter()
                .map(|(stage_idx, trajectory)| page_trajectory(stage_idx, trajectory, record, passages))
                .collect(),
        });
    }
    questions
}

fn page_trajectory<'a>(
    stage_idx: usize,
    trajectory: &'a TrajectoryView,
    record: &QaRecord,
    passages: &mut Passages<'a>,
) -> PageTrajectory<'a> {
    let mut page_step = |step: &'a StepView| PageStep {
        query: &step.query,
        hits: step.hits.iter().map(|hit| passages.position(hit)).collect(),
        chosen: step.chosen.as_deref(),
        record: step.record.as_deref(),
    };
    // As evaluation counts it: what failed, or predicts only white space, is wrong.
    let prediction = trajectory.prediction.as_deref();
    let has_failed = matches!(trajectory.outcome, Outcome::Failed(_));
    let counted = prediction.filter(|prediction| !has_failed && !prediction.trim().is_empty());
    let scores = counted.map(|prediction| metrics::score(prediction, record.answers.aliases())).unwrap_or_default();
    PageTrajectory {
        stage_idx,
        sample_idx: trajectory.sample_idx,
        steps: trajectory.steps.iter().map(&mut page_step).collect(),
        prediction,
        outcome: &trajectory.outcome,
        incidents: &trajectory.incidents,
        exact_match: scores.exact_match,
        accuracy_boundary: scores.accuracy_boundary,
        f1: scores.f1,
    }
}

/// At most `max` of the items, spread over all of them: a file's first questions are often of one kind.
fn evenly_spaced<T: Copy>(items: &[T], max: usize) -> Vec<T> {
    let n_taken = items.len().min(max);
    (0..n_taken).map(|idx| items[idx * items.len() / n_taken]).collect()
}

/// Means over equal runs of steps within a stage, and the length of a run: at most about `max_points` in all.
fn thin_loss(points: &[LossPoint], max_points: usize) -> (Vec<LossPoint>, usize) {
    let run_length = points.len().div_ceil(max_points).max(1);
    let mean = |run: &[LossPoint]| LossPoint {
        stage: run[0].stage.clone(),
        step: run[run.len() - 1].step,
        loss: run.iter().map(|point| point.loss).sum::<f64>() / run.len() as f64,
    };
    let stages = points.chunk_by(|left, right| left.stage == right.stage);
    (stages.flat_map(|stage| stage.chunks(run_length).map(mean)).collect(), run_length)
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsearch_evaluation::{EvalConfig, evaluate};
    use exsearch_schema::{GoldAnswers, Hit, PassageId, Step};

    const HOSTILE: &str = "</script><script>alert(1)</script><!-- {{data}} {{title}} \u{2028} \" ' & \\";

    fn gold(idx: usize) -> QaRecord {
        let answers = GoldAnswers::new(vec![HOSTILE.to_owned()]).expect("one answer");
        let (supporting, question) = (Vec::new(), format!("question {idx}? {HOSTILE}"));
        let (hops, kind, dataset, split) = (Some(2), None, None, None);
        QaRecord { id: format!("q{idx}"), question, answers, supporting, hops, kind, dataset, split }
    }

    fn trajectory(idx: usize) -> Trajectory {
        let hit = Hit { id: PassageId::from("1"), title: HOSTILE.to_owned(), text: HOSTILE.to_owned(), score: 1.0 };
        let hits = vec![hit.clone(), hit];
        Trajectory {
            question_id: format!("q{idx}"),
            question: String::new(),
            sample_idx: 0,
            seed: 0,
            source: None,
            steps: vec![Step { query: HOSTILE.to_owned(), hits, select: None, record: Some(HOSTILE.to_owned()) }],
            prediction: Some(HOSTILE.to_owned()),
            outcome: Outcome::Answered,
            incidents: Vec::new(),
            segments: Vec::new(),
            messages: Vec::new(),
            secs: 0.0,
        }
    }

    fn input(n_questions: usize, max_questions: usize) -> ReportInput {
        let gold: Vec<_> = (0..n_questions).map(gold).collect();
        let trajectories: Vec<_> = (0..n_questions).map(trajectory).collect();
        let report = evaluate(&trajectories, &gold, &EvalConfig::default()).expect("the run is sound");
        let views = trajectories.iter().map(TrajectoryView::from).collect();
        let stage = StageResult { name: HOSTILE.to_owned(), report, diagnostics: None, trajectories: views };
        ReportInput {
            title: HOSTILE.to_owned(),
            description: HOSTILE.to_owned(),
            stages: vec![stage],
            gold,
            differences: Vec::new(),
            loss: Vec::new(),
            timings: vec![(HOSTILE.to_owned(), 1.5)],
            config_toml: HOSTILE.to_owned(),
            max_questions,
        }
    }

    /// The JSON that a browser would hand to `JSON.parse`.
    fn data(html: &str) -> serde_json::Value {
        let (_, rest) = html.split_once("<script type=\"application/json\" id=\"data\">").expect("the data element");
        let (json, _) = rest.split_once("</script>").expect("its end");
        serde_json::from_str(json).expect("whole JSON")
    }

    #[test]
    fn text_with_markup_stays_text() {
        let html = render(&input(3, 40));
        assert!(!html.contains("<script>alert"), "markup came through");
        assert_eq!(html.matches("<!--").count(), include_str!("report.html").matches("<!--").count());
        let data = data(&html);
        assert_eq!(data["questions"][0]["trajectories"][0]["steps"][0]["record"], HOSTILE);
        assert_eq!(data["config_toml"], HOSTILE);
        assert_eq!(data["passages"].as_array().expect("a list").len(), 1, "the passage is there once");
        assert_eq!(data["questions"][0]["trajectories"][0]["exact_match"], true);
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        let template = include_str!("report.html");
        for mark in ["src=", "href=\"h", "@import", "url(", "fetch(", "innerHTML", "insertAdjacentHTML"] {
            assert!(!template.contains(mark), "{mark}");
        }
        assert!(template.contains("default-src 'none'"));
        assert!(template.len() < 40_000, "{} bytes", template.len());
    }

    #[test]
    fn questions_are_capped_and_spread() {
        let data = data(&render(&input(10, 4)));
        let ids: Vec<_> = data["questions"].as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
        assert_eq!(ids, ["q0", "q2", "q5", "q7"]);
        assert_eq!(data["n_questions_with_trajectories"], 10);
        assert_eq!(evenly_spaced(&[1, 2], 0), [0; 0]);
        assert_eq!(evenly_spaced(&[1, 2], 9), [1, 2]);
    }

    #[test]
    fn failed_trajectories_are_wrong_whatever_they_predict() {
        let mut input = input(1, 40);
        input.stages[0].trajectories[0].outcome = Outcome::Failed(exsearch_schema::Boundary::Generator);
        let data = data(&render(&input));
        assert_eq!(data["questions"][0]["trajectories"][0]["exact_match"], false);
    }

    #[test]
    fn loss_is_averaged_within_stages_only() {
        let point = |stage: &str, step, loss| LossPoint { stage: stage.to_owned(), step, loss };
        let points =
            [point("a", 1, 4.0), point("a", 2, 2.0), point("a", 3, 1.0), point("b", 1, 8.0), point("b", 2, 6.0)];
        assert_eq!(thin_loss(&points, 5), (points.to_vec(), 1));
        assert_eq!(thin_loss(&points, 3), (vec![point("a", 2, 3.0), point("a", 3, 1.0), point("b", 2, 7.0)], 2));
        assert_eq!(thin_loss(&[], 3), (Vec::new(), 1));
    }

    #[test]
    fn an_empty_run_renders() {
        let mut input = input(1, 40);
        input.stages.clear();
        assert_eq!(data(&render(&input))["questions"], serde_json::json!([]));
    }
}
