//! Questions to trajectories in a file: many at once, scored while their caches are warm, resumable after a kill.
use crate::error::RunError;
use crate::files::{self, Journal, with_suffix};
use crate::workbench::{GeneratorConfig, LocalEngine, Policy};
use exsearch_agent::{Agent, EventKind, Job, job_seed};
use exsearch_schema::{QaRecord, Retriever, ScoreError, ScoreRequest, Trajectory};
use exsearch_trainset::{Scored, answer_turns, score};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

/// What to sample.
pub struct SampleTask<'a> {
    /// The agent; its settings say how turns are drawn.
    pub agent: &'a Agent,
    /// What to answer. The agent is given the questions without their answers.
    pub questions: &'a [QaRecord],
    /// M: trajectories a question.
    pub n_samples: u32,
    /// Where all draws come from.
    pub seed: u64,
    /// Names model, settings and data: a journal left by another task is refused.
    pub fingerprint: String,
    /// Where the trajectories go, in the order of questions and samples.
    pub trajectories: &'a Path,
    /// Where log p(gold answers | trajectory) goes, in the same order; without it nothing is scored.
    pub scores: Option<&'a Path>,
}

/// How far sampling is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleProgress {
    /// Trajectories that are there.
    pub n_done: usize,
    /// Trajectories in all.
    pub n_total: usize,
}

/// Trajectories, and their scores where asked for, in the order of questions and samples.
pub struct Sampled {
    /// One for each question and sample; failed ones too.
    pub trajectories: Vec<Trajectory>,
    /// As many, or none.
    pub scores: Vec<Scored>,
}

/// Scored together: few enough that their caches are still there, enough to be worth a pass.
const SCORED_TOGETHER: usize = 8;

