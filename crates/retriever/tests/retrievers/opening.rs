//! From configs and folders to retrievers.
use crate::common::{WordEncoder, corpus, ids};
use crate::server::{FakeServer, Reply};
use exsearch_retriever::config::{FusionKind, HybridConfig, HybridPartConfig, VectorPart};
use exsearch_retriever::{
    CONFIG_FILE, Error, ResolveError, Resolver, RetrieverConfig, SourceId, Target, bm25, dense, identifying_files,
    index_kind, late, open, open_index,
};
use exsearch_schema::{Encoder, Retriever, VectorKind};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Opens toy encoders by the last part of their path.
struct ToyResolver;

impl Resolver for ToyResolver {
    fn encoder(&self, dir: &Path, _: VectorKind) -> Result<Arc<dyn Encoder>, ResolveError> {
        match dir.file_name().and_then(|name| name.to_str()) {
            Some("single") => Ok(Arc::new(WordEncoder::new(VectorKind::Single))),
            Some("tokens") => Ok(Arc::new(WordEncoder::new(VectorKind::PerToken))),
            _ => Err("there is no such model".into()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "t-1\n".to_owned())
    }
}

/// A folder with the indexes `bm25`, `dense` and `late`.
fn indexes() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let source = SourceId { path: "corpus".to_owned(), n_bytes: 1, fingerprint: "a".to_owned() };
    let passages = || corpus(60).into_iter().map(Ok::<_, std::convert::Infallible>);
    let paths = ["bm25", "dense", "late"].map(|name| dir.path().join(name));
    let [bm25, dense, late] = paths.each_ref().map(|dir| Target { dir, replace: false });
    let config = bm25::Bm25Config { memory_mb: 30, ..bm25::Bm25Config::default() };
    bm25::build(passages(), &source, &bm25, &config, |_| {}).expect("builds");
    let single = WordEncoder::new(VectorKind::Single);
    let config = dense::DenseConfig::default();
    dense::build(passages(), &source, (&single, "models/single"), &dense, &config, |_| {}).expect("builds");
    let tokens = WordEncoder::new(VectorKind::PerToken);
    let (config, corpus) = (late::LateConfig::default(), || Ok::<_, std::convert::Infallible>(passages()));
    late::build(corpus, &source, (&tokens, "models/tokens"), &late, &config, |_| {}).expect("builds");
    dir
}

fn open_toml(text: &str, base: &Path) -> Result<Box<dyn Retriever>, Error> {
    open(&RetrieverConfig::from_toml(text)?, base, &ToyResolver)
}

fn refusal(text: &str, base: &Path) -> String {
    open_toml(text, base).err().unwrap_or_else(|| panic!("{text} opens")).to_string()
}

