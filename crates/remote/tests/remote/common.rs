//! A tokenizer of characters, and an HTTP/1.1 server in this process that answers as a test says.
use exsearch_remote::{Protocol, RemoteConfig, RemoteModel, Secret, Vocabulary};
use exsearch_schema::{
    ChatCodec, ChatError, GenerateError, GenerateRequest, Generation, Generator, Message, Sampling, ScoreRequest,
    Scorer,
};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Ends a turn.
pub(crate) const END: u32 = 0x11_0000;

/// A token a character.
pub(crate) struct Characters;

impl ChatCodec for Characters {
    fn open(&self, messages: &[Message]) -> Result<Vec<u32>, ChatError> {
        Ok(messages.iter().flat_map(|message| ids(&message.content)).collect())
    }

    fn reply(&self, _: &[Message], _: bool, next: &Message) -> Result<Vec<u32>, ChatError> {
        Ok(ids(&next.content))
    }

    fn turn(&self, text: &str) -> Vec<u32> {
        ids(text).into_iter().chain([END]).collect()
    }

    fn decode(&self, ids: &[u32]) -> String {
        ids.iter().filter_map(|&id| char::from_u32(id)).collect()
    }
}

pub(crate) fn ids(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

/// What a test's server does with a request.
pub(crate) enum Reply {
    /// A status, further header lines and a body.
    Whole(u16, Vec<&'static str>, Vec<u8>),
    /// Events until there are no more, then the end of the connection.
    Stream(Box<dyn Iterator<Item = String> + Send>),
    /// The end of the connection.
    HangUp,
}

impl Reply {
    pub(crate) fn json(body: Value) -> Self {
        Self::Whole(200, Vec::new(), body.to_string().into_bytes())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Whole(status, Vec::new(), b"{\"error\": \"no\"}".to_vec())
    }

    pub(crate) fn events(events: impl IntoIterator<Item = Value>) -> Self {
        let events: Vec<String> = events.into_iter().map(|event| event.to_string()).collect();
        Self::Stream(Box::new(events.into_iter()))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `POST /path`.
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    /// `null` of a GET.
    pub(crate) body: Value,
}

pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    most_at_once: Arc<AtomicUsize>,
    n_given_up: Arc<AtomicUsize>,
}

impl Server {
    /// Answers with `reply`, which also gets how many requests came before.
    pub(crate) fn start(reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Self { url, asked: Arc::default(), most_at_once: Arc::default(), n_given_up: Arc::default() };
        let (asked, most, given_up) = (server.asked.clone(), server.most_at_once.clone(), server.n_given_up.clone());
        let (reply, at_once) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
        // Ends with the test process; a test that is done has no more requests to make.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, most, given_up) = (asked.clone(), most.clone(), given_up.clone());
                let (reply, at_once) = (reply.clone(), at_once.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(request) = read(&mut reader) {
                        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let n_before = {
                            let mut asked = asked.lock().expect("no panic");
                            asked.push(request.clone());
                            asked.len() - 1
                        };
                        let reply = reply(&request, n_before);
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        match write(reader.get_mut(), reply) {
                            Ok(true) => {}
                            Ok(false) => return,
                            Err(_) => {
                                given_up.fetch_add(1, Ordering::SeqCst);
                                return;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// The most requests that were being answered at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
    }

    /// Answers that a client did not want to the end.
    pub(crate) fn n_given_up(&self) -> usize {
        self.n_given_up.load(Ordering::SeqCst)
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<String> = lines.iter().map(|header| header.to_lowercase()).collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
    Some(Asked { line, headers: lines, body })
}

/// Whether the connection can go on.
fn write(stream: &mut TcpStream, reply: Reply) -> std::io::Result<bool> {
    match reply {
        Reply::HangUp => Ok(false),
        Reply::Whole(status, headers, body) => {
            let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
            let head = format!("HTTP/1.1 {status} Reason\r\n{headers}content-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat())?;
            Ok(true)
        }
        Reply::Stream(events) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n: ping\n\n")?;
            for event in events {
                stream.write_all(format!("data: {event}\n\n").as_bytes())?;
            }
            Ok(false)
        }
    }
}

/// A config without waits, for the server at `url`.
pub(crate) fn config(url: &str, protocol: Protocol) -> RemoteConfig {
    let mut config = RemoteConfig::new(url, protocol);
    config.http.retry_wait_ms = 1;
    config.http.max_response_mb = 1;
    config
}

pub(crate) fn model(config: &RemoteConfig, key: Option<Secret>) -> RemoteModel {
    let vocabulary = Vocabulary { chat: Arc::new(Characters), end_ids: vec![END], n_tokens: END as usize + 1 };
    RemoteModel::new(config, key, vocabulary, 1_000).expect("a fine config")
}

/// Greedy, up to 8 tokens, ending behind `<s>`.
pub(crate) fn sampling() -> Sampling {
    Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 8, stop: vec!["<s>".to_owned()], seed: 7 }
}

pub(crate) fn request(context: &str) -> GenerateRequest {
    GenerateRequest { context: ids(context), sampling: sampling(), messages: vec![Message::user(context)] }
}

pub(crate) fn generate_with(config: &RemoteConfig, request: GenerateRequest) -> Result<Generation, GenerateError> {
    let mut generator = model(config, None).generator();
    let id = generator.submit(request);
    let mut done = generator.wait();
    assert_eq!((done.len(), done[0].0), (1, id));
    assert!(generator.wait().is_empty(), "nothing is under way");
    done.remove(0).1
}

pub(crate) fn generate(url: &str, protocol: Protocol) -> Result<Generation, GenerateError> {
    generate_with(&config(url, protocol), request("hi"))
}

/// Why a turn failed.
#[track_caller]
pub(crate) fn failure(generated: Result<Generation, GenerateError>) -> String {
    match generated.expect_err("a failure") {
        GenerateError::Failed(reason) => reason,
        error => panic!("another failure: {error}"),
    }
}

/// The scores of two answers behind a context.
pub(crate) fn scores(url: &str, protocol: Protocol, context: &str, answers: [&str; 2]) -> Result<Vec<f32>, String> {
    let mut scorer = model(&config(url, protocol), None).scorer().expect("it can score");
    let continuations = answers.map(|answer| Characters.turn(answer)).to_vec();
    let mut scored = scorer.score(&[ScoreRequest { context: ids(context), continuations }]);
    assert_eq!(scored.len(), 1);
    scored.remove(0).map_err(|error| error.0)
}
