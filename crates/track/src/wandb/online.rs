//! The server's API: the run by GraphQL's `upsertBucket`, its rows by the file stream.
//!
//! Both may be sent again: a run is known by its name, and lines of the stream by their number.
use crate::config::WandbConfig;
use crate::cursor::CursorFile;
use crate::error::TrackError;
use crate::record::{Axis, RunRecord};
use crate::servers::Server;
use exsearch_http::Secret;
use serde_json::{Map, Value, json};

/// Lines in one request.
const MAX_LINES: usize = 1_000;

const UPSERT_RUN: &str = "\
mutation UpsertBucket($name: String, $project: String, $entity: String, $displayName: String, $config: JSONString) {
  upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, displayName: $displayName, config: $config}) {
    bucket { name project { name entity { name } } }
  }
}";

/// What a key is sent as: HTTP's basic authorization with the user `api`.
pub(crate) fn authorization(key: &Secret) -> Secret {
    Secret::new(&base64(format!("api:{}", key.expose()).as_bytes()))
}

/// Sends what the server lacks.
pub(crate) fn send(
    record: &RunRecord,
    config: &WandbConfig,
    server: &Server<'_>,
    cursor: &mut CursorFile,
) -> Result<(), TrackError> {
    // New parts may bring new names, whose axes are told with the configuration.
    if !cursor.at.has_config || cursor.at.n_parts < record.parts.len() {
        cursor.at.run = upsert(record, config, server)?;
        cursor.at.has_config = true;
        cursor.save()?;
    }
    let stream = format!("/files/{}/file_stream", cursor.at.run);
    let n_sent: usize = record.parts.iter().take(cursor.at.n_parts).map(|part| part.rows.len()).sum();
    let history = record.history();
    for (chunk_idx, rows) in history[n_sent..].chunks(MAX_LINES).enumerate() {
        let lines: Vec<String> = rows.iter().map(|row| Value::Object(row.clone()).to_string()).collect();
        let files = json!({
            "wandb-history.jsonl": { "offset": n_sent + chunk_idx * MAX_LINES, "content": lines },
            "wandb-summary.json": { "offset": 0, "content": [Value::Object(record.summary()).to_string()] },
        });
        server.post(&stream, json!({ "files": files }))?;
    }
    if n_sent < history.len() {
        cursor.at.n_parts = record.parts.len();
        // A run that was continued after its end.
        cursor.at.is_finished = false;
        cursor.save()?;
    }
    if record.is_finished && !cursor.at.is_finished {
        server.post(&stream, json!({ "complete": true, "exitcode": 0 }))?;
        cursor.at.is_finished = true;
        cursor.save()?;
    }
    Ok(())
}

/// Makes the run or finds it again: `entity/project/run`, as the server calls it.
fn upsert(record: &RunRecord, config: &WandbConfig, server: &Server<'_>) -> Result<String, TrackError> {
    let fields = record.config.as_object().into_iter().flatten();
    let mut fields: Map<String, Value> = fields.map(|(key, value)| (key.clone(), json!({ "value": value }))).collect();
    fields.insert("_wandb".into(), json!({ "value": { "m": axes(record) } }));
    let variables = json!({
        "name": record.id,
        "project": config.project,
        "entity": config.entity,
        "displayName": record.name,
        "config": Value::Object(fields).to_string(),
    });
    let answer = server.post("/graphql", json!({ "query": UPSERT_RUN, "variables": variables }))?;
    if let Some(message) = answer.pointer("/errors/0/message").and_then(Value::as_str) {
        return Err(server.without(&format!("a run: {message}")));
    }
    let bucket = "/data/upsertBucket/bucket";
    let entity = server.text(&answer, &format!("{bucket}/project/entity/name"))?;
    let project = server.text(&answer, &format!("{bucket}/project/name"))?;
    let name = server.text(&answer, &format!("{bucket}/name"))?;
    Ok(format!("{entity}/{project}/{name}"))
}

/// The axes and who is drawn over which, as `wandb sync` 0.31 sends them: a `MetricRecord` an entry, its fields by their numbers. 1 is
/// the name, 5 the place of its axis in the list, from 1, and 6 the options, of which 3 says that it was asked for.
fn axes(record: &RunRecord) -> Vec<Value> {
    let axes = [Axis::Stage, Axis::OptimizerStep];
    let place = |axis| axes.iter().position(|one| *one == axis).expect("one of them") + 1;
    let own = axes.iter().map(|axis| json!({ "1": axis.name() }));
    own.chain(record.axes().into_iter().map(|(name, axis)| json!({ "1": name, "5": place(axis), "6": [3] }))).collect()
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]);
            text.push(if place <= group.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn base64_test_vectors() {
        let check = |bytes: &str, expect: &str| assert_eq!(base64(bytes.as_bytes()), expect);
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foobar", "Zm9vYmFy");
    }
}
