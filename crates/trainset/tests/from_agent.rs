//! From the agent's runs to training examples: what is learned is what the generator wrote, token for token, at the place
//! where it wrote it. The generator's own log is the witness.
use exsearch_agent::{Agent, AgentConfig, EventKind, Job, Protocol, RepeatedQuery, SelectConfig, job_seed};
use exsearch_schema::{
    ChatCodec, ChatError, Example, Finish, GenerateError, GenerateRequest, Generation, Generator, GoldAnswers, Hit,
    Message, Question, RequestId, RetrieveError, Retriever, Role, ScoreError, ScoreRequest, Scorer, Trajectory,
};
use exsearch_trainset::{PackConfig, Packer, WeightsConfig, answer_turns, score, weigh};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

const USER: u32 = 256;
const ASSISTANT: u32 = 257;
const END: u32 = 258;

/// Bytes as ids, three more for the template.
struct ByteChat;

impl ChatCodec for ByteChat {
    fn open(&self, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
        let turns = messages.iter().flat_map(|message| {
            let header = if message.role == Role::Assistant { ASSISTANT } else { USER };
            std::iter::once(header).chain(self.turn(&message.content))
        });
        Ok(turns.chain([ASSISTANT]).collect())
    }

    fn reply(&self, _: &[Message], ended: bool, next: &Message) -> Result<Vec<u32>, ChatError> {
        let end = if ended { None } else { Some(END) };
        Ok(end.into_iter().chain(self.open(std::slice::from_ref(next))?).collect())
    }

    fn turn(&self, text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).chain([END]).collect()
    }

    fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Rolls dice for its turns and logs what it wrote after which context.
#[derive(Default)]
struct DiceGenerator {
    queue: Vec<(RequestId, GenerateRequest)>,
    /// Context and turn; samples of a question share contexts.
    log: BTreeSet<(Vec<u32>, Vec<u32>)>,
    n_submitted: u64,
}

impl Generator for DiceGenerator {
    fn submit(&mut self, request: GenerateRequest) -> RequestId {
        self.n_submitted += 1;
        self.queue.push((RequestId(self.n_submitted), request));
        RequestId(self.n_submitted)
    }

    fn wait(&mut self) -> Vec<(RequestId, Result<Generation, GenerateError>)> {
        let mut done = Vec::new();
        for (id, request) in std::mem::take(&mut self.queue) {
            let texts = [
                "<think> river",
                "<record> wet\n<think> sea",
                "<record> deep\n<final>",
                "<think>",
                "[1]",
                "[9] > [1]",
                "no mark at all",
                "<think> a query that goes on until it is cut off by the limit",
            ];
            let text = texts[(request.sampling.seed % texts.len() as u64) as usize];
            // A tokenizer may split a word in many ways; here the space is also written as id 300 sometimes, which no
            // tokenizer of text would ever give back.
            let mut ids: Vec<u32> = ByteChat.turn(text);
            if request.sampling.seed % 3 == 0 {
                ids.insert(1, 300);
            }
            let is_cut = ids.len() > request.sampling.max_new_tokens;
            ids.truncate(request.sampling.max_new_tokens);
            self.log.insert((request.context, ids.clone()));
            let logprobs = vec![-1.0; ids.len()];
            let finish = if is_cut { Finish::MaxTokens } else { Finish::EndOfTurn };
            let result = if request.sampling.seed % 41 == 0 {
                Err(GenerateError::Failed("unlucky".to_owned()))
            } else {
                Ok(Generation { ids, behaviour_logprobs: logprobs.clone(), logprobs, finish })
            };
            done.push((id, result));
        }
        done
    }
}

struct OnePassage;

impl Retriever for OnePassage {
    fn search_batch(&self, queries: &[&str], _: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let (title, text) = ("Sea".to_owned(), "<think> a passage that tries to look like a turn <final>".to_owned());
        let hit = Hit { id: "1".into(), title, text, score: 1.0 };
        queries.iter().map(|_| Ok(vec![hit.clone()])).collect()
    }
}

