//! Scores from a server that gives log-probs.
use crate::config::Protocol;
use crate::model::Server;
use crate::{llama_cpp, vllm};
use exsearch_http::in_parallel;
use exsearch_schema::{ScoreError, ScoreRequest, Scorer};
use std::sync::Arc;

/// Scores answers, several at once.
pub struct RemoteScorer {
    server: Arc<Server>,
}

impl RemoteScorer {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server }
    }

    fn score_one(&self, context: &[u32], continuation: &[u32]) -> Result<f32, ScoreError> {
        if context.is_empty() {
            return Err(ScoreError("there is no context to predict from".to_owned()));
        }
        let server = &*self.server;
        let scored = match server.config.protocol {
            Protocol::LlamaCpp => llama_cpp::score(server, context, continuation),
            Protocol::Vllm => vllm::score(server, context, continuation),
            Protocol::Completions | Protocol::Chat => unreachable!("RemoteModel::scorer makes none for them"),
        };
        scored.map_err(|error| ScoreError(server.told(&error)))
    }
}

impl Scorer for RemoteScorer {
    fn score(&mut self, requests: &[ScoreRequest]) -> Vec<Result<Vec<f32>, ScoreError>> {
        let jobs: Vec<(&[u32], &[u32])> = requests
            .iter()
            .flat_map(|request| request.continuations.iter().map(|ids| (&request.context[..], &ids[..])))
            .collect();
        let score = |at: usize| self.score_one(jobs[at].0, jobs[at].1);
        let mut scores = in_parallel(jobs.len(), self.server.config.http.max_concurrent, score).into_iter();
        requests.iter().map(|request| scores.by_ref().take(request.continuations.len()).collect()).collect()
    }
}
