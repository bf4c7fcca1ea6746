//! The `exsearch` command.
fn main() {}
