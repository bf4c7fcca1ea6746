//! The EM loop (arXiv 2505.20128, algorithm 1): untrained, warm-up, then sample, weigh, train, evaluate, again and again.
//!
//! ```text
//! DIR/config.toml manifest.json timings.jsonl summary.json report.html tensorboard/ track/ wandb/
//! DIR/untrained/eval-SET/{trajectories,scores}.jsonl eval.json
//! DIR/warmup/{trajectories,train}.jsonl stats.json checkpoint/ checkpoint.steps.jsonl eval-SET/
//! DIR/iter-N/{trajectories,scores,weights,train}.jsonl diagnostics.json checkpoint/ checkpoint.steps.jsonl eval-SET/ health.json
//! DIR/iter-N/{extra,extra-scores}.jsonl where `em` asks for kept or hinted trajectories
//! ```
use crate::config::{RestartFrom, RunConfig};
use crate::e_step::Draw;
use crate::error::RunError;
use crate::files;
use crate::folder::RunFolder;
use crate::health::{Alarm, Health, Measures, OnCollapse, alarms, measure};
use crate::packing::pack;
use crate::report::DEFAULT_MAX_QUESTIONS;
use crate::sampling::{SampleProgress, SampleTask, sample};
use crate::sharing::{Part, Sharing};
use crate::summary::{Outcome, StageSummary, best_dev_score, best_of};
use crate::training::train_checkpoint;
use crate::warmup::{WarmupStats, read_gold, replay, replay_into};
use crate::workbench::Policy;
use exsearch_agent::{Agent, job_seed};
use exsearch_corpus::{BadLines, read_questions};
use exsearch_evaluation::{Report, evaluate, read_report};
use exsearch_schema::{Example, QaRecord, Retriever};
use exsearch_trainer::StepReport;
use exsearch_trainset::{Diagnostics, PackStats, weigh};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// What happens during a run, for display.
pub enum Event<'a> {
    /// A part of a stage begins.
    Part {
        /// `untrained`, `warm-up`, `iteration 1`, ...
        stage: &'a str,
        /// What is done.
        part: &'a str,
    },
    /// Trajectories come in.
    Sampling(SampleProgress),
    /// An optimizer step is done.
    Step(&'a StepReport),
    /// Warm-up data is there.
    Warmup(&'a WarmupStats),
    /// An E-step's weights are there, and the training set that they make.
    Weighed(&'a Diagnostics, &'a PackStats),
    /// A stage was evaluated.
    Evaluated {
        /// The stage.
        stage: &'a str,
        /// The set of questions.
        set: &'a str,
        /// The scores.
        report: &'a Report,
    },
    /// What is wrong with a trained stage; nothing, if all is well.
    Judged {
        /// The stage.
        stage: &'a str,
        /// What is wrong.
        alarms: &'a [Alarm],
    },
    /// The model is again what it was after an earlier stage.
    RolledBack {
        /// That stage.
        to: &'a str,
    },
    /// The loop ends because training has collapsed.
    Collapsed,
    /// The loop ends before its last iteration.
    StoppedEarly {
        /// Iterations without a better dev score.
        n_without_gain: usize,
    },
}

/// Receives what happens.
pub type OnEvent<'a> = &'a mut dyn FnMut(Event<'_>);

/// A named set of held-out questions.
pub(crate) struct EvalSet {
    pub(crate) name: String,
    pub(crate) questions: Vec<QaRecord>,
}

/// The stages share these.
struct Loop<'a> {
    config: &'a RunConfig,
    folder: RunFolder,
    retriever: &'a dyn Retriever,
    sampler: Agent,
    evaluator: Agent,
    sets: Vec<EvalSet>,
    policy: Policy,
    sharing: Sharing,
    /// The folders of the stages whose checkpoints, one after the other, made the model what it is.
    lineage: Vec<String>,
    /// What it was at each evaluated stage, by its folder.
    lineages: BTreeMap<String, Vec<String>>,
}

/// What an E-step leaves in `diagnostics.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EStep {
    pub(crate) diagnostics: Diagnostics,
    pub(crate) pack: PackStats,
    /// 1 / sum w² of every question that contributes.
    pub(crate) effective_sample_sizes: Vec<f64>,
}

