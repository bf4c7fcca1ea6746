//! What a request may ask for, how long a client may take, and who may ask.
use crate::common::{Client, Running, config};
use exsearch_server::{Error, ServerConfig, Token};
use std::net::Ipv4Addr;

#[test]
fn every_limit_says_what_it_is() {
    let limits = ServerConfig { max_query_chars: 10, max_queries: 3, max_top_k: 20, max_hits: 40, ..config() };
    let running = Running::new(ServerConfig { max_body_bytes: 200, ..limits });
    let mut client = running.client();
    let long = "x".repeat(11);
    for (path, code, limit) in [
        (format!("/api/search?query={long}"), "query_too_long", 10),
        ("/api/search?query=a&k=21".to_owned(), "bad_top_k", 20),
    ] {
        assert_eq!(client.get(&path).refused(400, code)["limit"], limit);
    }
    for (body, status, code, limit) in [
        (format!(r#"{{"queries":["{long}"]}}"#), 400, "query_too_long", 10),
        (r#"{"queries":["a","b","c","d"]}"#.to_owned(), 400, "too_many_queries", 3),
        (r#"{"queries":["a"],"topk":21}"#.to_owned(), 400, "bad_top_k", 20),
        (r#"{"queries":["a","b","c"],"topk":20}"#.to_owned(), 400, "too_many_hits", 40),
        (" ".repeat(201), 413, "body_too_large", 200),
    ] {
        let refused = running.client().post("/retrieve", body.as_bytes()).refused(status, code);
        assert_eq!(refused["limit"], limit);
        assert!(refused["message"].as_str().is_some_and(|message| message.contains(&limit.to_string())));
    }
    assert_eq!(running.world.searched(), [""; 0]);
    assert_eq!(client.get("/api/search?query=0123456789&k=20").status, 200);
}

#[test]
fn a_body_without_a_length_has_the_same_limit() {
    let running = Running::new(ServerConfig { max_body_bytes: 100, ..config() });
    let mut client = running.client();
    client.send(b"POST /retrieve HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        client.send(b"a\r\n          \r\n");
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.answer().expect("an answer").refused(413, "body_too_large")["limit"], 100);
    let mut client = running.client();
    client.send(b"POST /retrieve HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(b"10\r\n{\"queries\":[\"a\"]\r\n1\r\n}\r\n0\r\n\r\n");
    assert_eq!(client.answer().expect("an answer").status, 200);
}

#[test]
fn a_body_far_past_the_limit_is_refused_where_its_client_reads_it() {
    let running = Running::new(config());
    let answer = running.client().post("/retrieve", &vec![b' '; 12 << 20]);
    assert_eq!(answer.refused(413, "body_too_large")["limit"], 8 << 20);
}

#[test]
fn all_bodies_together_have_a_limit() {
    let running = Running::new(ServerConfig {
        max_body_bytes: 1000,
        max_bodies_bytes: 1500,
        body_timeout_ms: 120_000,
        ..config()
    });
    let mut slow = running.client();
    slow.send(b"POST /retrieve HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n");
    slow.send(&[b' '; 990]);
    // Two requests are in flight: the slow one and the one for the metrics.
    running.until("requests_in_flight", 2);
    let body = [&b"{\"queries\":[\"a\"]}"[..], &[b' '; 900]].concat();
    // The slow one's bytes may take a moment to be read.
    let refused =
        std::iter::repeat_with(|| running.client().post("/retrieve", &body)).find(|answer| answer.status != 200);
    assert_eq!(refused.expect("once").refused(503, "busy")["limit"], 1500);
    drop(slow);
    running.until("requests_in_flight", 1);
    assert_eq!(running.client().post("/retrieve", &body).status, 200);
}

#[test]
fn routes_and_methods_that_are_not_there_say_which_are() {
    let running = Running::new(config());
    let mut client = running.client();
    assert!(
        client.get("/api/search/").refused(404, "unknown_route")["message"]
            .as_str()
            .is_some_and(|message| message.contains("/retrieve"))
    );
    let answer = client.get("/retrieve");
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.headers["allow"], "POST");
    let answer = client.post("/api/search?query=a", b"");
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.headers["allow"], "GET, HEAD");
}

#[test]
fn a_client_that_is_slow_to_ask_is_let_go() {
    let running = Running::new(ServerConfig { header_timeout_ms: 300, body_timeout_ms: 300, ..config() });
    let mut slow_head = running.client();
    slow_head.send(b"GET /health HTTP/1.1\r\nhost: te");
    assert!(!String::from_utf8_lossy(&slow_head.rest()).contains("alive"));
    let mut silent = running.client();
    assert_eq!(silent.get("/health").status, 200);
    assert_eq!(silent.rest(), b"");

    let mut slow_body = running.client();
    slow_body.send(b"POST /retrieve HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{\"queries\":");
    assert_eq!(slow_body.answer().expect("an answer").refused(408, "body_timeout")["limit"], 300);
    assert_eq!(slow_body.rest(), b"", "what else comes would be taken for a request");
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let running = Running::new(ServerConfig {
        write_timeout_ms: 100,
        max_unsent_hits: 100,
        max_hits: 60,
        max_top_k: 60,
        ..config()
    });
    let mut greedy = running.client();
    // 60 MiB, more than the system buffers for it.
    greedy.send(b"GET /api/search?query=big&k=60 HTTP/1.1\r\nhost: test\r\n\r\n");
    running.until(r#"requests_total{route="/api/search",status="200"}"#, 1);
    // Only the client that asks for metrics is left.
    running.until("connections_open", 1);
    // What it did not take no longer counts.
    let answer = running.client().get("/api/search?query=a&k=60");
    assert_eq!(answer.status, 200);
    drop(greedy);
}

#[test]
fn hits_that_are_not_sent_have_a_limit() {
    let running = Running::new(ServerConfig { max_unsent_hits: 100, max_hits: 60, max_top_k: 60, ..config() });
    let mut greedy = running.client();
    greedy.send(b"GET /api/search?query=big&k=60 HTTP/1.1\r\nhost: test\r\n\r\n");
    running.until(r#"requests_total{route="/api/search",status="200"}"#, 1);
    assert_eq!(running.client().get("/api/search?query=a&k=60").refused(503, "busy")["limit"], 100);
    assert_eq!(greedy.answer().expect("an answer").status, 200);
    assert_eq!(running.client().get("/api/search?query=a&k=60").status, 200);
}

#[test]
fn connections_past_the_limit_are_told() {
    let running = Running::new(ServerConfig { max_connections: 1, ..config() });
    let mut first = running.client();
    assert_eq!(first.get("/health").status, 200);
    let answer = running.client().get("/api/search?query=a");
    assert_eq!(answer.refused(503, "busy")["limit"], 1);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(first.get("/api/search?query=a").status, 200);
    assert!(first.get("/metrics").body.contains("\nexsearch_connections_refused_total 1\n"));
}

#[test]
fn a_token_is_asked_for_everywhere_but_where_probes_look() {
    let token = Token::new("s3cret").expect("a token");
    let running = Running::unready(config(), Some(token)).expect("started");
    running.reload().expect("opened");
    let status = |path: &str, token: &str| {
        let mut client = Client::new(running.address);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n{token}\r\n").as_bytes());
        client.answer().expect("an answer")
    };
    for path in ["/health", "/ready"] {
        assert_eq!(status(path, "").status, 200);
    }
    for path in ["/api/search?query=a", "/metrics"] {
        assert_eq!(status(path, "authorization: Bearer s3cret\r\n").status, 200);
        for wrong in ["", "authorization: Bearer s3cre7\r\n", "authorization: Basic s3cret\r\n"] {
            let answer = status(path, wrong);
            answer.refused(401, "unauthorized");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert!(!answer.body.contains("s3cret"));
        }
    }
    status("/other", "").refused(401, "unauthorized");
    status("/other", "authorization: Bearer s3cret\r\n").refused(404, "unknown_route");
}

#[test]
fn other_machines_are_let_in_with_a_token_or_on_demand_only() {
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    let refused = Running::on(everywhere, config(), None).map(|running| running.address);
    assert!(matches!(refused, Err(Error::Unprotected { address }) if address == everywhere), "{refused:?}");
    Running::on(everywhere, config(), Some(Token::new("s3cret").expect("a token"))).expect("started");
    Running::on(everywhere, ServerConfig { insecure: true, ..config() }, None).expect("started");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let running = Running::new(config());
    let refused = Running::on(running.address, config(), None).map(|running| running.address);
    assert!(matches!(&refused, Err(Error::Bind { address, .. }) if *address == running.address), "{refused:?}");
}
