//! What trackers are told: files compared with those of the trackers' own writers, and servers that check what they are sent.
mod common;
mod files;
mod mlflow;
mod wandb;
