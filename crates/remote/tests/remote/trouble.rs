//! Servers that are slow, busy, broken, gone or of another model.
use crate::common::{END, Reply, Server, config, failure, generate, generate_with, ids, model, request, sampling};
use crate::llama_cpp::{last, token};
use crate::openai::part;
use exsearch_remote::Protocol::{Chat, Completions, LlamaCpp, Vllm};
use exsearch_remote::{HttpConfig, RemoteConfig, RemoteError, RemoteModel, Secret, Vocabulary};
use exsearch_schema::{Finish, GenerateError, GenerateRequest, Generator};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

fn good() -> Reply {
    Reply::events([part(Chat, "ok", None), part(Chat, "", Some("stop"))])
}

#[test]
fn what_may_pass_is_tried_again() {
    let busy = || Reply::Whole(429, vec!["retry-after: 0"], b"later".to_vec());
    let cut = || Reply::events([part(Chat, "half of a tu", None)]);
    for failing in [busy, || Reply::status(503), || Reply::HangUp, cut] {
        let server = Server::start(move |_, n_before| if n_before < 2 { failing() } else { good() });
        let turn = generate(&server.url, Chat).expect("a turn");
        assert_eq!(turn.ids, [ids("ok"), vec![END]].concat(), "nothing of the failed attempts is left");
        assert_eq!(server.asked().len(), 3);
    }
}

#[test]
fn what_will_not_pass_is_told_and_not_tried_again() {
    let check = |reply: fn() -> Reply, expect: &str| {
        let server = Server::start(move |_, _| reply());
        let reason = failure(generate(&server.url, Chat));
        assert!(reason.contains(expect) && reason.starts_with(&server.url), "{reason}");
        assert_eq!(server.asked().len(), 1, "{expect}");
    };
    check(|| Reply::status(400), "HTTP status 400");
    check(|| Reply::Stream(Box::new(["{\"choices\": [".to_owned()].into_iter())), "not of the expected JSON");
    check(|| Reply::events([json!({"choices": 3})]), "not of the protocol");
    check(|| Reply::events([json!({"error": {"message": "out of memory"}})]), "the server reports: out of memory");
    check(|| Reply::json(json!({"choices": []})), "does the server stream?");
    check(|| Reply::Stream(Box::new(std::iter::repeat_with(|| "x".repeat(1 << 20)))), "longer than 1 MB");
    check(
        || Reply::Stream(Box::new(std::iter::repeat_with(|| part(Chat, &" ".repeat(999), None).to_string()))),
        "longer than 1 MB",
    );
}

#[test]
fn a_slow_server_costs_the_timeout() {
    let server = Server::start(|_, _| {
        std::thread::sleep(Duration::from_millis(400));
        good()
    });
    let config = RemoteConfig { timeout_secs: 0.1, ..config(&server.url, Chat) };
    let reason = failure(generate_with(&config, request("hi")));
    assert!(reason.contains("timeout"), "{reason}");
}

#[test]
fn a_turn_is_cut_at_its_time_limit_and_what_was_written_is_kept() {
    let server = Server::start(|_, _| {
        let text = (1..).map(|n| {
            std::thread::sleep(Duration::from_millis(if n == 1 { 0 } else { 60 }));
            token(u32::from('a'), n).to_string()
        });
        Reply::Stream(Box::new(text))
    });
    let config = RemoteConfig { max_turn_secs: Some(0.1), ..config(&server.url, LlamaCpp) };
    let turn = generate_with(&config, request("hi")).expect("a turn");
    assert_eq!(turn.finish, Finish::MaxTokens);
    assert!((1..8).contains(&turn.ids.len()) && turn.ids.iter().all(|&id| id == u32::from('a')), "{:?}", turn.ids);
}

#[test]
fn ids_and_words_of_another_tokenizer_are_found_out() {
    let server = Server::start(|_, _| Reply::events([token(END + 1, 1)]));
    let reason = failure(generate(&server.url, LlamaCpp));
    assert!(reason.contains("has the token 1114113") && reason.contains("the same model"), "{reason}");

    let server = Server::start(|_, _| {
        let mut other = token(u32::from('a'), 1);
        other["content"] = "the".into();
        Reply::events([other, token(END, 2), last(2, "eos")])
    });
    let reason = failure(generate(&server.url, LlamaCpp));
    assert!(reason.contains("\"the\" to the server and \"a\" to the tokenizer"), "{reason}");

    let server = Server::start(|_, _| {
        let mut other = token(u32::from('a'), 1);
        other["completion_probabilities"][0]["id"] = u32::from('b').into();
        Reply::events([other])
    });
    let reason = failure(generate(&server.url, LlamaCpp));
    assert!(reason.contains("do not belong to its tokens"), "{reason}");
}

