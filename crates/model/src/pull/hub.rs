//! Model files from a server with the Hugging Face hub's API, resumed where an earlier attempt stopped.
//!
//! `GET {endpoint}/api/models/{repo}/revision/{revision}` lists the files and the commit; `GET
//! {endpoint}/{repo}/resolve/{commit}/{file}` gives one, usually by way of a redirect to a storage server. The first of
//! those responses carries `x-linked-etag`, the file's SHA-256 where it is a large one.
use super::package::sha256_of;
use super::{OnProgress, PullOptions, PullProgress, start_over_unless_from};
use crate::error::io_error;
use crate::weights::{is_encoder_file, is_sidecar};
use crate::{ModelError, files};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

/// `organization/name` and a branch, tag or commit.
#[derive(Debug)]
pub(super) struct Address {
    repo: String,
    revision: String,
}

/// A connection to the hub.
pub(super) struct Hub<'o> {
    options: &'o PullOptions,
    /// For the list of files: gives up as a whole.
    lister: Agent,
    /// For files: gives up only when nothing moves.
    loader: Agent,
    n_attempts: u32,
}

const N_ATTEMPTS: u32 = 5;
const MAX_REDIRECTS: u32 = 5;
/// Between two reports of progress.
const REPORT_BYTES: u64 = 1 << 20;

impl Address {
    pub(super) fn parse(spec: &str) -> Result<Self, ModelError> {
        let (repo, revision) = spec.split_once('@').unwrap_or((spec, "main"));
        let is_word = |word: &str| {
            let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            !word.is_empty() && !word.starts_with('.') && word.chars().all(is_plain)
        };
        match repo.split_once('/') {
            Some((organization, name)) if is_word(organization) && is_word(name) && is_word(revision) => {
                Ok(Self { repo: repo.to_owned(), revision: revision.to_owned() })
            }
            _ => Err(ModelError::UnknownModel {
                spec: spec.to_owned(),
                reason:
                    "give a folder with config.json, a .gguf file, smollm2-135m, gemma3-270m, minilm or organization/name[@revision]"
                        .to_owned(),
            }),
        }
    }

    pub(super) fn folder_name(&self) -> String {
        let repo = self.repo.replace('/', "--");
        if self.revision == "main" { repo } else { format!("{repo}@{}", self.revision) }
    }
}

impl<'o> Hub<'o> {
    /// Waits and tries again as the options say.
    pub(super) fn new(options: &'o PullOptions) -> Result<Self, ModelError> {
        Self::with(options, Duration::from_secs(60), N_ATTEMPTS)
    }

    /// Gives up on the list of files after five seconds and one attempt.
    pub(super) fn impatient(options: &'o PullOptions) -> Result<Self, ModelError> {
        Self::with(options, Duration::from_secs(5), 1)
    }

    fn with(options: &'o PullOptions, list_timeout: Duration, n_attempts: u32) -> Result<Self, ModelError> {
        let proxy = options.proxy.as_deref().map(ureq::Proxy::new).transpose().map_err(|error| {
            ModelError::Download { url: options.proxy.clone().unwrap_or_default(), reason: format!("proxy: {error}") }
        })?;
        let config = || {
            Agent::config_builder()
                .proxy(proxy.clone())
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .timeout_connect(Some(options.connect_timeout))
        };
        let lister = config().timeout_global(Some(list_timeout)).build().into();
        let stalled = Some(Duration::from_secs(60));
        let loader = config().timeout_recv_response(stalled).timeout_per_read(stalled).build().into();
        Ok(Self { options, lister, loader, n_attempts })
    }

    /// Fetches what a decoder or a text encoder needs of a model into `folder`.
    pub(super) fn fetch(&self, address: &Address, folder: &Path, on_progress: OnProgress) -> Result<(), ModelError> {
        let base = self.options.hub_endpoint.trim_end_matches('/');
        let list_url = format!("{base}/api/models/{}/revision/{}", address.repo, address.revision);
        if self.options.offline {
            let reason = "offline mode is on and the model is not on this machine".to_owned();
            return Err(ModelError::Download { url: list_url, reason });
        }
        on_progress(PullProgress::Listing { url: list_url.clone() });
        let list = self.with_retries(self.n_attempts, || self.list(&list_url, address))?;
        let names = wanted_files(&list).map_err(|reason| {
            let spec = format!("{}@{}", address.repo, address.revision);
            ModelError::UnknownModel { spec, reason }
        })?;
        // Commits make addresses whose contents never change, so that a resumed file is of one piece.
        let revision = list["sha"].as_str().unwrap_or(&address.revision);
        let marker = start_over_unless_from(folder, revision)?;
        for name in names {
            let url = format!("{base}/{}/resolve/{revision}/{name}", address.repo);
            let path = folder.join(&name);
            let parent = path.parent().unwrap_or(folder);
            std::fs::create_dir_all(parent).map_err(io_error("create", parent))?;
            self.fetch_file(&url, &path, on_progress)?;
        }
        std::fs::remove_file(&marker).map_err(io_error("delete", &marker))
    }

