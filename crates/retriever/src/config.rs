//! Which retriever to use, as a config file says it.
//!
//! ```toml
//! kind = "hybrid"
//! fusion = "scores"
//! [[parts]]
//! weight = 0.3
//! retriever = { kind = "bm25", index = "bm25" }
//! [[parts]]
//! weight = 0.7
//! retriever = { kind = "dense", index = "dense" }
//! ```
//!
//! Models are named by their folders or, where the program knows them, by the names under which they were pulled.
use crate::cache::CacheLimits;
use crate::files::write_whole;
use crate::hybrid::RRF_K;
use crate::remote::Protocol;
use crate::web::Provider;
use crate::{CONFIG_FILE, Error};
use exsearch_http::HttpConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A retriever, by its kind. Paths are relative to the folder of the file that this stands in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RetrieverConfig {
    /// Words: BM25 over an index folder.
    Bm25(Bm25Part),
    /// One vector a passage.
    Dense(VectorPart),
    /// A vector a token.
    Late(VectorPart),
    /// Several of these, fused by rank.
    Hybrid(HybridConfig),
    /// Another's candidates in a better order.
    Rerank(RerankConfig),
    /// A server.
    Remote(RemoteConfig),
    /// The web.
    Web(WebConfig),
    /// Any of these, with its answers kept in memory.
    Cached(CachedConfig),
}

/// `kind = "bm25"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bm25Part {
    /// The index folder.
    pub index: PathBuf,
}

/// `kind = "dense"` and `kind = "late"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorPart {
    /// The index folder.
    pub index: PathBuf,
    /// The encoder's folder, or its name where it was pulled; without it, the one that the index names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<PathBuf>,
    /// Lists that are read: the more, the slower and the more exact. Of a dense index, only a large one has lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_probe: Option<usize>,
    /// Passages of these lists that are scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_candidates: Option<usize>,
}

/// `kind = "hybrid"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HybridConfig {
    /// What is fused of the parts' rankings.
    #[serde(default)]
    pub fusion: FusionKind,
    /// The constant of reciprocal rank fusion; 60 is its paper's. A fusion of scores has none.
    #[serde(default = "default_k")]
    pub k: f64,
    /// What is fused: at least one.
    pub parts: Vec<HybridPartConfig>,
}

/// What a hybrid fuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FusionKind {
    /// Ranks, by reciprocal rank fusion: for parts whose scores say little.
    #[default]
    Ranks,
    /// Scores, each part's between its lowest and its highest, by their weighted mean.
    Scores,
}

/// A `[[parts]]` of a hybrid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HybridPartConfig {
    /// How much its ranking counts, above 0.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// How many passages it is asked for.
    #[serde(default = "default_depth")]
    pub depth: usize,
    /// It.
    pub retriever: RetrieverConfig,
}

/// `kind = "rerank"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankConfig {
    /// The folder of the encoder or cross-encoder, or its name where it was pulled.
    pub encoder: PathBuf,
    /// How the encoder scores.
    #[serde(default)]
    pub scorer: RerankScorer,
    /// How many candidates are scored.
    #[serde(default = "default_depth")]
    pub depth: usize,
    /// Vectors of passages that are kept; a cross-encoder has none.
    #[serde(default)]
    pub cache: CacheLimits,
    /// Who finds the candidates.
    pub retriever: Box<RetrieverConfig>,
}

/// How a reranker scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RerankScorer {
    /// Late interaction: MaxSim over vectors of tokens.
    #[default]
    MaxSim,
    /// A model that reads query and passage together: BERT with a classifier of one label.
    CrossEncoder,
}

/// `kind = "remote"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteConfig {
    /// Which protocol the server speaks.
    pub protocol: Protocol,
    /// Its address, such as `http://localhost:8893`.
    pub url: String,
    /// The environment variable that holds its bearer token, if it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The file that holds its bearer token, if it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Timeouts, retries, limits.
    #[serde(default)]
    pub http: HttpConfig,
}

