//! llama-server's own protocol: ids and log-probs of what was sampled, and scores by stepping.
//!
//! ```text
//! POST {url}/completion {"prompt": [ids], "n_predict", "n_probs": 1, "return_tokens": true, "stream": true, ..}
//!     -> {"content", "tokens": [id], "tokens_predicted", "completion_probabilities": [{"id", "logprob"}], "stop": false} ..
//!        {"stop": true, "stop_type": "eos" | "limit" | "word", "tokens_predicted"}
//! ```
//! Two of its ways are worked around. A token that ends inside of a character is not in the stream: a turn that has one is asked for
//! again from there, unstreamed, where all ids come. And there are no log-probs of prompts: a given token's is had by making it the
//! only choice (`logit_bias`) of one step; `logprob` is of the logits before that.
use crate::model::{Server, wrong};
use crate::openai::seed;
use crate::turn::{Turn, checked};
use exsearch_http::HttpError;
use exsearch_schema::{Finish, GenerateRequest, Generation, Sampling};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::ControlFlow;

const PATH: &str = "/completion";

/// What became of a streamed turn.
enum Streamed<'a> {
    Whole(Generation),
    /// A token is missing behind these.
    Gap(Turn<'a>),
}

pub(crate) fn generate(server: &Server, request: &GenerateRequest) -> Result<Generation, HttpError> {
    let body = body(&request.context, &request.sampling, request.sampling.max_new_tokens);
    let streamed = server.stream(PATH, body, || {
        let mut turn = Some(Turn::new(server, request));
        move |event: Event| {
            let under_way = turn.as_mut().expect("the stream is left at the turn's end");
            if event.tokens_predicted != under_way.ids.len() + event.tokens.len() {
                return Ok(ControlFlow::Break(Streamed::Gap(turn.take().expect("it was just there"))));
            }
            under_way.hear(&event.content);
            let mut finish = None;
            for (id, logprob) in event.tokens()? {
                finish = under_way.push(id, logprob)?;
            }
            let finish = match (finish, event.stop_type.as_deref()) {
                (Some(finish), _) => finish,
                (None, _) if !event.stop => return Ok(ControlFlow::Continue(())),
                (None, stop_type) => {
                    return match ending(stop_type) {
                        Some(finish) => turn.take().expect("it was just there").end(finish).map(whole),
                        None => Err(turn.take().expect("it was just there").ended_by_server()),
                    };
                }
            };
            turn.take().expect("it was just there").end(finish).map(whole)
        }
    })?;
    match streamed {
        Streamed::Whole(generation) => Ok(generation),
        Streamed::Gap(turn) => rest(server, request, turn),
    }
}

fn whole<'a>(generation: Generation) -> ControlFlow<Streamed<'a>> {
    ControlFlow::Break(Streamed::Whole(generation))
}

/// Why the server ended a turn whose tokens did not say so; `None` when it takes the last for an end.
fn ending(stop_type: Option<&str>) -> Option<Finish> {
    match stop_type {
        Some("limit") => Some(Finish::MaxTokens),
        Some("word") => Some(Finish::StopString),
        _ => None,
    }
}

/// The turn from where the stream left a token out.
fn rest(server: &Server, request: &GenerateRequest, mut turn: Turn<'_>) -> Result<Generation, HttpError> {
    let mut context = [&request.context[..], &turn.ids].concat();
    let n_left = request.sampling.max_new_tokens - turn.ids.len();
    // Behind a stop string the server would leave out log-probs.
    let sampling = Sampling { stop: Vec::new(), ..request.sampling.clone() };
    let answer: Event = server.post(PATH, body(&context, &sampling, n_left))?;
    let known: Vec<u32> = answer.completion_probabilities.iter().map(|token| token.id).collect();
    for (position, &id) in answer.tokens.iter().enumerate() {
        let logprob = match known == answer.tokens {
            true => answer.completion_probabilities[position].logprob,
            false => step(server, &context, id)?,
        };
        context.push(id);
        if let Some(finish) = turn.push(id, logprob)? {
            return turn.end(finish);
        }
    }
    match ending(answer.stop_type.as_deref()) {
        Some(finish) => turn.end(finish),
        None => Err(turn.ended_by_server()),
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
