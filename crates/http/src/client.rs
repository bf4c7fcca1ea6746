//! Requests that are answered: timeouts, retries, a pool of connections, and limits on size and concurrency.
//!
//! Tried again is only what may help and does no harm: a connection that was not made or broke, 429 and 5xx. The waits double
//! from [`HttpConfig::retry_wait_ms`], each cut by a random part of at most half, so that clients that failed together do
//! not come back together. A server's `Retry-After` is waited for, unless it is longer than the longest wait.
use crate::Secret;
use crate::events::Events;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body, Timeout};

/// How patient a client is and how much it asks at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Milliseconds to find the server and connect.
    pub connect_timeout_ms: u64,
    /// Milliseconds for one attempt as a whole.
    pub timeout_ms: u64,
    /// How often a request is sent at most.
    pub max_attempts: u32,
    /// Milliseconds before the second attempt; doubles with each one.
    pub retry_wait_ms: u64,
    /// No wait is longer, in milliseconds.
    pub max_retry_wait_ms: u64,
    /// Requests that are under way at the same time.
    pub max_concurrent: usize,
    /// An answer past this many MB (1,000,000 bytes) is refused.
    pub max_response_mb: u64,
    /// A proxy, as `http://host:port`.
    pub proxy: Option<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 3_000,
            timeout_ms: 30_000,
            max_attempts: 4,
            retry_wait_ms: 250,
            max_retry_wait_ms: 10_000,
            max_concurrent: 8,
            max_response_mb: 32,
            proxy: None,
        }
    }
}

/// A setting or an address that no client can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct BadSetting {
    /// Which.
    pub what: String,
    /// What is wrong with it, and what to give instead.
    pub reason: String,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpError {
    /// No attempt reached the server, or none came back in time.
    Connection {
        /// How often it was sent.
        n_attempts: u32,
        /// Of the last attempt.
        reason: String,
    },
    /// The server refused.
    Status {
        /// How often it was sent.
        n_attempts: u32,
        /// Of the last answer.
        status: u16,
        /// The start of the last answer.
        excerpt: String,
    },
    /// The answer is not what it should be.
    Answer {
        /// What is wrong with it.
        reason: String,
    },
    /// The caller wants no further request.
    Budget {
        /// How many it wanted.
        max_requests: u64,
    },
}

/// What is asked.
#[derive(Clone)]
pub struct Request<'a> {
    /// Where.
    pub url: &'a str,
    /// Encoded into the address.
    pub parameters: &'a [(&'a str, &'a str)],
    /// Posted; without one the request is a GET.
    pub body: Option<serde_json::Value>,
    /// The header that carries the key, what stands before the key in it, and the key.
    pub key: Option<(&'a str, &'a str, &'a Secret)>,
}

/// Sends requests. Any number of threads may use one; they share its connections.
pub struct Client {
    agent: Agent,
    config: HttpConfig,
    free_slots: Mutex<usize>,
    slot_freed: Condvar,
}

/// An attempt that failed.
struct Failure {
    error: HttpError,
    retry: Retry,
}

enum Retry {
    Never,
    /// As the schedule says.
    Later,
    /// As the server says.
    After(Duration),
}

impl Failure {
    /// One that trying again would not change.
    fn final_one(error: HttpError) -> Self {
        Self { error, retry: Retry::Never }
    }
}

impl<'a> Request<'a> {
    fn secret(&self) -> Option<&'a Secret> {
        self.key.map(|(_, _, key)| key)
    }
}

impl Client {
    /// A client of any number of servers. Errors at settings with which nothing could be asked.
    pub fn new(config: &HttpConfig) -> Result<Self, BadSetting> {
        let proxy = config.proxy.as_deref().map(ureq::Proxy::new).transpose().map_err(|error| BadSetting {
            what: "http setting proxy".to_owned(),
            reason: format!("{error}; give it as http://host:port"),
        })?;
        let settings = [("max_attempts", config.max_attempts as usize), ("max_concurrent", config.max_concurrent)];
        if let Some((name, _)) = settings.iter().find(|(_, value)| *value == 0) {
            let reason = "it must be at least 1".to_owned();
            return Err(BadSetting { what: format!("http setting {name}"), reason });
        }
        let agent = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            // A redirect could take the key to another host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(config.max_concurrent)
            .timeout_connect(Some(Duration::from_millis(config.connect_timeout_ms)))
            .timeout_global(Some(Duration::from_millis(config.timeout_ms)))
            .build()
            .into();
        let free_slots = Mutex::new(config.max_concurrent);
        Ok(Self { agent, config: config.clone(), free_slots, slot_freed: Condvar::new() })
    }

