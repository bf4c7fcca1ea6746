//! `exsearch serve`: the built binary as a server, from its first line to its last signal.
use crate::common::{SMALL, command, fill, folder, run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server of the binary, killed when the test is over.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn new(options: &str, paths: &[&Path]) -> Self {
        let mut child = serve(options, paths).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
        let address = line.trim_end().rsplit_once(" on http://").map(|(said, address)| {
            assert_eq!(said, format!("serving {}", paths[0].display()));
            address.to_owned()
        });
        match address {
            Some(address) => Self { child, address },
            None => panic!("{line:?} {:?}", child.wait_with_output()),
        }
    }

    /// Status and body of the answer to a request with this head, which ends with its first empty line.
    fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("UTF-8 until the connection is closed");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"))
    }

    fn post(&self, body: &Value) -> Value {
        let body = body.to_string();
        let (status, answer) = self.ask(&format!(
            "POST /retrieve HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).expect("JSON")
    }

    #[track_caller]
    fn until(&self, path: &str, is_so: impl Fn(&str) -> bool) {
        let started = Instant::now();
        loop {
            let answer = self.get(path).1;
            if is_so(&answer) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{path} stays {answer}");
        }
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
    }

    /// Waits for its end; returns it with everything it wrote to stderr.
    fn end(mut self) -> (ExitStatus, String) {
        let mut stderr = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
        (self.child.wait().expect("it is gone"), stderr)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(options: &str, paths: &[&Path]) -> Command {
    let mut command = command(fill(&format!("serve --retriever --index {{}} --port 0 {options}"), paths));
    command.env_remove("EXSEARCH_SERVE_TOKEN").env("NO_COLOR", "1");
    command
}

#[test]
fn both_protocols_find_what_search_finds() {
    let serving = Serving::new("", &[&SMALL.index()]);
    assert_eq!(serving.get("/ready"), (200, r#"{"status":"ready","index_generation":1}"#.to_owned()));
    let found = run("search born --index {} -k 4 --json", &[&SMALL.index()]).ok();
    let found: Value = serde_json::from_str(&found).expect("JSON");
    let hits = found["hits"].as_array().expect("hits");
    assert_eq!(hits.len(), 4);
    let text = |value: &Value| value.as_str().expect("text").to_owned();

    let (status, colbert) = serving.get("/api/search?query=born&k=4");
    let colbert: Value = serde_json::from_str(&colbert).expect("JSON");
    assert_eq!((status, &colbert["query"]), (200, &json!("born")));
    let result = serving.post(&json!({"queries": ["born"], "topk": 4, "return_scores": true}));
    for (hit_idx, hit) in hits.iter().enumerate() {
        let (title, words) = (text(&hit["title"]), text(&hit["text"]));
        let document = json!({"id": hit["id"], "contents": format!("\"{title}\"\n{words}")});
        assert_eq!(result["result"][0][hit_idx], json!({"document": document, "score": hit["score"]}));
        let theirs = &colbert["topk"][hit_idx];
        assert_eq!(theirs["text"], format!("{title} | {words}"));
        assert_eq!((&theirs["rank"], &theirs["score"]), (&json!(hit_idx + 1), &hit["score"]));
        assert_eq!(theirs["pid"].to_string().trim_matches('"'), text(&hit["id"]));
    }
    assert_eq!(serving.get("/api/search?query=born&k=100000").0, 400);
    assert_eq!(serving.get("/other").0, 404);
}

#[cfg(unix)]
#[test]
fn a_new_index_is_taken_up_and_a_signal_ends_it() {
    let folder = folder();
    let (passages, index) = (folder.path().join("passages.tsv"), folder.path().join("index"));
    let build = |word: &str| {
        std::fs::write(&passages, format!("id\ttext\ttitle\n1\tThe word is {word}.\tPage\n")).expect("written");
        run("index {} --out {} --force", &[&passages, &index]).ok();
    };
    build("apple");
    let serving = Serving::new("--poll-ms 20", &[&index]);
    assert!(serving.get("/api/search?query=apple").1.contains("The word is apple."));
    build("banana");
    serving.until("/api/search?query=banana", |answer| answer.contains("The word is banana."));
    assert!(!serving.get("/api/search?query=apple").1.contains("apple."));
    serving.until("/metrics", |text| text.contains("\nexsearch_index_generation 2\n"));
    serving.signal("HUP");
    serving.until("/metrics", |text| text.contains("\nexsearch_index_generation 3\n"));
    // A version that cannot be opened: the one before serves on.
    std::fs::write(index.join("manifest.json"), "{").expect("written");
    serving.until("/metrics", |text| !text.contains("\nexsearch_reloads_total{outcome=\"failed\"} 0\n"));
    assert!(serving.get("/api/search?query=banana").1.contains("The word is banana."));
    serving.signal("TERM");
    let (status, stderr) = serving.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("could not be opened") && stderr.contains("damaged"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_token_is_asked_for_and_never_logged() {
    let folder = folder();
    let file = folder.path().join("token");
    std::fs::write(&file, "s3cret-t0ken\n").expect("written");
    let serving = Serving::new("--bearer-token-file {} -vvv", &[&SMALL.index(), &file]);
    assert_eq!(serving.get("/api/search?query=born").0, 401);
    let with = |token: &str| {
        let head = format!("host: test\r\nconnection: close\r\nauthorization: Bearer {token}");
        serving.ask(&format!("GET /api/search?query=born HTTP/1.1\r\n{head}\r\n\r\n")).0
    };
    assert_eq!(with("s3cret-t0ken"), 200);
    assert_eq!(with("s3cret"), 401);
    serving.signal("INT");
    let (status, stderr) = serving.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains("request") && line.contains("status=401")).collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(!stderr.contains("s3cret"), "{stderr}");
}

#[test]
fn what_cannot_be_served_says_why() {
    let folder = folder();
    let check = |options: &str, paths: &[&Path], expect: &[&str]| {
        let ran = crate::common::Ran::from(serve(options, paths).output().expect("the binary runs"));
        ran.failed(expect);
        assert_eq!(ran.stdout, "");
    };
    let index = SMALL.index();
    check("", &[folder.path()], &["cannot open the index to serve", "is not an index"]);
    check("--host 0.0.0.0", &[&index], &["0.0.0.0:0", "bearer token", "--insecure"]);
    check("--max-batch 0", &[&index], &["max_batch is 0"]);
    check("--bearer-token-file {}", &[&index, &folder.path().join("none")], &["none"]);
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").expect("written");
    check("--bearer-token-file {}", &[&index, &empty], &["empty", "visible ASCII"]);
    assert_eq!(run("serve --index {}", &[&index]).code, Some(2), "--retriever says what is served");
}

#[test]
fn a_port_in_use_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("an address").port();
    let ran = run(&format!("serve --retriever --index {{}} --port {port}"), &[&SMALL.index()]);
    ran.failed(&[&format!("127.0.0.1:{port}"), "choose another port"]);
}
