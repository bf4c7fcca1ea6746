//! Passages: the unit that is indexed, retrieved and shown to the model.
use serde::{Deserialize, Serialize};

/// A passage's id as its corpus names it. DPR files use decimal numbers, other corpora any string; both are kept as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PassageId(pub String);

/// One passage of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Unique within its corpus.
    pub id: PassageId,
    /// The title of the page it was cut from.
    pub title: String,
    /// Its words, without the title.
    pub text: String,
}

impl std::fmt::Display for PassageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PassageId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

/// Ids are written as strings and read from strings or numbers, since published files use both.
impl<'de> Deserialize<'de> for PassageId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u64),
            Text(String),
        }
        Ok(Self(match Raw::deserialize(deserializer)? {
            Raw::Number(number) => number.to_string(),
            Raw::Text(text) => text,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_from_numbers_and_strings_and_write_as_strings() {
        let id: PassageId = serde_json::from_str("20439").expect("a number is an id");
        assert_eq!(id, PassageId::from("20439"));
        assert_eq!(serde_json::to_string(&id).expect("ids serialize"), "\"20439\"");
        assert_eq!(
            serde_json::from_str::<PassageId>("\"doc-7\"").expect("a string is an id"),
            PassageId::from("doc-7")
        );
    }
}
