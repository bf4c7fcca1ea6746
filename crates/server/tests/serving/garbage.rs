//! Bytes that no client should send: each gets an answer or the end of its connection, and the server lives on.
use crate::common::{Running, config};
use exsearch_server::ServerConfig;
use proptest::prelude::*;
use std::sync::LazyLock;

static RUNNING: LazyLock<Running> =
    LazyLock::new(|| Running::new(ServerConfig { header_timeout_ms: 2_000, body_timeout_ms: 2_000, ..config() }));

#[test]
fn malformed_json_is_told_where() {
    let mut client = RUNNING.client();
    for body in [&b""[..], b"{", b"[1,2", b"{\"queries\": [\"a\"", b"\xff\xfe", b"{\"queries\": {\"a\": 1}}", b"nul"] {
        let refused = client.post("/retrieve", body).refused(400, "malformed_request");
        assert!(refused["message"].as_str().is_some_and(|message| message.starts_with("the body: ")), "{refused}");
    }
    assert_eq!(client.post("/retrieve", b"{\"queries\":[\"a\"]}").status, 200, "on the same connection");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_body_is_answered(body in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        // Near misses: a request with some of its bytes changed.
        (prop::collection::vec((0..60usize, any::<u8>()), 1..4)).prop_map(|changes| {
            let mut body = b"{\"queries\":[\"who\",\"when\"],\"topk\":2,\"return_scores\":true}".to_vec();
            for (at, byte) in changes {
                let at = at % body.len();
                body[at] = byte;
            }
            body
        }),
    ]) {
        let answer = RUNNING.client().post("/retrieve", &body);
        prop_assert!(matches!(answer.status, 200 | 400), "{answer:?}");
        prop_assert!(answer.json().is_object());
    }

    #[test]
    fn any_query_string_is_answered(query in "[ -~]{0,60}") {
        let path = format!("/api/search?{}", query.replace([' ', '#'], "+"));
        prop_assert!(matches!(RUNNING.client().get(&path).status, 200 | 400), "{path}");
    }

    #[test]
    fn any_bytes_at_all_are_survived(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "(GET|POST) /[a-z]{0,9} HTTP/1\\.[01]\r\n([a-z-]{1,20}: [ -~]{0,20}\r\n){0,5}\r\n.{0,50}".prop_map(String::into_bytes),
    ]) {
        let mut client = RUNNING.client();
        client.send(&bytes);
        client.finish();
        client.rest();
        prop_assert_eq!(RUNNING.client().get("/health").status, 200);
    }
}
