//! Tokens of a turn as they arrive, until the turn ends.
use crate::model::{Server, wrong};
use exsearch_http::HttpError;
use exsearch_schema::{Finish, GenerateRequest, Generation, Sampling};
use std::time::Instant;

/// A turn under way.
#[derive(Clone)]
pub(crate) struct Turn<'a> {
    server: &'a Server,
    request: &'a GenerateRequest,
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<f32>,
    /// What the server says that the ids spell, as far as it has told.
    server_text: String,
    started: Instant,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(server: &'a Server, request: &'a GenerateRequest) -> Self {
        let (ids, logprobs) = (Vec::new(), Vec::new());
        Self { server, request, ids, logprobs, server_text: String::new(), started: Instant::now() }
    }

    /// Takes a sampled token with its log-prob and says whether the turn ends with it.
    pub(crate) fn push(&mut self, id: u32, logprob: f32) -> Result<Option<Finish>, HttpError> {
        let vocabulary = &self.server.vocabulary;
        if id as usize >= vocabulary.n_tokens {
            let n_tokens = vocabulary.n_tokens;
            return Err(wrong(format!(
                "it has the token {id}, but the tokenizer has {n_tokens}: is it the same model?"
            )));
        }
        self.ids.push(id);
        self.logprobs.push(checked(logprob)?);
        if vocabulary.end_ids.contains(&id) {
            return Ok(Some(Finish::EndOfTurn));
        }
        let Sampling { stop, max_new_tokens, .. } = &self.request.sampling;
        if !stop.is_empty() && end_of_stop(&vocabulary.chat.decode(&self.ids), stop).is_some() {
            return Ok(Some(Finish::StopString));
        }
        let is_cut = self.ids.len() >= *max_new_tokens || is_late(self.server, self.started);
        Ok(is_cut.then_some(Finish::MaxTokens))
    }

    /// The server's words for what it sent, to be compared with the tokenizer's.
    pub(crate) fn hear(&mut self, text: &str) {
        self.server_text.push_str(text);
    }

    /// The turn, when the server says that it ended with the token that came last although no token said so.
    pub(crate) fn ended_by_server(self) -> HttpError {
        let last = self.ids.last().map_or("no token".to_owned(), |id| format!("the token {id}"));
        wrong(format!("the turn ends with {last}, which ends no turn in the model folder: is it the same model?"))
    }

    /// Errors when the server spells the ids in another way than the tokenizer.
    pub(crate) fn end(self, finish: Finish) -> Result<Generation, HttpError> {
        let ours = self.server.vocabulary.chat.decode(&self.ids);
        // A decoder may strip the space before its first word. Parts of characters are spelled as everyone likes.
        let (ours, theirs) = (ours.trim_start(), self.server_text.trim_start());
        let has_parts = |text: &str| text.contains('\u{FFFD}');
        if !ours.starts_with(theirs) && !has_parts(ours) && !has_parts(theirs) {
            let start = |text: &str| text.chars().take(60).collect::<String>();
            let (ours, theirs) = (start(ours), start(theirs));
            return Err(wrong(format!(
                "its tokens are {theirs:?} to the server and {ours:?} to the tokenizer: is it the same model?"
            )));
        }
        let Self { ids, logprobs, .. } = self;
        let behaviour_logprobs = behaviour(&self.request.sampling, &logprobs);
        Ok(Generation { ids, logprobs, behaviour_logprobs, finish })
    }
}

/// A turn of which only text comes.
pub(crate) struct TextTurn<'a> {
    server: &'a Server,
    sampling: &'a Sampling,
    text: String,
    started: Instant,
}

impl<'a> TextTurn<'a> {
    pub(crate) fn new(server: &'a Server, request: &'a GenerateRequest) -> Self {
        Self { server, sampling: &request.sampling, text: String::new(), started: Instant::now() }
    }

    /// Takes what came next and says whether the turn ends here.
    pub(crate) fn push(&mut self, text: &str) -> Option<Finish> {
        self.text.push_str(text);
        if let Some(end) = end_of_stop(&self.text, &self.sampling.stop) {
            self.text.truncate(end);
            return Some(Finish::StopString);
        }
        is_late(self.server, self.started).then_some(Finish::MaxTokens)
    }

    /// The turn with the ids that the tokenizer makes of its text. What was sampled may have been others, so there are no log-probs.
    pub(crate) fn end(self, mut finish: Finish) -> Generation {
        let mut ids = self.server.vocabulary.chat.turn(&self.text);
        if finish != Finish::EndOfTurn {
            ids.pop();
        }
        if ids.len() > self.sampling.max_new_tokens {
            ids.truncate(self.sampling.max_new_tokens);
            finish = Finish::MaxTokens;
        }
        Generation { ids, logprobs: Vec::new(), behaviour_logprobs: Vec::new(), finish }
    }
}

/// A log-prob that a sum can take: servers write the log of an f32 that was rounded to 0 in their own ways, all below this.
pub(crate) fn checked(logprob: f32) -> Result<f32, HttpError> {
    match logprob {
        _ if logprob.is_nan() || logprob > 1e-3 => Err(wrong(format!("a log-prob is {logprob}"))),
        _ => Ok(logprob.clamp(LOWEST, 0.0)),
    }
}

/// ln of the smallest f32 above 0, 2^-149.
const LOWEST: f32 = -103.278_93;

/// What is known of the distribution that was sampled from: greedy choices have probability 1, and at temperature 1 with all tokens
/// it is the model's own. Otherwise no server tells both.
fn behaviour(sampling: &Sampling, logprobs: &[f32]) -> Vec<f32> {
    match sampling {
        Sampling { temperature: 0.0, .. } => vec![0.0; logprobs.len()],
        Sampling { temperature: 1.0, top_p: 1.0, .. } => logprobs.to_vec(),
        _ => Vec::new(),
    }
}

/// Behind the first stop string in the text.
fn end_of_stop(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter_map(|stop| text.find(stop.as_str()).map(|start| start + stop.len())).min()
}

fn is_late(server: &Server, started: Instant) -> bool {
    server.config.max_turn_secs.is_some_and(|max_secs| started.elapsed().as_secs_f64() >= max_secs)
}