    fn list(&self, url: &str, address: &Address) -> Result<Value, Failure> {
        let mut response = self.get(&self.lister, url, 0).map_err(|reason| Failure::retry(url, reason))?.response;
        match response.status().as_u16() {
            200 => {}
            404 => {
                return Err(Failure::Final(ModelError::UnknownModel {
                    spec: format!("{}@{}", address.repo, address.revision),
                    reason: format!("{} has no such model or revision", self.options.hub_endpoint),
                }));
            }
            status => return Err(refusal(url, status)),
        }
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string();
        let text = text.map_err(|error| Failure::retry(url, error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| {
            let reason = format!("it did not answer with the hub's JSON ({error})");
            Failure::Final(ModelError::Download { url: url.to_owned(), reason })
        })
    }

    /// `path` is complete and checked afterwards. Attempts that received something do not count as failed.
    fn fetch_file(&self, url: &str, path: &Path, on_progress: OnProgress) -> Result<(), ModelError> {
        if path.is_file() {
            return Ok(());
        }
        let partial = files::partial_path(path);
        let mut n_left = self.n_attempts.max(3);
        loop {
            let before = size_of(&partial);
            let failure = match self.receive(url, path, &partial, &mut *on_progress) {
                Ok(()) => return Ok(()),
                Err(Failure::Retry(error)) => error,
                Err(Failure::Final(error)) => return Err(error),
            };
            if size_of(&partial) <= before {
                n_left -= 1;
            }
            if n_left == 0 {
                return Err(failure);
            }
            std::thread::sleep(self.wait_before_retry(self.n_attempts.max(3) - n_left));
        }
    }

    fn receive(&self, url: &str, path: &Path, partial: &Path, on_progress: OnProgress) -> Result<(), Failure> {
        let have = size_of(partial);
        let Answer { mut response, linked_sha256 } =
            self.get(&self.loader, url, have).map_err(|reason| Failure::retry(url, reason))?;
        let (start, announced) = match response.status().as_u16() {
            200 => (0, response.body().content_length()),
            206 => match content_range(response.headers()) {
                Some((start, total)) if start == have => (have, Some(total)),
                _ => return Err(restart(url, partial, "it answered with another range".to_owned())),
            },
            // Nothing behind what is here: either all is here, or it is not the same file. Asking anew settles it.
            416 => return Err(restart(url, partial, "it has no such range".to_owned())),
            404 => {
                let reason = "the server lists this file but does not have it".to_owned();
                return Err(Failure::Final(ModelError::Download { url: url.to_owned(), reason }));
            }
            status => return Err(refusal(url, status)),
        };
        let mut file = open_at(partial, start).map_err(Failure::Final)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut report = |done_bytes: u64| {
            on_progress(PullProgress::Downloading { file: file_name.clone(), done_bytes, total_bytes: announced });
        };
        report(start);
        let received = copy(response.body_mut(), &mut file, start, &mut report);
        let synced = file.sync_all().map_err(io_error("sync", partial)).map_err(Failure::Final);
        let done_bytes = match received {
            Ok(done_bytes) => done_bytes,
            Err(CopyError::Read(error)) => return Err(Failure::retry(url, error.to_string())),
            Err(CopyError::Write(error)) => return Err(Failure::Final(io_error("write", partial)(error))),
        };
        synced?;
        report(done_bytes);
        if announced.is_some_and(|total| done_bytes < total) {
            return Err(Failure::retry(url, format!("it stopped at byte {done_bytes}")));
        }
        let wrong = |what: &'static str, expected: String, actual: String| {
            let _ = std::fs::remove_file(partial);
            let (path, url) = (path.to_owned(), url.to_owned());
            Err(Failure::Final(ModelError::Corrupted { path, url, what, expected, actual }))
        };
        if let Some(total) = announced.filter(|&total| done_bytes > total) {
            return wrong("size", total.to_string(), done_bytes.to_string());
        }
        if let Some(expected) = linked_sha256 {
            let actual = sha256_of(partial).map_err(Failure::Final)?;
            if actual != expected {
                return wrong("sha256", expected, actual);
            }
        }
        std::fs::rename(partial, path).map_err(io_error("rename", partial)).map_err(Failure::Final)
    }

    /// Follows redirects by hand: the checksum is in the first response that has one, and the token goes only to the hub.
    fn get(&self, agent: &Agent, url: &str, start: u64) -> Result<Answer, String> {
        let (mut url, mut linked_sha256) = (url.to_owned(), None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = agent.get(&url);
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            if let Some(token) = self.options.token.as_ref().filter(|_| self.is_hub(&url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| error.to_string())?;
            linked_sha256 = linked_sha256.or_else(|| sha256_in(response.headers()));
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            match location {
                Some(location) if response.status().is_redirection() => url = resolve(&url, location),
                _ => return Ok(Answer { response, linked_sha256 }),
            }
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }

    fn is_hub(&self, url: &str) -> bool {
        origin(url) == origin(&self.options.hub_endpoint)
    }

    fn with_retries<T>(
        &self,
        n_attempts: u32,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, ModelError> {
        let mut n_failed = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Retry(error)) => {
                    n_failed += 1;
                    if n_failed >= n_attempts {
                        return Err(error);
                    }
                    std::thread::sleep(self.wait_before_retry(n_failed));
                }
            }
        }
    }

