//! MLflow's REST API 2.0: an experiment, a run with the configuration as parameters, and batches of metrics.
//!
//! A metric with the same key, value, time and step is stored once, so that a batch may be sent again after a lost answer. A run is
//! found again by its tag `exsearch.id`, should the answer to its creation be what was lost.
use crate::config::MlflowConfig;
use crate::cursor::CursorFile;
use crate::error::TrackError;
use crate::record::{Part, RunRecord};
use crate::servers::Server;
use exsearch_http::HttpError;
use serde_json::{Value, json};

/// The server refuses batches of more (`mlflow.utils.validation`).
const MAX_METRICS: usize = 1_000;
const MAX_PARAMS: usize = 100;
/// The oldest servers refuse longer values of parameters.
const MAX_PARAM_CHARS: usize = 500;

/// Sends what the server lacks.
pub(crate) fn send(
    record: &RunRecord,
    config: &MlflowConfig,
    server: &Server<'_>,
    cursor: &mut CursorFile,
) -> Result<(), TrackError> {
    if cursor.at.run.is_empty() {
        let experiment = experiment(config, server)?;
        cursor.at.run = run(record, &experiment, server)?;
        cursor.save()?;
    }
    let run_id = cursor.at.run.clone();
    if !cursor.at.has_config {
        for params in params(&record.config).chunks(MAX_PARAMS) {
            server.post("/api/2.0/mlflow/runs/log-batch", json!({ "run_id": run_id, "params": params }))?;
        }
        cursor.at.has_config = true;
        cursor.save()?;
    }
    for part in record.parts.iter().skip(cursor.at.n_parts) {
        for metrics in metrics(part).chunks(MAX_METRICS) {
            server.post("/api/2.0/mlflow/runs/log-batch", json!({ "run_id": run_id, "metrics": metrics }))?;
        }
        cursor.at.n_parts += 1;
        // A run that was continued after its end.
        cursor.at.is_finished = false;
        cursor.save()?;
    }
    if record.is_finished && !cursor.at.is_finished {
        let end_time = millis(record.ended_secs());
        let body = json!({ "run_id": run_id, "status": "FINISHED", "end_time": end_time });
        server.post("/api/2.0/mlflow/runs/update", body)?;
        cursor.at.is_finished = true;
        cursor.save()?;
    }
    Ok(())
}

fn experiment(config: &MlflowConfig, server: &Server<'_>) -> Result<String, TrackError> {
    let name = config.experiment.as_str();
    let found = server.get("/api/2.0/mlflow/experiments/get-by-name", &[("experiment_name", name)]);
    match found {
        Ok(answer) => server.text(&answer, "/experiment/experiment_id"),
        Err(HttpError::Status { status: 404, .. }) => {
            let answer = server.post("/api/2.0/mlflow/experiments/create", json!({ "name": name }))?;
            server.text(&answer, "/experiment_id")
        }
        Err(error) => Err(server.failed(error)),
    }
}

fn run(record: &RunRecord, experiment: &str, server: &Server<'_>) -> Result<String, TrackError> {
    let filter = format!("tags.`exsearch.id` = '{}'", record.id);
    let body = json!({ "experiment_ids": [experiment], "filter": filter, "max_results": 1 });
    let found = server.post("/api/2.0/mlflow/runs/search", body)?;
    if let Some(id) = found.pointer("/runs/0/info/run_id").and_then(Value::as_str) {
        return Ok(id.to_owned());
    }
    let body = json!({
        "experiment_id": experiment,
        "run_name": record.name,
        "start_time": millis(record.started_secs),
        "tags": [{ "key": "exsearch.id", "value": record.id }],
    });
    server.text(&server.post("/api/2.0/mlflow/runs/create", body)?, "/run/info/run_id")
}

fn metrics(part: &Part) -> Vec<Value> {
    let timestamp = millis(part.wall_secs);
    let values = part.rows.iter().flat_map(|row| row.values.iter().map(move |value| (row.step, value)));
    let finite = values.filter(|(_, (_, value))| value.is_finite());
    let metric = |(step, (key, value)): (u64, &(String, f64))| json!({ "key": key, "value": value, "timestamp": timestamp, "step": step });
    finite.map(metric).collect()
}

/// The leaves of the configuration by their dotted names. Lists are leaves.
fn params(config: &Value) -> Vec<Value> {
    fn walk(prefix: &str, value: &Value, params: &mut Vec<Value>) {
        let name = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| walk(&name(key), value, params)),
            Value::String(text) => params.push(param(prefix, text)),
            other => params.push(param(prefix, &other.to_string())),
        }
    }
    fn param(key: &str, value: &str) -> Value {
        json!({ "key": key, "value": value.chars().take(MAX_PARAM_CHARS).collect::<String>() })
    }
    let mut params = Vec::new();
    walk("", config, &mut params);
    params
}

fn millis(secs: f64) -> i64 {
    (secs * 1_000.0) as i64
}
