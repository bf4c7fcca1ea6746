//! llama-server's own protocol: ids and log-probs of what was sampled, and scores by stepping.
//!
//! ```text
//! POST {url}/completion {"prompt": [ids], "n_predict", "n_probs": 1, "return_tokens": true, "stream": true, ..}
//!     -> {"content", "tokens": [id], "tokens_predicted", "completion_probabilities": [{"id", "logprob"}], "stop": false} ..
//!        {"stop": true, "stop_type": "eos" | "limit" | "word", "tokens_predicted"}
//! ```
//! Three of its ways are worked around. A token that ends inside of a character is not in the stream: a turn that has one is asked for
//! again from there, unstreamed, where all ids come. It ends at all tokens that it takes for an end: a turn goes on behind one that the
//! tokenizer does not know as such. And there are no log-probs of prompts: a given token's is had by making it the only choice
//! (`logit_bias`) of one step; `logprob` is of the logits before that.
use crate::model::{Server, wrong};
use crate::openai::seed;
use crate::turn::{Turn, checked};
use exsearch_http::HttpError;
use exsearch_schema::{Finish, GenerateRequest, Generation, Sampling};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::ControlFlow;

const PATH: &str = "/completion";

/// How far a turn came with a request.
enum Progress<'a> {
    Whole(Generation),
    /// A token is missing in the stream behind these.
    Gap(Turn<'a>),
    /// The server takes the last token for an end, the tokenizer does not.
    Open(Turn<'a>),
}

pub(crate) fn generate(server: &Server, request: &GenerateRequest) -> Result<Generation, HttpError> {
    let mut turn = Turn::new(server, request);
    loop {
        let n_before = turn.ids.len();
        let progress = match streamed(server, request, &turn)? {
            Progress::Gap(turn) => unstreamed(server, request, turn)?,
            progress => progress,
        };
        turn = match progress {
            Progress::Whole(generation) => return Ok(generation),
            Progress::Gap(turn) | Progress::Open(turn) => turn,
        };
        if turn.ids.len() == n_before {
            return Err(wrong("the server ended the turn without a token".to_owned()));
        }
    }
}

/// Goes on with a turn.
fn streamed<'a>(
    server: &'a Server,
    request: &'a GenerateRequest,
    before: &Turn<'a>,
) -> Result<Progress<'a>, HttpError> {
    let context = [&request.context[..], &before.ids].concat();
    let n_before = before.ids.len();
    let body = body(&context, &request.sampling, request.sampling.max_new_tokens - n_before);
    server.stream(PATH, body, || {
        let mut turn = Some(before.clone());
        move |event: Event| {
            let mut under_way = turn.take().expect("the stream is left where the turn is given away");
            if n_before + event.tokens_predicted != under_way.ids.len() + event.tokens.len() {
                return Ok(ControlFlow::Break(Progress::Gap(under_way)));
            }
            under_way.hear(&event.content);
            let mut finish = None;
            for (id, logprob) in event.tokens()? {
                finish = under_way.push(id, logprob)?;
            }
            if finish.is_none() && !event.stop {
                turn = Some(under_way);
                return Ok(ControlFlow::Continue(()));
            }
            ended(under_way, finish, &event).map(ControlFlow::Break)
        }
    })
}

/// Goes on with a turn from where the stream left a token out.
fn unstreamed<'a>(server: &Server, request: &GenerateRequest, mut turn: Turn<'a>) -> Result<Progress<'a>, HttpError> {
    let mut context = [&request.context[..], &turn.ids].concat();
    // Behind a stop string the server would leave out log-probs.
    let sampling = Sampling { stop: Vec::new(), ..request.sampling.clone() };
    let n_left = request.sampling.max_new_tokens - turn.ids.len();
    let answer: Event = server.post(PATH, body(&context, &sampling, n_left))?;
    let known = answer.tokens();
    let mut finish = None;
    for (position, &id) in answer.tokens.iter().enumerate() {
        let logprob = match &known {
            Ok(known) => known[position].1,
            Err(_) => step(server, &context, id)?,
        };
        context.push(id);
        finish = turn.push(id, logprob)?;
        if finish.is_some() {
            break;
        }
    }
    ended(turn, finish, &answer)
}

