//! Weights & Biases' server, scripted: what it is sent.
use crate::common::{Asked, Server, record, unfinished};
use exsearch_track::{Servers, TrackConfig, WandbConfig, WandbMode};
use serde_json::{Value, json};

fn open(url: &str) -> Servers {
    let wandb = WandbConfig {
        mode: WandbMode::Online,
        project: "exsearch".into(),
        entity: None,
        url: url.to_owned(),
        key_env: None,
        key_file: None,
    };
    let variable = |name: &str| (name == "WANDB_API_KEY").then(|| "k-123".to_owned());
    let config = TrackConfig { wandb: Some(wandb), mlflow: None };
    Servers::open(&config, &variable).expect("settings that work").expect("a server")
}

fn reply(asked: &Asked) -> (u16, Value) {
    let project = json!({ "name": "exsearch", "entity": { "name": "me" } });
    match asked.line.as_str() {
        "POST /graphql" => {
            (200, json!({ "data": { "upsertBucket": { "bucket": { "name": "abcd1234", "project": project } } } }))
        }
        "POST /files/me/exsearch/abcd1234/file_stream" => (200, json!({ "exitcode": null, "limits": {} })),
        line => panic!("{line}"),
    }
}

fn bodies(server: &Server) -> Vec<Value> {
    let asked = server.asked();
    // "api:k-123" in base 64.
    assert!(asked.iter().all(|asked| asked.authorization.as_deref() == Some("Basic YXBpOmstMTIz")), "{asked:?}");
    asked.into_iter().map(|asked| asked.body).collect()
}

/// The rows of a request to the file stream, and the number of the first.
fn rows(body: &Value) -> (u64, Vec<Value>) {
    let file = &body["files"]["wandb-history.jsonl"];
    let lines = file["content"].as_array().expect("lines").iter();
    let parsed = lines.map(|line| serde_json::from_str(line.as_str().expect("a line")).expect("JSON"));
    (file["offset"].as_u64().expect("a number"), parsed.collect())
}

#[test]
fn each_row_is_sent_once() {
    let server = Server::start(reply);
    let (servers, folder) = (open(&server.url), tempfile::tempdir().expect("a folder"));
    assert!(servers.send(&unfinished(), folder.path()).is_empty());
    let bodies_before = bodies(&server);
    let [upsert, first] = &bodies_before[..] else { panic!("{bodies_before:?}") };
    assert!(upsert["query"].as_str().expect("text").contains("upsertBucket(input: {name: $name, modelName: $project"));
    let config = concat!(
        r#"{"seed":{"value":7},"em":{"value":{"samples":4}},"#,
        r#""_wandb":{"value":{"m":[{"1":"stage"},{"1":"train/step"},{"1":"dev/f1","5":1,"6":[3]}]}}}"#
    );
    let variables =
        json!({ "name": "abcd1234", "project": "exsearch", "entity": null, "displayName": "t", "config": config });
    assert_eq!(upsert["variables"], variables);
    let row = json!({ "dev/f1": 0.25, "stage": 0, "_step": 0, "_timestamp": 1010.0, "_runtime": 9.5 });
    assert_eq!(rows(first), (0, vec![row]));

    assert!(servers.send(&record(), folder.path()).is_empty());
    let bodies_after = bodies(&server);
    let [upsert, second, end] = &bodies_after[..] else { panic!("{bodies_after:?}") };
    let config = upsert["variables"]["config"].as_str().expect("text");
    assert!(config.contains(r#"{"1":"train/loss","5":2,"6":[3]}"#), "{config}");
    let (offset, new) = rows(second);
    assert_eq!((offset, new.len()), (1, 2));
    assert_eq!(new[1]["train/step"], 300);
    let summary = second["files"]["wandb-summary.json"]["content"][0].as_str().expect("a line");
    let summary: Value = serde_json::from_str(summary).expect("JSON");
    assert_eq!((&summary["dev/f1"], &summary["train/step"]), (&json!(0.25), &json!(300)));
    assert_eq!(*end, json!({ "complete": true, "exitcode": 0 }));
    assert!(servers.send(&record(), folder.path()).is_empty());
    assert_eq!(bodies(&server), [Value::Null; 0]);
}

#[test]
fn a_refused_key_is_told_without_the_key() {
    let server = Server::start(|_| (401, json!({ "error": "invalid key YXBpOmstMTIz" })));
    let folder = tempfile::tempdir().expect("a folder");
    let errors = open(&server.url).send(&record(), folder.path());
    let error = errors.first().expect("refused").to_string();
    assert!(error.contains("401") && !error.contains("YXBpOmstMTIz"), "{error}");
}

#[test]
fn what_graphql_complains_of_is_told() {
    let server = Server::start(|_| (200, json!({ "errors": [{ "message": "no such entity" }], "data": null })));
    let folder = tempfile::tempdir().expect("a folder");
    let errors = open(&server.url).send(&record(), folder.path());
    assert!(errors.first().expect("refused").to_string().contains("no such entity"));
}
