//! Trajectories to log p(y | x, z): the gold answers scored after the context in which the model was asked for one.
//!
//! Knows the model as [`Scorer`] only.
use exsearch_schema::{ChatCodec, GoldAnswers, ScoreRequest, Scorer, Source, Trajectory};
use serde::{Deserialize, Serialize};

/// The gold answers after one trajectory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// The question.
    pub question_id: String,
    /// Which of its samples.
    pub sample_idx: u32,
    /// log p of each answer turn, summed over the answer's tokens and its end of turn, in nats; finite. In the order of
    /// [`answer_turns`]; empty when it failed.
    pub alias_logprobs: Vec<f32>,
    /// log p(z | x) - log b(z | x) of the search turns: see [`Trajectory::log_importance_ratio`]. Finite; absent where the generator
    /// did not tell its log-probs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_importance_ratio: Option<f64>,
    /// log p(z | x) of the search turns under the model, in nats: see [`Trajectory::path_logprob`]. Finite; absent where the
    /// generator did not tell its log-probs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_logprob: Option<f64>,
    /// Tokens that it sums over.
    pub n_path_tokens: usize,
    /// Tokens of the first answer turn; 0 when it failed.
    pub n_answer_tokens: usize,
    /// How right the trajectory's own answer is. Whoever knows gold texts and metrics fills it in; weights by reward need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards: Option<Rewards>,
    /// Where the trajectory comes from, if it is no fresh draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Why there are no scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ScoreFailure>,
}

/// What the trajectory's own answer scores against the gold ones, each between 0 and 1; 0 where it gave none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rewards {
    /// Exact match after normalization.
    pub exact_match: f64,
    /// Token F1.
    pub f1: f64,
    /// Whether a gold answer is contained, on whole tokens.
    pub accuracy: f64,
}

/// Why a trajectory has no scores. It weighs nothing and still counts among its question's samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreFailure {
    /// It never came to the point where the answer is asked for.
    NoAnswerContext,
    /// The scorer failed; the text says how.
    Scorer(String),
    /// A log-prob was infinite or not a number.
    NotFinite,
}

/// The turns of the gold answers, canonical first, each once: two aliases with the same tokens are one event, whose
/// probability must not be counted twice. Scoring and packing use this same list, so that positions in it agree.
pub fn answer_turns(gold: &GoldAnswers, chat: &dyn ChatCodec) -> Vec<Vec<u32>> {
    let mut turns: Vec<Vec<u32>> = Vec::new();
    for alias in gold.aliases() {
        let turn = chat.turn(alias.trim());
        if !turns.contains(&turn) {
            turns.push(turn);
        }
    }
    turns
}

/// Scores each trajectory's answer turns, in one call to the scorer. Returns one [`Scored`] a trajectory, in order.
pub fn score(trajectories: &[(&Trajectory, &[Vec<u32>])], scorer: &mut dyn Scorer) -> Vec<Scored> {
    let contexts: Vec<Option<Vec<u32>>> =
        trajectories.iter().map(|(trajectory, _)| trajectory.answer_context()).collect();
    let requests: Vec<ScoreRequest> = trajectories
        .iter()
        .zip(&contexts)
        .filter_map(|((_, answers), context)| {
            context.clone().map(|context| ScoreRequest { context, continuations: answers.to_vec() })
        })
        .collect();
    let mut results = if requests.is_empty() { Vec::new() } else { scorer.score(&requests) }.into_iter();
    trajectories
        .iter()
        .zip(&contexts)
        .map(|((trajectory, answers), context)| {
            let result = match context {
                None => Err(ScoreFailure::NoAnswerContext),
                Some(_) => match results.next() {
                    None => Err(ScoreFailure::Scorer("it returned no result for the request".to_owned())),
                    Some(Err(error)) => Err(ScoreFailure::Scorer(error.0)),
                    Some(Ok(logprobs)) if logprobs.len() != answers.len() => {
                        let detail = format!("{} log-probs came for {} answers", logprobs.len(), answers.len());
                        Err(ScoreFailure::Scorer(detail))
                    }
                    Some(Ok(logprobs)) => Ok(logprobs),
                },
            };
            scored(trajectory, answers.first().map_or(0, Vec::len), result)
        })
        .collect()
}

fn scored(trajectory: &Trajectory, n_answer_tokens: usize, result: Result<Vec<f32>, ScoreFailure>) -> Scored {
    let ratio = trajectory.log_importance_ratio();
    let path = trajectory.path_logprob();
    let is_finite = |logprobs: &[f32]| {
        let of_path = [ratio, path.map(|(logprob, _)| logprob)];
        of_path.into_iter().flatten().all(f64::is_finite) && logprobs.iter().all(|logprob| logprob.is_finite())
    };
    let (alias_logprobs, failure) = match result {
        Ok(logprobs) if is_finite(&logprobs) => (logprobs, None),
        Ok(_) => (Vec::new(), Some(ScoreFailure::NotFinite)),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    Scored {
        question_id: trajectory.question_id.clone(),
        sample_idx: trajectory.sample_idx,
        alias_logprobs,
        log_importance_ratio: ratio.map(|ratio| if ratio.is_finite() { ratio } else { 0.0 }),
        path_logprob: path.map(|(logprob, _)| if logprob.is_finite() { logprob } else { 0.0 }),
        n_path_tokens: path.map_or(0, |(_, n_tokens)| n_tokens),
        n_answer_tokens: if failure.is_none() { n_answer_tokens } else { 0 },
        rewards: None,
        source: trajectory.source.clone(),
        failure,
    }
}
