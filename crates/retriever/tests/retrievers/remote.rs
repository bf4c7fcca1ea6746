//! The two published protocols, and what the client does when a server misbehaves.
use crate::common::ids;
use crate::server::{Asked, FakeServer, Reply};
use exsearch_retriever::{HttpConfig, Protocol, Remote, Secret};
use exsearch_schema::{RetrieveError, Retriever};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn config() -> HttpConfig {
    HttpConfig { retry_wait_ms: 1, max_retry_wait_ms: 2_000, max_response_mb: 1, ..HttpConfig::default() }
}

fn remote(protocol: Protocol, url: &str) -> Remote {
    Remote::new(protocol, url, None, &config()).expect("a fine address")
}

/// As the reference's ColBERT server answers.
fn colbert_answer() -> Reply {
    Reply::ok(
        json!({ "query": "q", "topk": [
            { "text": "Oslo | The capital of Norway | since 1814", "pid": 7, "rank": 1, "score": 21.5, "prob": 0.9 },
            { "text": "no title here", "pid": "x-8", "rank": 2, "score": 20.25, "prob": 0.1 },
        ]})
        .to_string(),
    )
}

fn reason(answer: Result<Vec<exsearch_schema::Hit>, RetrieveError>) -> String {
    match answer {
        Err(RetrieveError::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn colbert_is_asked_with_any_text_and_answers_with_titles() {
    let server = FakeServer::start(|_, _| colbert_answer());
    let hits = remote(Protocol::Colbert, &server.url).search("a&b=c? + 100% #1 ü\"\n", 2).expect("found");
    assert_eq!(ids(&hits), ["7", "x-8"]);
    assert_eq!((hits[0].title.as_str(), hits[0].text.as_str()), ("Oslo", "The capital of Norway | since 1814"));
    assert_eq!((hits[1].title.as_str(), hits[1].text.as_str(), hits[1].score), ("", "no title here", 20.25));
    let line = server.asked()[0].line.clone();
    let query = line.strip_prefix("GET /api/search?query=").expect("the path of the protocol").replace('+', "%2B");
    assert_eq!(query, "a%26b%3Dc%3F%20%2B%20100%25%20%231%20%C3%BC%22%0A&k=2");
}

#[test]
fn search_r1_is_asked_in_batches() {
    let server = FakeServer::start(|asked, _| {
        let asked: Value = serde_json::from_str(&asked.body).expect("JSON");
        let answer = |query: &Value| {
            let query = query.as_str().expect("text");
            let document = |id: &str| json!({ "id": id, "contents": format!("\"About {query}\"\nline\nline") });
            json!([{ "document": document("1"), "score": 0.25 }, { "document": document("2"), "score": 0.5 },
                { "document": { "id": 3, "contents": "bare" }, "score": 0.125 }])
        };
        let queries = asked["queries"].as_array().expect("queries");
        Reply::ok(json!({ "result": queries.iter().map(answer).collect::<Vec<_>>() }).to_string())
    });
    let remote = remote(Protocol::SearchR1, &format!("{}/retrieve", server.url));
    let queries: Vec<String> = (0..70).map(|i| format!("query {i}")).collect();
    let mut queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    queries[3] = "  ";
    let found = remote.search_batch(&queries, 2);
    assert_eq!(found[3], Err(RetrieveError::EmptyQuery));
    for (query, answer) in queries.iter().zip(&found).filter(|(query, _)| !query.trim().is_empty()) {
        let hits = answer.as_ref().expect("found");
        assert_eq!(ids(hits), ["2", "1"], "sorted by score and cut");
        assert_eq!((hits[0].title.clone(), hits[0].text.as_str()), (format!("About {query}"), "line\nline"));
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "69 queries in requests of 32");
    for request in asked {
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        assert_eq!(
            (request.line.as_str(), &body["topk"], &body["return_scores"]),
            ("POST /retrieve", &json!(2), &json!(true))
        );
    }
}

#[test]
fn a_query_that_the_server_refuses_fails_alone() {
    let server = FakeServer::start(|asked, _| {
        if asked.body.contains("bad") {
            return Reply::status(422);
        }
        let body: Value = serde_json::from_str(&asked.body).expect("JSON");
        let n_queries = body["queries"].as_array().expect("queries").len();
        Reply::ok(json!({ "result": vec![json!([]); n_queries] }).to_string())
    });
    let found = remote(Protocol::SearchR1, &server.url).search_batch(&["fine", "bad", "good"], 2);
    assert_eq!((&found[0], &found[2]), (&Ok(Vec::new()), &Ok(Vec::new())));
    assert!(reason(found[1].clone()).contains("HTTP status 422"));
}

#[test]
fn connections_are_kept_and_requests_at_once_are_bounded() {
    let server = FakeServer::start(|_, _| {
        std::thread::sleep(Duration::from_millis(2));
        colbert_answer()
    });
    let config = HttpConfig { max_concurrent: 3, ..config() };
    let remote = Remote::new(Protocol::Colbert, &server.url, None, &config).expect("a fine address");
    let queries = ["q"; 20];
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(remote.search_batch(&queries, 2).iter().all(Result::is_ok)));
        }
    });
    assert_eq!(server.asked().len(), 60);
    assert!(server.most_at_once() <= 3, "{} at once", server.most_at_once());
    assert!(server.n_connections() <= 3, "{} connections", server.n_connections());
}

