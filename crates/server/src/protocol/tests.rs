use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn hit(id: &str, title: &str, text: &str, score: f32) -> Hit {
    Hit { id: PassageId::from(id), title: title.to_owned(), text: text.to_owned(), score }
}

fn hits() -> Vec<Hit> {
    vec![
        hit("20439", "Ada Lovelace", "She wrote the \"first\" program.", 2.5),
        hit("doc-7", "Line\nbreak", "Two\nlines | one bar", 1.5),
    ]
}

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[test]
fn colbert_answers_are_as_its_server_writes_them() {
    let mut answer = value(&colbert_answer("who?", &hits()));
    // softmax(2.5, 1.5) = 1 / (1 + e^-1), e^-1 / (1 + e^-1)
    for (rank, expect) in [0.731_058_578_630_004_9, 0.268_941_421_369_995_1].into_iter().enumerate() {
        let prob = answer["topk"][rank]["prob"].take().as_f64().expect("a number");
        assert!((prob - expect).abs() < 1e-12, "{prob} {expect}");
    }
    let expect = json!({"query": "who?", "topk": [
        {"text": "Ada Lovelace | She wrote the \"first\" program.", "pid": 20439, "rank": 1, "score": 2.5, "prob": null},
        {"text": "Line break | Two\nlines | one bar", "pid": "doc-7", "rank": 2, "score": 1.5, "prob": null},
    ]});
    assert_eq!(answer, expect);
    assert_eq!(value(&colbert_answer("", &[])), json!({"query": "", "topk": []}));
}

#[test]
fn scores_of_any_size_have_probabilities() {
    let answer = value(&colbert_answer("q", &[hit("1", "", "", 3e38), hit("2", "", "", -3e38)]));
    assert_eq!(answer["topk"][0]["prob"], 1.0);
    assert_eq!(answer["topk"][1]["prob"], 0.0);
}

#[test]
fn search_r1_answers_are_as_its_server_writes_them() {
    let with_scores = value(&search_r1_answer(&[hits(), Vec::new()], true));
    let ada = "\"Ada Lovelace\"\nShe wrote the \"first\" program.";
    let expect = json!({"result": [[
        {"document": {"id": "20439", "contents": ada}, "score": 2.5},
        {"document": {"id": "doc-7", "contents": "\"Line break\"\nTwo\nlines | one bar"}, "score": 1.5},
    ], []]});
    assert_eq!(with_scores, expect);
    let without = value(&search_r1_answer(&[hits()[..1].to_vec()], false));
    assert_eq!(without, json!({"result": [[{"id": "20439", "contents": ada}]]}));
}

fn small() -> ServerConfig {
    ServerConfig { max_query_chars: 10, max_queries: 3, max_top_k: 20, max_hits: 40, ..ServerConfig::default() }
}

#[test]
fn colbert_requests_are_read_or_refused() {
    let asked = |uri: &str| colbert_request(&uri.parse().expect("a path"), &small());
    let check = |uri: &str, query: &str, top_k| {
        let expect = Asked { queries: vec![query.to_owned()], top_k, with_scores: true };
        assert_eq!(asked(uri), Ok(expect), "{uri}");
    };
    check("/api/search?query=who+is%20it&k=5", "who is it", 5);
    check("/api/search?query=AT%26T%20%231", "AT&T #1", 10);
    check("/api/search?query=%C3%A9%C3%A9&k=", "éé", 10);
    check("/api/search?k=20&query=&other=1", "", 20);
    // What a client that does not encode sends: the rest is a parameter of its own, as for Flask.
    check("/api/search?query=AT&T&k=1", "AT", 1);
    check("/api/search?query=%F0%9F%98%80%F0%9F%98%80%F0%9F%98%80", "😀😀😀", 10);
    assert_eq!(asked("/api/search?query=01234567890"), Err(Refusal::QueryTooLong { n_chars: 11, limit: 10 }));
    for k in ["0", "21", "-1", "five", "99999999999999999999"] {
        let refused = asked(&format!("/api/search?query=a&k={k}"));
        assert_eq!(refused, Err(Refusal::TopK { given: k.to_owned(), limit: 20 }));
    }
    for uri in ["/api/search", "/api/search?k=3", "/api/search?query=a&query=b"] {
        assert!(matches!(asked(uri), Err(Refusal::Malformed { .. })), "{uri}");
    }
}