// What each shared part leaves, the file that tells that it is complete last.
const WARMUP_FILES: [&str; 3] = ["trajectories.jsonl", "train.jsonl", "stats.json"];
const TRAINED_FILES: [&str; 2] = ["checkpoint.steps.jsonl", "checkpoint"];
const SAMPLED_FILES: [&str; 2] = ["scores.jsonl", "trajectories.jsonl"];
const EVALUATED_FILES: [&str; 3] = ["scores.jsonl", "trajectories.jsonl", "eval.json"];

/// Runs or continues the loop in `dir`. `retriever` is what is opened at the configuration's `data.index`. `store` is a folder in
/// which runs share the parts that they make from equal input; the outcome is the same without.
pub fn run(
    config: &RunConfig,
    dir: &Path,
    store: Option<&Path>,
    retriever: &dyn Retriever,
    on_event: OnEvent<'_>,
) -> Result<Outcome, RunError> {
    if let Some(remote) = &config.remote {
        return Err(RunError::RemoteModel { url: remote.url.clone() });
    }
    let folder = RunFolder::open(config, dir)?;
    let sharing = Sharing::new(config, folder.manifest(), store);
    let mut em = Loop::open(config, folder, retriever, sharing)?;
    em.track();
    let train = em.train_questions()?;
    let mut stages = Vec::new();
    if config.em.evaluate_untrained {
        stages.push(em.evaluate("untrained", "untrained", on_event)?);
    }
    if config.warms_up() {
        em.warm_up(on_event)?;
        stages.push(em.evaluate("warm-up", "warmup", on_event)?);
        em.judge(&mut stages, on_event)?;
    }
    let mut n_without_gain = 0;
    for iteration in 1..=config.em.iterations {
        if stages.last().is_some_and(StageSummary::has_collapsed) {
            match config.health.on_collapse {
                OnCollapse::Warn => {}
                OnCollapse::Rollback => em.roll_back(&stages, on_event)?,
                OnCollapse::Stop => {
                    on_event(Event::Collapsed);
                    break;
                }
            }
        }
        let (stage, dir) = (format!("iteration {iteration}"), format!("iter-{iteration}"));
        let questions = questions_of(&train, iteration, config.em.questions);
        let examples = em.e_step(&stage, &dir, iteration, &questions, on_event)?;
        match em.m_step(iteration, &stage, &dir, &examples, on_event) {
            // Its stage is that of the best model so far, with the alarm of the steps that were left out.
            Err(error) if error.is_divergence() && config.health.acts() && !stages.is_empty() => {
                em.return_to_best(&stages, on_event)?;
            }
            trained => trained?,
        }
        let best_before = best_dev_score(&stages);
        stages.push(em.evaluate(&stage, &dir, on_event)?);
        em.judge(&mut stages, on_event)?;
        let gained = best_before.is_none_or(|best| stages.last().expect("just added").dev_score() > best);
        n_without_gain = if gained { 0 } else { n_without_gain + 1 };
        if config.em.patience > 0 && n_without_gain >= config.em.patience && iteration < config.em.iterations {
            on_event(Event::StoppedEarly { n_without_gain });
            break;
        }
    }
    em.finish(stages)
}

/// The questions of an iteration: the next `count` of the shuffled ones, around the end to the start.
fn questions_of(shuffled: &[QaRecord], iteration: usize, count: usize) -> Vec<QaRecord> {
    let count = count.min(shuffled.len());
    let start = (iteration - 1) * count;
    (start..start + count).map(|idx| shuffled[idx % shuffled.len()].clone()).collect()
}

impl<'a> Loop<'a> {
    fn open(
        config: &'a RunConfig,
        folder: RunFolder,
        retriever: &'a dyn Retriever,
        sharing: Sharing,
    ) -> Result<Self, RunError> {
        Ok(Self {
            config,
            folder,
            retriever,
            sampler: config.sampler()?,
            evaluator: config.evaluator()?,
            sets: read_sets(config)?,
            policy: Policy::open(&config.model, None, config.max_tokens, config.device)?,
            sharing,
            lineage: Vec::new(),
            lineages: BTreeMap::new(),
        })
    }

