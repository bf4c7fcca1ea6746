//! `exsearch serve` under load on loopback, with clients that misbehave and an index that changes meanwhile.
//!
//!     exsearch-bench-serving EXSEARCH PASSAGES INDEX QUESTIONS [SECS] [CONNECTIONS]
//!
//! EXSEARCH is the binary, INDEX a folder that it built from PASSAGES, which is built again in the run; QUESTIONS are JSON
//! lines with a `question`. CONNECTIONS (default 8) clients ask for SECS (default 60) seconds, one request after the other,
//! half of them by each protocol, and check every answer against `exsearch search`. Four parts of the time:
//!
//! | part | beside them |
//! |---|---|
//! | quiet | nobody |
//! | hostile | 8 slow clients, a client that reads nothing, queries past the limit and at the limit, malformed JSON |
//! | reload | the index is built again and taken up |
//! | killed build | a build is killed with SIGKILL every second |
//!
//! Knows nothing of the server's code: what it measures is what a client sees.
mod client;
mod hostile;

use client::Connection;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const PARTS: [&str; 4] = ["quiet", "hostile", "reload", "killed build"];
const TOP_K: usize = 5;

struct Arguments {
    exsearch: String,
    passages: String,
    index: String,
    questions: Vec<String>,
    secs: u64,
    n_connections: usize,
}

/// What one client saw in one part.
#[derive(Default)]
struct Seen {
    millis: Vec<f64>,
    n_wrong: usize,
    /// By what was said: a status, or the system's error.
    failures: HashMap<String, usize>,
}

/// Memory of the server in MB at a time in seconds.
struct Memory {
    at: f64,
    anonymous: f64,
    files: f64,
}

fn main() {
    let arguments = arguments();
    let (expected, in_process) = expected(&arguments);
    let (mut server, address) = serve(&arguments);
    println!(
        "{} questions, top {TOP_K}, {} connections, {} s; `exsearch search` alone: {in_process:.0} queries a second",
        arguments.questions.len(),
        arguments.n_connections,
        arguments.secs
    );
    let (part, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let started = Instant::now();
    let (seen, memory, hostile, changes) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..arguments.n_connections)
            .map(|client_idx| {
                let (arguments, expected, address, part, is_over) = (&arguments, &expected, &address, &part, &is_over);
                scope.spawn(move || ask(client_idx, arguments, expected, address, part, is_over))
            })
            .collect();
        let pid = server.id();
        let memory = {
            let is_over = &is_over;
            scope.spawn(move || watch_memory(pid, started, is_over))
        };
        let quarter = Duration::from_secs(arguments.secs) / 4;
        std::thread::sleep(quarter);

        let mut changes = vec![started.elapsed().as_secs_f64()];
        part.store(1, SeqCst);
        let hostile = hostile::run(&address, quarter);

        changes.push(started.elapsed().as_secs_f64());
        part.store(2, SeqCst);
        let reload_ends = Instant::now() + quarter;
        build(&arguments).wait().expect("the build ends");
        std::thread::sleep(reload_ends.saturating_duration_since(Instant::now()));

        changes.push(started.elapsed().as_secs_f64());
        part.store(3, SeqCst);
        let ends = Instant::now() + quarter;
        while Instant::now() < ends {
            let mut build = build(&arguments);
            std::thread::sleep(Duration::from_secs(1).min(ends.saturating_duration_since(Instant::now())));
            build.kill().expect("killed");
            build.wait().expect("it is gone");
        }
        changes.push(started.elapsed().as_secs_f64());
        is_over.store(true, SeqCst);
        let seen: Vec<_> = clients.into_iter().map(|client| client.join().expect("a client")).collect();
        (seen, memory.join().expect("watched"), hostile, changes)
    });
    print_parts(&seen, &changes);
    println!("\nhostile clients got: {hostile}");
    print_memory(&memory);
    print_server(&address);
    stop(&mut server);
}

