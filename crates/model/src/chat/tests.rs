//! Codec tests that need no reference implementation; those against transformers are in tests/golden.rs.
