//! Which queries are searched together, and which not at all.
use crate::common::{Running, config};
use exsearch_server::ServerConfig;

/// A server that searches one batch at a time, busy with "block" until the gate opens.
fn busy(config: ServerConfig) -> (Running, std::thread::JoinHandle<crate::common::Answer>) {
    let running = Running::new(ServerConfig { n_searchers: 1, ..config });
    let blocked = running.get_later("/api/search?query=block&k=1");
    running.until_searched("block");
    (running, blocked)
}

#[test]
fn queries_that_wait_are_searched_in_one_call_each_with_its_own_hits() {
    let (running, blocked) = busy(config());
    let waiting: Vec<_> =
        (0..9).map(|idx| running.get_later(&format!("/api/search?query=w{idx}&k={}", 2 + idx % 2))).collect();
    running.until("queued_queries", 10);
    running.world.open_gate();
    assert_eq!(blocked.join().expect("answered").status, 200);
    for (idx, answer) in waiting.into_iter().enumerate() {
        let json = answer.join().expect("answered").json();
        assert_eq!(json["query"], format!("w{idx}"));
        let hits = json["topk"].as_array().expect("hits").clone();
        assert_eq!(hits.len(), 2 + idx % 2);
        assert!(hits.iter().all(|hit| hit["text"].as_str().is_some_and(|text| text.starts_with(&format!("w{idx} |")))));
    }
    // One call for "block", then one for each `top_k`.
    let mut calls: Vec<_> = running
        .world
        .calls
        .lock()
        .expect("not poisoned")
        .iter()
        .map(|(queries, top_k)| (*top_k, queries.len()))
        .collect();
    calls.sort();
    assert_eq!(calls, [(1, 1), (2, 5), (3, 4)]);
}

#[test]
fn a_large_request_is_searched_in_batches() {
    let running = Running::new(ServerConfig { max_batch: 4, ..config() });
    let queries: Vec<String> = (0..10).map(|idx| format!("w{idx}")).collect();
    let body = serde_json::json!({"queries": queries, "topk": 1});
    let json = running.client().post("/retrieve", body.to_string().as_bytes()).json();
    for (query, hits) in queries.iter().zip(json["result"].as_array().expect("a list a query")) {
        assert_eq!(hits[0]["contents"], format!("\"{query}\"\npassage 1"));
    }
    let calls = running.world.calls.lock().expect("not poisoned");
    assert!(calls.iter().all(|(queries, _)| queries.len() <= 4), "{calls:?}");
}

#[test]
fn queries_of_clients_that_left_are_not_searched() {
    let (running, blocked) = busy(config());
    let mut leaving = running.client();
    leaving.send(b"GET /api/search?query=left HTTP/1.1\r\nhost: test\r\n\r\n");
    running.until("queued_queries", 2);
    drop(leaving);
    // Counted when the server has noticed.
    running.until(r#"requests_total{route="/api/search",status="499"}"#, 1);
    let stayed = running.get_later("/api/search?query=stayed");
    running.until("queued_queries", 3);
    running.world.open_gate();
    assert_eq!(blocked.join().expect("answered").status, 200);
    assert_eq!(stayed.join().expect("answered").status, 200);
    assert_eq!(running.world.searched(), ["block", "stayed"]);
    running.until(r#"dropped_queries_total{reason="client_gone"}"#, 1);
    running.until("queued_queries", 0);
}

#[test]
fn a_deadline_is_answered_and_what_waited_past_it_is_not_searched() {
    let (running, blocked) = busy(ServerConfig { deadline_ms: 1_000, ..config() });
    let late = running.get_later("/api/search?query=late");
    for answer in [blocked, late] {
        let refused = answer.join().expect("answered").refused(504, "deadline");
        assert_eq!(refused["limit"], 1_000);
    }
    running.world.open_gate();
    assert_eq!(running.client().get("/api/search?query=a").status, 200);
    assert_eq!(running.world.searched(), ["a", "block"]);
    running.until(r#"dropped_queries_total{reason="deadline"}"#, 1);
}

#[test]
fn a_full_line_is_said_at_once_and_costs_nobody_his_place() {
    let (running, blocked) = busy(ServerConfig { max_queries: 3, max_queued_queries: 3, ..config() });
    let waiting = running.get_later("/api/search?query=waiting");
    running.until("queued_queries", 2);
    let answer = running.client().post("/retrieve", br#"{"queries": ["a", "b"]}"#);
    assert_eq!(answer.refused(503, "busy")["limit"], 3);
    assert_eq!(answer.headers["retry-after"], "1");
    running.world.open_gate();
    for answer in [blocked, waiting] {
        assert_eq!(answer.join().expect("answered").status, 200);
    }
    assert_eq!(running.client().post("/retrieve", br#"{"queries": ["a", "b"]}"#).status, 200);
}
