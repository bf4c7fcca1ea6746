//! The bearer token that clients must send, if one is set.
use crate::Error;
use subtle::ConstantTimeEq;

/// A secret. It is never logged: not even `Debug` shows it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token of 1 to 4096 visible ASCII characters; space around it, such as a file's last line break, is cut.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let fits = (1..=4096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(Error::Token) }
    }

    /// Whether the value of an `Authorization` header carries the token. Takes the same time wherever they differ (RFC 6750
    /// for the form; the length of the token is no secret).
    pub(crate) fn is_in(&self, authorization: Option<&[u8]>) -> bool {
        let Some((scheme, given)) = authorization.and_then(|value| value.split_at_checked("Bearer ".len())) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(given.trim_ascii().ct_eq(self.0.as_bytes()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_compared_whole_and_never_shown() {
        let token = Token::new("s3cret\n").expect("a token");
        let check = |header: &str, expect| assert_eq!(token.is_in(Some(header.as_bytes())), expect, "{header}");
        check("Bearer s3cret", true);
        check("bearer  s3cret ", true);
        check("Bearer s3cre", false);
        check("Bearer s3cretx", false);
        check("Bearer", false);
        check("Basic s3cret", false);
        check("s3cret", false);
        assert!(!token.is_in(None));
        assert!(!format!("{token:?}").contains("s3cret"));
        assert!(Token::new(" \n").is_err() && Token::new("two words").is_err() && Token::new("é").is_err());
    }
}
