//! Web search against a server in this process that speaks each provider's JSON.
use crate::common::ids;
use crate::server::{Asked, FakeServer, Reply};
use exsearch_retriever::{Error, HttpConfig, Provider, Secret, WebLimits, WebSearch};
use exsearch_schema::{RetrieveError, Retriever};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};

const KEY: &str = "k-5up3r-s3cr3t";

fn search(provider: Provider, url: &str, cache_dir: Option<&Path>, max_requests: u64) -> WebSearch {
    let config = HttpConfig { retry_wait_ms: 1, ..HttpConfig::default() };
    let limits = WebLimits { cache_dir, max_requests };
    WebSearch::new(provider, Some(url), Some(Secret::new(KEY)), limits, &config).expect("a fine config")
}

/// Answers of each provider, shortened from the examples in its documentation.
fn answer(provider: Provider) -> Value {
    match provider {
        Provider::Searxng => json!({
            "query": "capital of norway", "number_of_results": 0, "answers": [], "suggestions": ["oslo"], "infoboxes": [],
            "unresponsive_engines": [["qwant", "timeout"]],
            "results": [
                { "url": "https://a.example/", "title": "Oslo", "content": "Capital of Norway.", "engine": "wikipedia",
                  "engines": ["wikipedia"], "score": 4.0, "category": "general", "parsed_url": ["https", "a.example", "/", "", "", ""] },
                { "url": "https://a.example/", "title": "again", "content": "" },
                { "url": "https://b.example/x?y=1", "title": "Norway", "content": null },
            ],
        }),
        Provider::Serper => json!({
            "searchParameters": { "q": "capital of norway", "type": "search", "engine": "google" },
            "knowledgeGraph": { "title": "Oslo", "type": "Capital of Norway" },
            "organic": [
                { "title": "Oslo", "link": "https://a.example/", "snippet": "Capital of Norway.", "position": 1, "date": "2 Jan 2024" },
                { "title": "Norway", "link": "https://b.example/x?y=1", "position": 2 },
            ],
            "relatedSearches": [{ "query": "oslo population" }], "credits": 1,
        }),
        Provider::Brave => json!({
            "type": "search", "query": { "original": "capital of norway", "more_results_available": true },
            "mixed": { "type": "mixed", "main": [] },
            "web": { "type": "search", "family_friendly": true, "results": [
                { "title": "<strong>Oslo</strong>", "url": "https://a.example/", "description": "Capital of <strong>Norway</strong>.",
                  "is_source_local": false, "profile": { "name": "A" }, "language": "en" },
                { "title": "Norway", "url": "https://b.example/x?y=1" },
            ]},
        }),
        Provider::Tavily => json!({
            "query": "capital of norway", "answer": null, "images": [], "response_time": "1.67", "request_id": "1",
            "results": [
                { "title": "Oslo", "url": "https://a.example/", "content": "Capital of Norway.", "score": 0.81, "raw_content": null },
                { "title": "Norway", "url": "https://b.example/x?y=1", "content": "", "score": 0.5, "raw_content": null },
            ],
        }),
    }
}

/// What the provider's documentation says of a request: its first line, its body, and the header with the key.
fn expected_request(provider: Provider) -> (&'static str, Value, Option<String>) {
    match provider {
        Provider::Searxng => (
            "GET /search?q=capital%20of%20norway&format=json",
            Value::Null,
            Some(format!("authorization: Bearer {KEY}")),
        ),
        Provider::Serper => {
            ("POST /", json!({ "q": "capital of norway", "num": 2 }), Some(format!("x-api-key: {KEY}")))
        }
        Provider::Brave => (
            "GET /?q=capital%20of%20norway&count=2&text_decorations=false",
            Value::Null,
            Some(format!("x-subscription-token: {KEY}")),
        ),
        Provider::Tavily => (
            "POST /",
            json!({ "query": "capital of norway", "max_results": 2, "search_depth": "basic" }),
            Some(format!("authorization: Bearer {KEY}")),
        ),
    }
}

const PROVIDERS: [Provider; 4] = [Provider::Searxng, Provider::Serper, Provider::Brave, Provider::Tavily];

