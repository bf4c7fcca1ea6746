//! Clients that no server should suffer from.
use crate::client::Connection;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const N_SLOW: usize = 8;
/// At the limit: queries of 4,096 characters, 16 a request, of words that many passages hold.
const N_LARGE: usize = 16;
const LARGE_CHARS: usize = 4_096;
/// Past the limit: 100,000 characters.
const HUGE_CHARS: usize = 100_000;

/// Lets them loose for a time. Returns what each kind was told, as `kind status count`.
pub(crate) fn run(address: &str, time: Duration) -> String {
    let told: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let tell = |kind: &str, answer: std::io::Result<(u16, String)>| {
        let said = answer.map_or_else(|_| "closed".to_owned(), |(status, _)| status.to_string());
        *told.lock().expect("not poisoned").entry(format!("{kind} {said}")).or_default() += 1;
    };
    let words = |n_chars: usize| {
        "the city of the first war in the world was born and died ".repeat(n_chars / 57 + 1)[..n_chars].to_owned()
    };
    let large = json!({"queries": vec![words(LARGE_CHARS); N_LARGE], "topk": 100}).to_string();
    let huge = json!({"queries": [words(HUGE_CHARS)]}).to_string();
    let malformed = "{\"queries\": [\"a\", ".to_owned();
    let ends = Instant::now() + time;
    std::thread::scope(|scope| {
        for _ in 0..N_SLOW {
            scope.spawn(|| {
                while Instant::now() < ends {
                    let Ok(mut connection) = Connection::new(address) else { continue };
                    let request = "POST /retrieve HTTP/1.1\r\nhost: slow\r\ncontent-length: 100000\r\n\r\n";
                    // A byte every 50 ms: the head alone takes three seconds, the body would take 80 minutes.
                    for byte in request.bytes().chain(std::iter::repeat(b' ')) {
                        if Instant::now() >= ends || connection.send(&[byte]).is_err() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    tell("slow", Err(std::io::ErrorKind::ConnectionReset.into()));
                }
            });
        }
        scope.spawn(|| {
            // 500 questions x 100 hits x ~800 bytes = 40 MB that nobody reads.
            let body = json!({"queries": vec!["the first war"; 500], "topk": 100}).to_string();
            let head = format!("POST /retrieve HTTP/1.1\r\nhost: deaf\r\ncontent-length: {}\r\n\r\n", body.len());
            let Ok(mut connection) = Connection::new(address) else { return };
            let _ = connection.send(&[head.as_bytes(), body.as_bytes()].concat());
            std::thread::sleep(ends.saturating_duration_since(Instant::now()));
        });
        for (kind, body) in [("huge", &huge), ("large", &large), ("malformed", &malformed)] {
            let tell = &tell;
            scope.spawn(move || {
                let mut connection = None;
                while Instant::now() < ends {
                    if connection.is_none() {
                        connection = Connection::new(address).ok();
                    }
                    let Some(open) = &mut connection else { continue };
                    let answer = open.post("/retrieve", body.as_bytes());
                    if answer.is_err() {
                        connection = None;
                    }
                    tell(kind, answer);
                    // Enough to be a flood, not so much that the bench measures its own clients.
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    let told = told.into_inner().expect("not poisoned");
    told.iter().map(|(kind, count)| format!("{kind} x {count}")).collect::<Vec<_>>().join(", ")
}
