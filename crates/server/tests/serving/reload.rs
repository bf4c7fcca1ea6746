//! A newer index in the place of an older one, while requests go on.
use crate::common::{Client, Running, config};
use exsearch_server::{Error, ServerConfig};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The version that all hits of an answer are of.
#[track_caller]
fn version(answer: &crate::common::Answer) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let versions: Vec<u64> = json["topk"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|hit| {
            let id = hit["pid"].to_string();
            id.trim_matches('"').split('.').next().and_then(|version| version.parse().ok()).expect("version.rank")
        })
        .collect();
    assert!(versions.iter().all(|version| *version == versions[0]), "an answer is of one version: {versions:?}");
    versions[0]
}

#[test]
fn reloads_under_load_drop_no_request_and_mix_no_versions() {
    let running = Running::new(config());
    let is_over = AtomicBool::new(false);
    let n_answers: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client_idx| {
                let (is_over, address) = (&is_over, running.address);
                scope.spawn(move || {
                    let (mut client, mut newest, mut n_answers) = (Client::new(address), 0, 0);
                    loop {
                        // Looked at first: the last answer is then to a request after the last reload.
                        let is_last = is_over.load(SeqCst);
                        let answer = client.get(&format!("/api/search?query=c{client_idx}&k=3"));
                        let version = version(&answer);
                        assert!(version >= newest, "a client that has seen {newest} never sees {version}");
                        (newest, n_answers) = (version, n_answers + 1);
                        if is_last {
                            assert_eq!(newest, 20);
                            return n_answers;
                        }
                    }
                })
            })
            .collect();
        for version in 2..=20 {
            running.world.version.store(version, SeqCst);
            assert_eq!(running.reload().expect("opened"), version);
        }
        is_over.store(true, SeqCst);
        clients.into_iter().map(|client| client.join().expect("no wrong answer")).sum()
    });
    let answered = format!("exsearch_requests_total{{route=\"/api/search\",status=\"200\"}} {n_answers}\n");
    assert!(running.client().get("/metrics").body.contains(&answered), "{answered}");
}

#[test]
fn a_request_ends_on_the_version_that_it_started_on() {
    let running = Running::new(ServerConfig { n_searchers: 1, ..config() });
    let first = running.get_later("/api/search?query=block");
    running.until("queued_queries", 1);
    // Waits behind it for the same version.
    let second = running.get_later("/api/search?query=waits");
    running.until("queued_queries", 2);
    running.world.version.store(2, SeqCst);
    assert_eq!(running.reload().expect("opened"), 2);
    let third = running.get_later("/api/search?query=new");
    running.until("queued_queries", 3);
    running.world.open_gate();
    let versions = [first, second, third].map(|answer| version(&answer.join().expect("answered")));
    assert_eq!(versions, [1, 1, 2]);
}

#[test]
fn a_version_that_does_not_open_changes_nothing() {
    let running = Running::new(config());
    running.world.is_broken.store(true, SeqCst);
    running.world.version.store(2, SeqCst);
    assert!(matches!(running.reload(), Err(Error::Open(_))));
    assert_eq!(version(&running.client().get("/api/search?query=a")), 1);
    running.until(r#"reloads_total{outcome="failed"}"#, 1);
    running.until("index_generation", 1);
    running.world.is_broken.store(false, SeqCst);
    assert_eq!(running.reload().expect("opened"), 2);
    assert_eq!(version(&running.client().get("/api/search?query=a")), 2);
}

#[test]
fn new_versions_are_seen_and_broken_ones_are_not_tried_all_the_time() {
    let running = Running::new(ServerConfig { poll_ms: 1, ..config() });
    running.world.version.store(2, SeqCst);
    running.until("index_generation", 2);
    assert_eq!(version(&running.client().get("/api/search?query=a")), 2);

    running.world.is_broken.store(true, SeqCst);
    running.world.version.store(3, SeqCst);
    running.until(r#"reloads_total{outcome="failed"}"#, 1);
    assert_eq!(version(&running.client().get("/api/search?query=a")), 2);
    // The next version is tried at once, though the one before is not due again.
    running.world.is_broken.store(false, SeqCst);
    running.world.version.store(4, SeqCst);
    running.until("index_generation", 3);
    assert_eq!(version(&running.client().get("/api/search?query=a")), 4);
}