/// The turn where its last token or the server ends it.
fn ended<'a>(turn: Turn<'a>, finish: Option<Finish>, event: &Event) -> Result<Progress<'a>, HttpError> {
    let by_server = match event.stop_type.as_deref() {
        Some("limit") => Some(Finish::MaxTokens),
        Some("word") => Some(Finish::StopString),
        _ => None,
    };
    match finish.or(by_server) {
        Some(finish) => turn.end(finish).map(Progress::Whole),
        None => Ok(Progress::Open(turn)),
    }
}

/// The summed log-prob of `continuation` behind `context`: a step a token, each of which finds the ones before in the cache.
pub(crate) fn score(server: &Server, context: &[u32], continuation: &[u32]) -> Result<f32, HttpError> {
    let mut context = context.to_vec();
    let mut sum = 0.0;
    for &id in continuation {
        sum += step(server, &context, id)?;
        context.push(id);
    }
    Ok(sum)
}

/// log p(id | context).
fn step(server: &Server, context: &[u32], id: u32) -> Result<f32, HttpError> {
    let answer = force(server, context, id, 1)?;
    if let [token] = &answer.completion_probabilities[..]
        && token.id == id
    {
        return checked(token.logprob);
    }
    // Of a token that ends inside of a character no log-prob comes, but the one of another token brings all others with it.
    let Some(&end_id) = server.vocabulary.end_ids.first() else { return Err(not_forced(id)) };
    let answer = force(server, context, end_id, server.vocabulary.n_tokens)?;
    let all = answer.completion_probabilities.first().map_or(&[][..], |token| &token.top_logprobs);
    match all.iter().find(|token| token.id == id) {
        Some(token) => checked(token.logprob),
        None => Err(not_forced(id)),
    }
}

fn not_forced(id: u32) -> HttpError {
    wrong(format!("it has no log-prob of the token {id}, which was to be scored: is the server a llama-server?"))
}

/// One step with `id` as its only choice, and the log-probs of the `n_probs` most probable tokens.
fn force(server: &Server, context: &[u32], id: u32, n_probs: usize) -> Result<Event, HttpError> {
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 1, stop: Vec::new(), seed: 0 };
    let mut body = body(context, &sampling, 1);
    body["logit_bias"] = json!([[id, 1e9]]);
    body["n_probs"] = n_probs.into();
    server.post(PATH, body)
}

fn body(context: &[u32], sampling: &Sampling, n_predict: usize) -> Value {
    json!({
        "prompt": context, "n_predict": n_predict, "cache_prompt": true,
        // In this order, and nothing besides: the nucleus is of what the temperature left, as elsewhere in this program.
        "samplers": ["temperature", "top_p"],
        "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed(sampling.seed),
        "stop": sampling.stop, "n_probs": 1, "return_tokens": true,
    })
}

/// A part of a stream, or a whole answer.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    content: String,
    tokens: Vec<u32>,
    /// Tokens of the turn up to here, those that are not told included.
    tokens_predicted: usize,
    #[serde(default)]
    completion_probabilities: Vec<Token>,
    stop: bool,
    stop_type: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    id: u32,
    logprob: f32,
    #[serde(default)]
    top_logprobs: Vec<Token>,
}

impl Event {
    /// What was sampled: ids with their log-probs.
    fn tokens(&self) -> Result<Vec<(u32, f32)>, HttpError> {
        let known = self.completion_probabilities.iter().map(|token| (token.id, token.logprob));
        let known: Vec<(u32, f32)> = known.collect();
        match known.iter().map(|(id, _)| id).eq(&self.tokens) {
            true => Ok(known),
            false => Err(wrong(format!("its log-probs do not belong to its tokens {:?}", self.tokens))),
        }
    }
}