#[test]
fn what_may_pass_is_tried_again() {
    for failing in [|| Reply::status(429), || Reply::status(503), Reply::hang_up] {
        let server = FakeServer::start(move |_, n_before| if n_before < 2 { failing() } else { colbert_answer() });
        assert!(remote(Protocol::Colbert, &server.url).search("q", 2).is_ok());
        assert_eq!(server.asked().len(), 3);
    }
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    for status in [301, 400, 401, 404, 501] {
        let server = FakeServer::start(move |_, _| Reply::status(status));
        let reason = reason(remote(Protocol::Colbert, &server.url).search("q", 2));
        assert!(reason.contains(&format!("HTTP status {status}")) && reason.contains(&server.url), "{reason}");
        assert_eq!(server.asked().len(), if status == 501 { 4 } else { 1 }, "{status}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let reason = reason(remote(Protocol::Colbert, &url).search("q", 2));
    assert!(reason.contains(&url) && reason.contains("after 4 attempts"), "{reason}");
}

#[test]
fn retry_after_is_honoured_unless_it_is_too_long() {
    let asking = |wait: &'static str| {
        FakeServer::start(move |_, n_before| match n_before {
            0 => Reply { headers: vec![format!("retry-after: {wait}")], ..Reply::status(503) },
            _ => colbert_answer(),
        })
    };
    let server = asking("1");
    let started = Instant::now();
    assert!(remote(Protocol::Colbert, &server.url).search("q", 2).is_ok());
    assert!(started.elapsed() >= Duration::from_secs(1));
    let server = asking("3600");
    assert!(reason(remote(Protocol::Colbert, &server.url).search("q", 2)).contains("503"));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_slow_server_costs_the_timeout_and_a_long_answer_is_refused() {
    let server = FakeServer::start(|asked: &Asked, _| {
        if asked.line.contains("slow") {
            std::thread::sleep(Duration::from_millis(600));
        }
        Reply::ok(vec![b' '; 1_000_001])
    });
    let config = HttpConfig { timeout_ms: 150, ..config() };
    let remote = Remote::new(Protocol::Colbert, &server.url, None, &config).expect("a fine address");
    assert!(reason(remote.search("slow", 2)).contains("timeout"));
    let config = HttpConfig { timeout_ms: 10_000, ..config };
    let remote = Remote::new(Protocol::Colbert, &server.url, None, &config).expect("a fine address");
    assert!(reason(remote.search("long", 2)).contains("longer than 1 MB"));
    assert_eq!(server.asked().len(), 2, "neither is tried again");
}

#[test]
fn the_token_is_sent_and_never_told() {
    let server = FakeServer::start(|asked, _| {
        let token = asked.headers.iter().find(|header| header.starts_with("authorization")).cloned();
        Reply { status: 401, ..Reply::ok(format!("wrong: {}", token.expect("a token"))) }
    });
    let token = Some(Secret::new("s3cr3t-token"));
    let remote = Remote::new(Protocol::Colbert, &server.url, token, &config()).expect("a fine address");
    let reason = reason(remote.search("q", 2));
    assert_eq!(
        server.asked()[0].headers.iter().filter(|header| *header == "authorization: Bearer s3cr3t-token").count(),
        1
    );
    assert!(reason.contains("[redacted]") && !reason.contains("s3cr3t"), "{reason}");
}

#[test]
fn bad_settings_are_refused() {
    let refused = |url: &str, config: &HttpConfig| Remote::new(Protocol::Colbert, url, None, config).is_err();
    assert!(refused("localhost:1", &config()));
    assert!(refused("http://localhost:1", &HttpConfig { max_attempts: 0, ..config() }));
    assert!(refused("http://localhost:1", &HttpConfig { max_concurrent: 0, ..config() }));
    assert!(refused("http://localhost:1", &HttpConfig { proxy: Some("no proxy".to_owned()), ..config() }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a server says: an error or hits, within the limits that were asked for.
    #[test]
    fn any_body_is_an_error_or_hits(bodies in prop::collection::vec(any_body(), 8)) {
        let bodies = Arc::new(Mutex::new(bodies));
        let served = bodies.clone();
        let server = FakeServer::start(move |_, _| Reply::ok(served.lock().expect("no panic").pop().unwrap_or_default()));
        for protocol in [Protocol::Colbert, Protocol::SearchR1] {
            let remote = remote(protocol, &server.url);
            for _ in 0..4 {
                if let Ok(hits) = remote.search("q", 2) {
                    prop_assert!(hits.len() <= 2 && hits.iter().all(|hit| hit.score.is_finite()));
                    prop_assert!(hits.is_sorted_by(|left, right| left.score >= right.score));
                }
            }
        }
        prop_assert!(bodies.lock().expect("no panic").is_empty());
    }
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let score = prop_oneof![Just("1e999"), Just("-3"), Just("0.5"), Just("null"), Just("\"x\""), Just("1e39")];
    let hit = (score, "[a-z |\\\\n\"]{0,6}").prop_map(|(score, text)| {
        let text = json!(text);
        format!("{{\"text\":{text},\"pid\":1,\"score\":{score},\"document\":{{\"id\":\"1\",\"contents\":{text}}}}}")
    });
    let hits = prop::collection::vec(hit, 0..5).prop_map(|hits| hits.join(","));
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        hits.prop_map(|hits| format!("{{\"topk\":[{hits}],\"result\":[[{hits}]]}}").into_bytes()),
        "[\\[\\]{}:,\"0-9a-z]{0,40}".prop_map(String::into_bytes),
    ]
}
