//! A key that never shows: not when printed, not in an error.
use crate::BadSetting;
use std::fmt;
use std::path::Path;

/// A key or token. `Debug` and `Display` write `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a key; spaces and line breaks around it are taken off, as files have them.
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }

    /// The key that a config names by a variable of the environment or by a file, if it names one. `variable` looks a variable up.
    pub fn named(
        key_env: Option<&str>,
        key_file: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, BadSetting> {
        let refuse = |what: String, reason: &str| Err(BadSetting { what, reason: reason.to_owned() });
        let key = match (key_env, key_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return refuse("key_env and key_file".to_owned(), "give one of them"),
            (Some(name), None) => match variable(name) {
                Some(key) => key,
                None => return refuse(format!("environment variable {name}"), "it is not set; it should hold the key"),
            },
            (None, Some(path)) => match std::fs::read_to_string(path) {
                Ok(key) => key,
                Err(error) => return refuse(format!("key file {}", path.display()), &error.to_string()),
            },
        };
        let is_header = |letter: char| letter.is_ascii_graphic();
        if key.trim().is_empty() || !key.trim().chars().all(is_header) {
            return refuse("key".to_owned(), "it is empty, or holds spaces or letters that no key has");
        }
        Ok(Some(Self::new(&key)))
    }

    /// The key, to be sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text without the key, should a server have repeated it.
    pub fn scrub(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "[redacted]") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let secret = Secret::new(" k-123\n");
        assert_eq!(secret.expose(), "k-123");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "[redacted] [redacted] Some([redacted])");
        assert_eq!(secret.scrub("bad key k-123!"), "bad key [redacted]!");
        assert_eq!(Secret::new("").scrub("text"), "text");
    }
}