#[test]
fn many_turns_run_at_once_within_the_limit_and_come_back_under_their_ids() {
    let server = Server::start(|asked, _| {
        std::thread::sleep(Duration::from_millis(2));
        let content = asked.body["messages"][0]["content"].as_str().expect("a message");
        Reply::events([part(Chat, content, Some("stop"))])
    });
    let mut config = config(&server.url, Chat);
    config.http = HttpConfig { max_concurrent: 3, ..config.http };
    let mut generator = model(&config, None).generator();
    let asked: Vec<_> = (0..30).map(|n| (generator.submit(request(&n.to_string())), n.to_string())).collect();
    let mut done = Vec::new();
    while done.len() < 30 {
        let came = generator.wait();
        assert!(!came.is_empty() && came.is_sorted_by_key(|(id, _)| *id));
        done.extend(came);
    }
    done.sort_by_key(|(id, _)| *id);
    for ((id, text), (done_id, turn)) in asked.iter().zip(&done) {
        assert_eq!((id, &turn.as_ref().expect("a turn").ids[..]), (done_id, &[ids(text), vec![END]].concat()[..]));
    }
    assert!((2..=3).contains(&server.most_at_once()), "{} at once", server.most_at_once());
}

#[test]
fn requests_that_cannot_be_asked_fail_at_once() {
    let server = Server::start(|_, _| good());
    let mut generator = model(&config(&server.url, Chat), None).generator();
    let mut nothing_to_write = request("hi");
    nothing_to_write.sampling.max_new_tokens = 0;
    let no_messages = GenerateRequest { context: ids("hi"), sampling: sampling(), messages: Vec::new() };
    for request in [request(""), request(&"x".repeat(1_000)), nothing_to_write, no_messages, request("hi")] {
        generator.submit(request);
    }
    let mut done = Vec::new();
    while done.len() < 5 {
        done.extend(generator.wait());
    }
    done.sort_by_key(|(id, _)| *id);
    let results: Vec<_> = done.into_iter().map(|(_, result)| result).collect();
    assert_eq!(results[1], Err(GenerateError::ContextTooLong { length: 1_000, limit: 1_000 }));
    assert!([0, 2, 3].iter().all(|&at| matches!(results[at], Err(GenerateError::Failed(_)))), "{results:?}");
    assert!(results[4].is_ok());
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_dropped_generator_asks_nothing_more() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Server::start(move |_, _| {
        let _ = wait.lock().expect("no panic").recv();
        good()
    });
    let mut config = config(&server.url, Chat);
    config.http.max_concurrent = 1;
    let mut generator = model(&config, None).generator();
    for _ in 0..5 {
        generator.submit(request("hi"));
    }
    while server.asked().is_empty() {
        std::thread::yield_now();
    }
    drop(generator);
    drop(release);
    // The next request that the server sees is one of another generator.
    assert!(generate(&server.url, Chat).is_ok());
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn the_key_is_sent_and_never_told() {
    let server = Server::start(|asked, _| {
        let key = asked.headers.iter().find(|header| header.starts_with("authorization")).cloned().expect("a key");
        Reply::events([json!({"error": {"message": format!("wrong: {key}")}})])
    });
    let model = model(&config(&server.url, Completions), Some(Secret::new("s3cr3t-key")));
    let mut generator = model.generator();
    generator.submit(request("hi"));
    let reason = failure(generator.wait().remove(0).1);
    assert!(server.asked()[0].headers.contains(&"authorization: Bearer s3cr3t-key".to_owned()), "{:?}", server.asked());
    assert!(reason.contains("[redacted]") && !reason.contains("s3cr3t"), "{reason}");
}

#[test]
fn a_server_is_looked_for_before_it_is_used() {
    let check = |reply: fn() -> Reply| {
        let server = Server::start(move |_, _| reply());
        let found = model(&config(&server.url, Vllm), None).check();
        assert_eq!(server.asked()[0].line, "GET /v1/models");
        found.map_err(|error| error.to_string())
    };
    check(|| Reply::json(json!({"data": []}))).expect("it is there");
    check(|| Reply::status(404)).expect("it has no list of models");
    assert!(check(|| Reply::status(401)).expect_err("refused").contains("check the key"));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = model(&config(&url, Vllm), None).check().expect_err("nobody is there");
    assert!(matches!(error, RemoteError::Unreachable { .. }) && error.to_string().contains(&url), "{error}");
}

#[test]
fn bad_settings_are_refused() {
    let vocabulary = || Vocabulary { chat: Arc::new(crate::common::Characters), end_ids: vec![END], n_tokens: 1 };
    let check = |change: fn(&mut RemoteConfig), expect: &str| {
        let mut config = config("http://localhost:1", Chat);
        change(&mut config);
        let error = RemoteModel::new(&config, None, vocabulary(), 10).err().expect("refused").to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(|config| config.url = "localhost:1".to_owned(), "http://");
    check(|config| config.timeout_secs = 0.0, "timeout_secs");
    check(|config| config.max_turn_secs = Some(f64::NAN), "max_turn_secs");
    check(|config| config.http.timeout_ms = 1, "timeout_secs instead");
    check(|config| config.http.max_concurrent = 0, "max_concurrent");
}