#[test]
fn each_provider_is_asked_and_understood_as_documented() {
    for provider in PROVIDERS {
        let server = FakeServer::start(move |_, _| Reply::ok(answer(provider).to_string()));
        let hits = search(provider, &server.url, None, 10).search("capital of norway", 2).expect("found");
        assert_eq!(ids(&hits), ["https://a.example/", "https://b.example/x?y=1"], "{provider}");
        assert_eq!((hits[0].title.as_str(), hits[0].text.as_str(), hits[0].score), ("Oslo", "Capital of Norway.", 1.0));
        assert_eq!((hits[1].title.as_str(), hits[1].text.as_str(), hits[1].score), ("Norway", "", 0.5));
        let (line, body, header) = expected_request(provider);
        let Asked { line: asked_line, headers, body: asked_body } = server.asked().remove(0);
        assert_eq!(asked_line, line);
        let asked_body =
            if asked_body.is_empty() { Value::Null } else { serde_json::from_str(&asked_body).expect("JSON") };
        assert_eq!(asked_body, body, "{provider}");
        assert!(header.is_none_or(|header| headers.contains(&header)), "{provider}: {headers:?}");
    }
}

#[test]
fn answers_without_results_are_empty() {
    let empty = [
        (Provider::Searxng, json!({ "query": "x", "results": [] })),
        (Provider::Serper, json!({ "searchParameters": {} })),
        (Provider::Brave, json!({ "type": "search" })),
        (Provider::Tavily, json!({ "results": [] })),
    ];
    for (provider, answer) in empty {
        let server = FakeServer::start(move |_, _| Reply::ok(answer.to_string()));
        assert_eq!(search(provider, &server.url, None, 10).search("x", 5), Ok(Vec::new()), "{provider}");
    }
}

#[test]
fn the_key_never_shows() {
    for provider in PROVIDERS {
        let repeats_head = |asked: &Asked, _| Reply { status: 403, ..Reply::ok(asked.headers.join("\n")) };
        let server = FakeServer::start(repeats_head);
        let error = search(provider, &server.url, None, 10).search("x", 5).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains(KEY), "{error}");
        let no_json = |asked: &Asked, _| Reply::ok(asked.headers.join("\n"));
        let server = FakeServer::start(no_json);
        let error = search(provider, &server.url, None, 10).search("x", 5).expect_err("not JSON");
        assert!(!format!("{error} {error:?}").contains(KEY), "{error}");
    }
}

#[test]
fn answers_are_kept_on_disk_and_damage_is_asked_for_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = FakeServer::start(|_, _| Reply::ok(answer(Provider::Tavily).to_string()));
    let ask = || search(Provider::Tavily, &server.url, Some(dir.path()), 10).search("capital of norway", 2);
    let found = ask().expect("found");
    assert_eq!(ask().as_ref(), Ok(&found));
    assert_eq!(server.asked().len(), 1, "the second answer is from the disk");
    let other = search(Provider::Tavily, &server.url, Some(dir.path()), 10);
    other.search("capital of norway", 1).expect("another k is another question");
    assert_eq!(server.asked().len(), 2);
    let folders = std::fs::read_dir(dir.path()).expect("lists").map(|folder| folder.expect("an entry").path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).expect("lists"));
    let files: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
    assert_eq!(files.len(), 2);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        assert!(!text.contains(KEY));
        std::fs::write(&file, &text[..text.len() / 2]).expect("writes");
    }
    assert_eq!(ask().as_ref(), Ok(&found));
    assert_eq!(server.asked().len(), 3);
    assert_eq!(ask(), Ok(found));
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn the_budget_counts_attempts_and_ends_in_an_error() {
    let server = FakeServer::start(|_, n_before| match n_before {
        0 => Reply::status(500),
        _ => Reply::ok(answer(Provider::Brave).to_string()),
    });
    let web = search(Provider::Brave, &server.url, None, 3);
    web.search("one", 2).expect("found at the second attempt");
    web.search("two", 2).expect("found");
    assert_eq!(web.n_requests(), 3);
    let error = web.search("three", 2).expect_err("the budget is used up");
    assert!(error.to_string().contains("budget of 3 requests"), "{error}");
    assert_eq!((server.asked().len(), web.n_requests()), (3, 3));
}

