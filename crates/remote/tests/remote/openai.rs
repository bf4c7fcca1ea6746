//! OpenAI's completions and chat.
use crate::common::{Characters, END, Reply, Server, config, failure, generate, ids, model};
use exsearch_remote::Protocol::{self, Chat, Completions};
use exsearch_schema::{ChatCodec, Finish, Generation};
use serde_json::{Value, json};

/// A part of a turn's text as either protocol has it.
pub(crate) fn part(protocol: Protocol, text: &str, finish: Option<&str>) -> Value {
    match protocol {
        Chat => json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}),
        _ => json!({"choices": [{"index": 0, "text": text, "finish_reason": finish}]}),
    }
}

#[test]
fn text_is_tokenized_once_and_comes_without_log_probs() {
    for protocol in [Completions, Chat] {
        let server = Server::start(move |_, _| {
            let opening = json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": null}}]});
            Reply::events([
                opening,
                part(protocol, "o", None),
                part(protocol, "k", None),
                part(protocol, "", Some("stop")),
            ])
        });
        let (logprobs, behaviour_logprobs) = (Vec::new(), Vec::new());
        let expected =
            Generation { ids: Characters.turn("ok"), logprobs, behaviour_logprobs, finish: Finish::EndOfTurn };
        assert_eq!(generate(&server.url, protocol), Ok(expected));
        let asked = &server.asked()[0];
        match protocol {
            Chat => {
                assert_eq!(asked.line, "POST /v1/chat/completions");
                assert_eq!(asked.body["messages"], json!([{"role": "user", "content": "hi"}]));
                assert_eq!(asked.body.get("prompt"), None);
            }
            _ => {
                assert_eq!(asked.line, "POST /v1/completions");
                assert_eq!(asked.body["prompt"], json!(ids("hi")));
            }
        }
        assert_eq!((&asked.body["max_tokens"], asked.body.get("stop")), (&json!(8), None));
    }
}

#[test]
fn a_turn_ends_at_stop_strings_limits_and_nowhere_else() {
    let check = |parts: &[(&'static str, Option<&'static str>)], expect: Result<(&str, Finish), &str>| {
        let parts = parts.to_vec();
        let server = Server::start(move |_, _| {
            Reply::events(parts.clone().into_iter().map(|(text, finish)| part(Chat, text, finish)))
        });
        let turn = generate(&server.url, Chat);
        match expect {
            Ok((text, finish)) => {
                let turn = turn.expect("a turn");
                let end = if finish == Finish::EndOfTurn { vec![END] } else { Vec::new() };
                assert_eq!((turn.ids, turn.finish), ([ids(text), end].concat(), finish));
            }
            Err(expect) => {
                let reason = failure(turn);
                assert!(reason.contains(expect), "{reason}");
            }
        }
    };
    check(&[("a<", None), ("s>bc", None)], Ok(("a<s>", Finish::StopString)));
    check(&[("a", None), ("", Some("length"))], Ok(("a", Finish::MaxTokens)));
    check(&[("", Some("stop"))], Ok(("", Finish::EndOfTurn)));
    // Its tokens may be longer than ours: the dialogue's limit counts ours.
    check(&[("123456789", Some("stop"))], Ok(("12345678", Finish::MaxTokens)));
    check(&[("a", Some("content_filter"))], Err("`content_filter`"));
    check(&[("a", None)], Err("the stream ended in the middle"));
}

#[test]
fn name_and_further_fields_are_sent() {
    let server = Server::start(|_, _| Reply::events([part(Chat, "", Some("stop"))]));
    let mut config = config(&server.url, Chat);
    config.model = Some("large".to_owned());
    config.extra.insert("max_tokens".to_owned(), Value::Null);
    config.extra.insert("max_completion_tokens".to_owned(), json!(9));
    assert!(crate::common::generate_with(&config, crate::common::request("hi")).is_ok());
    let body = &server.asked()[0].body;
    assert_eq!(
        (&body["model"], &body["max_tokens"], &body["max_completion_tokens"]),
        (&json!("large"), &Value::Null, &json!(9))
    );
}

#[test]
fn servers_of_text_score_nothing_and_say_what_would() {
    for protocol in [Completions, Chat] {
        let error = model(&config("http://localhost:1", protocol), None).scorer().err().expect("no scorer");
        assert!(error.to_string().contains("use protocol `vllm` or `llama-cpp`"), "{error}");
    }
}
