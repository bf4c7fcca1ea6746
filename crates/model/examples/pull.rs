//! Pulls a model: `cargo run --release -p exsearch-model --example pull -- smollm2-135m FOLDER`.
use exsearch_model::pull::{PullOptions, pull};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [spec, dest_root] = arguments.as_slice() else {
        return Err("give a model and the folder to put it into".into());
    };
    let start = std::time::Instant::now();
    let mut stdout = std::io::stdout();
    let folder = pull(spec, dest_root.as_ref(), &PullOptions::default(), &mut |progress| {
        // A closed pipe is no reason to stop.
        let _ = writeln!(stdout, "{:6.2} s  {progress:?}", start.elapsed().as_secs_f32());
    })?;
    writeln!(std::io::stdout(), "{:6.2} s  {}", start.elapsed().as_secs_f32(), folder.display())?;
    Ok(())
}
