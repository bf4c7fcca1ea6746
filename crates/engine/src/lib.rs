//! Generation and scoring with a local model, many sequences at once.
