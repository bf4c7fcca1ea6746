//! The bytes of both protocols, as published clients read them.
use crate::common::{Running, config};

#[test]
fn colbert_clients_get_what_its_server_gives() {
    let running = Running::new(config());
    let answer = running.client().get("/api/search?query=AT%26T%20stock%20%231&k=1");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(
        answer.body,
        r##"{"query":"AT&T stock #1","topk":[{"text":"AT&T stock #1 | passage 1","pid":"1.1","rank":1,"score":1.0,"prob":1.0}]}"##
    );
    assert_eq!(running.client().get("/api/search?query=a").json()["topk"].as_array().map(Vec::len), Some(10));
}

#[test]
fn search_r1_clients_get_what_its_server_gives() {
    let running = Running::new(config());
    let mut client = running.client();
    let answer = client.post("/retrieve", br#"{"queries": ["who", "when"], "topk": 1, "return_scores": true}"#);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        r#"{"result":[[{"document":{"id":"1.1","contents":"\"who\"\npassage 1"},"score":1.0}],[{"document":{"id":"1.1","contents":"\"when\"\npassage 1"},"score":1.0}]]}"#
    );
    let answer = client.post("/retrieve", br#"{"queries": ["who"], "topk": 1}"#);
    assert_eq!(answer.body, r#"{"result":[[{"id":"1.1","contents":"\"who\"\npassage 1"}]]}"#);
    let answer = client.post("/retrieve", br#"{"queries": ["who"], "return_scores": true}"#);
    assert_eq!(answer.json()["result"][0].as_array().map(Vec::len), Some(3));
    assert_eq!(client.post("/retrieve", br#"{"queries": []}"#).body, r#"{"result":[]}"#);
}

#[test]
fn a_query_without_words_gets_no_hits_and_its_neighbours_theirs() {
    let running = Running::new(config());
    let answer = running.client().post("/retrieve", br#"{"queries": ["", "a"], "topk": 2}"#);
    let lengths: Vec<_> =
        answer.json()["result"].as_array().expect("lists").iter().map(|hits| hits.as_array().map(Vec::len)).collect();
    assert_eq!(lengths, [Some(0), Some(2)]);
    assert_eq!(running.client().get("/api/search?query=").body, r#"{"query":"","topk":[]}"#);
    running.until("empty_queries_total", 2);
}

#[test]
fn a_retriever_that_fails_or_panics_is_an_answer_and_not_the_end() {
    let running = Running::new(config());
    let mut client = running.client();
    for query in ["fail", "panic"] {
        let answer = client.get(&format!("/api/search?query={query}"));
        answer.refused(500, "retriever_failed");
        assert!(!answer.body.contains("secret"), "what went wrong is for the log: {answer:?}");
    }
    assert_eq!(client.get("/api/search?query=a").status, 200);
    running.until("queued_queries", 0);
}

#[test]
fn a_server_is_alive_before_it_is_ready() {
    let running = Running::unready(config(), None).expect("started");
    let mut client = running.client();
    assert_eq!(client.get("/health").body, r#"{"status":"alive"}"#);
    let answer = client.get("/ready");
    answer.refused(503, "not_ready");
    assert_eq!(answer.headers["retry-after"], "1");
    client.get("/api/search?query=a").refused(503, "not_ready");
    running.reload().expect("opened");
    assert_eq!(client.get("/ready").body, r#"{"status":"ready","index_generation":1}"#);
    assert_eq!(client.get("/api/search?query=a").status, 200);
}

#[test]
fn an_answer_of_many_pieces_arrives_whole() {
    let running = Running::new(config());
    let mut client = running.client();
    for _ in 0..2 {
        let answer = client.get("/api/search?query=big&k=5");
        let texts: Vec<_> = (0..5).map(|rank| answer.json()["topk"][rank]["text"].as_str().map(str::len)).collect();
        assert_eq!(texts, [Some((1 << 20) + 6); 5]);
    }
    // More hits than are written inline.
    let queries = vec!["a"; 600];
    let answer = client.post("/retrieve", serde_json::json!({"queries": queries, "topk": 3}).to_string().as_bytes());
    assert_eq!(answer.json()["result"].as_array().map(Vec::len), Some(600));
}

#[test]
fn what_happens_is_counted() {
    let running = Running::new(config());
    let mut client = running.client();
    client.get("/api/search?query=a&k=2");
    client.get("/api/search?query=a&k=0");
    client.post("/retrieve", br#"{"queries": ["a", "b", "c"]}"#);
    client.get("/secret/path");
    let answer = client.get("/metrics");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        r#"exsearch_requests_total{route="/api/search",status="200"} 1"#,
        r#"exsearch_requests_total{route="/api/search",status="400"} 1"#,
        r#"exsearch_requests_total{route="/retrieve",status="200"} 1"#,
        r#"exsearch_requests_total{route="unknown",status="404"} 1"#,
        r#"exsearch_request_seconds_count{route="/api/search"} 2"#,
        "exsearch_batch_queries_sum 4",
        "exsearch_batch_queries_count 2",
        "exsearch_requests_in_flight 1",
        "exsearch_connections_open 1",
        "exsearch_queued_queries 0",
        "exsearch_index_generation 1",
        r#"exsearch_reloads_total{outcome="ok"} 1"#,
    ] {
        assert!(answer.body.lines().any(|it| it == line), "{line} is not in\n{}", answer.body);
    }
    assert!(!answer.body.contains("secret"));
}
