//! TensorBoard's event files: one a part, whole under its final name.
//!
//! TensorBoard reads the files of a folder in the order of their names and the records of each to its end. A file is never changed once
//! it is there, so that a run that goes on after a kill writes no step twice.
//!
//! A file is TFRecords: length u64, masked CRC-32C of the length, an `Event`, masked CRC-32C of it; all little-endian. `Event` has
//! wall_time = 1, step = 2, file_version = 3, summary = 5 (tensorflow/core/util/event.proto, summary.proto).
use crate::crc32c::masked;
use crate::error::TrackError;
use crate::files::write as write_file;
use crate::protobuf::Message;
use crate::record::{Part, RunRecord};
use std::path::Path;

/// Writes the files that are missing in `dir`.
pub(crate) fn write(record: &RunRecord, dir: &Path) -> Result<(), TrackError> {
    let started = record.started_secs as u64;
    let path = |idx: usize, name: &str| dir.join(format!("events.out.tfevents.{started:010}.exsearch.{idx:04}-{name}"));
    let config_path = path(0, "config");
    if !config_path.is_file() {
        write_file(&config_path, &config_file(record))?;
    }
    for (idx, part) in record.parts.iter().enumerate() {
        let path = path(idx + 1, &part.name);
        if !path.is_file() {
            write_file(&path, &part_file(part))?;
        }
    }
    Ok(())
}

fn part_file(part: &Part) -> Vec<u8> {
    let mut file = header(part.wall_secs);
    for row in &part.rows {
        let value = |summary: Message, (name, value): &(String, f64)| {
            summary.message(1, Message::default().text(1, name).float(2, *value as f32))
        };
        let summary = row.values.iter().fold(Message::default(), value);
        push(&mut file, Message::default().double(1, part.wall_secs).varint(2, row.step).message(5, summary));
    }
    file
}

/// The configuration as the text plugin shows it: a string tensor, which is read as Markdown.
fn config_file(record: &RunRecord) -> Vec<u8> {
    let indented: String = record.config_text.lines().map(|line| format!("    {line}\n")).collect();
    let shape = Message::default().message(2, Message::default().varint(1, 1));
    let tensor = Message::default().varint(1, 7).message(2, shape).text(8, &indented);
    let metadata = Message::default().message(1, Message::default().text(1, "text"));
    let value = Message::default().text(1, "config/text_summary").message(8, tensor).message(9, metadata);
    let mut file = header(record.started_secs);
    let summary = Message::default().message(1, value);
    push(&mut file, Message::default().double(1, record.started_secs).varint(2, 0).message(5, summary));
    file
}

fn header(wall_secs: f64) -> Vec<u8> {
    let mut file = Vec::new();
    push(&mut file, Message::default().double(1, wall_secs).text(3, "brain.Event:2"));
    file
}

fn push(file: &mut Vec<u8>, event: Message) {
    let event = event.into_bytes();
    let length = (event.len() as u64).to_le_bytes();
    file.extend_from_slice(&length);
    file.extend_from_slice(&masked(&length).to_le_bytes());
    file.extend_from_slice(&event);
    file.extend_from_slice(&masked(&event).to_le_bytes());
}