/// Samples what a task asks for, or reads it where it is there already. Wall times are left out of the file, so that the same
/// task gives the same bytes however often it was interrupted.
pub fn sample(
    task: &SampleTask<'_>,
    policy: &Policy,
    generator: &GeneratorConfig,
    retriever: &dyn Retriever,
    on_progress: &mut dyn FnMut(SampleProgress),
) -> Result<Sampled, RunError> {
    if task.trajectories.is_file() && task.scores.is_none_or(Path::is_file) {
        return read_back(task);
    }
    let n_total = task.questions.len() * task.n_samples as usize;
    let (mut journal, mut done) =
        Journal::open::<Trajectory>(&with_suffix(task.trajectories, ".partial"), &task.fingerprint)?;
    let mut score_journal = match task.scores {
        Some(path) => Some(Journal::open::<Scored>(&with_suffix(path, ".partial"), &task.fingerprint)?),
        None => None,
    };
    let have: std::collections::HashSet<(String, u32)> =
        done.iter().map(|trajectory| (trajectory.question_id.clone(), trajectory.sample_idx)).collect();
    let jobs: Vec<Job> = task
        .questions
        .iter()
        .flat_map(|question| (0..task.n_samples).map(move |sample_idx| (question, sample_idx)))
        .filter(|(question, sample_idx)| !have.contains(&(question.id.clone(), *sample_idx)))
        .map(|(question, sample_idx)| Job {
            question: question.ask(),
            sample_idx,
            seed: job_seed(task.seed, &question.id, sample_idx),
        })
        .collect();
    on_progress(SampleProgress { n_done: done.len(), n_total });

    let engine = policy.engine(generator);
    let mut scorer = Scorer::new(task, policy, &engine);
    let mut failure = None;
    let mut new = Vec::with_capacity(jobs.len());
    let _ = task.agent.run(&jobs, &policy.chat, &mut *engine.generator(), retriever, &mut |event| {
        let EventKind::Done(trajectory) = event.kind else { return ControlFlow::Continue(()) };
        let mut trajectory = *trajectory;
        trajectory.secs = 0.0;
        let kept = journal.push(&trajectory).and_then(|()| match &mut score_journal {
            Some((journal, scores)) => scorer.take(&trajectory, journal, scores),
            None => Ok(()),
        });
        new.push(trajectory);
        on_progress(SampleProgress { n_done: done.len() + new.len(), n_total });
        match kept {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    done.append(&mut new);
    let order: HashMap<&str, usize> =
        task.questions.iter().enumerate().map(|(idx, question)| (question.id.as_str(), idx)).collect();
    done.sort_by_key(|trajectory| (order.get(trajectory.question_id.as_str()).copied(), trajectory.sample_idx));
    let mut scores = Vec::new();
    if let (Some((mut score_log, mut scored)), Some(path)) = (score_journal, task.scores) {
        scorer.flush(&mut score_log, &mut scored)?;
        // A kill between a trajectory and its score leaves the trajectory alone.
        let known: std::collections::HashSet<(String, u32)> =
            scored.iter().map(|scored| (scored.question_id.clone(), scored.sample_idx)).collect();
        for trajectory in &done {
            if !known.contains(&(trajectory.question_id.clone(), trajectory.sample_idx)) {
                scorer.take(trajectory, &mut score_log, &mut scored)?;
            }
        }
        scorer.flush(&mut score_log, &mut scored)?;
        scored.sort_by_key(|scored| (order.get(scored.question_id.as_str()).copied(), scored.sample_idx));
        files::write_jsonl(path, &scored)?;
        score_log.remove()?;
        scores = scored;
    }
    files::write_jsonl(task.trajectories, &done)?;
    journal.remove()?;
    Ok(Sampled { trajectories: done, scores })
}

fn read_back(task: &SampleTask<'_>) -> Result<Sampled, RunError> {
    let trajectories: Vec<Trajectory> = files::read_jsonl(task.trajectories)?;
    let expected = task.questions.iter().flat_map(|question| (0..task.n_samples).map(move |idx| (&question.id, idx)));
    let found = trajectories.iter().map(|trajectory| (&trajectory.question_id, trajectory.sample_idx));
    if !expected.eq(found) {
        let dir = task.trajectories.parent().unwrap_or(Path::new(".")).to_owned();
        let reason = format!("{} answers other questions", task.trajectories.display());
        return Err(RunError::OtherRun { dir, reason });
    }
    let scores = task.scores.map(files::read_jsonl).transpose()?.unwrap_or_default();
    Ok(Sampled { trajectories, scores })
}

/// Scores gold answers after trajectories, a few at a time. It alone sees the gold answers.
struct Scorer<'a, 'm> {
    answers: HashMap<&'a str, Vec<Vec<u32>>>,
    engine: &'a LocalEngine<'m>,
    waiting: Vec<Trajectory>,
    known: HashMap<ScoreRequest, Result<Vec<f32>, ScoreError>>,
}

/// Scores equal requests once: many of a question's samples are the same trajectory.
struct Once<'a, 'e, 'm> {
    engine: &'e LocalEngine<'m>,
    known: &'a mut HashMap<ScoreRequest, Result<Vec<f32>, ScoreError>>,
}

impl exsearch_schema::Scorer for Once<'_, '_, '_> {
    fn score(&mut self, requests: &[ScoreRequest]) -> Vec<Result<Vec<f32>, ScoreError>> {
        let mut new: Vec<ScoreRequest> = Vec::new();
        for request in requests {
            if !self.known.contains_key(request) && !new.contains(request) {
                new.push(request.clone());
            }
        }
        let scores = self.engine.scorer().score(&new);
        self.known.extend(new.into_iter().zip(scores));
        requests.iter().map(|request| self.known[request].clone()).collect()
    }
}

impl<'a, 'm> Scorer<'a, 'm> {
    fn new(task: &SampleTask<'a>, policy: &'m Policy, engine: &'a LocalEngine<'m>) -> Self {
        let turns = |question: &'a QaRecord| (question.id.as_str(), answer_turns(&question.answers, &policy.chat));
        let answers = if task.scores.is_some() { task.questions.iter().map(turns).collect() } else { HashMap::new() };
        Self { answers, engine, waiting: Vec::new(), known: HashMap::new() }
    }

    fn take(&mut self, it: &Trajectory, journal: &mut Journal, scores: &mut Vec<Scored>) -> Result<(), RunError> {
        self.waiting.push(it.clone());
        if self.waiting.len() >= SCORED_TOGETHER { self.flush(journal, scores) } else { Ok(()) }
    }

    fn flush(&mut self, journal: &mut Journal, scores: &mut Vec<Scored>) -> Result<(), RunError> {
        let waiting = std::mem::take(&mut self.waiting);
        let pairs: Vec<(&Trajectory, &[Vec<u32>])> = waiting
            .iter()
            .map(|trajectory| (trajectory, self.answers[trajectory.question_id.as_str()].as_slice()))
            .collect();
        for scored in score(&pairs, &mut Once { engine: self.engine, known: &mut self.known }) {
            journal.push(&scored)?;
            scores.push(scored);
        }
        Ok(())
    }
}