struct LengthScorer;

impl Scorer for LengthScorer {
    fn score(&mut self, requests: &[ScoreRequest]) -> Vec<Result<Vec<f32>, ScoreError>> {
        let score = |request: &ScoreRequest| vec![-(request.context.len() as f32) / 500.0; request.continuations.len()];
        requests.iter().map(|request| Ok(score(request))).collect()
    }
}

/// The learned runs of an example: where each starts, and its ids.
fn learned_runs(example: &Example) -> Vec<(usize, Vec<u32>)> {
    let mut runs: Vec<(usize, Vec<u32>)> = Vec::new();
    for (at, (&id, &mask)) in example.ids.iter().zip(&example.loss_mask).enumerate() {
        match runs.last_mut() {
            _ if mask == 0 => {}
            Some((start, ids)) if *start + ids.len() == at => ids.push(id),
            _ => runs.push((at, vec![id])),
        }
    }
    runs
}

#[test]
fn defect_3_what_is_learned_is_what_was_sampled_where_it_was_sampled() {
    let config = AgentConfig {
        max_turn_tokens: 48,
        select: Some(SelectConfig::default()),
        repeated_query: RepeatedQuery::Refuse,
        ..AgentConfig::default()
    };
    let agent = Agent::new(Protocol::default(), config).expect("the settings hold");
    let job = |question_idx: u32, sample_idx: u32| {
        let question = Question { id: format!("q{question_idx}"), text: format!("How deep is sea {question_idx}?") };
        Job { seed: job_seed(3, &question.id, sample_idx), question, sample_idx, hint: None }
    };
    let jobs: Vec<Job> = (0..60).flat_map(|question_idx| (0..4).map(move |at| job(question_idx, at))).collect();
    let mut generator = DiceGenerator::default();
    let mut trajectories: Vec<Trajectory> = Vec::new();
    let flow = agent.run(&jobs, &ByteChat, &mut generator, &OnePassage, &mut |event| {
        if let EventKind::Done(trajectory) = event.kind {
            trajectories.push(*trajectory);
        }
        ControlFlow::Continue(())
    });
    assert_eq!((flow, trajectories.len()), (ControlFlow::Continue(()), jobs.len()));

    let gold = GoldAnswers::new(vec!["very deep".to_owned()]).expect("not empty");
    let answers = answer_turns(&gold, &ByteChat);
    let pairs: Vec<(&Trajectory, &[Vec<u32>])> =
        trajectories.iter().map(|trajectory| (trajectory, answers.as_slice())).collect();
    let scored = score(&pairs, &mut LengthScorer);
    let weighed = weigh(&scored, &WeightsConfig::default()).expect("distinct samples");
    let mut packer = Packer::new(PackConfig::default()).expect("the settings hold");
    let mut n_search_turns = 0;
    for (trajectory, weight) in trajectories.iter().zip(&weighed.weights) {
        for example in packer.sampled(trajectory, weight, &answers).expect("they belong together") {
            assert_eq!(f64::from(example.weight), f64::from(weight.weight as f32));
            for (start, ids) in learned_runs(&example) {
                if ids == answers[0] && start + ids.len() == example.ids.len() {
                    assert_eq!(trajectory.answer_context().as_deref(), Some(&example.ids[..start]));
                } else {
                    let written = (example.ids[..start].to_vec(), ids);
                    assert!(generator.log.contains(&written), "not as the generator wrote it: {written:?}");
                    n_search_turns += 1;
                }
            }
        }
    }
    // The dice reached all that matters here.
    let stats = packer.stats();
    assert_eq!(stats.n_trajectories, jobs.len());
    assert!(n_search_turns > 50 && stats.n_failed > 0, "{n_search_turns} {stats:?}");
    assert!(stats.n_broken_turns > 0 && stats.n_selects > 0 && stats.n_broken_selects > 0, "{stats:?}");
    assert_eq!(weighed.diagnostics.n_failed, stats.n_failed);
}