    /// The answer to a request, as JSON. `before_attempt` is called before each time that it is sent and may refuse.
    pub fn json<T: DeserializeOwned>(
        &self,
        request: &Request<'_>,
        before_attempt: impl Fn() -> Result<(), HttpError>,
    ) -> Result<T, HttpError> {
        self.retrying(|n_attempts| {
            before_attempt().map_err(Failure::final_one)?;
            let _slot = self.slot();
            let body = self.body(request, n_attempts)?;
            parse(&body, request.secret()).map_err(Failure::final_one)
        })
    }

    /// The answer to a request as a stream of events (`text/event-stream`), each of which holds JSON. `start` makes what takes the
    /// events, one for each attempt: it returns a result as soon as it has one, and the rest of the stream is given up. A stream
    /// that ends before that is a broken connection.
    pub fn events<T, Take>(&self, request: &Request<'_>, start: impl Fn() -> Take) -> Result<T, HttpError>
    where
        Take: FnMut(serde_json::Value) -> Result<ControlFlow<T>, HttpError>,
    {
        self.retrying(|n_attempts| {
            let _slot = self.slot();
            self.stream(request, n_attempts, start())
        })
    }

    /// What `attempt`, which is told its number, returns when it does not fail, or not with a failure that may pass.
    fn retrying<T>(&self, mut attempt: impl FnMut(u32) -> Result<T, Failure>) -> Result<T, HttpError> {
        let mut n_attempts = 0;
        loop {
            n_attempts += 1;
            let Failure { error, retry } = match attempt(n_attempts) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let max_wait = Duration::from_millis(self.config.max_retry_wait_ms);
            let wait = match retry {
                Retry::Never => return Err(error),
                _ if n_attempts >= self.config.max_attempts => return Err(error),
                Retry::After(wait) if wait > max_wait => return Err(error),
                Retry::After(wait) => wait,
                Retry::Later => self.wait(n_attempts).min(max_wait),
            };
            std::thread::sleep(wait);
        }
    }

    fn body(&self, request: &Request<'_>, n_attempts: u32) -> Result<Vec<u8>, Failure> {
        let mut response = self.ask(request, n_attempts)?;
        let body = response.body_mut().with_config().limit(self.max_bytes()).read_to_vec();
        body.map_err(|error| self.broken_body(error, n_attempts, request.secret()))
    }

    fn stream<T>(
        &self,
        request: &Request<'_>,
        n_attempts: u32,
        mut take: impl FnMut(serde_json::Value) -> Result<ControlFlow<T>, HttpError>,
    ) -> Result<T, Failure> {
        let mut response = self.ask(request, n_attempts)?;
        let body = response.body_mut();
        if body.mime_type() != Some("text/event-stream") {
            let kind = body.mime_type().unwrap_or("nothing that it names").to_owned();
            let reason = format!("it is {kind} instead of a stream of events; does the server stream?");
            return Err(Failure::final_one(HttpError::Answer { reason }));
        }
        let mut lines = BufReader::new(body.with_config().limit(self.max_bytes()).reader());
        let mut events = Events::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let n_read = lines.read_until(b'\n', &mut line);
            let n_read = n_read.map_err(|error| self.broken_body(error.into(), n_attempts, request.secret()))?;
            if n_read == 0 {
                let error = ureq::Error::Io(io::Error::new(ErrorKind::UnexpectedEof, "the stream ended in the middle"));
                return Err(connection_failure(error, n_attempts, request.secret()));
            }
            let Some(data) = events.line(&line) else { continue };
            let event = parse(&data, request.secret()).map_err(Failure::final_one)?;
            if let ControlFlow::Break(answer) = take(event).map_err(Failure::final_one)? {
                return Ok(answer);
            }
        }
    }

