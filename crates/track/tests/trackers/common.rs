//! A small record, and an HTTP/1.1 server in this process that answers as a test says.
use exsearch_track::{Axis, Part, Row, RunRecord};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Two parts of a run that has ended.
pub(crate) fn record() -> RunRecord {
    let row = |step, name: &str, value| Row { step, values: vec![(name.to_owned(), value)] };
    let part = |name: &str, wall_secs, axis, rows| Part { name: name.to_owned(), wall_secs, axis, rows };
    RunRecord {
        id: "abcd1234".into(),
        name: "t".into(),
        started_secs: 1000.5,
        config: json!({ "seed": 7, "em": { "samples": 4 } }),
        config_text: "seed = 7\ntitle = \"t\"\n".into(),
        parts: vec![
            part("untrained-dev", 1010.0, Axis::Stage, vec![row(0, "dev/f1", 0.25)]),
            part(
                "warmup-training",
                1020.25,
                Axis::OptimizerStep,
                vec![row(1, "train/loss", 2.5), row(300, "train/loss", -0.0)],
            ),
        ],
        is_finished: true,
    }
}

/// The same before its second part.
pub(crate) fn unfinished() -> RunRecord {
    let mut record = record();
    record.parts.truncate(1);
    record.is_finished = false;
    record
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// `POST /path`.
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    /// `null` of a GET.
    pub(crate) body: Value,
}

pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers each request with a status and JSON.
    pub(crate) fn start(reply: impl Fn(&Asked) -> (u16, Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = Self { url, asked: Arc::default() };
        let asked = server.asked.clone();
        // Ends with the test process; a test that is done has no more requests to make.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                while let Some(request) = read(&mut reader) {
                    let (status, body) = reply(&request);
                    asked.lock().expect("no panic").push(request);
                    let body = body.to_string();
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                    if reader.get_mut().write_all((head + &body).as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        server
    }

    /// What came since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().expect("no panic"))
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(": ") {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line, authorization, body: serde_json::from_slice(&body).unwrap_or_default() })
}
