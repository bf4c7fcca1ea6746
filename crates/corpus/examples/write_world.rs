//! Writes the default world of a seed into a folder: `write_world FOLDER [SEED]`.
use exsearch_corpus::{World, WorldConfig};
use std::error::Error;
use std::io::Write;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: write_world FOLDER [SEED]")?;
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse())?;
    let started = Instant::now();
    let world = World::generate(&WorldConfig { seed, ..WorldConfig::default() })?;
    let generated_ms = started.elapsed().as_secs_f64() * 1e3;
    let summary = world.write(dir)?;
    writeln!(std::io::stdout(), "generated in {generated_ms:.1} ms: {summary:#?}")?;
    Ok(())
}