#[test]
fn equal_queries_of_a_batch_are_asked_once() {
    let server = FakeServer::start(|_, _| Reply::ok(answer(Provider::Serper).to_string()));
    let web = search(Provider::Serper, &server.url, None, 2);
    let found = web.search_batch(&["a", " ", "b", "a", "a"], 1);
    assert_eq!(found[1], Err(RetrieveError::EmptyQuery));
    assert!([0, 2, 3, 4].iter().all(|at| found[*at].is_ok()));
    assert_eq!(server.asked().len(), 2);
    assert_eq!(web.search("a", 0), Ok(Vec::new()));
}

#[test]
fn a_paid_provider_without_a_key_and_a_free_one_without_an_address_are_refused() {
    let limits = WebLimits { cache_dir: None, max_requests: 1 };
    let refused = |provider, key: Option<&str>| {
        WebSearch::new(provider, None, key.map(Secret::new), limits, &HttpConfig::default()).err()
    };
    for (provider, key) in [(Provider::Serper, None), (Provider::Brave, Some(" ")), (Provider::Searxng, Some(KEY))] {
        assert!(matches!(refused(provider, key), Some(Error::InvalidConfig { .. })), "{provider}");
    }
    assert!(refused(Provider::Tavily, Some(KEY)).is_none());
}

/// An answer with the given addresses; Brave's says whether there are more.
fn answer_of(provider: Provider, addresses: &[String], has_more: bool) -> Value {
    let pages = |name: &str| addresses.iter().map(|url| json!({ name: url, "title": url })).collect::<Vec<_>>();
    match provider {
        Provider::Searxng | Provider::Tavily => json!({ "results": pages("url") }),
        Provider::Serper => json!({ "organic": pages("link") }),
        Provider::Brave => {
            json!({ "query": { "more_results_available": has_more }, "web": { "results": pages("url") } })
        }
    }
}

/// A server with `n_pages` pages of three results, of which the first is the last of the page before.
fn paged(provider: Provider, n_pages: usize) -> FakeServer {
    FakeServer::start(move |_, n_before| {
        let addresses = (2 * n_before..2 * n_before + 3).map(|at| format!("https://{at}.example/")).collect::<Vec<_>>();
        let addresses = if n_before < n_pages { &addresses[..] } else { &[] };
        Reply::ok(answer_of(provider, addresses, n_before + 1 < n_pages).to_string())
    })
}

#[test]
fn further_pages_are_asked_for_until_there_are_enough() {
    let check = |provider: Provider, page_of: fn(&Asked) -> String, expected: &[&str]| {
        let server = paged(provider, 100);
        let hits = search(provider, &server.url, None, 10).search("x", 6).expect("found");
        assert_eq!(ids(&hits), (0..6).map(|at| format!("https://{at}.example/")).collect::<Vec<_>>(), "{provider}");
        assert_eq!(hits[5].score, 1.0 / 6.0, "ranks go on over the pages");
        assert_eq!(server.asked().iter().map(page_of).collect::<Vec<_>>(), expected, "{provider}");
    };
    let parameters =
        |asked: &Asked| asked.line.split_once("/search?q=x&format=json").expect("the address").1.to_owned();
    check(Provider::Searxng, parameters, &["", "&pageno=2", "&pageno=3"]);
    let parameters = |asked: &Asked| asked.line.split_once("text_decorations=false").expect("the address").1.to_owned();
    check(Provider::Brave, parameters, &["", "&offset=1", "&offset=2"]);
    let page = |asked: &Asked| serde_json::from_str::<Value>(&asked.body).expect("JSON")["page"].to_string();
    check(Provider::Serper, page, &["null", "2", "3"]);
}

#[test]
fn pages_end_where_nothing_is_new_where_there_is_no_next_and_after_five() {
    let n_asked = |provider: Provider, n_pages: usize, n_hits: usize| {
        let server = paged(provider, n_pages);
        let hits = search(provider, &server.url, None, 100).search("x", 90).expect("found");
        assert_eq!(hits.len(), n_hits, "{provider}");
        server.asked().len()
    };
    assert_eq!(n_asked(Provider::Searxng, 2, 5), 3, "the third is empty");
    assert_eq!(n_asked(Provider::Serper, 2, 5), 3);
    assert_eq!(n_asked(Provider::Brave, 2, 5), 2, "it says that there is no third");
    assert_eq!(n_asked(Provider::Tavily, 2, 3), 1, "it has no second");
    assert_eq!(n_asked(Provider::Searxng, 100, 11), 5);
    let same = FakeServer::start(|_, _| Reply::ok(answer(Provider::Searxng).to_string()));
    let hits = search(Provider::Searxng, &same.url, None, 100).search("x", 9).expect("found");
    assert_eq!((hits.len(), same.asked().len()), (2, 2), "a server without pages gives the first again");
}

