//! `wandb/offline-run-<time>-<id>/run-<id>.wandb`, as `wandb sync` reads it.
//!
//! The file is `:W&B`, 0xbee1 as u16, version 0 as u8, then LevelDB's log format (github.com/google/leveldb, doc/log_format.md) with a
//! plain CRC-32 of type and data: blocks of 32 KiB, the first of which holds those seven bytes too. A record is a `Record` of
//! wandb/proto/wandb_internal.proto. It is written anew from the whole record: a run that goes on ends with the same file.
use crate::config::WandbConfig;
use crate::error::TrackError;
use crate::files::write as write_file;
use crate::protobuf::Message;
use crate::record::RunRecord;
use serde_json::{Map, Value};
use std::path::Path;

const BLOCK_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 7;
/// Fields of `Record`.
const HISTORY: u32 = 2;
const SUMMARY: u32 = 3;
const CONFIG: u32 = 5;
const METRIC: u32 = 12;
const RUN: u32 = 17;
const EXIT: u32 = 18;
const HEADER: u32 = 21;
const FOOTER: u32 = 22;

/// Writes the run's folder in `dir`.
pub(crate) fn write(record: &RunRecord, config: &WandbConfig, dir: &Path) -> Result<(), TrackError> {
    let id = &record.id;
    let folder = dir.join(format!("offline-run-{}-{id}", compact_time(record.started_secs as u64)));
    write_file(&folder.join(format!("run-{id}.wandb")), &file(record, config))
}

fn file(record: &RunRecord, config: &WandbConfig) -> Vec<u8> {
    let mut log = Log::new();
    log.push(HEADER, Message::default());
    log.push(RUN, run(record, config));
    log.push(CONFIG, items(record.config.as_object().unwrap_or(&Map::new())));
    for (name, axis) in record.axes() {
        let is_defined = Message::default().varint(3, 1);
        log.push(METRIC, Message::default().text(1, name).text(4, axis.name()).message(6, is_defined));
    }
    for row in record.history() {
        let step = Message::default().varint(1, row["_step"].as_u64().expect("a count"));
        log.push(HISTORY, items(&row).message(2, step));
    }
    log.push(SUMMARY, items(&record.summary()));
    if record.is_finished {
        let runtime = (record.ended_secs() - record.started_secs) as u64;
        log.push(EXIT, Message::default().varint(1, 0).varint(2, runtime));
        log.push(FOOTER, Message::default());
    }
    log.bytes
}

fn run(record: &RunRecord, config: &WandbConfig) -> Message {
    let started =
        Message::default().varint(1, record.started_secs as u64).varint(2, (record.started_secs.fract() * 1e9) as u64);
    let mut run = Message::default().text(1, &record.id);
    if let Some(entity) = &config.entity {
        run = run.text(2, entity);
    }
    run.text(3, &config.project).text(8, &record.name).message(17, started)
}

/// Keys and their values as JSON: what history, summary and configuration have in common.
fn items(fields: &Map<String, Value>) -> Message {
    let item = |(key, value): (&String, &Value)| Message::default().text(1, key).text(16, &value.to_string());
    fields.iter().map(item).fold(Message::default(), |all, item| all.message(1, item))
}

/// The file as it grows.
struct Log {
    bytes: Vec<u8>,
    n_records: u64,
}

impl Log {
    fn new() -> Self {
        let mut bytes = b":W&B".to_vec();
        bytes.extend_from_slice(&0xbee1_u16.to_le_bytes());
        bytes.push(0);
        Self { bytes, n_records: 0 }
    }

    fn push(&mut self, field: u32, message: Message) {
        self.n_records += 1;
        self.append(&Message::default().varint(1, self.n_records).message(field, message).into_bytes());
    }

    /// Cuts data into the pieces that blocks take. Types: 1 whole, 2 first, 3 middle, 4 last.
    fn append(&mut self, mut data: &[u8]) {
        let mut is_first = true;
        loop {
            let mut room = BLOCK_BYTES - self.bytes.len() % BLOCK_BYTES;
            if room < HEADER_BYTES {
                self.bytes.resize(self.bytes.len() + room, 0);
                room = BLOCK_BYTES;
            }
            let (piece, rest) = data.split_at(data.len().min(room - HEADER_BYTES));
            let kind: u8 = match (is_first, rest.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let mut sum = crc32fast::Hasher::new();
            sum.update(&[kind]);
            sum.update(piece);
            self.bytes.extend_from_slice(&sum.finalize().to_le_bytes());
            self.bytes.extend_from_slice(&(piece.len() as u16).to_le_bytes());
            self.bytes.push(kind);
            self.bytes.extend_from_slice(piece);
            if rest.is_empty() {
                return;
            }
            (data, is_first) = (rest, false);
        }
    }
}

/// `20261121_193131` in UTC. The date as in "chrono-compatible low-level date algorithms" by H. Hinnant, `civil_from_days`.
fn compact_time(secs: u64) -> String {
    let (days, of_day) = (secs / 86_400 + 719_468, secs % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_wandb_does() {
        assert_eq!(compact_time(0), "19700101_000000");
        assert_eq!(compact_time(951_782_400 + 3_661), "20000229_010101");
        assert_eq!(compact_time(1_795_289_491), "20261121_193131");
    }

    /// Reads the pieces back by the format's rules.
    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut at, mut records, mut open) = (HEADER_BYTES, Vec::new(), Vec::new());
        while at < bytes.len() {
            let room = BLOCK_BYTES - at % BLOCK_BYTES;
            if room < HEADER_BYTES {
                assert!(bytes[at..at + room].iter().all(|byte| *byte == 0), "padding");
                at += room;
                continue;
            }
            let length = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
            let piece = &bytes[at + HEADER_BYTES..at + HEADER_BYTES + length];
            let kind = bytes[at + 6];
            assert!(at % BLOCK_BYTES + HEADER_BYTES + length <= BLOCK_BYTES, "a piece stays in its block");
            assert_eq!(matches!(kind, 1 | 2), open.is_empty(), "a record begins where the one before has ended");
            open.extend_from_slice(piece);
            if matches!(kind, 1 | 4) {
                records.push(std::mem::take(&mut open));
            }
            at += HEADER_BYTES + length;
        }
        records
    }

    #[test]
    fn records_of_any_length_come_back() {
        let lengths = [1, 32_747, 3, 10, 32_761, 32_762, 100_000, 65_000, 2, 98_283];
        let mut log = Log::new();
        let data: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![length as u8 | 1; length]).collect();
        data.iter().for_each(|data| log.append(data));
        assert_eq!(records(&log.bytes), data);
    }
}
