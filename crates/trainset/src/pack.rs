//! Weighted trajectories to training examples: token ids as recorded, and which of them to learn.
//!
//! Learned: the model's own search and select turns and the gold answer. Not learned: everything the environment wrote
//! (prompts, headers, passages), and [`SegmentKind::Broken`] turns (cut, malformed, refused, or a choice of passages that do
//! not exist), which stay in the context so that the turns after them are learned where they were sampled. The model's own
//! answer is replaced by the gold one. Nothing is ever truncated: what is too long is left out and counted.
//!
//! With a baseline b_m (see [`crate::ControlVariate`]) the turns of the search count w_m - b_m. The baseline belongs to everything that
//! was sampled before the answer: broken turns count -b_m, and so does the path of a trajectory that failed. Were they left out, what
//! was sampled would decide whether its baseline counts, and the baseline's mean would not be 0.
use crate::{TrainsetError, Weight};
use exsearch_schema::{Author, Example, Outcome, Segment, SegmentKind, Trajectory};
use serde::{Deserialize, Serialize};

/// How examples are made. Every field has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackConfig {
    /// Longer examples are left out and counted. Default 2048.
    pub max_tokens: usize,
    /// Trajectories that weigh less are left out and counted, and so are those of weight 0, unless they have a baseline of at least as
    /// much. Default 0.001.
    pub min_weight: f64,
    /// Whether select turns become examples of their own, with the weight of their trajectory. Default on.
    pub select_turns: bool,
}

/// Makes examples and counts what it left out.
#[derive(Clone, Debug)]
pub struct Packer {
    config: PackConfig,
    stats: PackStats,
}

/// What became of the trajectories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackStats {
    /// Trajectories given.
    pub n_trajectories: usize,
    /// Those that failed before the answer was asked for.
    pub n_failed: usize,
    /// Gold trajectories that did not come to their end within the agent's limits.
    pub n_incomplete: usize,
    /// Those equal to an earlier one, which carries their weight: see [`crate::merge_equal`].
    #[serde(default)]
    pub n_merged: usize,
    /// Those that weigh too little.
    pub n_below_min_weight: usize,
    /// Examples that were too long.
    pub n_too_long: usize,
    /// Turns in packed dialogues that are context only, because they broke the protocol.
    pub n_broken_turns: usize,
    /// Select turns left out for the same reason.
    pub n_broken_selects: usize,
    /// Examples made from dialogues.
    pub n_dialogues: usize,
    /// Examples made from select turns.
    pub n_selects: usize,
    /// Tokens of all examples.
    pub n_tokens: usize,
    /// Tokens that are learned.
    pub n_target_tokens: usize,
}

impl Default for PackConfig {
    fn default() -> Self {
        Self { max_tokens: 2048, min_weight: 1e-3, select_turns: true }
    }
}

impl Packer {
    /// Checks the settings.
    pub fn new(config: PackConfig) -> Result<Self, TrainsetError> {
        if config.max_tokens == 0 {
            return Err(TrainsetError::BadSetting { field: "max_tokens", reason: "must be at least 1" });
        }
        if !(0.0..=1.0).contains(&config.min_weight) {
            return Err(TrainsetError::BadSetting { field: "min_weight", reason: "must be from 0 to 1" });
        }
        Ok(Self { config, stats: PackStats::default() })
    }

    /// The counts so far.
    pub fn stats(&self) -> PackStats {
        self.stats
    }

    /// The examples of a sampled trajectory: its dialogue with the best gold answer, and its select turns. `answers` are the
    /// question's [`crate::answer_turns`].
    pub fn sampled(
        &mut self,
        trajectory: &Trajectory,
        weight: &Weight,
        answers: &[Vec<u32>],
    ) -> Result<Vec<Example>, TrainsetError> {
        if (&weight.question_id, weight.sample_idx) != (&trajectory.question_id, trajectory.sample_idx) {
            return Err(TrainsetError::WrongWeight {
                weight: format!("{} #{}", weight.question_id, weight.sample_idx),
                trajectory: format!("{} #{}", trajectory.question_id, trajectory.sample_idx),
            });
        }
        let answer_idx = trajectory.segments.iter().position(|segment| segment.kind == SegmentKind::Answer);
        let path = &trajectory.segments[..answer_idx.unwrap_or(trajectory.segments.len())];
        let counts = Counts::of(weight);
        let (Some(_), Some(best_alias)) = (answer_idx, weight.best_alias) else {
            self.stats.n_trajectories += 1;
            self.stats.n_failed += 1;
            if counts.broken == 0.0 {
                return Ok(Vec::new());
            }
            let mut dialogue = Tokens::default();
            dialogue.extend(path, counts);
            return Ok(self.examples(trajectory, dialogue, path, counts));
        };
        let answer = answers.get(best_alias).ok_or_else(|| TrainsetError::NoSuchAnswer {
            question_id: trajectory.question_id.clone(),
            alias_idx: best_alias,
            n_answers: answers.len(),
        })?;
        self.stats.n_trajectories += 1;
        let most = weight.weight.max(weight.baseline);
        if most <= 0.0 || most < self.config.min_weight {
            self.stats.n_below_min_weight += 1;
            return Ok(Vec::new());
        }
        let mut dialogue = Tokens::default();
        dialogue.extend(path, counts);
        dialogue.push(answer, counts.answer);
        Ok(self.examples(trajectory, dialogue, path, counts))
    }

