//! Typed access to JSON objects, with errors that name the file and the field.
use crate::ModelError;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Typed access to a JSON object; errors name the file and the field. `null` counts as absent.
pub(crate) struct Fields<'a> {
    pub(crate) path: &'a Path,
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(&self, name: &str, wanted: &str) -> ModelError {
        let found = &self.map[name];
        ModelError::Json { path: self.path.to_owned(), reason: format!("`{name}` is {found}, not {wanted}") }
    }

    pub(crate) fn invalid(&self, reason: String) -> ModelError {
        ModelError::InvalidConfig { path: PathBuf::from(self.path), reason }
    }

    pub(crate) fn unsupported(&self, feature: String) -> ModelError {
        ModelError::UnsupportedFeature { path: PathBuf::from(self.path), feature }
    }

    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) => Ok(Some(count)),
            None => Err(self.wrong(name, "a whole number")),
        }
    }

    pub(crate) fn required_count(&self, name: &str) -> Result<usize, ModelError> {
        self.count(name)?
            .ok_or_else(|| ModelError::Json { path: self.path.to_owned(), reason: format!("it lacks `{name}`") })
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => Ok(Some(number as f32)),
            None => Err(self.wrong(name, "a number")),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(name, "a text"))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, ModelError> {
        let Some(value) = self.get(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(name, "true or false"))
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let texts = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.wrong(name, "a list of texts"))
    }

    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(name, "an object"))?;
        Ok(Some(Fields { path: self.path, map }))
    }

    /// A token id or a list of them.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<u32>, ModelError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let as_id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(items) => items.iter().map(as_id).collect(),
            one => as_id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(name, "a token id or a list of them"))
    }
}

/// What is wrong with the first size that no model has.
pub(crate) fn bad_size(sizes: &[(&str, usize)]) -> Option<String> {
    // 2^30 is beyond any model and keeps every product of two of them within 64 bits.
    sizes.iter().find(|(_, size)| !(1..=1 << 30).contains(size)).map(|(name, size)| format!("{name} is {size}"))
}