    /// The training questions, shuffled by the seed.
    fn train_questions(&self) -> Result<Vec<QaRecord>, RunError> {
        let data = &self.config.data;
        let mut rows = read_questions(&data.train, data.train_split.as_deref(), BadLines::Stop)?.rows;
        if rows.is_empty() && self.config.em.iterations > 0 {
            return Err(RunError::TooFew { path: data.train.clone(), what: "questions", found: 0, needed: 1 });
        }
        rows.sort_by_cached_key(|question| (job_seed(self.config.seed, &question.id, 0), question.id.clone()));
        Ok(rows)
    }

    fn warm_up(&mut self, on_event: OnEvent<'_>) -> Result<(), RunError> {
        let (config, dir) = (self.config, self.folder.path("warmup"));
        on_event(Event::Part { stage: "warm-up", part: "building gold trajectories" });
        let clock = Instant::now();
        self.sharing.fetch(Part::WarmupData, &dir, &WARMUP_FILES)?;
        let (examples, stats) = replay_into(&dir, || {
            let data = &config.data;
            let path = data.warmup.as_ref().expect("checked by the caller");
            let gold = read_gold(path, &data.warmup_datasets, data.n_warmup, config.seed)?;
            replay(&gold, &self.sampler, &self.policy.chat, self.retriever, &config.pack)
        })?;
        self.sharing.publish(Part::WarmupData, &dir, &WARMUP_FILES)?;
        self.folder.took("warm-up", "building gold trajectories", clock, None)?;
        on_event(Event::Warmup(&stats));
        self.train(Part::WarmupTraining, "warm-up", "warmup", &examples, on_event)?;
        self.sharing.advance(Part::WarmupTraining);
        Ok(())
    }

    /// Samples M trajectories a question with the model as it is, scores the gold answers after each, and weighs.
    fn e_step(
        &mut self,
        stage: &str,
        dir: &str,
        iteration: usize,
        questions: &[QaRecord],
        on_event: OnEvent<'_>,
    ) -> Result<Vec<Example>, RunError> {
        let dir = self.folder.path(dir);
        let (examples_path, e_step_path) = (dir.join("train.jsonl"), dir.join("diagnostics.json"));
        if e_step_path.is_file() {
            return files::read_jsonl(&examples_path);
        }
        let part = Part::Sampling(iteration);
        self.sharing.fetch(part, &dir, &SAMPLED_FILES)?;
        self.sharing.fetch_draws(iteration, &dir, &self.folder.fingerprint(stage))?;
        on_event(Event::Part { stage, part: "sampling and scoring" });
        let clock = Instant::now();
        let draw = Draw {
            config: self.config,
            agent: &self.sampler,
            policy: &self.policy,
            retriever: self.retriever,
            run: self.folder.dir(),
            dir: &dir,
            iteration,
            questions,
            seed: job_seed(self.config.seed, stage, iteration as u32),
            fingerprint: self.folder.fingerprint(stage),
        };
        let sampled = draw.all(&mut |progress| on_event(Event::Sampling(progress)))?;
        self.sharing.publish(part, &dir, &SAMPLED_FILES)?;
        self.folder.took(stage, "sampling and scoring", clock, Some(sampled.work))?;
        let weighed = weigh(&sampled.scores, &self.config.weights)?;
        files::write_jsonl(&dir.join("weights.jsonl"), &weighed.weights)?;
        let (examples, pack) =
            pack(questions, &sampled.trajectories, &weighed.weights, &self.policy.chat, &self.config.pack)?;
        files::write_jsonl(&examples_path, &examples)?;
        let sizes = weighed.questions.iter().map(|question| question.effective_sample_size).filter(|size| *size > 0.0);
        let e_step = EStep { effective_sample_sizes: sizes.collect(), diagnostics: weighed.diagnostics, pack };
        files::write_json(&e_step_path, &e_step)?;
        self.track();
        on_event(Event::Weighed(&e_step.diagnostics, &e_step.pack));
        Ok(examples)
    }

