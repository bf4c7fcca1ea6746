//! From a config or an index folder to a retriever that is ready to search.
use crate::bm25::Bm25Index;
use crate::cache::Cached;
use crate::config::{FusionKind, RerankScorer, RetrieverConfig, VectorPart};
use crate::dense::{AnnOptions, DenseIndex};
use crate::folder::{MANIFEST, read_manifest};
use crate::hybrid::{Fusion, Hybrid, HybridPart};
use crate::late::LateRetriever;
use crate::remote::Remote;
use crate::rerank::Rerank;
use crate::web::{WebLimits, WebSearch};
use crate::{EncoderId, Error};
use exsearch_http::Secret;
use exsearch_index::SearchOptions;
use exsearch_schema::{CrossEncoder, Encoder, Retriever, VectorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that makes a folder a retriever of several parts.
pub const CONFIG_FILE: &str = "retriever.toml";

/// Why a resolver has not got something.
pub type ResolveError = Box<dyn std::error::Error + Send + Sync>;

/// What a retriever needs and this crate does not make: models, and variables of the environment.
pub trait Resolver {
    /// The encoder in a folder or of a name, as one that gives vectors of the kind: some can give both.
    fn encoder(&self, model: &Path, kind: VectorKind) -> Result<Arc<dyn Encoder>, ResolveError>;

    /// The cross-encoder in a folder or of a name.
    fn cross_encoder(&self, model: &Path) -> Result<Arc<dyn CrossEncoder>, ResolveError> {
        Err(format!("no cross-encoder can be opened here: {}", model.display()).into())
    }

    /// The value of an environment variable, if it is set.
    fn variable(&self, name: &str) -> Option<String>;
}

/// Opens the retriever that a config describes; its relative paths begin at `base`.
pub fn open(config: &RetrieverConfig, base: &Path, resolver: &dyn Resolver) -> Result<Box<dyn Retriever>, Error> {
    config.check()?;
    Opening { resolver }.open(config, base)
}

/// Opens the index in a folder, whatever its kind, with the encoder that it names. A config file, or a folder with a
/// [`CONFIG_FILE`], is what that describes, its paths relative to it.
pub fn open_index(path: &Path, resolver: &dyn Resolver) -> Result<Box<dyn Retriever>, Error> {
    Opening { resolver }.open_index(path)
}

/// The kind that the index in a folder says it is: `bm25`, `dense`, `late`, or that of its [`CONFIG_FILE`].
pub fn index_kind(dir: &Path) -> Result<String, Error> {
    match Described::read(dir)? {
        Some(described) => Ok(described.config.kind().to_owned()),
        None => manifest_kind(dir),
    }
}

/// The index folders that a config file, or a folder with a [`CONFIG_FILE`], names; `None` of an index of one kind.
pub fn parts(path: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    Ok(Described::read(path)?.map(|described| described.indexes()))
}

fn manifest_kind(dir: &Path) -> Result<String, Error> {
    let not_an_index = |reason: String| Error::NotAnIndex { dir: dir.to_owned(), expected: "an index", reason };
    let Some(manifest) = read_manifest(dir)? else {
        let reason = match std::fs::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => "it has no manifest.json",
            Ok(_) => "it is a file",
            Err(_) => "it does not exist",
        };
        return Err(match dir.join("data-0").is_dir() {
            true => Error::Unfinished { dir: dir.to_owned() },
            false => not_an_index(reason.to_owned()),
        });
    };
    match manifest.get("kind").and_then(|kind| kind.as_str()) {
        Some(kind @ ("bm25" | "dense" | "late")) => Ok(kind.to_owned()),
        _ => Err(not_an_index("its manifest is of no kind that this program knows".to_owned())),
    }
}

/// The files whose content says what is searched: manifests and config files. While none of them changes, searches answer
/// the same, as far as this machine is concerned: a server, the web and a reranker's model are named, not looked at.
/// `path` is an index folder or a config file.
pub fn identifying_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let Some(described) = Described::read(path)? else { return manifests(path) };
    let mut files = Vec::new();
    for index in described.indexes() {
        files.extend(manifests(&index)?);
    }
    files.insert(0, described.file);
    Ok(files)
}

