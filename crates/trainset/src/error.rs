//! Inputs that do not belong together. Trajectories that failed are no errors: they are counted and weigh nothing.
use thiserror::Error;

/// A training set could not be made from what was given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrainsetError {
    /// The same sample came twice and would count double.
    #[error("sample {sample_idx} of question {question_id:?} was given twice")]
    DuplicateSample {
        /// Its question.
        question_id: String,
        /// Its number.
        sample_idx: u32,
    },
    /// How probable the model's turns were is not known.
    #[error(
        "sample {sample_idx} of question {question_id:?} came without the log-probs that `{setting}` of the weights needs; sample \
         locally or on a server that tells log-probs (at temperature 1 and top_p 1), or change that setting"
    )]
    NoLogprobs {
        /// The question.
        question_id: String,
        /// Which of its samples.
        sample_idx: u32,
        /// What needs them.
        setting: &'static str,
    },
    /// The weight belongs to another trajectory.
    #[error("the weight of {weight} was given for the trajectory {trajectory}: are the files of the same iteration?")]
    WrongWeight {
        /// Question and sample of the weight.
        weight: String,
        /// Question and sample of the trajectory.
        trajectory: String,
    },
    /// The weight names an answer that is not among those given.
    #[error("answer {alias_idx} of question {question_id:?} was scored, but only {n_answers} were given to pack")]
    NoSuchAnswer {
        /// The question.
        question_id: String,
        /// The position that the weight names.
        alias_idx: usize,
        /// How many there are.
        n_answers: usize,
    },
    /// Weights by reward, of scores that have none.
    #[error("the scores of question {question_id:?} hold no rewards: they are of an older version, sample again")]
    NoReward {
        /// The question.
        question_id: String,
    },
    /// A setting is out of range.
    #[error("the setting `{field}` {reason}")]
    BadSetting {
        /// The setting.
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
}
