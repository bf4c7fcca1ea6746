//! vLLM's protocol.
use crate::common::{END, Reply, Server, failure, generate, ids, scores};
use exsearch_remote::Protocol::Vllm;
use exsearch_schema::{Finish, Generation};
use serde_json::{Value, json};

fn chunk(choice: Value) -> Value {
    json!({"id": "cmpl-1", "object": "text_completion", "choices": [choice]})
}

#[test]
fn a_turn_has_the_ids_and_log_probs_of_the_server() {
    let server = Server::start(|_, _| {
        let end = json!({"text": "", "token_ids": [END], "logprobs": {"token_logprobs": [-0.125]},
            "finish_reason": "stop", "stop_reason": END});
        Reply::events([
            chunk(json!({"text": "ok", "token_ids": ids("ok"), "logprobs": {"token_logprobs": [-0.5, -1.0]}})),
            chunk(end),
        ])
    });
    let expected = Generation {
        ids: [ids("ok"), vec![END]].concat(),
        logprobs: vec![-0.5, -1.0, -0.125],
        behaviour_logprobs: vec![0.0; 3],
        finish: Finish::EndOfTurn,
    };
    assert_eq!(generate(&server.url, Vllm), Ok(expected));
    // Also when the address is given as OpenAI's clients want it.
    assert!(generate(&format!("{}/v1/", server.url), Vllm).is_ok());
    for asked in server.asked() {
        assert_eq!(asked.line, "POST /v1/completions");
        assert_eq!(asked.body["prompt"], json!(ids("hi")));
        assert_eq!((&asked.body["stop_token_ids"], &asked.body["logprobs"]), (&json!([END]), &json!(0)));
    }
}

#[test]
fn ids_are_read_from_the_names_that_older_versions_give() {
    let server = Server::start(|_, _| {
        let names = ids("a<s>").into_iter().map(|id| format!("token_id:{id}")).collect::<Vec<_>>();
        let logprobs = json!({"tokens": names, "token_logprobs": [-1.0, -1.0, -1.0, -1.0]});
        let choice = json!({"text": "a<s>", "logprobs": logprobs, "finish_reason": "stop", "stop_reason": "<s>"});
        Reply::events([json!({"choices": []}), chunk(choice)])
    });
    let turn = generate(&server.url, Vllm).expect("a turn");
    assert_eq!((turn.ids, turn.finish), (ids("a<s>"), Finish::StopString));
}

#[test]
fn what_the_server_calls_an_end_must_be_one() {
    let ending = |reason: Value, stop: Value| {
        Server::start(move |_, _| {
            Reply::events([chunk(json!({"text": "o", "token_ids": ids("o"), "logprobs": {"token_logprobs": [-1.0]},
                "finish_reason": reason, "stop_reason": stop}))])
        })
    };
    let finish = |server: &Server| generate(&server.url, Vllm).map(|turn| turn.finish);
    assert_eq!(finish(&ending(json!("length"), json!(null))), Ok(Finish::MaxTokens));
    assert_eq!(finish(&ending(json!("stop"), json!("<s>"))), Ok(Finish::StopString));
    let reason = failure(generate(&ending(json!("stop"), json!(null)).url, Vllm));
    assert!(reason.contains("the same model"), "{reason}");
    let reason = failure(generate(&ending(json!("abort"), json!(null)).url, Vllm));
    assert!(reason.contains("`abort`"), "{reason}");
}

#[test]
fn a_server_that_tells_no_ids_is_no_vllm() {
    let choices = [
        json!({"text": "ok"}),
        json!({"text": "ok", "logprobs": {"tokens": ["o", "k"], "token_logprobs": [-1.0, -1.0]}}),
        json!({"text": "ok", "token_ids": ids("ok")}),
        json!({"text": "ok", "token_ids": ids("ok"), "logprobs": {"token_logprobs": [null, -1.0]}}),
    ];
    for choice in choices {
        let server = Server::start(move |_, _| Reply::events([chunk(choice.clone())]));
        let reason = failure(generate(&server.url, Vllm));
        assert!(reason.contains("`completions`"), "{reason}");
    }
}

#[test]
fn answers_are_scored_by_the_log_probs_of_prompts() {
    let server = Server::start(|asked, _| {
        let prompt = asked.body["prompt"].as_array().expect("ids");
        // log p is minus the position; another token stands beside each.
        let known = prompt.iter().enumerate().map(|(position, id)| match position {
            0 => Value::Null,
            _ => json!({id.to_string(): {"logprob": -(position as f32), "rank": 2}, "7": {"logprob": -0.1, "rank": 1}}),
        });
        Reply::json(chunk(json!({"text": "x", "prompt_logprobs": known.collect::<Vec<_>>()})))
    });
    assert_eq!(scores(&server.url, Vllm, "hi", ["x", "yz"]), Ok(vec![-(2.0 + 3.0), -(2.0 + 3.0 + 4.0)]));
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn scores_that_do_not_belong_to_the_answer_are_refused() {
    let check = |known: Value, expect: &str| {
        let server = Server::start(move |_, _| Reply::json(chunk(json!({"text": "", "prompt_logprobs": known}))));
        let reason = scores(&server.url, Vllm, "h", ["x", "x"]).expect_err("no scores");
        assert!(reason.contains(expect), "{reason}");
    };
    let [x, end] = [ids("x")[0].to_string(), END.to_string()];
    check(json!(null), "is the server a vLLM?");
    check(json!([null, {x.clone(): {"logprob": -1.0}}]), "of 2 tokens for 3");
    check(json!([null, {x.clone(): {"logprob": -1.0}}, {"5": {"logprob": -1.0}}]), "leave out the token 1114112");
    check(json!([null, {x.clone(): {"logprob": null}}, {end.clone(): {"logprob": -1.0}}]), "leave out the token 120");
    check(json!([null, {x: {"logprob": 0.5}}, {end: {"logprob": -1.0}}]), "a log-prob is 0.5");
}
