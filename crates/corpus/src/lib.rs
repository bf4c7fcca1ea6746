//! Readers of passages and questions, and the generator of fictional worlds.
