//! A real llama-server beside our own engine, over the same weights in f32: the same ids, log-probs and scores. It needs the server and
//! the model, so it runs by hand only:
//!
//!     EXSEARCH_TEST_LLAMA_SERVER=llama-server EXSEARCH_TEST_GGUF=f32.gguf EXSEARCH_TEST_MODEL=FOLDER \
//!         cargo test -p exsearch-cli --test llama_server -- --ignored
use exsearch_engine::{Engine, EngineConfig};
use exsearch_model::chat::HfChat;
use exsearch_model::checkpoint::load_decoder;
use exsearch_remote::{Protocol, RemoteConfig, RemoteModel, Vocabulary};
use exsearch_schema::{
    ChatCodec, Finish, GenerateRequest, Generation, Generator, Message, Sampling, ScoreRequest, Scorer,
};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const MAX_TOKENS: usize = 512;
/// Other kernels add in another order.
const TOLERANCE: f32 = 1e-3;

/// Stops when it is dropped.
struct LlamaServer {
    process: Child,
    url: String,
}

impl LlamaServer {
    fn start() -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port().to_string();
        let process = Command::new(variable("EXSEARCH_TEST_LLAMA_SERVER"))
            .arg("-m")
            .arg(variable("EXSEARCH_TEST_GGUF"))
            .args(["--host", "127.0.0.1", "--port", &port, "-np", "4", "-c", "2048", "-ctk", "f32", "-ctv", "f32"])
            // Its flash attention, on by default, is off by up to 0.008 nats a token.
            .args(["-fa", "off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self { process, url: format!("http://127.0.0.1:{port}") }
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is set")).into()
}

fn connect(url: &str, protocol: Protocol, chat: &Arc<HfChat>) -> RemoteModel {
    let (end_ids, n_tokens) = (chat.end_of_turn_ids().to_vec(), chat.tokenizer().n_tokens());
    let vocabulary = Vocabulary { chat: chat.clone(), end_ids, n_tokens };
    RemoteModel::new(&RemoteConfig::new(url, protocol), None, vocabulary, MAX_TOKENS).expect("a fine config")
}

fn all(generator: &mut dyn Generator, requests: &[GenerateRequest]) -> Vec<Generation> {
    let ids: Vec<_> = requests.iter().map(|request| generator.submit(request.clone())).collect();
    let mut done = Vec::new();
    while done.len() < ids.len() {
        done.extend(generator.wait());
    }
    done.sort_by_key(|(id, _)| *id);
    done.into_iter().map(|(_, turn)| turn.expect("a turn")).collect()
}

#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert!((ours - theirs).abs() < TOLERANCE * (1.0 + ours.abs()), "{ours} is not {theirs}");
    }
}

#[test]
#[ignore = "needs a llama-server: EXSEARCH_TEST_LLAMA_SERVER, EXSEARCH_TEST_GGUF, EXSEARCH_TEST_MODEL"]
fn llama_server_writes_and_scores_what_our_engine_does() {
    let folder = variable("EXSEARCH_TEST_MODEL");
    let chat = Arc::new(HfChat::open(&folder, None).expect("tokenizer and template"));
    let decoder = load_decoder(&folder, MAX_TOKENS).expect("weights");
    let engine = Engine::new(&decoder, None, &*chat, EngineConfig::default());
    let server = LlamaServer::start();
    let remote = connect(&server.url, Protocol::LlamaCpp, &chat);
    let mut waited = 0;
    while remote.check().is_err() {
        waited += 1;
        assert!(waited < 60, "the server answers");
        std::thread::sleep(Duration::from_millis(500));
    }

    let sampling = |temperature| Sampling {
        temperature,
        top_p: 1.0,
        max_new_tokens: 24,
        stop: vec!["stop here".to_owned()],
        seed: 3,
    };
    let questions =
        ["Who are you?", "What is the capital of France?", "Write the emoji \u{1F680}\u{1FA90} twice.", "Count to 9."];
    let request = |question: &str, temperature| {
        let messages = vec![Message::user(question)];
        let context = chat.open(&messages).expect("rendered");
        GenerateRequest { context, sampling: sampling(temperature), messages }
    };
    let greedy: Vec<GenerateRequest> = questions.iter().map(|question| request(question, 0.0)).collect();
    let ours = all(&mut &engine, &greedy);
    let theirs = all(&mut remote.generator(), &greedy);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!((&ours.ids, ours.finish), (&theirs.ids, theirs.finish), "{:?}", chat.decode(&ours.ids));
        assert_close(&ours.logprobs, &theirs.logprobs);
    }

    // What they draw has the log-probs that we give it.
    let drawn = questions.map(|question| request(question, 1.0));
    let turns = all(&mut remote.generator(), &drawn);
    for (request, turn) in drawn.iter().zip(&turns) {
        let requests = [ScoreRequest { context: request.context.clone(), continuations: vec![turn.ids.clone()] }];
        let score = (&engine).score(&requests).remove(0).expect("scored")[0];
        assert_close(&[score], &[turn.logprobs.iter().sum()]);
        assert_eq!(turn.logprobs, turn.behaviour_logprobs);
    }
    assert_ne!(turns[0].ids, theirs[0].ids, "it was drawn");

    // Answers of several tokens, some of which end inside of a character.
    let answers = ["Paris", "The capital is Paris.", "\u{1F680}", "\u{65E5}\u{672C}\u{8A9E}"];
    let continuations: Vec<Vec<u32>> = answers.iter().map(|answer| chat.turn(answer)).collect();
    let requests: Vec<ScoreRequest> = greedy[..2]
        .iter()
        .map(|request| ScoreRequest { context: request.context.clone(), continuations: continuations.clone() })
        .collect();
    let ours = (&engine).score(&requests);
    let theirs = remote.scorer().expect("it scores").score(&requests);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_close(ours.as_ref().expect("scored"), theirs.as_ref().expect("scored"));
    }

    // OpenAI's protocols give the same text.
    let whole: Vec<Generation> = all(&mut &engine, &greedy);
    for protocol in [Protocol::Completions, Protocol::Chat] {
        let texts = all(&mut connect(&server.url, protocol, &chat).generator(), &greedy);
        for (ours, theirs) in whole.iter().zip(&texts).filter(|(ours, _)| ours.finish == Finish::EndOfTurn) {
            assert_eq!(chat.decode(&theirs.ids).trim(), chat.decode(&ours.ids).trim(), "{}", protocol.name());
            assert!(theirs.logprobs.is_empty());
        }
    }
}