/// Of an index of one kind.
fn manifests(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = vec![dir.join(MANIFEST)];
    if manifest_kind(dir)? == "late" {
        files.push(LateRetriever::index_dir(dir)?.join(MANIFEST));
    }
    Ok(files)
}

#[derive(Clone, Copy)]
struct Opening<'a> {
    resolver: &'a dyn Resolver,
}

impl Opening<'_> {
    fn open(self, config: &RetrieverConfig, base: &Path) -> Result<Box<dyn Retriever>, Error> {
        Ok(match config {
            RetrieverConfig::Bm25(part) => Box::new(Bm25Index::open(&base.join(&part.index))?),
            RetrieverConfig::Dense(part) => Box::new(self.dense(part, base)?),
            RetrieverConfig::Late(part) => Box::new(self.late(part, base)?),
            RetrieverConfig::Hybrid(config) => {
                let mut parts = Vec::with_capacity(config.parts.len());
                for part in &config.parts {
                    let retriever = self.open(&part.retriever, base)?;
                    let name = format!("{} (part {})", part.retriever.kind(), parts.len() + 1);
                    let lowest = part.retriever.lowest_score();
                    parts.push(HybridPart { name, weight: part.weight, depth: part.depth, lowest, retriever });
                }
                let fusion = match config.fusion {
                    FusionKind::Ranks => Fusion::Ranks(config.k),
                    FusionKind::Scores => Fusion::Scores,
                };
                Box::new(Hybrid::new(parts, fusion))
            }
            RetrieverConfig::Rerank(config) => {
                let candidates = self.open(&config.retriever, base)?;
                match config.scorer {
                    RerankScorer::MaxSim => Box::new(Rerank::late(
                        candidates,
                        config.depth,
                        self.encoder(&config.encoder, base, VectorKind::PerToken)?,
                        config.cache,
                    )?),
                    RerankScorer::CrossEncoder => {
                        let encoder = self.resolver.cross_encoder(&find(&config.encoder, base));
                        let failed = |source| Error::OpenEncoder { dir: base.join(&config.encoder), source };
                        Box::new(Rerank::cross(candidates, config.depth, encoder.map_err(failed)?))
                    }
                }
            }
            RetrieverConfig::Remote(config) => {
                let token = self.key(config.key_env.as_deref(), config.key_file.as_deref(), base)?;
                Box::new(Remote::new(config.protocol, &config.url, token, &config.http)?)
            }
            RetrieverConfig::Web(config) => {
                let key = self.key(config.key_env.as_deref(), config.key_file.as_deref(), base)?;
                let cache_dir = config.cache_dir.as_ref().map(|dir| base.join(dir));
                let limits = WebLimits { cache_dir: cache_dir.as_deref(), max_requests: config.max_requests };
                Box::new(WebSearch::new(config.provider, config.url.as_deref(), key, limits, &config.http)?)
            }
            RetrieverConfig::Cached(config) => {
                Box::new(Cached::new(self.open(&config.retriever, base)?, config.limits))
            }
        })
    }

    fn open_index(self, dir: &Path) -> Result<Box<dyn Retriever>, Error> {
        if let Some(Described { config, base, .. }) = Described::read(dir)? {
            return self.open(&config, &base);
        }
        let part = VectorPart { index: dir.to_owned(), ..VectorPart::default() };
        Ok(match manifest_kind(dir)?.as_str() {
            "dense" => Box::new(self.dense(&part, Path::new(""))?),
            "late" => Box::new(self.late(&part, Path::new(""))?),
            _ => Box::new(Bm25Index::open(dir)?),
        })
    }

    fn dense(self, part: &VectorPart, base: &Path) -> Result<DenseIndex, Error> {
        let dir = base.join(&part.index);
        let encoder = self.encoder_of(part, base, &DenseIndex::read_manifest(&dir)?.encoder, VectorKind::Single)?;
        let AnnOptions { n_probe, n_candidates } = AnnOptions::default();
        Ok(DenseIndex::open(&dir, encoder)?.with_ann(AnnOptions {
            n_probe: part.n_probe.unwrap_or(n_probe),
            n_candidates: part.n_candidates.unwrap_or(n_candidates),
        }))
    }

    fn late(self, part: &VectorPart, base: &Path) -> Result<LateRetriever, Error> {
        let dir = base.join(&part.index);
        let encoder =
            self.encoder_of(part, base, &LateRetriever::read_manifest(&dir)?.encoder, VectorKind::PerToken)?;
        let defaults = SearchOptions::default();
        let options = SearchOptions {
            n_probe: part.n_probe.unwrap_or(defaults.n_probe),
            n_candidates: part.n_candidates.unwrap_or(defaults.n_candidates),
            ..defaults
        };
        LateRetriever::open(&dir, encoder, options)
    }

    /// The encoder that the config names, or else the index.
    fn encoder_of(
        self,
        part: &VectorPart,
        base: &Path,
        built_with: &EncoderId,
        kind: VectorKind,
    ) -> Result<Arc<dyn Encoder>, Error> {
        match &part.encoder {
            Some(encoder) => self.encoder(encoder, base, kind),
            None => self.encoder(Path::new(&built_with.path), Path::new(""), kind),
        }
    }

    fn encoder(self, model: &Path, base: &Path, kind: VectorKind) -> Result<Arc<dyn Encoder>, Error> {
        let encoder = self.resolver.encoder(&find(model, base), kind);
        encoder.map_err(|source| Error::OpenEncoder { dir: base.join(model), source })
    }

    /// The key that a config names, if it names one.
    fn key(self, variable: Option<&str>, file: Option<&Path>, base: &Path) -> Result<Option<Secret>, Error> {
        let file = file.map(|file| base.join(file));
        Ok(Secret::named(variable, file.as_deref(), &|name| self.resolver.variable(name))?)
    }
}