    /// Counts a trajectory whose weight an equal one carries.
    pub fn merged(&mut self) {
        self.stats.n_trajectories += 1;
        self.stats.n_merged += 1;
    }

    /// The examples of a replayed gold trajectory, at weight 1: all of its turns are learned, the answer too.
    pub fn warm_up(&mut self, trajectory: &Trajectory) -> Vec<Example> {
        self.stats.n_trajectories += 1;
        if trajectory.outcome != Outcome::Answered {
            self.stats.n_incomplete += 1;
            return Vec::new();
        }
        let counts = Counts { search: 1.0, broken: 0.0, answer: 1.0 };
        let mut dialogue = Tokens::default();
        dialogue.extend(&trajectory.segments, counts);
        self.examples(trajectory, dialogue, &trajectory.segments, counts)
    }

    fn examples(
        &mut self,
        trajectory: &Trajectory,
        dialogue: Tokens,
        segments: &[Segment],
        counts: Counts,
    ) -> Vec<Example> {
        let mut examples = Vec::new();
        if let Some(example) = self.example(trajectory, dialogue, counts) {
            self.stats.n_dialogues += 1;
            self.stats.n_broken_turns += n_broken(segments);
            examples.push(example);
        }
        if !self.config.select_turns {
            return examples;
        }
        for select in trajectory.steps.iter().filter_map(|step| step.select.as_ref()) {
            let is_broken = n_broken(&select.segments) > 0;
            self.stats.n_broken_selects += usize::from(is_broken);
            if is_broken && counts.broken == 0.0 {
                continue;
            }
            let mut tokens = Tokens::default();
            tokens.extend(&select.segments, counts);
            if let Some(example) = self.example(trajectory, tokens, counts) {
                self.stats.n_selects += usize::from(!is_broken);
                examples.push(example);
            }
        }
        examples
    }

    fn example(&mut self, trajectory: &Trajectory, tokens: Tokens, counts: Counts) -> Option<Example> {
        let Tokens { ids, loss_mask, mut weights } = tokens;
        if ids.len() > self.config.max_tokens {
            self.stats.n_too_long += 1;
            return None;
        }
        if counts.broken == 0.0 {
            // Search and answer count the same.
            weights.clear();
        }
        let (question_id, sample_idx) = (trajectory.question_id.clone(), trajectory.sample_idx);
        let example =
            Example { question_id, sample_idx, ids, loss_mask, weight: counts.answer, target_weights: weights };
        self.stats.n_tokens += example.ids.len();
        self.stats.n_target_tokens += example.n_target_tokens();
        Some(example)
    }
}

/// What a token counts, by what it is part of.
#[derive(Clone, Copy)]
struct Counts {
    search: f32,
    broken: f32,
    answer: f32,
}

impl Counts {
    fn of(weight: &Weight) -> Self {
        Self {
            search: (weight.weight - weight.baseline) as f32,
            broken: -weight.baseline as f32,
            answer: weight.weight as f32,
        }
    }
}

/// Ids and masks of equal lengths, and what the learned ones count.
#[derive(Default)]
struct Tokens {
    ids: Vec<u32>,
    loss_mask: Vec<u8>,
    weights: Vec<f32>,
}

impl Tokens {
    fn extend(&mut self, segments: &[Segment], counts: Counts) {
        for segment in segments {
            let weight = match (segment.author, segment.kind) {
                (Author::Environment, _) | (_, SegmentKind::Prompt) => 0.0,
                (Author::Model, SegmentKind::Broken) => counts.broken,
                (Author::Model, SegmentKind::Search) => counts.search,
                (Author::Model, SegmentKind::Answer) => counts.answer,
            };
            self.push(&segment.ids, weight);
        }
    }

    fn push(&mut self, ids: &[u32], weight: f32) {
        let is_target = weight != 0.0;
        self.ids.extend_from_slice(ids);
        self.loss_mask.resize(self.ids.len(), u8::from(is_target));
        if is_target {
            self.weights.resize(self.weights.len() + ids.len(), weight);
        }
    }
}

fn n_broken(segments: &[Segment]) -> usize {
    segments.iter().filter(|segment| segment.kind == SegmentKind::Broken).count()
}
