//! BM25 through its public interface.
mod build;
mod common;
mod search;
