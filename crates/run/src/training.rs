//! Training sets to checkpoints: a stage's `checkpoint` folder is written last and read instead of made where it is there.
use crate::error::RunError;
use crate::files;
use crate::workbench::Policy;
use exsearch_schema::Example;
use exsearch_trainer::{StepReport, TrainConfig};
use std::path::Path;

/// Trains the policy on `examples` and leaves the checkpoint in `dir` with the steps beside it (`<dir>.steps.jsonl`), or
/// loads the checkpoint that is there. Returns the steps. Where training diverges, its steps are left, and the policy is half trained.
pub fn train_checkpoint(
    policy: &mut Policy,
    examples: &[Example],
    config: &TrainConfig,
    dir: &Path,
    on_step: &mut dyn FnMut(&StepReport),
) -> Result<Vec<StepReport>, RunError> {
    let steps_path = files::with_suffix(dir, ".steps.jsonl");
    if dir.is_dir() {
        policy.load_checkpoint(dir)?;
        return files::read_jsonl(&steps_path);
    }
    let mut steps = Vec::new();
    let mut keep = |step: &StepReport| {
        steps.push(step.clone());
        on_step(step);
    };
    let partial = files::with_suffix(dir, ".partial");
    if partial.is_dir() {
        std::fs::remove_dir_all(&partial).map_err(crate::error::io(&partial))?;
    }
    let trained = policy.train(examples, config, &partial, &mut keep);
    if trained.is_ok() || trained.as_ref().is_err_and(RunError::is_divergence) {
        files::write_jsonl(&steps_path, &steps)?;
    }
    trained?;
    std::fs::rename(&partial, dir).map_err(crate::error::io(dir))?;
    Ok(steps)
}