/// A model that a config names: a folder or file, its path beginning at `base`; else the name alone, for the resolver to know.
fn find(model: &Path, base: &Path) -> PathBuf {
    let beside = base.join(model);
    if beside.exists() { beside } else { model.to_owned() }
}

/// No config file is longer. A passage file that is named by mistake is not read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What a config file says.
struct Described {
    config: RetrieverConfig,
    file: PathBuf,
    /// Where its paths begin.
    base: PathBuf,
}

impl Described {
    /// Of a config file, or of the one in a folder; `None` of a folder without.
    fn read(path: &Path) -> Result<Option<Self>, Error> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let file = if path.is_file() { path.to_owned() } else { path.join(CONFIG_FILE) };
        let neither = |reason: String| {
            let expected = "an index folder or a TOML file that describes a retriever";
            Error::NotAnIndex { dir: path.to_owned(), expected, reason }
        };
        match std::fs::metadata(&file).map(|metadata| metadata.len()) {
            Ok(n_bytes) if n_bytes > MAX_CONFIG_BYTES => return Err(neither(format!("it has {n_bytes} bytes"))),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(None),
            Err(error) => return Err(crate::error::io_error(&file, error)),
        }
        let text = std::fs::read(&file).map_err(|error| crate::error::io_error(&file, error))?;
        let text = String::from_utf8(text).map_err(|_| neither("it is not text".to_owned()))?;
        let is_meant = file.extension().is_some_and(|extension| extension == "toml");
        let config = RetrieverConfig::from_toml(&text).map_err(|error| match error {
            Error::InvalidConfig { what, reason } if is_meant => {
                Error::InvalidConfig { what: format!("{}: {what}", file.display()), reason }
            }
            Error::InvalidConfig { what, reason } => neither(format!("{what}: {reason}")),
            error => error,
        })?;
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Some(Self { config, file, base }))
    }

    fn indexes(&self) -> Vec<PathBuf> {
        self.config.indexes().into_iter().map(|index| self.base.join(index)).collect()
    }
}
