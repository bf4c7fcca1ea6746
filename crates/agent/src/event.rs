//! What happens while trajectories are made: for live display, and to write each one down as it ends.
use exsearch_schema::{Hit, Incident, Trajectory};

/// Something happened in a trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The position of its job in the list given.
    pub job_idx: usize,
    /// What happened.
    pub kind: EventKind,
}

/// What happened. Steps count from 0.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The model is asked for its next search turn.
    StepStarted {
        /// The step that the turn may open.
        step_idx: usize,
    },
    /// The model wrote a query.
    Query {
        /// Its step.
        step_idx: usize,
        /// Its text.
        query: String,
    },
    /// Passages were shown.
    Hits {
        /// Their step.
        step_idx: usize,
        /// As shown.
        hits: Vec<Hit>,
    },
    /// The model wrote down evidence.
    Record {
        /// The step whose passages it is from.
        step_idx: usize,
        /// The evidence.
        record: String,
    },
    /// Something went wrong; the trajectory goes on or ends, but is kept.
    Incident(Incident),
    /// The model answered.
    Answer {
        /// The prediction.
        text: String,
    },
    /// The trajectory is over. It belongs to the receiver.
    Done(Box<Trajectory>),
}
