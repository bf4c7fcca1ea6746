//! A model's folder or name -> its folder on this machine. Fetches nothing.
use crate::environment;
use anyhow::bail;
use std::path::{Path, PathBuf};

/// The folder of a model: `model` itself when it is a folder, else what `model pull` made for this name in `models_dir`,
/// unset: where it puts models unless told otherwise.
pub(crate) fn find(model: &str, models_dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    let given = Path::new(model);
    if given.is_dir() {
        return Ok(given.to_owned());
    }
    let models_dir = models_dir.map_or_else(environment::models_dir, Path::to_owned);
    let pulled = models_dir.join(model.trim_end_matches("@main").replace('/', "--"));
    if pulled.is_dir() {
        return Ok(pulled);
    }
    let advice = "give a model folder, or fetch the model with `exsearch model pull`";
    bail!("{model} is no folder, and there is no {}; {advice}", pulled.display())
}
