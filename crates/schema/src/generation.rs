//! The seam between the agent and the language model: requests in token ids, generations with per-token log-probs.
use crate::Message;
use serde::{Deserialize, Serialize};

/// How a turn is sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 takes the most probable token, 1 samples from the model as it is.
    pub temperature: f32,
    /// Samples from the smallest set of tokens that holds this much probability; 1 keeps all.
    pub top_p: f32,
    /// The turn is cut after this many tokens.
    pub max_new_tokens: usize,
    /// The turn ends behind the first of these strings.
    pub stop: Vec<String>,
    /// Draws depend on this and on the request's context only, never on its neighbours in a batch.
    pub seed: u64,
}

/// One turn to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// All token ids before the turn. Requests that share a beginning with earlier ones are not computed anew.
    pub context: Vec<u32>,
    /// How to sample it.
    pub sampling: Sampling,
    /// The same as turns of a chat, for generators that take no ids.
    pub messages: Vec<Message>,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model wrote its end-of-turn token, which is the last id.
    EndOfTurn,
    /// The text holds a stop string.
    StopString,
    /// `max_new_tokens` was reached.
    MaxTokens,
}

/// A generated turn. A list of log-probs is as long as that of the ids, or empty where the generator does not know them.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The sampled ids, the end-of-turn token included. Where a generator gives text only, the ids that the tokenizer makes of it.
    pub ids: Vec<u32>,
    /// log p(token | all before) at temperature 1, in nats, under the weights that it was sampled with: the model itself, unless
    /// the generator rounds them.
    pub logprobs: Vec<f32>,
    /// The same under the distribution that was sampled from (temperature and top-p applied, of the same weights).
    pub behaviour_logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Why a turn could not be generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenerateError {
    /// The context leaves no room for a token.
    ContextTooLong {
        /// Its length in tokens.
        length: usize,
        /// The most that the generator takes.
        limit: usize,
    },
    /// The generator failed; the text says how.
    Failed(String),
}

/// Names a request between [`Generator::submit`] and [`Generator::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Generates turns, many at once.
pub trait Generator {
    /// Takes a request; it runs inside later calls of [`Generator::wait`].
    fn submit(&mut self, request: GenerateRequest) -> RequestId;

    /// Works until at least one request is done and returns all that are, in the order of their ids. Empty only when none
    /// is under way.
    fn wait(&mut self) -> Vec<(RequestId, Result<Generation, GenerateError>)>;
}

/// Continuations to score after one context.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScoreRequest {
    /// All token ids before the continuations.
    pub context: Vec<u32>,
    /// Each is scored on its own after the context.
    pub continuations: Vec<Vec<u32>>,
}

/// A request could not be scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoreError(pub String);

/// Computes log-probs of given continuations with the training stack.
pub trait Scorer {
    /// For every request the summed log-prob of each continuation, in nats.
    fn score(&mut self, requests: &[ScoreRequest]) -> Vec<Result<Vec<f32>, ScoreError>>;
}

impl std::fmt::Display for GenerateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ContextTooLong { length, limit } => {
                write!(f, "the context of {length} tokens leaves no room within the limit of {limit}")
            }
            Self::Failed(reason) => write!(f, "the generator failed: {reason}"),
        }
    }
}

impl std::error::Error for GenerateError {}

impl std::fmt::Display for ScoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the scorer failed: {}", self.0)
    }
}

impl std::error::Error for ScoreError {}
