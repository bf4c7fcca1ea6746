//! Trajectories and gold rows to a report.
//!
//! The denominator is the gold file: a question without a trajectory scores 0, and so does a sample that failed or
//! predicted nothing. Several samples of a question are averaged before questions are.
use crate::EvaluationError;
use crate::bootstrap::{bootstrap_means, bootstrap_tables};
use crate::metrics::NormalizedAnswers;
use crate::report::{
    Effort, Group, Outcomes, QuestionScores, REPORT_VERSION, Report, RetrievalAtK, RetrievalScores, Scores,
};
use crate::retrieval::{Found, found, gold_ids};
use exsearch_schema::{Author, Boundary, Outcome, QaRecord, Trajectory};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How to evaluate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// The k of recall@k and its kin, in the order of the report. Default 1, 3, 5.
    pub top_ks: Vec<usize>,
    /// Where set, a question with fewer samples is wrong on those that are missing. Default: a question's mean is over the
    /// samples that are there, if any.
    pub samples_per_question: Option<u32>,
    /// Resamples of every interval, at least 1. Default 1,000.
    pub n_resamples: usize,
    /// What share of the resampled means an interval holds, between 0 and 1. Default 0.95.
    pub confidence: f64,
    /// The seed of the resampling. Default 0.
    pub seed: u64,
}

/// Scores `trajectories` against `gold`. Errors when a trajectory's question has no gold row, or when an id or a sample is
/// there twice.
pub fn evaluate(
    trajectories: &[Trajectory],
    gold: &[QaRecord],
    config: &EvalConfig,
) -> Result<Report, EvaluationError> {
    config.check()?;
    let samples = samples_by_question(trajectories, gold)?;
    let questions: Vec<ScoredQuestion> =
        gold.iter().zip(&samples).map(|(record, samples)| ScoredQuestion::new(record, samples, config)).collect();
    Ok(Report {
        version: REPORT_VERSION,
        config: config.clone(),
        n_questions: gold.len(),
        n_trajectories: trajectories.len(),
        scores: config.scores(questions.iter()),
        by_hops: config.groups(gold, &questions, n_hops, |hops| hops.to_string()),
        by_type: config.groups(gold, &questions, |record| record.kind.clone(), Clone::clone),
        retrieval: config.retrieval(&questions),
        effort: effort(trajectories),
        outcomes: outcomes(trajectories, &samples, config),
        questions: question_scores(gold, &samples, &questions),
    })
}

/// What one question scores, averaged over its samples.
struct ScoredQuestion {
    /// In the order of [`Scores::named`].
    scores: [f64; 5],
    /// In the order of [`RetrievalAtK::named`], a row for each k.
    found: Vec<[f64; 5]>,
    has_gold_passages: bool,
    has_textual_answer: bool,
}

