//! Predictions and gold answers to scores with intervals.
//!
//! Trajectories and gold rows go in, a [`Report`] comes out; [`compare`] sets two reports of the same questions against
//! each other. Every gold question counts in every mean: one that was never answered, or failed, is wrong.
//!
//! Knows nothing of models, tokenizers or retrievers, so that old runs can be scored again; prints nothing.
mod bootstrap;
mod compare;
mod error;
mod evaluate;
pub mod metrics;
mod rankings;
mod read;
mod report;
mod retrieval;

pub use bootstrap::{Estimate, bootstrap_means};
pub use compare::{Difference, PairedDifference, compare, compare_questions, sign_test};
pub use error::EvaluationError;
pub use evaluate::{EvalConfig, counted_prediction, evaluate};
pub use rankings::{RankingAtK, RankingReport, evaluate_rankings};
pub use read::{TrajectoryReader, read_report, read_trajectories};
pub use report::{
    Effort, Group, Outcomes, QuestionScores, REPORT_VERSION, Report, RetrievalAtK, RetrievalScores, Scores,
};