    /// Sends a request and sees to it that the server does not refuse.
    fn ask(&self, request: &Request<'_>, n_attempts: u32) -> Result<Response<Body>, Failure> {
        let failed = |error| connection_failure(error, n_attempts, request.secret());
        let mut response = self.send(request).map_err(failed)?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let body = response.body_mut().with_config().limit(self.max_bytes()).read_to_vec();
        let excerpt = excerpt(&body.unwrap_or_default(), request.secret());
        let error = HttpError::Status { n_attempts, status, excerpt };
        let retry = match (status, retry_after(response.headers(), SystemTime::now())) {
            (429 | 500..=599, Some(wait)) => Retry::After(wait),
            (429 | 500..=599, None) => Retry::Later,
            _ => Retry::Never,
        };
        Err(Failure { error, retry })
    }

    fn broken_body(&self, error: ureq::Error, n_attempts: u32, key: Option<&Secret>) -> Failure {
        match error {
            ureq::Error::BodyExceedsLimit(_) => {
                let reason = format!("it is longer than {} MB", self.config.max_response_mb);
                Failure::final_one(HttpError::Answer { reason })
            }
            error => connection_failure(error, n_attempts, key),
        }
    }

    fn max_bytes(&self) -> u64 {
        self.config.max_response_mb.saturating_mul(1_000_000)
    }

    fn send(&self, request: &Request<'_>) -> Result<Response<Body>, ureq::Error> {
        let parameters = request.parameters.iter().copied();
        let header = request.key.map(|(name, before, key)| (name, format!("{before}{}", key.expose())));
        match &request.body {
            None => {
                let mut get = self.agent.get(request.url).query_pairs(parameters).header("accept", "application/json");
                if let Some((name, value)) = &header {
                    get = get.header(*name, value);
                }
                get.call()
            }
            Some(body) => {
                let mut post =
                    self.agent.post(request.url).query_pairs(parameters).header("accept", "application/json");
                if let Some((name, value)) = &header {
                    post = post.header(*name, value);
                }
                let body = serde_json::to_vec(body).expect("JSON serializes");
                post.content_type("application/json").send(&body[..])
            }
        }
    }

    /// Before attempt `n_failed + 1`.
    fn wait(&self, n_failed: u32) -> Duration {
        let whole = self.config.retry_wait_ms.saturating_mul(1 << (n_failed - 1).min(20));
        let whole = whole.min(self.config.max_retry_wait_ms);
        // The hash of nothing under random keys is a random number.
        let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
        Duration::from_millis(whole).mul_f64(1.0 - random / 2.0)
    }

    /// Waits until fewer requests than allowed are under way.
    fn slot(&self) -> Slot<'_> {
        let free = self.free_slots.lock().expect("no thread panics while it counts");
        let mut free = self.slot_freed.wait_while(free, |free| *free == 0).expect("no thread panics while it counts");
        *free -= 1;
        Slot(self)
    }
}

/// The right to have a request under way.
struct Slot<'a>(&'a Client);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free_slots.lock().expect("no thread panics while it counts") += 1;
        self.0.slot_freed.notify_one();
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |n: u32| if n == 1 { String::new() } else { format!(" after {n} attempts") };
        match self {
            Self::Connection { n_attempts, reason } => write!(f, "no answer{}: {reason}", times(*n_attempts)),
            Self::Status { n_attempts, status, excerpt } => {
                let hint = match status {
                    401 | 403 => ", check the key",
                    429 => ", it wants fewer requests",
                    300..=399 => ", give the address that it redirects to",
                    _ => "",
                };
                write!(f, "HTTP status {status}{}{hint}: {excerpt}", times(*n_attempts))
            }
            Self::Answer { reason } => write!(f, "the answer cannot be used: {reason}"),
            Self::Budget { max_requests } => {
                write!(f, "the budget of {max_requests} requests is used up; raise max_requests to go on")
            }
        }
    }
}

