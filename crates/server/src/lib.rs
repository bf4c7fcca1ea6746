//! A retriever over HTTP.
