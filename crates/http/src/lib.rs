//! Requests to other servers, answered with JSON or with a stream of events.
//!
//! Knows nothing of what is asked: `retriever` searches with it, `remote` generates.
mod client;
mod events;
mod secret;

pub use client::{BadSetting, Client, HttpConfig, HttpError, Request, check_url, in_parallel};
pub use secret::Secret;
