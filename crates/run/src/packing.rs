//! Sampled trajectories with their weights to training examples.
use crate::error::RunError;
use exsearch_schema::{ChatCodec, Example, QaRecord, Trajectory};
use exsearch_trainset::{PackConfig, PackStats, Packer, Weight, answer_turns, merge_equal};
use std::collections::HashMap;

/// Packs trajectories, each with its weight in the same place, behind each the gold answer of its question that is most
/// probable there. Equal trajectories become one example with the sum of their weights.
///
/// # Panics
/// When a trajectory's question is not among `questions`, or the lists differ in length.
pub fn pack(
    questions: &[QaRecord],
    trajectories: &[Trajectory],
    weights: &[Weight],
    chat: &dyn ChatCodec,
    config: &PackConfig,
) -> Result<(Vec<Example>, PackStats), RunError> {
    assert_eq!(trajectories.len(), weights.len(), "a weight for each trajectory");
    let mut packer = Packer::new(config.clone())?;
    let answers: HashMap<&str, Vec<Vec<u32>>> =
        questions.iter().map(|question| (question.id.as_str(), answer_turns(&question.answers, chat))).collect();
    let mut examples = Vec::new();
    for (trajectory, weight) in trajectories.iter().zip(merge_equal(trajectories, weights)) {
        match weight {
            Some(weight) => {
                examples.extend(packer.sampled(trajectory, &weight, &answers[trajectory.question_id.as_str()])?);
            }
            None => packer.merged(),
        }
    }
    Ok((examples, packer.stats()))
}
