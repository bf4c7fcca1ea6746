//! OpenAI's completions and chat, without anyone's additions: text comes back, and it is tokenized once.
//!
//! ```text
//! POST {url}/v1/completions      {"prompt": [ids], "max_tokens", "temperature", "top_p", "seed", "stream"}
//!                                -> {"choices": [{"text", "finish_reason"}]}
//! POST {url}/v1/chat/completions {"messages": [{"role", "content"}], ...} -> {"choices": [{"delta": {"content"}, "finish_reason"}]}
//! ```
//! Stop strings are not sent: the server would leave them out of the text and not say whether it stopped there.
use crate::model::{Server, wrong};
use crate::turn::TextTurn;
use exsearch_http::HttpError;
use exsearch_schema::{Finish, GenerateRequest, Generation};
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::ControlFlow;

pub(crate) fn completion(server: &Server, request: &GenerateRequest) -> Result<Generation, HttpError> {
    let prompt = json!({ "prompt": request.context });
    generate(server, request, "/v1/completions", prompt)
}

pub(crate) fn chat(server: &Server, request: &GenerateRequest) -> Result<Generation, HttpError> {
    if request.messages.is_empty() {
        return Err(wrong("the request has no messages, which a chat server needs".to_owned()));
    }
    let prompt = json!({ "messages": request.messages });
    generate(server, request, "/v1/chat/completions", prompt)
}

fn generate(server: &Server, request: &GenerateRequest, path: &str, prompt: Value) -> Result<Generation, HttpError> {
    let mut body = prompt;
    let sampling = &request.sampling;
    body["max_tokens"] = sampling.max_new_tokens.into();
    body["temperature"] = sampling.temperature.into();
    body["top_p"] = sampling.top_p.into();
    body["seed"] = seed(sampling.seed).into();
    server.stream(path, body, || {
        let mut turn = Some(TextTurn::new(server, request));
        move |event: Event| {
            let Some(choice) = event.choices.into_iter().next() else { return Ok(ControlFlow::Continue(())) };
            let under_way = turn.as_mut().expect("the stream is left at the turn's end");
            let text = choice.text.or(choice.delta.content).unwrap_or_default();
            let finish = match (under_way.push(&text), choice.finish_reason.as_deref()) {
                (Some(finish), _) => finish,
                (None, None) => return Ok(ControlFlow::Continue(())),
                (None, Some("stop")) => Finish::EndOfTurn,
                (None, Some("length")) => Finish::MaxTokens,
                (None, Some(other)) => return Err(wrong(format!("the server ended the turn for `{other}`"))),
            };
            Ok(ControlFlow::Break(turn.take().expect("it was just there").end(finish)))
        }
    })
}

/// The seed in the 31 bits that every server takes.
pub(crate) fn seed(seed: u64) -> u32 {
    ((seed ^ (seed >> 32)) & 0x7fff_ffff) as u32
}

#[derive(Deserialize)]
struct Event {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<String>,
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}
