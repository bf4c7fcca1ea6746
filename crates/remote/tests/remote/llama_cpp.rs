//! llama-server's protocol.
use crate::common::{END, Reply, Server, config, failure, generate, generate_with, ids, request, scores};
use exsearch_remote::Protocol::LlamaCpp;
use exsearch_schema::{Finish, Generation, Sampling};
use serde_json::{Value, json};

/// A token in a stream: the `n`-th of its turn.
pub(crate) fn token(id: u32, n: usize) -> Value {
    let text: String = char::from_u32(id).into_iter().collect();
    let logprob = -0.5 * n as f32;
    json!({
        "content": text, "tokens": [id], "tokens_predicted": n, "stop": false,
        "completion_probabilities": [{"id": id, "logprob": logprob, "top_logprobs": []}],
    })
}

/// The end of a stream.
pub(crate) fn last(n: usize, stop_type: &str) -> Value {
    json!({"content": "", "tokens": [], "tokens_predicted": n, "stop": true, "stop_type": stop_type})
}

fn stream(text: &[u32], stop_type: &str) -> Reply {
    let tokens = text.iter().zip(1..).map(|(&id, n)| token(id, n));
    Reply::events(tokens.chain([last(text.len(), stop_type)]))
}

#[test]
fn a_turn_has_the_ids_and_log_probs_of_the_server() {
    let server = Server::start(|_, _| stream(&[ids("ok"), vec![END]].concat(), "eos"));
    let expected = Generation {
        ids: [ids("ok"), vec![END]].concat(),
        logprobs: vec![-0.5, -1.0, -1.5],
        behaviour_logprobs: vec![0.0; 3],
        finish: Finish::EndOfTurn,
    };
    assert_eq!(generate(&server.url, LlamaCpp), Ok(expected));
    let asked = &server.asked()[0];
    assert_eq!(asked.line, "POST /completion");
    assert_eq!(asked.body["prompt"], json!(ids("hi")));
    assert_eq!(asked.body["samplers"], json!(["temperature", "top_p"]));
    assert_eq!((&asked.body["n_predict"], &asked.body["stream"]), (&json!(8), &json!(true)));
}

#[test]
fn log_probs_of_what_was_sampled_from_are_told_where_they_are_known() {
    let server = Server::start(|_, _| stream(&[ids("ok"), vec![END]].concat(), "eos"));
    let check = |temperature: f32, top_p: f32, expect: &[f32]| {
        let mut request = request("hi");
        request.sampling = Sampling { temperature, top_p, ..request.sampling };
        let turn = generate_with(&config(&server.url, LlamaCpp), request).expect("a turn");
        assert_eq!(turn.behaviour_logprobs, expect);
        assert_eq!(turn.logprobs.len(), 3);
    };
    check(0.0, 1.0, &[0.0, 0.0, 0.0]);
    check(1.0, 1.0, &[-0.5, -1.0, -1.5]);
    check(0.8, 1.0, &[]);
    check(1.0, 0.9, &[]);
}