#[test]
fn search_r1_requests_are_read_or_refused() {
    let asked = |body: &str| search_r1_request(body.as_bytes(), &small());
    let check = |body: &str, queries: &[&str], top_k, with_scores| {
        let queries = queries.iter().map(|query| (*query).to_owned()).collect();
        assert_eq!(asked(body), Ok(Asked { queries, top_k, with_scores }), "{body}");
    };
    check(r#"{"queries":["a","b"],"topk":2,"return_scores":true}"#, &["a", "b"], 2, true);
    check(r#"{"queries":["a"]}"#, &["a"], 3, false);
    check(r#"{"queries":[],"topk":null,"return_scores":null}"#, &[], 3, false);
    check(r#" {"extra":{"a":[1]},"queries":["\u00e9\n"],"topk":0} "#, &["é\n"], 3, false);
    assert_eq!(asked(r#"{"queries":["a","b","c","d"]}"#), Err(Refusal::TooManyQueries { n_queries: 4, limit: 3 }));
    assert_eq!(asked(r#"{"queries":["a"],"topk":21}"#), Err(Refusal::TopK { given: "21".to_owned(), limit: 20 }));
    let too_many = asked(r#"{"queries":["a","b","c"],"topk":20}"#);
    assert_eq!(too_many, Err(Refusal::TooManyHits { n_hits: 60, limit: 40 }));
    assert_eq!(asked(r#"{"queries":["01234567890"]}"#), Err(Refusal::QueryTooLong { n_chars: 11, limit: 10 }));
    for body in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"queries":"a"}"#,
        r#"{"queries":[1]}"#,
        r#"{"queries":["a"],"topk":-1}"#,
        r#"{"queries":["a"],"topk":1.5}"#,
        r#"{"queries":["a"]} x"#,
        r#"{"queries":["\ud800"]}"#,
    ] {
        let refused = asked(body);
        assert!(matches!(&refused, Err(Refusal::Malformed { reason }) if reason.starts_with("the body: ")), "{body}");
    }
    assert!(matches!(search_r1_request(b"{\"queries\":[\"\xff\"]}", &small()), Err(Refusal::Malformed { .. })));
    let deep = "[".repeat(100_000);
    assert!(matches!(asked(&deep), Err(Refusal::Malformed { .. })));
}

#[test]
fn a_body_of_a_million_queries_is_counted_and_not_kept() {
    let n_queries = ServerConfig::MOST_QUERIES + 1_000;
    let body = format!("{{\"queries\":[{}\"\"]}}", "\"\",".repeat(n_queries - 1));
    let refused = search_r1_request(body.as_bytes(), &small());
    assert_eq!(refused, Err(Refusal::TooManyQueries { n_queries, limit: 3 }));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = search_r1_request(&body, &small());
    }

    #[test]
    fn what_is_read_is_within_the_limits(
        queries in prop::collection::vec(".{0,12}", 0..5), topk in prop::option::of(0u64..30), extra in any::<bool>()
    ) {
        let mut body = json!({"queries": queries, "topk": topk});
        if extra {
            body["backend_ids"] = json!([[1, null], {"a": "b"}]);
        }
        if let Ok(asked) = search_r1_request(body.to_string().as_bytes(), &small()) {
            prop_assert_eq!(&asked.queries, &queries);
            prop_assert!(asked.queries.len() <= 3 && (1..=20).contains(&asked.top_k));
            prop_assert!(asked.queries.iter().all(|query| query.chars().count() <= 10));
        }
    }

    #[test]
    fn clients_find_title_and_text_where_they_look(title in "[^|]{0,9}", text in any::<String>()) {
        let hits = [hit("1", &title, &text, 1.0)];
        let title = title.replace(['\n', '\r'], " ");
        let answer = value(&colbert_answer("q", &hits));
        let (before, after) = answer["topk"][0]["text"].as_str().expect("text").split_once('|').expect("a bar");
        prop_assert_eq!((before.strip_suffix(' '), after.strip_prefix(' ')), (Some(&*title), Some(&*text)));
        let answer = value(&search_r1_answer(&[hits.to_vec()], false));
        let (before, after) = answer["result"][0][0]["contents"].as_str().expect("text").split_once('\n').expect("a line");
        prop_assert_eq!((before, after), (&*format!("\"{title}\""), &*text));
    }
}
