//! Training examples to a trained checkpoint.
