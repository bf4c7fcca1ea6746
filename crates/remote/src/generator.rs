//! Turns from a server, many at once: each has a thread that waits for it.
use crate::config::Protocol;
use crate::model::Server;
use crate::{llama_cpp, openai, vllm};
use exsearch_schema::{GenerateError, GenerateRequest, Generation, Generator, RequestId};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Generates turns. When it is dropped, those that wait are not asked for, and what comes of others goes nowhere.
pub struct RemoteGenerator {
    server: Arc<Server>,
    next_id: u64,
    n_threads: usize,
    n_under_way: usize,
    refused: Vec<(RequestId, GenerateError)>,
    to_do: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    done: Receiver<Done>,
    report: Sender<Done>,
    given_up: Arc<AtomicBool>,
}

type Job = (RequestId, GenerateRequest);
/// A thread that panicked hands its panic on.
type Done = (RequestId, std::thread::Result<Result<Generation, GenerateError>>);

impl RemoteGenerator {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        let ((to_do, queue), (report, done)) = (channel(), channel());
        Self {
            server,
            next_id: 0,
            n_threads: 0,
            n_under_way: 0,
            refused: Vec::new(),
            to_do,
            queue: Arc::new(Mutex::new(queue)),
            done,
            report,
            given_up: Arc::default(),
        }
    }

    fn start_thread(&mut self) {
        self.n_threads += 1;
        let (server, queue, report) = (self.server.clone(), self.queue.clone(), self.report.clone());
        let given_up = self.given_up.clone();
        std::thread::spawn(move || {
            loop {
                let job = queue.lock().expect("no thread panics while it waits").recv();
                let Ok((id, request)) = job else { return };
                if given_up.load(Ordering::Relaxed) {
                    return;
                }
                let turn = catch_unwind(AssertUnwindSafe(|| turn(&server, &request)));
                if report.send((id, turn)).is_err() {
                    return;
                }
            }
        });
    }
}

impl Generator for RemoteGenerator {
    fn submit(&mut self, request: GenerateRequest) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let (length, limit) = (request.context.len(), self.server.max_tokens);
        if length == 0 {
            self.refused.push((id, GenerateError::Failed("the context is empty".to_owned())));
        } else if length >= limit {
            self.refused.push((id, GenerateError::ContextTooLong { length, limit }));
        } else if request.sampling.max_new_tokens == 0 {
            self.refused.push((id, GenerateError::Failed("max_new_tokens is 0".to_owned())));
        } else {
            self.n_under_way += 1;
            if self.n_threads < self.n_under_way.min(self.server.config.http.max_concurrent) {
                self.start_thread();
            }
            self.to_do.send((id, request)).expect("the queue lives as long as this");
        }
        id
    }

    fn wait(&mut self) -> Vec<(RequestId, Result<Generation, GenerateError>)> {
        let mut turns: Vec<_> = self.refused.drain(..).map(|(id, error)| (id, Err(error))).collect();
        let mut came: Vec<Done> = self.done.try_iter().collect();
        if turns.is_empty() && came.is_empty() && self.n_under_way > 0 {
            came.push(self.done.recv().expect("this holds a sender too"));
            came.extend(self.done.try_iter());
        }
        self.n_under_way -= came.len();
        turns.extend(came.into_iter().map(|(id, turn)| (id, turn.unwrap_or_else(|panic| resume_unwind(panic)))));
        turns.sort_by_key(|(id, _)| *id);
        turns
    }
}

impl Drop for RemoteGenerator {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

fn turn(server: &Server, request: &GenerateRequest) -> Result<Generation, GenerateError> {
    let generated = match server.config.protocol {
        Protocol::LlamaCpp => llama_cpp::generate(server, request),
        Protocol::Vllm => vllm::generate(server, request),
        Protocol::Completions => openai::completion(server, request),
        Protocol::Chat => openai::chat(server, request),
    };
    generated.map_err(|error| GenerateError::Failed(server.told(&error)))
}
