//! The index through its public interface: what it finds, what it survives, what it refuses.
mod build;
mod changes;
mod damage;
mod format;
mod refusals;
mod search;
mod world;
