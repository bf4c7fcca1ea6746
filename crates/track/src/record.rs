//! What a tracker is told of a run.
use serde_json::Value;
use std::collections::BTreeMap;

/// A run so far.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// Eight lower-case letters and digits that no other run has.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it began, in seconds since 1970.
    pub started_secs: f64,
    /// The resolved configuration, an object.
    pub config: Value,
    /// The same as text, to be read.
    pub config_text: String,
    /// What was measured, in the order in which it was.
    pub parts: Vec<Part>,
    /// Whether there is no more to come.
    pub is_finished: bool,
}

/// The measurements of one finished artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Letters, digits and `-`; no two parts share it.
    pub name: String,
    /// When the artifact was finished, in seconds since 1970.
    pub wall_secs: f64,
    /// What its rows count.
    pub axis: Axis,
    /// In the order of their steps.
    pub rows: Vec<Row>,
}

/// What the steps of a part are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Optimizer steps since the beginning of the run.
    OptimizerStep,
    /// 0: untrained, 1: warm-up, n + 1: iteration n.
    Stage,
}

/// Values that belong to one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// On the part's axis.
    pub step: u64,
    /// Names and values; those that are not finite are left out by trackers that have no word for them.
    pub values: Vec<(String, f64)>,
}

impl Axis {
    /// As a column of a tracker.
    pub fn name(self) -> &'static str {
        match self {
            Self::OptimizerStep => "train/step",
            Self::Stage => "stage",
        }
    }
}

impl RunRecord {
    /// All rows as objects with their step and wall time, for trackers that keep rows. `_step` counts them.
    pub(crate) fn history(&self) -> Vec<serde_json::Map<String, Value>> {
        let rows = self.parts.iter().flat_map(|part| part.rows.iter().map(move |row| (part, row)));
        let object = |(idx, (part, row)): (usize, (&Part, &Row))| {
            let mut object: serde_json::Map<String, Value> = finite(&row.values).collect();
            object.insert(part.axis.name().into(), row.step.into());
            object.insert("_step".into(), idx.into());
            object.insert("_timestamp".into(), part.wall_secs.into());
            object.insert("_runtime".into(), (part.wall_secs - self.started_secs).max(0.0).into());
            object
        };
        rows.enumerate().map(object).collect()
    }

    /// The axis of every name.
    pub(crate) fn axes(&self) -> BTreeMap<&str, Axis> {
        let rows = self.parts.iter().flat_map(|part| part.rows.iter().map(move |row| (part.axis, row)));
        rows.flat_map(|(axis, row)| row.values.iter().map(move |(name, _)| (name.as_str(), axis))).collect()
    }

    /// The last value of every name.
    pub(crate) fn summary(&self) -> serde_json::Map<String, Value> {
        self.history().into_iter().flatten().collect()
    }

    /// When the last part was finished.
    pub(crate) fn ended_secs(&self) -> f64 {
        self.parts.iter().map(|part| part.wall_secs).fold(self.started_secs, f64::max)
    }
}

fn finite(values: &[(String, f64)]) -> impl Iterator<Item = (String, Value)> {
    values.iter().filter(|(_, value)| value.is_finite()).map(|(name, value)| (name.clone(), (*value).into()))
}
