//! OpenAI's completions with vLLM's additions: ids and log-probs of what was sampled, and of prompts.
//!
//! ```text
//! POST {url}/v1/completions {"prompt": [ids], "max_tokens", "logprobs": 0, "return_token_ids": true, "stream": true, ..}
//!                           -> {"choices": [{"text", "token_ids", "logprobs": {"tokens", "token_logprobs"}, "finish_reason", "stop_reason"}]}
//!                           {"prompt": [ids], "max_tokens": 1, "prompt_logprobs": 0}
//!                           -> {"choices": [{"prompt_logprobs": [null, {"id": {"logprob"}}, ..]}]}
//! ```
//! Log-probs are the model's own by vLLM's default `--logprobs-mode raw_logprobs`.
use crate::model::{Server, wrong};
use crate::openai::seed;
use crate::turn::{Turn, checked};
use exsearch_http::HttpError;
use exsearch_schema::{Finish, GenerateRequest, Generation};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::ControlFlow;

const PATH: &str = "/v1/completions";

pub(crate) fn generate(server: &Server, request: &GenerateRequest) -> Result<Generation, HttpError> {
    let sampling = &request.sampling;
    let body = json!({
        "prompt": request.context, "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed(sampling.seed),
        // A model's generation_config.json may say otherwise.
        "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
        // The ends are the tokenizer's, and no others.
        "ignore_eos": true, "stop_token_ids": server.vocabulary.end_ids,
        "stop": sampling.stop, "include_stop_str_in_output": true,
        // Older versions name the ids by the second.
        "logprobs": 0, "return_token_ids": true, "return_tokens_as_token_ids": true,
    });
    server.stream(PATH, body, || {
        let mut turn = Some(Turn::new(server, request));
        move |event: Event| {
            let Some(choice) = event.choices.into_iter().next() else { return Ok(ControlFlow::Continue(())) };
            let under_way = turn.as_mut().expect("the stream is left at the turn's end");
            under_way.hear(&choice.text);
            let mut finish = None;
            for (id, logprob) in choice.tokens()? {
                finish = under_way.push(id, logprob)?;
                if finish.is_some() {
                    break;
                }
            }
            let finish = match (finish, choice.finish_reason.as_deref(), &choice.stop_reason) {
                (Some(finish), ..) => finish,
                (None, None, _) => return Ok(ControlFlow::Continue(())),
                (None, Some("length"), _) => Finish::MaxTokens,
                (None, Some("stop"), Value::String(_)) => Finish::StopString,
                (None, Some("stop"), _) => return Err(turn.take().expect("it was just there").ended_by_server()),
                (None, Some(other), _) => return Err(wrong(format!("the server ended the turn for `{other}`"))),
            };
            turn.take().expect("it was just there").end(finish).map(ControlFlow::Break)
        }
    })
}

/// The summed log-prob of `continuation` behind `context`.
pub(crate) fn score(server: &Server, context: &[u32], continuation: &[u32]) -> Result<f32, HttpError> {
    let ids = [context, continuation].concat();
    let body = json!({ "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0 });
    let answer: Scored = server.post(PATH, body)?;
    let choice = answer.choices.into_iter().next();
    let Some(logprobs) = choice.and_then(|choice| choice.prompt_logprobs) else {
        return Err(wrong("it has no prompt_logprobs: is the server a vLLM?".to_owned()));
    };
    if logprobs.len() != ids.len() {
        return Err(wrong(format!("it has prompt_logprobs of {} tokens for {}", logprobs.len(), ids.len())));
    }
    let mut sum = 0.0;
    for (id, known) in ids.iter().zip(logprobs).skip(context.len()) {
        let of_token = known.as_ref().and_then(|known| known.get(&id.to_string()));
        let Some(Known { logprob: Some(logprob) }) = of_token else {
            return Err(wrong(format!("its prompt_logprobs leave out the token {id}")));
        };
        sum += checked(*logprob)?;
    }
    Ok(sum)
}

#[derive(Deserialize)]
struct Event {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
    #[serde(default)]
    stop_reason: Value,
}

#[derive(Default, Deserialize)]
struct Logprobs {
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    token_logprobs: Vec<Option<f32>>,
}

#[derive(Deserialize)]
struct Scored {
    choices: Vec<ScoredChoice>,
}

#[derive(Deserialize)]
struct ScoredChoice {
    prompt_logprobs: Option<Vec<Option<HashMap<String, Known>>>>,
}

#[derive(Deserialize)]
struct Known {
    logprob: Option<f32>,
}

impl Choice {
    /// What was sampled: ids with their log-probs.
    fn tokens(&self) -> Result<Vec<(u32, f32)>, HttpError> {
        let none = Logprobs::default();
        let Logprobs { tokens, token_logprobs } = self.logprobs.as_ref().unwrap_or(&none);
        let named = || tokens.iter().map(|token| token.strip_prefix("token_id:")?.parse().ok()).collect();
        let ids: Option<Vec<u32>> = self.token_ids.clone().or_else(named);
        let logprobs: Option<Vec<f32>> = token_logprobs.iter().copied().collect();
        match (ids, logprobs) {
            (Some(ids), Some(logprobs)) if ids.len() == logprobs.len() && (!ids.is_empty() || self.text.is_empty()) => {
                Ok(ids.into_iter().zip(logprobs).collect())
            }
            _ => Err(wrong(
                "it does not give the ids of what was sampled with their log-probs, as a vLLM does; for other servers use protocol \
                 `completions` or `chat`"
                    .to_owned(),
            )),
        }
    }
}