fn arguments() -> Arguments {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [exsearch, passages, index, questions, rest @ ..] = &given[..] else {
        eprintln!("exsearch-bench-serving EXSEARCH PASSAGES INDEX QUESTIONS [SECS] [CONNECTIONS]");
        std::process::exit(2);
    };
    let text = std::fs::read_to_string(questions).expect("the questions");
    let question = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a row of questions");
        row["question"].as_str().expect("a question").replace(['\n', '\r'], " ")
    };
    let number = |at: usize, default| rest.get(at).map_or(default, |text| text.parse().expect("a number"));
    Arguments {
        exsearch: exsearch.clone(),
        passages: passages.clone(),
        index: index.clone(),
        questions: text.lines().map(question).collect(),
        secs: number(0, 60),
        n_connections: number(1, 8) as usize,
    }
}

/// The ids that `exsearch search` finds for each question, and how many queries a second it searches.
fn expected(arguments: &Arguments) -> (Vec<Vec<String>>, f64) {
    let search = |questions: &[String]| {
        let started = Instant::now();
        let mut child = Command::new(&arguments.exsearch)
            .args(["search", "-", "--json", "-k", &TOP_K.to_string(), "--index", &arguments.index])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stdin = child.stdin.take().expect("piped");
        let text = questions.join("\n");
        let writing = std::thread::spawn(move || stdin.write_all(text.as_bytes()).expect("written"));
        let output = child.wait_with_output().expect("it ends");
        writing.join().expect("written");
        assert!(output.status.success());
        let ids = |line: &str| {
            let answer: Value = serde_json::from_str(line).expect("an answer");
            let hits = answer["hits"].as_array().expect("hits").iter();
            hits.map(|hit| hit["id"].as_str().expect("an id").to_owned()).collect()
        };
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        (text.lines().map(ids).collect::<Vec<Vec<String>>>(), started.elapsed().as_secs_f64())
    };
    let (_, start_up) = search(&arguments.questions[..1]);
    let (expected, secs) = search(&arguments.questions);
    assert_eq!(expected.len(), arguments.questions.len());
    (expected, arguments.questions.len() as f64 / (secs - start_up))
}

fn serve(arguments: &Arguments) -> (Child, String) {
    let mut server = Command::new(&arguments.exsearch)
        .args(["serve", "--retriever", "--port", "0", "--poll-ms", "500", "--header-timeout-ms", "5000", "--index"])
        .arg(&arguments.index)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.trim_end().rsplit_once("http://").expect("an address").1.to_owned();
    (server, address)
}

/// Builds the index anew from the same passages.
fn build(arguments: &Arguments) -> Child {
    Command::new(&arguments.exsearch)
        .args(["index", "--quiet", "--force", &arguments.passages, "--out", &arguments.index])
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs")
}

/// Asks and checks until the time is over; a connection that fails is opened anew.
fn ask(
    client_idx: usize,
    arguments: &Arguments,
    expected: &[Vec<String>],
    address: &str,
    part: &AtomicUsize,
    is_over: &AtomicBool,
) -> [Seen; 4] {
    let mut seen: [Seen; 4] = Default::default();
    let mut connection = None;
    let mut question_idx = client_idx * 37;
    while !is_over.load(SeqCst) {
        question_idx = (question_idx + 1) % arguments.questions.len();
        let question = &arguments.questions[question_idx];
        let seen = &mut seen[part.load(SeqCst)];
        let started = Instant::now();
        let asked = match &mut connection {
            Some(connection) => Ok(connection),
            None => Connection::new(address).map(|new| connection.insert(new)),
        };
        let answer = asked.and_then(|connection| match client_idx % 2 {
            0 => connection.colbert(question, TOP_K),
            _ => connection.search_r1(question, TOP_K),
        });
        match answer {
            Ok((200, ids)) => {
                seen.millis.push(started.elapsed().as_secs_f64() * 1e3);
                seen.n_wrong += usize::from(ids != expected[question_idx]);
            }
            Ok((status, _)) => *seen.failures.entry(status.to_string()).or_default() += 1,
            Err(error) => {
                *seen.failures.entry(error.to_string()).or_default() += 1;
                connection = None;
            }
        }
    }
    seen
}