/// `kind = "web"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebConfig {
    /// Who searches.
    pub provider: Provider,
    /// An address in place of the provider's public one; SearXNG has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The environment variable that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The file that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Where answers are kept from run to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
    /// Requests of one run, attempts and further pages of results counted one by one; past them queries fail.
    #[serde(default = "default_max_requests")]
    pub max_requests: u64,
    /// Timeouts, retries, limits.
    #[serde(default)]
    pub http: HttpConfig,
}

/// `kind = "cached"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachedConfig {
    /// How much is kept.
    #[serde(default)]
    pub limits: CacheLimits,
    /// Whose answers.
    pub retriever: Box<RetrieverConfig>,
}

impl RetrieverConfig {
    /// What a TOML file says. Errors name what is wrong in it.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let config: Self = toml::from_str(text).map_err(|error| {
            // Without the line itself, in which a key could stand that does not belong there.
            let line =
                error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!(", line {line}"));
            Error::InvalidConfig { what: format!("retriever config{place}"), reason: error.message().to_owned() }
        })?;
        config.check()?;
        Ok(config)
    }

    /// As a TOML file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a config is plain data")
    }

    /// Makes `dir` a folder that [`crate::open_index`] opens as this retriever: its `retriever.toml`, written whole.
    pub fn write_to(&self, dir: &Path) -> Result<(), Error> {
        self.check()?;
        write_whole(dir, CONFIG_FILE, self.to_toml().as_bytes())
    }

    /// The index folders that it names, as they are written, in their order.
    pub fn indexes(&self) -> Vec<&Path> {
        match self {
            Self::Bm25(part) => vec![&part.index],
            Self::Dense(part) | Self::Late(part) => vec![&part.index],
            Self::Hybrid(config) => config.parts.iter().flat_map(|part| part.retriever.indexes()).collect(),
            Self::Rerank(config) => config.retriever.indexes(),
            Self::Cached(config) => config.retriever.indexes(),
            Self::Remote(_) | Self::Web(_) => Vec::new(),
        }
    }

    /// Errors at numbers out of their range, here or in what this holds.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse =
            |what: &str, reason: &str| Err(Error::InvalidConfig { what: what.to_owned(), reason: reason.to_owned() });
        match self {
            Self::Hybrid(config) => {
                if config.parts.is_empty() {
                    return refuse("hybrid setting parts", "there must be at least one");
                }
                if !(config.k >= 0.0 && config.k.is_finite()) {
                    return refuse("hybrid setting k", "it must not be negative");
                }
                if config.parts.iter().any(|part| !(part.weight > 0.0 && part.weight.is_finite())) {
                    return refuse(
                        "hybrid setting weight",
                        "it must be above 0; leave out a part that should not count",
                    );
                }
                config.parts.iter().try_for_each(|part| part.retriever.check())
            }
            Self::Rerank(config) => config.retriever.check(),
            Self::Cached(config) => config.retriever.check(),
            Self::Bm25(_) | Self::Dense(_) | Self::Late(_) | Self::Remote(_) | Self::Web(_) => Ok(()),
        }
    }

    /// The lowest score that it can give, where there is one that passages come near.
    pub(crate) fn lowest_score(&self) -> Option<f32> {
        match self {
            Self::Bm25(_) => Some(0.0),
            // A cosine.
            Self::Dense(_) => Some(-1.0),
            Self::Cached(config) => config.retriever.lowest_score(),
            Self::Late(_) | Self::Hybrid(_) | Self::Rerank(_) | Self::Remote(_) | Self::Web(_) => None,
        }
    }

    /// The kind, as it is written.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bm25(_) => "bm25",
            Self::Dense(_) => "dense",
            Self::Late(_) => "late",
            Self::Hybrid(_) => "hybrid",
            Self::Rerank(_) => "rerank",
            Self::Remote(_) => "remote",
            Self::Web(_) => "web",
            Self::Cached(_) => "cached",
        }
    }
}

fn default_k() -> f64 {
    RRF_K
}

fn default_weight() -> f64 {
    1.0
}

/// As the candidates of published rerankers.
fn default_depth() -> usize {
    100
}

fn default_max_requests() -> u64 {
    1_000
}