    fn m_step(
        &mut self,
        iteration: usize,
        stage: &str,
        dir: &str,
        examples: &[Example],
        on_event: OnEvent<'_>,
    ) -> Result<(), RunError> {
        let examples_hash = files::fingerprint(&self.folder.path(dir).join("train.jsonl"))?;
        let part = Part::Training(iteration, &examples_hash);
        // Where nothing was worth learning, the model stays as it is, and the next iteration asks other questions.
        if !examples.is_empty() {
            match self.config.em.restart_from {
                RestartFrom::Previous => {}
                RestartFrom::Base => self.go_back(Vec::new())?,
                RestartFrom::Warmup => self.go_back(vec!["warmup".to_owned()])?,
            }
            self.train(part, stage, dir, examples, on_event)?;
        }
        self.sharing.advance(part);
        Ok(())
    }

    fn train(
        &mut self,
        part: Part<'_>,
        stage: &str,
        dir: &str,
        examples: &[Example],
        on_event: OnEvent<'_>,
    ) -> Result<(), RunError> {
        on_event(Event::Part { stage, part: "training" });
        let clock = Instant::now();
        let base = if stage == "warm-up" { &self.config.warmup } else { &self.config.train };
        // Each stage shuffles in its own order, all from the run's seed.
        let config = exsearch_trainer::TrainConfig {
            seed: job_seed(self.config.seed.wrapping_add(base.seed), stage, 0),
            ..base.clone()
        };
        let folder = self.folder.path(dir);
        self.sharing.fetch(part, &folder, &TRAINED_FILES)?;
        train_checkpoint(&mut self.policy, examples, &config, &folder.join("checkpoint"), &mut |step| {
            on_event(Event::Step(step));
        })?;
        self.sharing.publish(part, &folder, &TRAINED_FILES)?;
        self.lineage.push(dir.to_owned());
        self.track();
        self.folder.took(stage, "training", clock, None)
    }

    /// Tells the trackers whose files are in the run folder what is new in it. That they cannot be told is no reason to stop.
    fn track(&self) {
        if let Err(error) = crate::tracking::write(self.config, self.folder.dir()) {
            tracing::warn!("nothing new for trackers: {error}");
        }
    }

    /// Answers every held-out set greedily.
    fn evaluate(&mut self, stage: &str, dir: &str, on_event: OnEvent<'_>) -> Result<StageSummary, RunError> {
        self.lineages.insert(dir.to_owned(), self.lineage.clone());
        for set in &self.sets {
            let dir = self.folder.path(dir).join(format!("eval-{}", set.name));
            let report_path = dir.join("eval.json");
            let shared = Part::Evaluation(&set.name);
            self.sharing.fetch(shared, &dir, &EVALUATED_FILES)?;
            if !report_path.is_file() {
                let part = format!("evaluating on {}", set.name);
                on_event(Event::Part { stage, part: &part });
                let clock = Instant::now();
                let task = SampleTask {
                    agent: &self.evaluator,
                    questions: &set.questions,
                    n_samples: 1,
                    plans: None,
                    seed: self.config.seed,
                    fingerprint: self.folder.fingerprint(&format!("{stage} {}", set.name)),
                    trajectories: &dir.join("trajectories.jsonl"),
                    scores: Some(&dir.join("scores.jsonl")),
                };
                let sampled = sample(&task, &self.policy, &self.config.generator, self.retriever, &mut |progress| {
                    on_event(Event::Sampling(progress));
                })?;
                let report = evaluate(&sampled.trajectories, &set.questions, &self.config.evaluation)?;
                files::write_json(&report_path, &report)?;
                self.track();
                self.folder.took(stage, &part, clock, Some(sampled.work))?;
            }
            self.sharing.publish(shared, &dir, &EVALUATED_FILES)?;
            on_event(Event::Evaluated { stage, set: &set.name, report: &read_report(&report_path)? });
        }
        StageSummary::read(self.config, self.folder.dir(), stage, dir)
    }

