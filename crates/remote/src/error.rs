//! What keeps a server from being asked at all.
use exsearch_http::{BadSetting, HttpError};

/// A server cannot be used for what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// A setting.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// It cannot be reached or does not let us in.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Its address.
        url: String,
        /// What happened.
        reason: HttpError,
    },
    /// Its protocol has no log-probs of given text.
    #[error(
        "a server of protocol `{protocol}` does not tell how probable a given answer is, so trajectories cannot be scored by it; \
         use protocol `vllm` or `llama-cpp` where the server is one, or leave the scores out"
    )]
    NoScores {
        /// The protocol.
        protocol: &'static str,
    },
}