impl EvalConfig {
    pub(crate) fn check(&self) -> Result<(), EvaluationError> {
        let invalid = |field, reason| Err(EvaluationError::InvalidConfig { field, reason });
        if self.n_resamples == 0 {
            return invalid("n_resamples", "must be at least 1");
        }
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return invalid("confidence", "must lie between 0 and 1");
        }
        if self.top_ks.contains(&0) {
            return invalid("top_ks", "must hold no 0");
        }
        if self.samples_per_question == Some(0) {
            return invalid("samples_per_question", "must be at least 1, or absent");
        }
        Ok(())
    }

    fn scores<'a>(&self, questions: impl Iterator<Item = &'a ScoredQuestion>) -> Scores {
        let rows: Vec<[f64; 5]> = questions.map(|question| question.scores).collect();
        Scores::from_row(bootstrap_means(&rows, self.n_resamples, self.confidence, self.seed))
    }

    /// The questions by `key` in its order, those without one last; nothing where no question has one.
    fn groups<K: Ord>(
        &self,
        gold: &[QaRecord],
        questions: &[ScoredQuestion],
        key: impl Fn(&QaRecord) -> Option<K>,
        label: impl Fn(&K) -> String,
    ) -> Vec<Group> {
        let mut members: BTreeMap<K, Vec<&ScoredQuestion>> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (record, question) in gold.iter().zip(questions) {
            match key(record) {
                Some(key) => members.entry(key).or_default().push(question),
                None => unknown.push(question),
            }
        }
        if members.is_empty() {
            return Vec::new();
        }
        let group = |label: String, members: Vec<&ScoredQuestion>| Group {
            label,
            n_questions: members.len(),
            scores: self.scores(members.into_iter()),
        };
        let rest = (!unknown.is_empty()).then(|| group("unknown".to_owned(), unknown));
        members.into_iter().map(|(key, members)| group(label(&key), members)).chain(rest).collect()
    }

    fn retrieval(&self, questions: &[ScoredQuestion]) -> RetrievalScores {
        let with_gold: Vec<_> = questions.iter().filter(|question| question.has_gold_passages).collect();
        let with_answer: Vec<_> = questions.iter().filter(|question| question.has_textual_answer).collect();
        let estimates = |questions: &[&ScoredQuestion]| {
            let table = |k_idx: usize| questions.iter().map(|question| question.found[k_idx]).collect();
            let tables: Vec<Vec<[f64; 5]>> = (0..self.top_ks.len()).map(table).collect();
            let tables: Vec<_> = tables.iter().map(Vec::as_slice).collect();
            let estimates = bootstrap_tables(&tables, self.n_resamples, self.confidence, self.seed);
            estimates.into_iter().map(|columns| (!questions.is_empty()).then_some(columns)).collect::<Vec<_>>()
        };
        let (by_gold, by_answer) = (estimates(&with_gold), estimates(&with_answer));
        let at_k = |(k_idx, &top_k): (usize, &usize)| RetrievalAtK {
            top_k,
            gold_recall: by_gold[k_idx].map(|columns| columns[0]),
            all_gold: by_gold[k_idx].map(|columns| columns[1]),
            gold_precision: by_gold[k_idx].map(|columns| columns[2]),
            answer_recall: by_answer[k_idx].map(|columns| columns[3]),
            answer_precision: by_answer[k_idx].map(|columns| columns[4]),
        };
        RetrievalScores {
            n_with_gold_passages: with_gold.len(),
            n_with_textual_answer: with_answer.len(),
            at_k: self.top_ks.iter().enumerate().map(at_k).collect(),
        }
    }
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self { top_ks: vec![1, 3, 5], samples_per_question: None, n_resamples: 1000, confidence: 0.95, seed: 0 }
    }
}

impl ScoredQuestion {
    fn new(record: &QaRecord, samples: &[&Trajectory], config: &EvalConfig) -> Self {
        let answers = NormalizedAnswers::new(record.answers.aliases());
        let gold = gold_ids(record);
        let mut scores = [0.0; 5];
        let mut found_sums = vec![[0.0; 5]; config.top_ks.len()];
        for trajectory in samples {
            let prediction = counted_prediction(trajectory);
            add(&mut scores, prediction.map_or([0.0; 5], |prediction| score_row(&answers, prediction)));
            let at_ks = found(trajectory, &gold, &answers, &config.top_ks);
            found_sums.iter_mut().zip(&at_ks).for_each(|(sums, at_k)| add(sums, Found::row(at_k)));
        }
        let n_counted = samples.len().max(config.samples_per_question.unwrap_or(1) as usize) as f64;
        scores.iter_mut().chain(found_sums.iter_mut().flatten()).for_each(|sum| *sum /= n_counted);
        let (has_gold_passages, has_textual_answer) = (!gold.is_empty(), answers.is_textual());
        Self { scores, found: found_sums, has_gold_passages, has_textual_answer }
    }
}

/// The trajectories of each gold row, in the order of the rows.
fn samples_by_question<'a>(
    trajectories: &'a [Trajectory],
    gold: &[QaRecord],
) -> Result<Vec<Vec<&'a Trajectory>>, EvaluationError> {
    if gold.is_empty() {
        return Err(EvaluationError::NoQuestions);
    }
    let mut rows = HashMap::with_capacity(gold.len());
    for (row, record) in gold.iter().enumerate() {
        if rows.insert(record.id.as_str(), row).is_some() {
            return Err(EvaluationError::DuplicateQuestion { question_id: record.id.clone() });
        }
    }
    let mut samples: Vec<Vec<&Trajectory>> = vec![Vec::new(); gold.len()];
    let mut seen = HashSet::with_capacity(trajectories.len());
    for trajectory in trajectories {
        let question_id = || trajectory.question_id.clone();
        let Some(&row) = rows.get(trajectory.question_id.as_str()) else {
            return Err(EvaluationError::UnknownQuestion { question_id: question_id() });
        };
        if !seen.insert((row, trajectory.sample_idx)) {
            let sample_idx = trajectory.sample_idx;
            return Err(EvaluationError::DuplicateSample { question_id: question_id(), sample_idx });
        }
        samples[row].push(trajectory);
    }
    // The order of a file must not reach the last bit of a mean.
    samples.iter_mut().for_each(|samples| samples.sort_unstable_by_key(|trajectory| trajectory.sample_idx));
    Ok(samples)
}

