//! A key that never shows: not when printed, not in an error.
use std::fmt;

/// A key or token. `Debug` and `Display` write `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a key; spaces and line breaks around it are taken off, as files have them.
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }

    /// The key, to be sent.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The text without the key, should a server have repeated it.
    pub(crate) fn scrub(&self, text: &str) -> String {
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