#[test]
fn where_the_budget_ends_between_pages_what_was_found_is_the_answer_and_is_not_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = paged(Provider::Searxng, 100);
    let web = search(Provider::Searxng, &server.url, Some(dir.path()), 2);
    assert_eq!(web.search("x", 9).expect("found").len(), 5);
    assert_eq!((server.asked().len(), web.n_requests()), (2, 2));
    assert!(web.search("y", 9).is_err(), "the budget is used up");
    let failing = FakeServer::start(|_, n_before| match n_before {
        0 => Reply::ok(answer(Provider::Serper).to_string()),
        _ => Reply::status(403),
    });
    let web = search(Provider::Serper, &failing.url, Some(dir.path()), 10);
    assert_eq!(web.search("x", 9).expect("found").len(), 2);
    assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 0, "half an answer is not kept");
}

fn any_answer() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("null"),
        Just("1e999"),
        Just("7"),
        Just("\"https://a.example/\""),
        Just("\"\""),
        Just("\"<b\""),
        Just("[]"),
    ];
    let page = (value.clone(), value).prop_map(|(url, text)| {
        format!("{{\"url\":{url},\"link\":{url},\"title\":{text},\"content\":{text},\"description\":{text}}}")
    });
    let pages = prop::collection::vec(page, 0..5).prop_map(|pages| pages.join(","));
    let whole = pages.prop_map(|pages| {
        format!("{{\"results\":[{pages}],\"organic\":[{pages}],\"web\":{{\"results\":[{pages}]}}}}").into_bytes()
    });
    prop_oneof![
        whole,
        prop::collection::vec(any::<u8>(), 0..60),
        "[\\[\\]{}:,\"0-9a-z]{0,40}".prop_map(String::into_bytes)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a provider says: an error, or hits with an address of their own.
    #[test]
    fn any_answer_is_an_error_or_hits(answers in prop::collection::vec(any_answer(), 20)) {
        let answers = Arc::new(Mutex::new(answers));
        let served = answers.clone();
        let server = FakeServer::start(move |_, _| Reply::ok(served.lock().expect("no panic").pop().unwrap_or_default()));
        for provider in PROVIDERS {
            if let Ok(hits) = search(provider, &server.url, None, 10).search("x", 4) {
                prop_assert!(hits.len() <= 4 && hits.iter().all(|hit| !hit.id.0.is_empty()));
                let distinct: std::collections::HashSet<_> = hits.iter().map(|hit| &hit.id.0).collect();
                prop_assert_eq!(distinct.len(), hits.len());
            }
        }
    }

    /// Whatever has become of an answer on disk: it is asked for again, or is one that was kept for the query.
    #[test]
    fn any_kept_answer_is_read_or_asked_for_again(
        at in any::<prop::sample::Index>(), replacement in prop::collection::vec(any::<u8>(), 0..9), n_cut in 0usize..30,
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let server = FakeServer::start(|_, _| Reply::ok(answer(Provider::Tavily).to_string()));
        let ask = || search(Provider::Tavily, &server.url, Some(dir.path()), 10).search("capital of norway", 2);
        ask().expect("found");
        let folder = std::fs::read_dir(dir.path()).expect("lists").next().expect("a folder").expect("an entry").path();
        let file = std::fs::read_dir(folder).expect("lists").next().expect("a file").expect("an entry").path();
        let whole = std::fs::read(&file).expect("reads");
        let at = at.index(whole.len());
        let changed = [&whole[..at], &replacement, &whole[(at + n_cut).min(whole.len())..]].concat();
        std::fs::write(&file, changed).expect("written");
        prop_assert!(ask().is_ok());
    }
}