#[test]
fn every_kind_opens_from_toml_and_searches() {
    let dir = indexes();
    let server = FakeServer::start(|asked, _| {
        assert!(asked.headers.contains(&"authorization: Bearer t-1".to_owned()), "{:?}", asked.headers);
        Reply::ok(r#"{"topk":[{"text":"a | b","pid":1,"score":1}],"results":[{"url":"u"}]}"#)
    });
    std::fs::write(dir.path().join("token.txt"), "t-1\n").expect("writes");
    let url = &server.url;
    let configs = [
        "kind = 'bm25'\nindex = 'bm25'".to_owned(),
        "kind = 'dense'\nindex = 'dense'".to_owned(),
        "kind = 'dense'\nindex = 'dense'\nencoder = 'elsewhere/single'".to_owned(),
        "kind = 'late'\nindex = 'late'\nn_probe = 8\nn_candidates = 50".to_owned(),
        "kind = 'hybrid'\n[[parts]]\nretriever = { kind = 'bm25', index = 'bm25' }\n[[parts]]\nweight = 0.5\ndepth = 20\n\
         retriever = { kind = 'dense', index = 'dense' }"
            .to_owned(),
        "kind = 'rerank'\nencoder = 'tokens'\ndepth = 10\ncache = { max_mb = 1 }\nretriever = { kind = 'bm25', index = 'bm25' }"
            .to_owned(),
        "kind = 'cached'\nlimits = { max_entries = 5 }\nretriever = { kind = 'bm25', index = 'bm25' }".to_owned(),
        format!("kind = 'remote'\nprotocol = 'colbert'\nurl = '{url}'\nkey_env = 'TOKEN'\nhttp = {{ timeout_ms = 9000 }}"),
        format!("kind = 'web'\nprovider = 'searxng'\nurl = '{url}'\nkey_file = 'token.txt'\ncache_dir = 'web'\nmax_requests = 1"),
    ];
    for text in configs {
        let retriever = open_toml(&text, dir.path()).unwrap_or_else(|error| panic!("{text}: {error}"));
        let hits = retriever.search("word3 word9", 5).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(!hits.is_empty(), "{text}");
        let config = RetrieverConfig::from_toml(&text).expect("read before");
        assert_eq!(RetrieverConfig::from_toml(&config.to_toml()).expect("reads what it writes"), config);
    }
}

#[test]
fn a_folder_is_opened_as_what_it_says_it_is() {
    let dir = indexes();
    let part = |index: &str| VectorPart { index: index.into(), ..VectorPart::default() };
    let bm25 = RetrieverConfig::from_toml("kind = 'bm25'\nindex = 'bm25'").expect("reads");
    let parts = [bm25, RetrieverConfig::Dense(part("dense"))];
    let parts = parts.map(|retriever| HybridPartConfig { weight: 1.0, depth: 100, retriever });
    let hybrid = RetrieverConfig::Hybrid(HybridConfig { fusion: FusionKind::Ranks, k: 60.0, parts: parts.to_vec() });
    hybrid.write_to(dir.path()).expect("writes");
    let search = |dir: &Path| open_index(dir, &ToyResolver).expect("opens").search("word3 word9", 60).expect("found");
    let (words, vectors, both) =
        (search(&dir.path().join("bm25")), search(&dir.path().join("dense")), search(dir.path()));
    assert!(words.len() < 60 && vectors.len() == 60 && both.len() == 60);
    let rank = |hits: &[exsearch_schema::Hit], id: &str| ids(hits).iter().position(|other| *other == id);
    let score = |hits: &[exsearch_schema::Hit], id: &str| rank(hits, id).map_or(0.0, |rank| 1.0 / (61.0 + rank as f32));
    for hit in &both {
        let expected = score(&words, &hit.id.0) + score(&vectors, &hit.id.0);
        assert!((hit.score - expected).abs() < 1e-6);
    }
    assert!(!search(&dir.path().join("late")).is_empty());
    let found = open_index(dir.path(), &ToyResolver).expect("opens").passage(&both[0].id).expect("reads");
    assert_eq!(found.map(|passage| passage.text), Some(both[0].text.clone()));
    let files = identifying_files(dir.path()).expect("an index").into_iter();
    let files: Vec<_> = files.map(|file| file.strip_prefix(dir.path()).expect("inside").to_owned()).collect();
    assert_eq!(files, ["retriever.toml", "bm25/manifest.json", "dense/manifest.json"].map(Path::new));
    assert!(identifying_files(&dir.path().join("late")).expect("an index").iter().all(|file| file.is_file()));
    let kinds = ["bm25", "dense", "late", ""].map(|name| index_kind(&dir.path().join(name)).expect("an index"));
    assert_eq!(kinds, ["bm25", "dense", "late", "hybrid"]);
}

#[test]
fn manifests_of_bm25_that_do_not_say_so_are_of_bm25() {
    let dir = indexes();
    let path = dir.path().join("bm25/manifest.json");
    let text = std::fs::read_to_string(&path).expect("reads");
    std::fs::write(&path, text.replace("  \"kind\": \"bm25\",\n", "")).expect("writes");
    assert_eq!(index_kind(&dir.path().join("bm25")).expect("an index"), "bm25");
    assert!(open_index(&dir.path().join("bm25"), &ToyResolver).is_ok());
}

#[test]
fn what_is_no_index_is_told_from_what_is_not_finished() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = |path: &Path| open_index(path, &ToyResolver).err().expect("no index");
    assert!(matches!(error(dir.path()), Error::NotAnIndex { .. }));
    assert!(matches!(error(&dir.path().join("none")), Error::NotAnIndex { .. }));
    std::fs::create_dir(dir.path().join("data-0")).expect("made");
    assert!(matches!(error(dir.path()), Error::Unfinished { .. }));
    std::fs::write(dir.path().join("manifest.json"), "{\"kind\": \"other\"}").expect("writes");
    assert!(matches!(error(dir.path()), Error::NotAnIndex { .. }));
}

