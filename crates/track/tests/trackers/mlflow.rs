//! MLflow's server, scripted: what it is sent, and what a broken or forgetful one changes.
use crate::common::{Asked, Server, record, unfinished};
use exsearch_track::{MlflowConfig, Servers, TrackConfig};
use serde_json::{Value, json};

fn open(url: &str) -> Servers {
    let mlflow = MlflowConfig {
        url: format!("{url}/"),
        experiment: "search agents".into(),
        key_env: Some("TOKEN".into()),
        key_file: None,
    };
    let variable = |name: &str| (name == "TOKEN").then(|| "t-123".to_owned());
    let config = TrackConfig { wandb: None, mlflow: Some(mlflow) };
    Servers::open(&config, &variable).expect("settings that work").expect("a server")
}

/// A server without the experiment, and without the run.
fn new_server(asked: &Asked) -> (u16, Value) {
    match asked.line.split(['?', ' ']).nth(1).expect("a path") {
        "/api/2.0/mlflow/experiments/get-by-name" => (404, json!({ "error_code": "RESOURCE_DOES_NOT_EXIST" })),
        "/api/2.0/mlflow/experiments/create" => (200, json!({ "experiment_id": "5" })),
        "/api/2.0/mlflow/runs/search" => (200, json!({})),
        "/api/2.0/mlflow/runs/create" => (200, json!({ "run": { "info": { "run_id": "r1" } } })),
        "/api/2.0/mlflow/runs/log-batch" | "/api/2.0/mlflow/runs/update" => (200, json!({})),
        path => panic!("{path}"),
    }
}

/// Line and body of each request.
fn told(server: &Server) -> Vec<(String, Value)> {
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.authorization.as_deref() == Some("Bearer t-123")), "{asked:?}");
    asked.into_iter().map(|asked| (asked.line.replace("/api/2.0/mlflow", ""), asked.body)).collect()
}

#[test]
fn each_part_is_sent_once() {
    let server = Server::start(new_server);
    let (servers, folder) = (open(&server.url), tempfile::tempdir().expect("a folder"));
    assert!(servers.send(&unfinished(), folder.path()).is_empty());
    let line = |name: &str| format!("POST /{name}");
    let metric =
        |key, value, timestamp, step| json!({ "key": key, "value": value, "timestamp": timestamp, "step": step });
    let run = json!({
        "experiment_id": "5", "run_name": "t", "start_time": 1_000_500,
        "tags": [{ "key": "exsearch.id", "value": "abcd1234" }],
    });
    let search = json!({ "experiment_ids": ["5"], "filter": "tags.`exsearch.id` = 'abcd1234'", "max_results": 1 });
    let params = json!([{ "key": "seed", "value": "7" }, { "key": "em.samples", "value": "4" }]);
    assert_eq!(
        told(&server),
        [
            ("GET /experiments/get-by-name?experiment_name=search%20agents".to_owned(), Value::Null),
            (line("experiments/create"), json!({ "name": "search agents" })),
            (line("runs/search"), search),
            (line("runs/create"), run),
            (line("runs/log-batch"), json!({ "run_id": "r1", "params": params })),
            (line("runs/log-batch"), json!({ "run_id": "r1", "metrics": [metric("dev/f1", 0.25, 1_010_000, 0)] })),
        ]
    );
    assert!(servers.send(&record(), folder.path()).is_empty());
    let metrics = json!([metric("train/loss", 2.5, 1_020_250, 1), metric("train/loss", -0.0, 1_020_250, 300)]);
    let end = json!({ "run_id": "r1", "status": "FINISHED", "end_time": 1_020_250 });
    assert_eq!(
        told(&server),
        [(line("runs/log-batch"), json!({ "run_id": "r1", "metrics": metrics })), (line("runs/update"), end),]
    );
    assert!(servers.send(&record(), folder.path()).is_empty());
    assert_eq!(told(&server), []);
}

#[test]
fn a_server_that_was_down_is_told_the_rest_later() {
    let is_down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let down = is_down.clone();
    let server = Server::start(move |asked| match down.load(std::sync::atomic::Ordering::SeqCst) {
        true => (403, json!({ "message": "no, t-123" })),
        false => new_server(asked),
    });
    let (servers, folder) = (open(&server.url), tempfile::tempdir().expect("a folder"));
    assert!(servers.send(&unfinished(), folder.path()).is_empty());
    is_down.store(true, std::sync::atomic::Ordering::SeqCst);
    let errors = servers.send(&record(), folder.path());
    let error = errors.first().expect("refused").to_string();
    assert!(error.contains("MLflow") && error.contains("403") && !error.contains("t-123"), "{error}");
    is_down.store(false, std::sync::atomic::Ordering::SeqCst);
    server.asked();
    assert!(servers.send(&record(), folder.path()).is_empty());
    assert_eq!(told(&server).len(), 2, "what was refused, and the end");
}

#[test]
fn a_run_whose_creation_was_not_heard_of_is_found_again() {
    let server = Server::start(|asked| match asked.line.as_str() {
        "POST /api/2.0/mlflow/runs/search" => (200, json!({ "runs": [{ "info": { "run_id": "r7" } }] })),
        line if line.starts_with("GET ") => (200, json!({ "experiment": { "experiment_id": "5" } })),
        _ => new_server(asked),
    });
    let (servers, folder) = (open(&server.url), tempfile::tempdir().expect("a folder"));
    assert!(servers.send(&record(), folder.path()).is_empty());
    let told = told(&server);
    assert!(told.iter().all(|(line, _)| !line.contains("create")), "{told:?}");
    assert_eq!(told.last().expect("an end").1["run_id"], "r7");
}

#[test]
fn nothing_is_sent_without_a_key_that_is_asked_for() {
    let mlflow = MlflowConfig {
        url: "http://localhost:1".into(),
        experiment: "e".into(),
        key_env: Some("TOKEN".into()),
        key_file: None,
    };
    let config = TrackConfig { wandb: None, mlflow: Some(mlflow) };
    let error = Servers::open(&config, &|_| None).err().expect("refused").to_string();
    assert!(error.contains("TOKEN"), "{error}");
    assert!(Servers::open(&TrackConfig::default(), &|_| None).expect("nothing to check").is_none());
}
