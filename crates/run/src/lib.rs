//! The EM loop over all stages, its run folder, and the report.
//!
//! Each stage leaves its artifact under its final name only when it is complete, so that a killed run continues at the first
//! stage whose artifact is missing and ends as if it had never been killed.
mod config;
mod em;
mod error;
mod evidence;
mod files;
mod folder;
mod messages;
mod packing;
pub mod report;
mod sampling;
mod summary;
mod teacher;
mod training;
mod warmup;
mod workbench;

pub use config::{DataConfig, EmConfig, RunConfig, TestConfig, parse};
pub use em::{Event, OnEvent, run};
pub use error::RunError;
pub use files::{read_json, read_jsonl, write_json, write_jsonl};
pub use messages::{ExportStats, ImportStats, MessagesRow, export, import, write_messages};
pub use packing::pack;
pub use sampling::{LanguageModel, SampleProgress, SampleTask, Sampled, sample, sample_with};
pub use summary::{Outcome, StageSummary, report_of};
pub use teacher::{
    AnswerRule, Budget, Rejected, Rejection, Spent, Taught, TeacherProgress, TeacherStats, TeacherTask, Validation,
    teach,
};
pub use training::train_checkpoint;
pub use warmup::{WarmupStats, draw, evidence_shown, read_gold, replay};
pub use workbench::{Device, GeneratorConfig, LocalEngine, Policy};