    /// Writes down the health of the last of `stages`, all of which are evaluated.
    fn judge(&self, stages: &mut [StageSummary], on_event: OnEvent<'_>) -> Result<(), RunError> {
        let Some((now, before)) = stages.split_last_mut() else { return Ok(()) };
        let trained = before.iter().filter_map(|stage| stage.health.as_ref());
        let trained: Vec<Measures> = trained.map(|health| health.measures.clone()).collect();
        let best = best_dev_score(before);
        let dir = self.folder.path(&now.dir);
        let measures = measure(&dir, &now.steps, &self.config.weights, now.dev_score())?;
        let health = Health { alarms: alarms(&measures, &trained, best, &self.config.health), measures };
        files::write_json(&dir.join("health.json"), &health)?;
        on_event(Event::Judged { stage: &now.name, alarms: &health.alarms });
        now.health = Some(health);
        Ok(())
    }

    /// Makes the model again what it was after the stage that is best on dev.
    fn roll_back(&mut self, stages: &[StageSummary], on_event: OnEvent<'_>) -> Result<(), RunError> {
        if self.lineages[&stages[best_of(stages)].dir] == self.lineage {
            return Ok(());
        }
        self.return_to_best(stages, on_event)
    }

    /// The same, whatever the model is now: a training that diverged leaves it half trained.
    fn return_to_best(&mut self, stages: &[StageSummary], on_event: OnEvent<'_>) -> Result<(), RunError> {
        let best = &stages[best_of(stages)];
        self.remake(self.lineages[&best.dir].clone())?;
        self.sharing.rolled_back(&best.dir);
        on_event(Event::RolledBack { to: &best.name });
        Ok(())
    }

    /// Makes the model what the checkpoints of these stages, one after the other, made of it.
    fn go_back(&mut self, lineage: Vec<String>) -> Result<(), RunError> {
        if lineage == self.lineage {
            return Ok(());
        }
        self.remake(lineage)
    }

    fn remake(&mut self, lineage: Vec<String>) -> Result<(), RunError> {
        self.policy.restart()?;
        for dir in &lineage {
            self.policy.load_checkpoint(&self.folder.path(dir).join("checkpoint"))?;
        }
        self.lineage = lineage;
        Ok(())
    }

    fn finish(self, stages: Vec<StageSummary>) -> Result<Outcome, RunError> {
        let outcome =
            crate::summary::finish(self.config, self.folder.dir(), stages, &self.sets, DEFAULT_MAX_QUESTIONS)?;
        self.folder.record(&outcome.stages)?;
        self.track();
        Ok(outcome)
    }
}

/// All held-out sets, `dev` first.
pub(crate) fn read_sets(config: &RunConfig) -> Result<Vec<EvalSet>, RunError> {
    let data = &config.data;
    let mut sets = vec![read_set("dev", &data.dev, data.dev_split.as_deref(), data.n_dev)?];
    for test in &data.test {
        sets.push(read_set(&test.name, &test.questions, test.split.as_deref(), test.limit)?);
    }
    Ok(sets)
}

fn read_set(name: &str, path: &Path, split: Option<&str>, limit: Option<usize>) -> Result<EvalSet, RunError> {
    let mut questions = read_questions(path, split, BadLines::Stop)?.rows;
    let needed = limit.unwrap_or(1);
    if questions.len() < needed {
        return Err(RunError::TooFew { path: path.to_owned(), what: "questions", found: questions.len(), needed });
    }
    questions.truncate(limit.unwrap_or(usize::MAX));
    Ok(EvalSet { name: name.to_owned(), questions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsearch_schema::GoldAnswers;

    #[test]
    fn iterations_take_turns_through_the_questions() {
        let answers = GoldAnswers::new(vec!["a".into()]).expect("one answer");
        let question = |idx: usize| QaRecord::new(idx.to_string(), "who?", answers.clone());
        let all: Vec<QaRecord> = (0..5).map(question).collect();
        let ids = |iteration| questions_of(&all, iteration, 3).into_iter().map(|it| it.id).collect::<String>();
        assert_eq!([ids(1), ids(2), ids(3)], ["012", "340", "123"]);
        assert_eq!(questions_of(&all, 2, 100).len(), 5);
    }
}
