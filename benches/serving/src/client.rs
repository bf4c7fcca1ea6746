//! A blocking HTTP/1.1 client on one kept connection, for both protocols.
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn new(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Status and ids of `GET /api/search`.
    pub(crate) fn colbert(&mut self, question: &str, top_k: usize) -> Result<(u16, Vec<String>)> {
        let mut path = "/api/search?query=".to_owned();
        for byte in question.bytes() {
            let _ = if byte.is_ascii_alphanumeric() {
                write!(path, "{}", byte as char)
            } else {
                write!(path, "%{byte:02X}")
            };
        }
        let (status, body) = self.get(&format!("{path}&k={top_k}"))?;
        let answer: Value = serde_json::from_str(&body)?;
        Ok((status, ids(&answer["topk"], |hit| &hit["pid"])))
    }

    /// Status and ids of `POST /retrieve` with one question.
    pub(crate) fn search_r1(&mut self, question: &str, top_k: usize) -> Result<(u16, Vec<String>)> {
        let body = json!({"queries": [question], "topk": top_k, "return_scores": true}).to_string();
        let (status, body) = self.post("/retrieve", body.as_bytes())?;
        let answer: Value = serde_json::from_str(&body)?;
        Ok((status, ids(&answer["result"][0], |hit| &hit["document"]["id"])))
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<(u16, String)> {
        self.stream.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes())?;
        self.answer()
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> Result<(u16, String)> {
        let head = format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len());
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        self.answer()
    }

    /// Writes a part of a request.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    fn answer(&mut self) -> Result<(u16, String)> {
        let (mut line, mut status, mut n_bytes) = (String::new(), 0, 0);
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(Error::other("the connection was closed"));
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if let Some(rest) = text.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().map_err(Error::other)?;
            } else if let Some(length) = text.strip_prefix("content-length: ") {
                n_bytes = length.parse().map_err(Error::other)?;
            }
        }
        let mut body = vec![0; n_bytes];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body).map_err(Error::other)?))
    }
}

fn ids(hits: &Value, id: impl Fn(&Value) -> &Value) -> Vec<String> {
    let hits = hits.as_array().map_or(&[][..], Vec::as_slice);
    hits.iter().map(|hit| id(hit).to_string().trim_matches('"').to_owned()).collect()
}