/// The prediction that is scored: none when the trajectory failed or wrote only white space.
pub fn counted_prediction(trajectory: &Trajectory) -> Option<&str> {
    match trajectory.outcome {
        Outcome::Failed(_) => None,
        Outcome::Answered | Outcome::Forced(_) => {
            trajectory.prediction.as_deref().filter(|prediction| !prediction.trim().is_empty())
        }
    }
}

fn score_row(answers: &NormalizedAnswers, prediction: &str) -> [f64; 5] {
    let scores = answers.score(prediction);
    let share = |is_right: bool| f64::from(u8::from(is_right));
    [
        share(scores.exact_match),
        scores.f1,
        share(scores.accuracy),
        share(scores.accuracy_boundary),
        share(scores.kilt_accuracy),
    ]
}

fn add(sums: &mut [f64; 5], row: [f64; 5]) {
    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

/// As the data set says, or else the number of distinct gold passages.
fn n_hops(record: &QaRecord) -> Option<u32> {
    let n_passages = gold_ids(record).len() as u32;
    record.hops.or((n_passages > 0).then_some(n_passages))
}

fn question_scores(gold: &[QaRecord], samples: &[Vec<&Trajectory>], questions: &[ScoredQuestion]) -> QuestionScores {
    let mut columns = QuestionScores::default();
    for ((record, samples), question) in gold.iter().zip(samples).zip(questions) {
        columns.push(&record.id, samples.len() as u32, question.scores);
    }
    columns
}

fn effort(trajectories: &[Trajectory]) -> Effort {
    let mean = |value: &dyn Fn(&Trajectory) -> f64| {
        let sum: f64 = trajectories.iter().map(value).sum();
        sum / trajectories.len().max(1) as f64
    };
    let repeats: Vec<usize> = trajectories.iter().map(n_repeated_queries).collect();
    Effort {
        mean_steps: mean(&|trajectory| trajectory.steps.len() as f64),
        mean_tokens: mean(&|trajectory| trajectory.n_tokens() as f64),
        mean_model_tokens: mean(&|trajectory| n_model_tokens(trajectory) as f64),
        mean_secs: mean(&|trajectory| f64::from(trajectory.secs)),
        n_repeated_queries: repeats.iter().sum(),
        n_trajectories_with_repeats: repeats.iter().filter(|&&n_repeats| n_repeats > 0).count(),
    }
}

fn n_model_tokens(trajectory: &Trajectory) -> usize {
    let select = trajectory.steps.iter().filter_map(|step| step.select.as_ref()).flat_map(|select| &select.segments);
    let by_model = trajectory.segments.iter().chain(select).filter(|segment| segment.author == Author::Model);
    by_model.map(|segment| segment.ids.len()).sum()
}

/// Repeats show in the steps, or, where the environment refused them, among the incidents only; a repeat that was both
/// noted and carried out counts once.
fn n_repeated_queries(trajectory: &Trajectory) -> usize {
    let mut asked = HashSet::new();
    let queries = trajectory.steps.iter().map(|step| crate::metrics::normalize(&step.query));
    let in_steps = queries.filter(|query| !asked.insert(query.clone())).count();
    let noted = trajectory.incidents.iter().filter(|incident| incident.boundary == Boundary::RepeatedQuery).count();
    in_steps.max(noted)
}

fn outcomes(trajectories: &[Trajectory], samples: &[Vec<&Trajectory>], config: &EvalConfig) -> Outcomes {
    let expected = config.samples_per_question.unwrap_or(1) as usize;
    let mut outcomes = Outcomes {
        missing_questions: samples.iter().filter(|samples| samples.is_empty()).count(),
        missing_samples: samples.iter().map(|samples| expected.saturating_sub(samples.len())).sum(),
        ..Outcomes::default()
    };
    for trajectory in trajectories {
        let has_failed = match trajectory.outcome {
            Outcome::Answered => {
                outcomes.answered += 1;
                false
            }
            Outcome::Forced(boundary) => {
                *outcomes.forced.entry(boundary).or_default() += 1;
                false
            }
            Outcome::Failed(boundary) => {
                *outcomes.failed.entry(boundary).or_default() += 1;
                true
            }
        };
        outcomes.without_prediction += usize::from(!has_failed && counted_prediction(trajectory).is_none());
        for incident in &trajectory.incidents {
            *outcomes.incidents.entry(incident.boundary).or_default() += 1;
        }
    }
    outcomes
}

#[cfg(test)]
pub(crate) mod tests;
