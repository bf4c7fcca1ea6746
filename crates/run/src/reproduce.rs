//! A manifest to the same run again: where its input lies now, whether it is the same, and whether the numbers agree.
use crate::config::RunConfig;
use crate::error::RunError;
use crate::manifest::{Input, Manifest, StageRecord, inputs};
use serde::Serialize;
use std::path::PathBuf;

/// Where input lies that has moved since.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The model folder.
    pub model: Option<PathBuf>,
    /// The index.
    pub index: Option<PathBuf>,
    /// The folder with the files of questions and gold trajectories, and the protocol, by their names.
    pub data: Option<PathBuf>,
}

/// Whether two runs came to the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// In the order of the stages.
    pub stages: Vec<StageAgreement>,
    /// The first artifact, in the order in which they are made, that is not the same to the byte.
    pub first_difference: Option<String>,
}

/// Whether a stage of two runs came to the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageAgreement {
    /// The stage.
    pub stage: String,
    /// Every score by `SET METRIC`, then and now; absent where only one of the runs has it.
    pub scores: Vec<(String, Option<f64>, Option<f64>)>,
    /// Artifacts that either run has.
    pub n_artifacts: usize,
    /// Those of them that differ or that only one run has.
    pub differing_artifacts: Vec<String>,
}

impl Manifest {
    /// The configuration with its input in other places.
    pub fn config_in(&self, places: &Places) -> RunConfig {
        let mut config = self.config.clone();
        for (role, path) in config.inputs_mut() {
            let moved = match role.as_str() {
                "model" => places.model.clone(),
                "index" => places.index.clone(),
                _ => places.data.as_ref().zip(path.file_name()).map(|(dir, name)| dir.join(name)),
            };
            *path = moved.unwrap_or_else(|| path.clone());
        }
        config
    }

    /// What of the input that `config` names is not as the manifest has it: a sentence for each file.
    pub fn differing_inputs(&self, config: &RunConfig) -> Result<Vec<String>, RunError> {
        let mut differing = Vec::new();
        for (role, path) in config.clone().inputs_mut() {
            if !path.exists() {
                let option = match role.as_str() {
                    "model" => "--model",
                    "index" => "--index",
                    _ => "--data",
                };
                differing.push(format!("{} ({role}) is missing; say where it is with {option}", path.display()));
            }
        }
        if !differing.is_empty() {
            return Ok(differing);
        }
        let now = inputs(config)?;
        let is_of =
            |input: &Input, other: &Input| input.role == other.role && input.path.file_name() == other.path.file_name();
        for before in &self.inputs {
            let same: Vec<&Input> = now.iter().filter(|input| is_of(input, before)).collect();
            if same.is_empty() {
                differing.push(format!("{} ({}) is missing", before.path.display(), before.role));
            } else if !same.iter().any(|input| input.sha256 == before.sha256) {
                let path = same[0].path.display();
                differing.push(format!(
                    "{path} ({}) is not the file that the run read: its SHA-256 is another",
                    before.role
                ));
            }
        }
        for input in now.iter().filter(|input| !self.inputs.iter().any(|before| is_of(before, input))) {
            differing.push(format!("{} ({}) was not there when the run was made", input.path.display(), input.role));
        }
        Ok(differing)
    }
}

impl Agreement {
    /// Whether all numbers and all artifacts are the same.
    pub fn is_exact(&self) -> bool {
        self.first_difference.is_none() && self.stages.iter().all(|stage| stage.n_scores_equal() == stage.scores.len())
    }
}

impl StageAgreement {
    /// Scores that are the same to the bit.
    pub fn n_scores_equal(&self) -> usize {
        self.scores.iter().filter(|(_, before, now)| before == now).count()
    }
}

/// Compares what two runs came to.
pub fn agreement(before: &[StageRecord], now: &[StageRecord]) -> Agreement {
    let mut stages: Vec<&str> = before.iter().map(|record| record.stage.as_str()).collect();
    stages.extend(
        now.iter().map(|record| record.stage.as_str()).filter(|stage| !before.iter().any(|it| it.stage == *stage)),
    );
    let empty = StageRecord { stage: String::new(), artifacts: Vec::new(), scores: Default::default() };
    let stage = |name: &str| {
        let of =
            |records: &'_ [StageRecord]| records.iter().find(|it| it.stage == name).cloned().unwrap_or(empty.clone());
        let (before, now) = (of(before), of(now));
        let names = union(before.scores.keys(), now.scores.keys());
        let score = |name: &String| (name.clone(), before.scores.get(name).copied(), now.scores.get(name).copied());
        let artifacts = union(before.artifacts.iter().map(|it| &it.0), now.artifacts.iter().map(|it| &it.0));
        let has = |record: &StageRecord, name: &String| {
            record.artifacts.iter().find(|it| it.0 == *name).map(|it| it.1.clone())
        };
        StageAgreement {
            stage: name.to_owned(),
            scores: names.iter().map(score).collect(),
            n_artifacts: artifacts.len(),
            differing_artifacts: artifacts.into_iter().filter(|name| has(&before, name) != has(&now, name)).collect(),
        }
    };
    let stages: Vec<StageAgreement> = stages.into_iter().map(stage).collect();
    let first_difference = stages.iter().flat_map(|stage| &stage.differing_artifacts).next().cloned();
    Agreement { stages, first_difference }
}

fn union<'a>(first: impl Iterator<Item = &'a String>, second: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in first.chain(second) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stage: &str, artifacts: &[(&str, &str)], score: f64) -> StageRecord {
        let artifacts = artifacts.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect();
        StageRecord { stage: stage.into(), artifacts, scores: [("dev f1".to_owned(), score)].into() }
    }

    #[test]
    fn equal_runs_agree_and_the_first_difference_is_named() {
        let before = [
            record("warm-up", &[("w/train", "1"), ("w/eval", "2")], 0.5),
            record("iteration 1", &[("i/train", "3")], 0.6),
        ];
        let same = agreement(&before, &before);
        assert!(same.is_exact() && same.stages.len() == 2);

        let mut now = before.clone();
        now[0].artifacts[1].1 = "other".into();
        now[1].artifacts.clear();
        now[1].scores.insert("dev f1".into(), 0.6 + 1e-16 * 2.0);
        let other = agreement(&before, &now);
        assert_eq!(other.first_difference.as_deref(), Some("w/eval"));
        assert_eq!((other.stages[0].n_scores_equal(), other.stages[1].n_scores_equal()), (1, 0));
        assert_eq!(other.stages[1].differing_artifacts, ["i/train"]);

        let longer = agreement(&before[..1], &before);
        assert!(!longer.is_exact() && longer.stages[1].scores[0].1.is_none());
    }
}
