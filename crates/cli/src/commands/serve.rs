//! `exsearch serve`: an index to a server.
use crate::environment;
use crate::output::{Output, printable};
use crate::retriever;
use anyhow::Context;
use exsearch_schema::Retriever;
use exsearch_server::{BoxError, ServerConfig, Source, Token, serve};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Serve an index over HTTP by the protocols of ColBERT's and Search-R1's servers
///
/// GET /api/search?query=..&k=.. as ColBERT's server.py; POST /retrieve {"queries", "topk", "return_scores"} as Search-R1's
/// retrieval_server.py; GET /health, /ready and /metrics (Prometheus). A new version of the index is taken up while
/// requests go on: when the folder's manifest changes, or on SIGHUP. SIGTERM and SIGINT end the server when the requests in
/// flight are answered.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Serve a retriever
    #[arg(long, required = true)]
    retriever: bool,
    /// The index folder, or a TOML file that describes a retriever
    #[arg(long, value_name = "PATH")]
    index: PathBuf,
    /// The address to listen on; one that other machines reach needs a token or --insecure
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8000)]
    port: u16,
    /// A file with the token that clients must send, `Authorization: Bearer TOKEN`; else EXSEARCH_SERVE_TOKEN, else none
    #[arg(long, value_name = "FILE")]
    bearer_token_file: Option<PathBuf>,
    /// Listen where other machines reach it without a token
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

const DEFAULTS: ServerConfig = ServerConfig::DEFAULT;

#[derive(clap::Args)]
#[command(next_help_heading = "Limits and times")]
struct LimitArgs {
    /// Hits a query where a request to /retrieve does not say
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.default_top_k)]
    default_top_k: usize,
    /// Hits a query, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_top_k)]
    max_top_k: usize,
    /// Hits of a request, its queries times its hits a query, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_hits)]
    max_hits: usize,
    /// Characters of a query, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_query_chars)]
    max_query_chars: usize,
    /// Queries of a request, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_queries)]
    max_queries: usize,
    /// Bytes of a request's body, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_body_bytes)]
    max_body_bytes: usize,
    /// Queries that wait or are being searched, at most; past it requests get 503
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_queued_queries)]
    max_queued_queries: usize,
    /// Open connections, at most; past it they get 503
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_connections)]
    max_connections: usize,
    /// Queries that are searched in one call, at most
    #[arg(long, value_name = "N", default_value_t = DEFAULTS.max_batch)]
    max_batch: usize,
    /// Microseconds that a query waits for others to be searched with while the server is idle
    #[arg(long, value_name = "US", default_value_t = DEFAULTS.batch_wait_us)]
    batch_wait_us: u64,
    /// Milliseconds from a request to its answer; past it requests get 504
    #[arg(long, value_name = "MS", default_value_t = DEFAULTS.deadline_ms)]
    deadline_ms: u64,
    /// Milliseconds for a request's head to arrive, and for the next one on an open connection
    #[arg(long, value_name = "MS", default_value_t = DEFAULTS.header_timeout_ms)]
    header_timeout_ms: u64,
    /// Milliseconds for a request's body to arrive
    #[arg(long, value_name = "MS", default_value_t = DEFAULTS.body_timeout_ms)]
    body_timeout_ms: u64,
    /// Milliseconds that requests in flight may take when the server is told to stop
    #[arg(long, value_name = "MS", default_value_t = DEFAULTS.drain_ms)]
    drain_ms: u64,
    /// Milliseconds between looks for a new version of the index; 0 looks on SIGHUP only
    #[arg(long, value_name = "MS", default_value_t = DEFAULTS.poll_ms)]
    poll_ms: u64,
}

pub(crate) fn run(args: Args, output: &Output) -> anyhow::Result<()> {
    assert!(args.retriever, "the flag is required, so that other things can be served one day");
    let token = token(args.bearer_token_file.as_deref())?;
    let source = Arc::new(IndexFolder { path: args.index.clone() });
    let config = args.limits.config(args.insecure);
    let mut printed = Ok(());
    serve((args.host, args.port).into(), config, token, source, |address| {
        let dir = args.index.display().to_string();
        printed = output.line(format_args!("serving {} on http://{address}", printable(&dir)));
    })?;
    printed
}

/// An index folder or a retriever file. Manifests are written when a version is complete.
struct IndexFolder {
    path: PathBuf,
}

impl Source for IndexFolder {
    fn open(&self) -> Result<Arc<dyn Retriever>, BoxError> {
        Ok(Arc::from(retriever::open(&self.path)?))
    }

    /// The manifests and files that say what is served.
    fn fingerprint(&self) -> Result<String, BoxError> {
        let mut all = String::new();
        let files = match exsearch_retriever::identifying_files(&self.path) {
            Ok(files) => files,
            // A version that cannot be understood is a change too: opening it tells what is wrong.
            Err(error) => return Ok(error.to_string()),
        };
        for path in files {
            all.push_str(&fs::read_to_string(path)?);
        }
        Ok(all)
    }
}

fn token(file: Option<&Path>) -> anyhow::Result<Option<Token>> {
    match file {
        Some(path) => {
            let name = || format!("cannot take the token from {}", path.display());
            let text = fs::read_to_string(path).with_context(name)?;
            Token::new(&text).map(Some).with_context(name)
        }
        None => {
            let token = environment::serve_token().map(|text| Token::new(&text)).transpose();
            token.context("cannot take the token from EXSEARCH_SERVE_TOKEN")
        }
    }
}

impl LimitArgs {
    fn config(&self, insecure: bool) -> ServerConfig {
        ServerConfig {
            default_top_k: self.default_top_k,
            max_top_k: self.max_top_k,
            max_hits: self.max_hits,
            max_query_chars: self.max_query_chars,
            max_queries: self.max_queries,
            max_body_bytes: self.max_body_bytes,
            max_queued_queries: self.max_queued_queries,
            max_connections: self.max_connections,
            max_batch: self.max_batch,
            batch_wait_us: self.batch_wait_us,
            deadline_ms: self.deadline_ms,
            header_timeout_ms: self.header_timeout_ms,
            body_timeout_ms: self.body_timeout_ms,
            drain_ms: self.drain_ms,
            poll_ms: self.poll_ms,
            insecure,
            ..ServerConfig::DEFAULT
        }
    }
}
