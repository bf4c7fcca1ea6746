//! Weights & Biases: its offline files, and its server.
//!
//! Both hold the same rows: one for each row of the record, counted by `_step`, with a column for its place on its own axis (optimizer
//! steps or stages).
mod offline;
mod online;

pub(crate) use offline::write as write_offline;
pub(crate) use online::{authorization, send};
