//! A server over a fake retriever, and a plain HTTP/1.1 client.
use exsearch_schema::{Hit, PassageId, RetrieveError, Retriever};
use exsearch_server::{BoxError, Error, Server, ServerConfig, Source, Token};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longer than anything here takes on a slow machine: what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Every word is found in `top_k` passages whose ids name the version. Some words do more: "" is empty, "fail" fails,
/// "panic" panics, "block.." waits for the gate, "big" is found in passages of 1 MiB.
struct Fake {
    version: u64,
    world: Arc<World>,
}

/// What the fakes of a server share with its test.
#[derive(Default)]
pub(crate) struct World {
    /// The version that is opened next.
    pub(crate) version: AtomicU64,
    /// Whether opening fails.
    pub(crate) is_broken: AtomicBool,
    /// The queries and `top_k` of every call.
    pub(crate) calls: Mutex<Vec<(Vec<String>, usize)>>,
    is_open: Mutex<bool>,
    opened: Condvar,
}

/// A server in a runtime of its own.
pub(crate) struct Running {
    runtime: Runtime,
    server: Option<Server>,
    pub(crate) address: SocketAddr,
    pub(crate) world: Arc<World>,
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Retriever for Fake {
    fn search_batch(&self, queries: &[&str], top_k: usize) -> Vec<Result<Vec<Hit>, RetrieveError>> {
        let words: Vec<String> = queries.iter().map(|query| (*query).to_owned()).collect();
        self.world.calls.lock().expect("not poisoned").push((words, top_k));
        queries.iter().map(|query| self.find(query, top_k)).collect()
    }
}

impl Fake {
    fn find(&self, query: &str, top_k: usize) -> Result<Vec<Hit>, RetrieveError> {
        match query {
            "" => return Err(RetrieveError::EmptyQuery),
            "fail" => return Err(RetrieveError::Failed("a secret of the machine".to_owned())),
            "panic" => panic!("the fake panics as asked"),
            _ => {}
        }
        if query.starts_with("block") {
            let is_open = self.world.is_open.lock().expect("not poisoned");
            let (_is_open, waited) =
                self.world.opened.wait_timeout_while(is_open, PATIENCE, |is_open| !*is_open).expect("not poisoned");
            assert!(!waited.timed_out(), "nobody opened the gate");
        }
        let hit = |rank: usize| Hit {
            id: PassageId(format!("{}.{rank}", self.version)),
            title: query.to_owned(),
            text: if query == "big" { "x".repeat(1 << 20) } else { format!("passage {rank}") },
            score: 1.0 / rank as f32,
        };
        Ok((1..=top_k).map(hit).collect())
    }
}

impl World {
    /// Lets all "block" queries go on.
    pub(crate) fn open_gate(&self) {
        *self.is_open.lock().expect("not poisoned") = true;
        self.opened.notify_all();
    }

    /// All queries that were searched, in sorted order.
    pub(crate) fn searched(&self) -> Vec<String> {
        let calls = self.calls.lock().expect("not poisoned");
        let mut queries: Vec<String> = calls.iter().flat_map(|(queries, _)| queries.clone()).collect();
        queries.sort();
        queries
    }
}

struct Worlds(Arc<World>);

impl Source for Worlds {
    fn open(&self) -> Result<Arc<dyn Retriever>, BoxError> {
        if self.0.is_broken.load(SeqCst) {
            return Err("the index is broken".into());
        }
        Ok(Arc::new(Fake { version: self.0.version.load(SeqCst), world: self.0.clone() }))
    }

    fn fingerprint(&self) -> Result<String, BoxError> {
        Ok(self.0.version.load(SeqCst).to_string())
    }
}

/// The defaults without polling.
pub(crate) fn config() -> ServerConfig {
    ServerConfig { poll_ms: 0, ..ServerConfig::default() }
}

impl Running {
    /// A server that is ready.
    pub(crate) fn new(config: ServerConfig) -> Self {
        let running = Self::unready(config, None).expect("started");
        assert_eq!(running.reload().expect("opened"), 1);
        running
    }

    /// A server that has opened nothing yet.
    pub(crate) fn unready(config: ServerConfig, token: Option<Token>) -> Result<Self, Error> {
        Self::on((Ipv4Addr::LOCALHOST, 0).into(), config, token)
    }

    pub(crate) fn on(address: SocketAddr, config: ServerConfig, token: Option<Token>) -> Result<Self, Error> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let world = Arc::new(World::default());
        world.version.store(1, SeqCst);
        let source = Arc::new(Worlds(world.clone()));
        let server = runtime.block_on(Server::start(address, config, token, source))?;
        Ok(Self { address: server.address(), runtime, server: Some(server), world })
    }

    pub(crate) fn reload(&self) -> Result<u64, Error> {
        self.runtime.block_on(self.server.as_ref().expect("not stopped").reload())
    }

    pub(crate) fn stop(&mut self) {
        self.runtime.block_on(self.server.take().expect("not stopped yet").stop());
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Sends a request in a thread of its own.
    pub(crate) fn get_later(&self, path: &str) -> std::thread::JoinHandle<Answer> {
        let (address, path) = (self.address, path.to_owned());
        std::thread::spawn(move || Client::new(address).get(&path))
    }

    /// Waits until a query has reached the retriever.
    #[track_caller]
    pub(crate) fn until_searched(&self, query: &str) {
        let started = Instant::now();
        while !self.world.searched().iter().any(|searched| searched == query) {
            assert!(started.elapsed() < PATIENCE, "{query} never was searched");
            std::thread::yield_now();
        }
    }

    /// Waits until a metric, with its labels, has a value.
    #[track_caller]
    pub(crate) fn until(&self, metric: &str, value: u64) {
        let (started, mut client) = (Instant::now(), self.client());
        let line = format!("\nexsearch_{metric} {value}\n");
        loop {
            let text = client.get("/metrics").body;
            if text.contains(&line) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{metric} never was {value}:\n{text}");
            std::thread::yield_now();
        }
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes());
        self.answer().expect("an answer")
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat());
        self.answer().expect("an answer")
    }

    /// Writes; what the server does not take is its business.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Says that nothing more is to come.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.get_mut().shutdown(Shutdown::Write);
    }

    /// The next answer, or `None` when the connection ends first.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let status_line = self.line()?;
        let status = status_line.strip_prefix("HTTP/1.1 ").or(status_line.strip_prefix("HTTP/1.0 "))?;
        let status = status[..3].parse().expect("a status");
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let n_bytes = headers.get("content-length").map_or(0, |value| value.parse().expect("a length"));
        let mut body = vec![0; n_bytes];
        self.stream.read_exact(&mut body).ok()?;
        Some(Answer { status, headers, body: String::from_utf8(body).expect("UTF-8") })
    }

    /// Everything until the connection ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(n_bytes) if n_bytes > 0 => Some(line.trim_end().to_owned()),
            _ => None,
        }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Asserts that the request was refused, and returns what the client reads.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> serde_json::Value {
        assert_eq!((self.status, &self.json()["error"]["code"]), (status, &code.into()), "{self:?}");
        assert!(self.json()["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        self.json()["error"].take()
    }
}
