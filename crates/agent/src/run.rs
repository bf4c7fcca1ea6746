//! Many trajectories at once over one generator and one retriever.
//!
//! A trajectory whose turn is done goes on at once; it never waits for its neighbours. What is sampled depends on the
//! job alone: seeds come from the job and the turn's position, not from the batch.
use crate::config::AgentConfig;
use crate::dialogue::{Dialogue, Need, Turn};
use crate::event::{Event, EventKind};
use crate::{AgentError, Protocol};
use exsearch_schema::{Boundary, ChatCodec, Generator, Question, RequestId, RetrieveError, Retriever};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The agent: a wording and its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    protocol: Protocol,
    config: AgentConfig,
}

/// One trajectory to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What to answer.
    pub question: Question,
    /// Which of the question's samples.
    pub sample_idx: u32,
    /// Where its draws come from; see [`crate::job_seed`].
    pub seed: u64,
    /// More that the first message says while turns are sampled. The trajectory that comes out is told without it, and holds of log-probs
    /// only those of what was sampled from ([`exsearch_schema::Source::Hinted`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Agent {
    /// Checks both.
    pub fn new(protocol: Protocol, config: AgentConfig) -> Result<Self, AgentError> {
        protocol.check()?;
        config.check()?;
        Ok(Self { protocol, config })
    }

    /// The wording.
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// The settings.
    pub fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// Makes a trajectory for every job, in the order in which they end: each arrives as [`EventKind::Done`], failed ones
    /// too. When `on_event` breaks, the ones under way are given up and the break is returned; the generator may then still
    /// hold their requests, which a later call ignores.
    pub fn run(
        &self,
        jobs: &[Job],
        chat: &dyn ChatCodec,
        generator: &mut dyn Generator,
        retriever: &dyn Retriever,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut waiting = jobs.iter().enumerate();
        let mut live: BTreeMap<usize, Dialogue<'_>> = BTreeMap::new();
        let mut requests: BTreeMap<RequestId, usize> = BTreeMap::new();
        loop {
            // The ones that moved are those without a request: new ones, and those whose turn is done.
            let n_free = self.config.max_concurrent - live.len();
            let mut moved: Vec<usize> = Vec::new();
            for (job_idx, job) in waiting.by_ref().take(n_free) {
                live.insert(job_idx, Dialogue::open(&self.protocol, &self.config, chat, job));
                moved.push(job_idx);
            }
            if live.is_empty() {
                return ControlFlow::Continue(());
            }
            if moved.is_empty() {
                moved = take_turns(generator, &mut requests, &mut live);
            }
            self.search(&moved, &mut live, retriever);
            for job_idx in moved {
                let dialogue = live.get_mut(&job_idx).expect("only live dialogues move");
                for kind in dialogue.take_events() {
                    on_event(Event { job_idx, kind })?;
                }
                match dialogue.need() {
                    Need::Turn(kind) => {
                        requests.insert(generator.submit(dialogue.request(kind)), job_idx);
                    }
                    Need::Nothing => {
                        let dialogue = live.remove(&job_idx).expect("it was just there");
                        let kind = EventKind::Done(Box::new(dialogue.into_trajectory()));
                        on_event(Event { job_idx, kind })?;
                    }
                    Need::Hits => unreachable!("every query was searched"),
                }
            }
        }
    }

    /// Searches the queries of all dialogues that moved, in one call.
    fn search(&self, moved: &[usize], live: &mut BTreeMap<usize, Dialogue<'_>>, retriever: &dyn Retriever) {
        let searching: Vec<usize> =
            moved.iter().copied().filter(|job_idx| live[job_idx].need() == Need::Hits).collect();
        if searching.is_empty() {
            return;
        }
        let queries: Vec<&str> = searching.iter().map(|job_idx| live[job_idx].query()).collect();
        let mut found = retriever.search_batch(&queries, self.config.n_retrieved()).into_iter();
        for job_idx in &searching {
            let missing = || Err(RetrieveError::Failed("it returned no result for the query".to_owned()));
            let hits = found.next().unwrap_or_else(missing);
            live.get_mut(job_idx).expect("only live dialogues search").take_hits(hits);
        }
    }
}

/// Waits for turns and hands them out. Returns whose turns they were, in the order of the jobs.
fn take_turns(
    generator: &mut dyn Generator,
    requests: &mut BTreeMap<RequestId, usize>,
    live: &mut BTreeMap<usize, Dialogue<'_>>,
) -> Vec<usize> {
    let done = generator.wait();
    let mut moved = Vec::new();
    if done.is_empty() {
        // It claims that nothing is under way: no turn will ever come.
        for (_, job_idx) in std::mem::take(requests) {
            let dialogue = live.get_mut(&job_idx).expect("requests belong to live dialogues");
            dialogue.fail(Boundary::Generator, "the generator lost the request".to_owned());
            moved.push(job_idx);
        }
    }
    for (id, generated) in done {
        // A request of an earlier call that was given up.
        let Some(job_idx) = requests.remove(&id) else { continue };
        let dialogue = live.get_mut(&job_idx).expect("requests belong to live dialogues");
        match generated {
            Ok(generation) => dialogue.take_turn(Turn::sampled(generation)),
            Err(error) => dialogue.take_generate_error(&error),
        }
        moved.push(job_idx);
    }
    moved.sort_unstable();
    moved
}
