//! Late interaction: token vectors in, passage numbers out.
