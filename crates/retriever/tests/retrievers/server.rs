//! A tiny HTTP/1.1 server in this process: what it is asked is kept, what it answers is a function of that.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `GET /path?query`.
    pub(crate) line: String,
    /// Lines of the head, names in lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

/// What it answers.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Further header lines.
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    /// Ends the connection without an answer.
    pub(crate) hangs_up: bool,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), hangs_up: false }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("no") }
    }

    pub(crate) fn hang_up() -> Self {
        Self { hangs_up: true, ..Self::ok("") }
    }
}

pub(crate) struct FakeServer {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    n_connections: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl FakeServer {
    /// Answers with `reply`, which also gets how many requests came before.
    pub(crate) fn start(reply: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Self { url, asked: Arc::default(), n_connections: Arc::default(), most_at_once: Arc::default() };
        let (asked, n_connections, most) =
            (server.asked.clone(), server.n_connections.clone(), server.most_at_once.clone());
        let (reply, at_once) = (Arc::new(reply), Arc::new(AtomicUsize::new(0)));
        // Ends with the test process; a test that is done has no more requests to make.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                n_connections.fetch_add(1, Ordering::SeqCst);
                let (asked, reply, at_once, most) = (asked.clone(), reply.clone(), at_once.clone(), most.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(request) = read(&mut reader) {
                        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let n_before = {
                            let mut asked = asked.lock().expect("no panic");
                            asked.push(request.clone());
                            asked.len() - 1
                        };
                        let answer = reply(&request, n_before);
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        if answer.hangs_up || write(reader.get_mut(), &answer).is_err() {
                            return;
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

    pub(crate) fn n_connections(&self) -> usize {
        self.n_connections.load(Ordering::SeqCst)
    }

    /// The most requests that were being answered at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::SeqCst)
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
    let lower = |header: &String| {
        let (name, value) = header.split_once(':').expect("name: value");
        format!("{}:{value}", name.to_lowercase())
    };
    let headers: Vec<String> = lines.iter().map(lower).collect();
    let length = headers.iter().find_map(|header| header.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line, headers, body: String::from_utf8(body).expect("JSON") })
}

fn write(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Reason\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    reply.headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
    stream.write_all(&[head.as_bytes(), b"\r\n", &reply.body].concat())
}