#[test]
fn mistakes_in_a_config_are_told_with_what_to_do() {
    let dir = indexes();
    let check = |text: &str, expected: &[&str]| {
        let refusal = refusal(text, dir.path());
        expected.iter().for_each(|part| assert!(refusal.contains(part), "{text}: {refusal}"));
    };
    check("index = 'bm25'", &["kind"]);
    check("kind = 'bm26'\nindex = 'bm25'", &["bm26"]);
    check("kind = 'bm25'\nindx = 'bm25'", &["indx"]);
    check("kind = 'bm25'\nindex = 'none'", &["none", "it does not exist"]);
    check("kind = 'dense'\nindex = 'bm25'", &["is not a dense index"]);
    check("kind = 'dense'\nindex = 'dense'\nencoder = 'missing'", &["cannot open the encoder"]);
    check("kind = 'dense'\nindex = 'dense'\nencoder = 'tokens'", &["one vector a text"]);
    check("kind = 'hybrid'\nparts = []", &["parts"]);
    check(
        "kind = 'hybrid'\n[[parts]]\nweight = 0\nretriever = { kind = 'bm25', index = 'bm25' }",
        &["weight", "above 0"],
    );
    check("kind = 'remote'\nprotocol = 'colbert'\nurl = 'host:1'", &["host:1"]);
    check("kind = 'remote'\nprotocol = 'soap'\nurl = 'http://host:1'", &["soap"]);
    check("kind = 'web'\nprovider = 'brave'", &["Brave", "key_env"]);
    check("kind = 'web'\nprovider = 'brave'\nkey_env = 'UNSET'", &["UNSET", "not set"]);
    check("kind = 'web'\nprovider = 'brave'\nkey_file = 'none.txt'", &["none.txt"]);
    check("kind = 'web'\nprovider = 'brave'\nkey_file = 'x'\nkey_env = 'TOKEN'", &["give one of them"]);
    check("kind = 'web'\nprovider = 'brave'\nkey = 'k'", &["unknown field"]);
    let rerank =
        "kind = 'rerank'\nencoder = 'tokens'\nscorer = 'cross-encoder'\nretriever = { kind = 'bm25', index = 'bm25' }";
    check(rerank, &["cannot open the encoder"]);
}

#[test]
fn a_config_file_is_named_in_what_is_wrong_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join(CONFIG_FILE), "kind = ").expect("writes");
    let error = open_index(dir.path(), &ToyResolver).err().expect("no TOML").to_string();
    assert!(error.contains(CONFIG_FILE), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_a_config_or_an_error(text in "(kind = \"(bm25|hybrid|web|x)\"\n)?[a-z_ ='\"\\[\\]{},0-9\n.]{0,60}") {
        if let Ok(config) = RetrieverConfig::from_toml(&text) {
            prop_assert_eq!(RetrieverConfig::from_toml(&config.to_toml()).expect("reads what it writes"), config);
        }
    }
}
