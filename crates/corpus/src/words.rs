//! Text to the words by which texts are compared: lower case, no punctuation. Knows nothing of scores.

/// The lower-case words of `text`.
pub(crate) fn words(text: &str) -> Vec<String> {
    let is_between = |character: char| !character.is_alphanumeric();
    text.split(is_between).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Whether the words of `needle` stand in a row in `text`. An empty needle is nowhere.
pub(crate) fn mentions(text: &str, needle: &str) -> bool {
    position(&words(text), &words(needle)).is_some()
}

/// Where `needle` first stands in `words`, in words.
pub(crate) fn position(words: &[String], needle: &[String]) -> Option<usize> {
    (!needle.is_empty()).then(|| words.windows(needle.len()).position(|window| window == needle)).flatten()
}

/// The share of the words of `needle` that are anywhere in `words`; 0 when it has none.
pub(crate) fn share(words: &[String], needle: &[String]) -> f64 {
    let n_there = needle.iter().filter(|word| words.contains(word)).count();
    n_there as f64 / needle.len().max(1) as f64
}

/// A title without what tells it from others of the same name: `Up` of `Up (film)`.
pub(crate) fn bare_title(title: &str) -> &str {
    let title = title.trim();
    match title.rfind(" (") {
        Some(open) if title.ends_with(')') && open > 0 => title[..open].trim_end(),
        _ => title,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_compare_by_whole_words() {
        assert!(mentions("Born in Québec-City, 1901.", "QUÉBEC city"));
        assert!(!mentions("He was a Norman.", "Norma") && !mentions("anything", "?!"));
        assert_eq!(share(&words("a b c"), &words("b c d e")), 0.5);
        assert_eq!(share(&words("a"), &[]), 0.0);
        assert_eq!(["Up (film)", "Up", "(untitled)", "A (b) c"].map(bare_title), ["Up", "Up", "(untitled)", "A (b) c"]);
    }
}