fn connection_failure(error: ureq::Error, n_attempts: u32, key: Option<&Secret>) -> Failure {
    use ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkDown, NetworkUnreachable, NotConnected, UnexpectedEof,
    };
    let is_connection = match &error {
        ureq::Error::Io(error) => matches!(
            error.kind(),
            AddrNotAvailable
                | BrokenPipe
                | ConnectionAborted
                | ConnectionRefused
                | ConnectionReset
                | HostUnreachable
                | NetworkDown
                | NetworkUnreachable
                | NotConnected
                | UnexpectedEof
        ),
        ureq::Error::Timeout(which) => matches!(which, Timeout::Resolve | Timeout::Connect),
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
        _ => false,
    };
    let reason = error.to_string();
    let reason = key.map_or(reason.clone(), |key| key.scrub(&reason));
    let retry = if is_connection { Retry::Later } else { Retry::Never };
    Failure { error: HttpError::Connection { n_attempts, reason }, retry }
}

fn parse<T: DeserializeOwned>(body: &[u8], key: Option<&Secret>) -> Result<T, HttpError> {
    serde_json::from_slice(body).map_err(|error| HttpError::Answer {
        reason: format!("it is not of the expected JSON ({error}): {}", excerpt(body, key)),
    })
}

/// The start of an answer, for a message.
fn excerpt(body: &[u8], key: Option<&Secret>) -> String {
    let text = String::from_utf8_lossy(body);
    let text = key.map_or_else(|| text.to_string(), |key| key.scrub(&text));
    let words: Vec<&str> = text.split_whitespace().collect();
    let start: String = words.join(" ").chars().take(160).collect();
    if start.is_empty() { "(nothing)".to_owned() } else { start }
}

/// What a `Retry-After` header asks for: seconds or a date (RFC 9110, 10.2.3). A date that is past asks for no wait.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(http_date(value)?.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the form that senders must use (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let parts: Vec<&str> = date.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second, "GMT"] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let [day, year, hour, minute, second] = [day, year, hour, minute, second].map(|part| part.parse::<u64>().ok());
    let (day, year, hour, minute, second) = (day?, year?, hour?, minute?, second?);
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days before a date, the year starting in March so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

/// Errors when an address is not one of a web server.
pub fn check_url(url: &str) -> Result<(), BadSetting> {
    let refuse = |reason: String| Err(BadSetting { what: format!("address {url:?}"), reason });
    match url.parse::<ureq::http::Uri>() {
        Err(error) => refuse(error.to_string()),
        Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() => {
            refuse("it must be http://host... or https://host...".to_owned())
        }
        Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => Err(BadSetting {
            what: "address".to_owned(),
            reason: "it holds a name or password, which errors would show; give keys by key_env or key_file".to_owned(),
        }),
        Ok(_) => Ok(()),
    }
}

/// `job(0)` to `job(n - 1)` on at most `n_threads` threads, which are made for them since they mostly wait.
pub fn in_parallel<T: Send>(n: usize, n_threads: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if n <= 1 || n_threads <= 1 {
        return (0..n).map(job).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= n {
                return done;
            }
            done.push((at, job(at)));
        }
    };
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n.min(n_threads)).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<(usize, T)>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("RFC 9110's example");
        assert_eq!(now.duration_since(UNIX_EPOCH).expect("after 1970").as_secs(), 784_111_777);
        let check = |value: &str, expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", value.parse().expect("a header"));
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{value}");
        };
        check("7", Some(7));
        check("Sun, 06 Nov 1994 08:50:00 GMT", Some(23));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("Thu, 29 Feb 2024 00:00:00 GMT", Some(1_709_164_800 - 784_111_777));
        check("soon", None);
        check("-3", None);
        check("Sun, 06 Nov 0000 08:50:00 GMT", None);
    }

    #[test]
    fn jobs_come_back_in_order() {
        for n in [0, 1, 2, 50] {
            assert_eq!(in_parallel(n, 4, |at| at * 2), (0..n).map(|at| at * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn addresses_are_checked() {
        for url in ["http://localhost:8893", "https://api.example.org/search"] {
            check_url(url).expect("a web address");
        }
        let error = check_url("http://name:pass@host/").expect_err("a password");
        assert!(!error.to_string().contains("pass@"), "{error}");
        for url in ["", "localhost:8893", "ftp://host/", "http://", "http:// x"] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }
}