#[test]
fn a_turn_ends_behind_its_stop_string_and_the_rest_is_given_up() {
    // It would go on for ever.
    let server = Server::start(|_, _| {
        let text = ids("a<s>").into_iter().chain(std::iter::repeat(u32::from('x')));
        Reply::Stream(Box::new(text.zip(1..).map(|(id, n)| token(id, n).to_string())))
    });
    let turn = generate(&server.url, LlamaCpp).expect("a turn");
    assert_eq!((turn.ids, turn.finish), (ids("a<s>"), Finish::StopString));
    while server.n_given_up() == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_turn_ends_at_its_limit() {
    let server = Server::start(|_, _| stream(&ids("12345678"), "limit"));
    let turn = generate(&server.url, LlamaCpp).expect("a turn");
    assert_eq!((turn.ids, turn.finish), (ids("12345678"), Finish::MaxTokens));
    // The server's context may be shorter.
    let server = Server::start(|_, _| stream(&ids("12"), "limit"));
    let turn = generate(&server.url, LlamaCpp).expect("a turn");
    assert_eq!((turn.ids, turn.finish), (ids("12"), Finish::MaxTokens));
}

#[test]
fn a_turn_goes_on_behind_what_only_the_server_takes_for_an_end() {
    let server = Server::start(|asked, _| match asked.body["prompt"] == json!(ids("hi")) {
        true => stream(&ids("ok"), "eos"),
        false => {
            assert_eq!((&asked.body["prompt"], &asked.body["n_predict"]), (&json!(ids("hiok")), &json!(6)));
            stream(&[ids("!"), vec![END]].concat(), "eos")
        }
    });
    let turn = generate(&server.url, LlamaCpp).expect("a turn");
    assert_eq!((turn.ids, turn.finish), ([ids("ok!"), vec![END]].concat(), Finish::EndOfTurn));
    assert_eq!(turn.logprobs, [-0.5, -1.0, -0.5, -1.0]);

    let server = Server::start(|_, _| Reply::events([last(0, "eos")]));
    let reason = failure(generate(&server.url, LlamaCpp));
    assert!(reason.contains("without a token"), "{reason}");
}

/// A token that ends inside of a character is missing in llama-server's stream.
#[test]
fn tokens_that_the_stream_leaves_out_are_asked_for_again_with_their_log_probs() {
    let all = |id: u32, logprob: f32| json!({"id": id, "logprob": logprob});
    let server = Server::start(move |asked, _| {
        let (prompt, stream) = (asked.body["prompt"].clone(), asked.body["stream"] == true);
        let [b, c] = [ids("b")[0], ids("c")[0]];
        let whole = |tokens: &[u32], known: Value| {
            Reply::json(json!({
                "content": "", "tokens": tokens, "tokens_predicted": tokens.len(), "stop": true, "stop_type": "eos",
                "completion_probabilities": known,
            }))
        };
        let forced = asked.body["logit_bias"][0][0].as_u64().map(|id| id as u32);
        match (prompt, stream, forced) {
            (_, true, _) => Reply::events([token(ids("a")[0], 1), token(c, 3)]),
            (prompt, _, None) => {
                assert_eq!(prompt, json!(ids("hia")));
                assert_eq!((&asked.body["n_predict"], &asked.body["stop"]), (&json!(7), &json!([])));
                whole(&[b, c, END], json!([all(c, -0.3), all(END, -0.1)]))
            }
            // The same holds for a step: the log-probs of all others come with that of the end.
            (_, _, Some(id)) if id == b => whole(&[b], json!([])),
            (prompt, _, Some(END)) if prompt == json!(ids("hia")) => {
                let top = json!([all(END, -0.1), all(c, -0.3), all(b, -2.25)]);
                whole(&[END], json!([{"id": END, "logprob": -0.1, "top_logprobs": top}]))
            }
            (_, _, Some(id)) => whole(&[id], json!([all(id, if id == c { -0.3 } else { -0.1 })])),
        }
    });
    let turn = generate(&server.url, LlamaCpp).expect("a turn");
    assert_eq!(turn.ids, [ids("abc"), vec![END]].concat());
    assert_eq!(turn.logprobs, [-0.5, -2.25, -0.3, -0.1]);
    assert_eq!(turn.finish, Finish::EndOfTurn);
}

/// log p is minus the number of tokens before.
fn stepper() -> Server {
    Server::start(|asked, _| {
        let forced = asked.body["logit_bias"][0][0].as_u64().expect("a forced token");
        let n_before = asked.body["prompt"].as_array().expect("a prompt").len();
        Reply::json(json!({
            "content": "", "tokens": [forced], "tokens_predicted": 1, "stop": true, "stop_type": "limit",
            "completion_probabilities": [{"id": forced, "logprob": -(n_before as f32)}],
        }))
    })
}

#[test]
fn answers_are_scored_token_by_token() {
    let server = stepper();
    // "x" and the end behind 2 tokens, "yz" and the end.
    assert_eq!(scores(&server.url, LlamaCpp, "hi", ["x", "yz"]), Ok(vec![-(2.0 + 3.0), -(2.0 + 3.0 + 4.0)]));
    assert_eq!(server.asked().len(), 5);
    assert!(server.asked().iter().all(|asked| asked.body["n_predict"] == 1 && asked.body["temperature"] == 0.0));
}

#[test]
fn a_probability_that_the_server_rounds_to_0_is_finite() {
    let server = Server::start(|asked, _| {
        let forced = &asked.body["logit_bias"][0][0];
        let known = json!([{"id": forced, "logprob": f32::MIN}]);
        Reply::json(json!({"tokens": [forced], "tokens_predicted": 1, "stop": true, "completion_probabilities": known}))
    });
    let scored = scores(&server.url, LlamaCpp, "hi", ["x", "y"]).expect("scored");
    assert!(scored.iter().all(|score| (-207.0..-206.0).contains(score)), "{scored:?}");
}

#[test]
fn a_server_that_forces_nothing_is_no_scorer() {
    let server = Server::start(|_, _| {
        let known = json!([{"id": 1, "logprob": -1.0}]);
        Reply::json(json!({"tokens": [1], "tokens_predicted": 1, "stop": true, "completion_probabilities": known}))
    });
    let reason = scores(&server.url, LlamaCpp, "hi", ["x", "y"]).expect_err("no scores");
    assert!(reason.contains("llama-server"), "{reason}");
}
