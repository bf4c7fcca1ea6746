//! Retrievers other than BM25: over vectors, over each other, and over the network.
mod cached;
mod common;
mod dense;
mod hybrid;
mod late;
mod opening;
mod remote;
mod rerank;
mod server;
mod web;