fn watch_memory(pid: u32, started: Instant, is_over: &AtomicBool) -> Vec<Memory> {
    let mut memory = Vec::new();
    while !is_over.load(SeqCst) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of the status");
            line.trim().trim_end_matches(" kB").parse::<f64>().expect("kB") / 1024.0
        };
        let (anonymous, files) = (field("RssAnon:"), field("RssFile:"));
        memory.push(Memory { at: started.elapsed().as_secs_f64(), anonymous, files });
        std::thread::sleep(Duration::from_millis(500));
    }
    memory
}

/// `ends` are those of the parts, in seconds: the third lasts at least as long as a build.
fn print_parts(seen: &[[Seen; 4]], ends: &[f64]) {
    println!(
        "\n{:<13} {:>8} {:>7} {:>8} {:>8} {:>8} {:>8}  wrong  failed",
        "part", "answers", "/s", "p50 ms", "p95", "p99", "max"
    );
    for (part_idx, part) in PARTS.iter().enumerate() {
        let mut millis: Vec<f64> = seen.iter().flat_map(|seen| seen[part_idx].millis.iter().copied()).collect();
        millis.sort_by(f64::total_cmp);
        let at = |share: f64| millis.get(((millis.len() as f64 * share) as usize).min(millis.len().saturating_sub(1)));
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|share| at(share).copied().unwrap_or(f64::NAN));
        let n_wrong: usize = seen.iter().map(|seen| seen[part_idx].n_wrong).sum();
        let mut failures: HashMap<&str, usize> = HashMap::new();
        for (said, count) in seen.iter().flat_map(|seen| &seen[part_idx].failures) {
            *failures.entry(said).or_default() += count;
        }
        let begin = if part_idx == 0 { 0.0 } else { ends[part_idx - 1] };
        let rate = millis.len() as f64 / (ends[part_idx] - begin);
        print!(
            "{part:<13} {:>8} {rate:>7.0} {p50:>8.2} {p95:>8.2} {p99:>8.2} {max:>8.1}  {n_wrong:>5}  ",
            millis.len()
        );
        println!("{}", if failures.is_empty() { "0".to_owned() } else { format!("{failures:?}") });
    }
}

/// A dozen points, and the slope of the second half by least squares.
fn print_memory(memory: &[Memory]) {
    println!("\nmemory of the server, MB\n{:>5} {:>10} {:>13}", "s", "anonymous", "mapped files");
    for point in memory.iter().step_by(memory.len().div_ceil(12)) {
        println!("{:>5.0} {:>10.1} {:>13.1}", point.at, point.anonymous, point.files);
    }
    let half = &memory[memory.len() / 2..];
    let n = half.len() as f64;
    let (mean_at, mean) =
        (half.iter().map(|point| point.at).sum::<f64>() / n, half.iter().map(|point| point.anonymous).sum::<f64>() / n);
    let covariance: f64 = half.iter().map(|point| (point.at - mean_at) * (point.anonymous - mean)).sum();
    let variance: f64 = half.iter().map(|point| (point.at - mean_at).powi(2)).sum();
    let most = memory.iter().map(|point| point.anonymous).fold(0.0, f64::max);
    println!("anonymous: most {most:.1} MB, slope of the second half {:+.1} MB a minute", covariance / variance * 60.0);
}

/// What the server counted itself.
fn print_server(address: &str) {
    let text = Connection::new(address).and_then(|mut connection| connection.get("/metrics")).expect("metrics").1;
    println!();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")) {
        println!("{line}");
    }
}

fn stop(server: &mut Child) {
    let told = Command::new("kill").args(["-s", "TERM", &server.id().to_string()]).status();
    assert!(told.expect("kill runs").success());
    let started = Instant::now();
    let status = server.wait().expect("it is gone");
    println!("\nstopped {:.0} ms after SIGTERM, {status}", started.elapsed().as_secs_f64() * 1e3);
}
