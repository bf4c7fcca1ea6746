//! Trajectories and scores to importance weights, and weighted trajectories to training examples.
//!
//! Three steps, in order: [`score`] gives log p(y | x, z) of the gold answers after each trajectory, [`weigh`] turns those
//! into weights within each question, [`merge_equal`] leaves one of equal trajectories, [`Packer`] writes token ids and loss masks. Knows nothing of models, templates,
//! prompts or files: what is trained is what was recorded when it was sampled, token for token.
mod adaptive;
mod baseline;
mod error;
mod merge;
mod pack;
mod rescore;
mod score;
#[cfg(test)]
mod tests;
mod weigh;

pub use adaptive::{Pilot, allocate, gain};
pub use error::TrainsetError;
pub use merge::merge_equal;
pub use pack::{PackConfig, PackStats, Packer};
pub use rescore::score_paths;
pub use score::{Rewards, ScoreFailure, Scored, answer_turns, score};
pub use weigh::{
    ControlVariate, Diagnostics, QuestionDiagnostics, RewardKind, Weighed, Weight, WeightKind, WeightsConfig, weigh,
};