    fn wait_before_retry(&self, n_failed: u32) -> Duration {
        self.options.retry_wait * 2u32.pow(n_failed.saturating_sub(1).min(6))
    }
}

struct Answer {
    response: Response<Body>,
    /// The SHA-256 of the whole file, where the server announced it.
    linked_sha256: Option<String>,
}

enum Failure {
    /// Another attempt may help.
    Retry(ModelError),
    /// It will not.
    Final(ModelError),
}

enum CopyError {
    Read(std::io::Error),
    Write(std::io::Error),
}

impl Failure {
    fn retry(url: &str, reason: String) -> Self {
        let reason = format!("{reason}; check the connection, or pull from a folder or a .gguf file");
        Self::Retry(ModelError::Download { url: url.to_owned(), reason })
    }
}

fn refusal(url: &str, status: u16) -> Failure {
    let reason = match status {
        401 | 403 => format!("access denied (HTTP {status}): the model is gated or private; give a hub token"),
        429 => "too many requests (HTTP 429); wait, or give a hub token".to_owned(),
        _ => format!("the server answered HTTP {status}"),
    };
    let error = ModelError::Download { url: url.to_owned(), reason };
    if status == 429 || status >= 500 { Failure::Retry(error) } else { Failure::Final(error) }
}

/// Throws away what cannot be gone on with.
fn restart(url: &str, partial: &Path, reason: String) -> Failure {
    match std::fs::remove_file(partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Failure::Final(io_error("delete", partial)(error))
        }
        _ => Failure::retry(url, reason),
    }
}

/// The weights and what lies beside them, the small files first.
fn wanted_files(list: &Value) -> Result<Vec<String>, String> {
    let siblings = list["siblings"].as_array().map_or(&[][..], Vec::as_slice);
    let names = || siblings.iter().filter_map(|sibling| sibling["rfilename"].as_str());
    let is_weights = |name: &str| {
        name == "model.safetensors.index.json" || name.starts_with("model") && name.ends_with(".safetensors")
    };
    let is_in_subfolder = |name: &str| name.contains(['/', '\\']);
    let mut wanted: Vec<_> = names().filter(|name| is_sidecar(name) || is_encoder_file(name)).collect();
    let mut weights: Vec<_> = names().filter(|name| is_weights(name) && !is_in_subfolder(name)).collect();
    if weights.is_empty() {
        return Err(match names().find(|name| name.ends_with(".gguf")) {
            Some(gguf) => format!("it holds no safetensors; download {gguf} by hand and pull that file"),
            None => "it holds no safetensors weights".to_owned(),
        });
    }
    if weights.contains(&"model.safetensors") {
        weights = vec!["model.safetensors"];
    }
    wanted.extend(weights);
    Ok(wanted.into_iter().map(str::to_owned).collect())
}

fn open_at(partial: &Path, start: u64) -> Result<File, ModelError> {
    let mut options = OpenOptions::new();
    options.create(true).write(true);
    if start > 0 {
        options.append(true)
    } else {
        options.truncate(true)
    };
    options.open(partial).map_err(io_error("open", partial))
}

fn copy(body: &mut Body, file: &mut File, start: u64, report: &mut impl FnMut(u64)) -> Result<u64, CopyError> {
    let mut reader = body.as_reader();
    let mut block = vec![0; 1 << 18];
    let (mut done, mut reported) = (start, start);
    loop {
        let n_bytes = match reader.read(&mut block) {
            Ok(0) => return Ok(done),
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        file.write_all(&block[..n_bytes]).map_err(CopyError::Write)?;
        done += n_bytes as u64;
        if done - reported >= REPORT_BYTES {
            report(done);
            reported = done;
        }
    }
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Start and total of `content-range: bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let range = headers.get("content-range")?.to_str().ok()?.strip_prefix("bytes ")?;
    let (span, total) = range.split_once('/')?;
    let (start, _) = span.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()?))
}

/// Git's hashes of small files have 40 digits; only the 64 of a SHA-256 can be checked.
fn sha256_in(headers: &HeaderMap) -> Option<String> {
    ["x-linked-etag", "etag"].into_iter().find_map(|name| {
        let value = headers.get(name)?.to_str().ok()?.trim_start_matches("W/").trim_matches('"');
        let is_sha256 = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sha256.then(|| value.to_ascii_lowercase())
    })
}

/// `https://host:port` of an address.
fn origin(url: &str) -> &str {
    let host_start = url.find("://").map_or(0, |at| at + 3);
    let host_end = url[host_start..].find('/').map_or(url.len(), |at| host_start + at);
    &url[..host_end]
}

fn resolve(base: &str, location: &str) -> String {
    if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}//{rest}", base.split("//").next().unwrap_or("https:"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin(base))
    } else {
        let folder = base.rsplit_once('/').map_or(base, |(folder, _)| folder);
        format!("{folder}/{location}")
    }
}
