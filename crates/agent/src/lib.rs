//! The search agent: question in, trajectory out.
