//! The model's text to what it asks for, and passages to what is shown of them.
//!
//! Pure functions of text: know nothing of tokens or of the state of the dialogue.
use crate::Protocol;
use exsearch_schema::Hit;

/// What a search turn says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchTurn<'a> {
    /// The evidence, absent where the turn has no record mark. May be empty.
    pub(crate) record: Option<&'a str>,
    /// What to do next.
    pub(crate) action: Action<'a>,
}

/// What the model wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    /// To search for this, which may be empty.
    Think(&'a str),
    /// To end the search.
    Final,
    /// Neither was written.
    None,
}

/// What a select turn says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranking {
    /// Positions from 0, best first, each once.
    pub(crate) chosen: Vec<usize>,
    /// Whether every number written named a candidate, none twice, and there was one.
    pub(crate) is_exact: bool,
}

/// Reads `<record> evidence <think> query` or `<record> evidence <final>`. The first think or final mark decides; the
/// query is the rest of its line; a record counts only before it.
pub(crate) fn search_turn<'a>(protocol: &Protocol, text: &'a str) -> SearchTurn<'a> {
    let text = &text[..text.find(&protocol.search).unwrap_or(text.len())];
    let think = text.find(&protocol.think);
    let end = text.find(&protocol.r#final);
    let (action, action_at) = match (think, end) {
        (Some(think), end) if end.is_none_or(|end| think < end) => {
            let after = text[think + protocol.think.len()..].trim_start();
            let after = &after[..next_mark(protocol, after)];
            (Action::Think(after.lines().next().unwrap_or("").trim()), think)
        }
        (_, Some(end)) => (Action::Final, end),
        (_, None) => (Action::None, text.len()),
    };
    let before = &text[..action_at];
    let record = before.find(&protocol.record).map(|at| before[at + protocol.record.len()..].trim());
    SearchTurn { record, action }
}

/// Reads the numbers of `[3] > [1]` or `3>1`. Candidates are shown from 1 and counted from 0 everywhere else: this is the
/// only place that maps one to the other.
pub(crate) fn ranking(text: &str, n_candidates: usize) -> Ranking {
    let mut chosen = Vec::new();
    let mut is_exact = true;
    for digits in text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
        match digits.parse::<usize>() {
            Ok(rank) if (1..=n_candidates).contains(&rank) && !chosen.contains(&(rank - 1)) => chosen.push(rank - 1),
            _ => is_exact = false,
        }
    }
    is_exact &= !chosen.is_empty();
    Ranking { chosen, is_exact }
}

/// A query as it is compared with earlier ones: lower-case words without punctuation.
pub(crate) fn normalized_query(query: &str) -> String {
    let words: Vec<String> =
        query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    words.join(" ")
}

/// A hit as it is shown: one line, cut at whole words.
pub(crate) fn shown_hit(mut hit: Hit, max_words: usize, max_chars: usize) -> Hit {
    hit.title = one_line(&hit.title);
    let words: Vec<&str> = hit.text.split_whitespace().take(max_words).collect();
    let mut text = words.join(" ");
    if let Some((cut, _)) = text.char_indices().nth(max_chars) {
        // Back to a word's end, unless that is all there is.
        let end = if text[cut..].starts_with(' ') { cut } else { text[..cut].rfind(' ').unwrap_or(cut) };
        text.truncate(end);
    }
    hit.text = text;
    hit
}

/// Text with every run of white space as one space.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn next_mark(protocol: &Protocol, text: &str) -> usize {
    let marks = [&protocol.think, &protocol.record, &protocol.r#final];
    marks.into_iter().filter_map(|mark| text.find(mark.as_str())).min().unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_parse() {
        let protocol = Protocol::default();
        let check = |text: &str, record: Option<&str>, action: Action<'_>| {
            assert_eq!(search_turn(&protocol, text), SearchTurn { record, action }, "{text:?}");
        };
        check("<think> who wrote Dune?", None, Action::Think("who wrote Dune?"));
        check("<record> Frank Herbert\n<think> his wife", Some("Frank Herbert"), Action::Think("his wife"));
        check("<record> Beverly\n<final>", Some("Beverly"), Action::Final);
        check("<record><final>", Some(""), Action::Final);
        check("<final> Beverly <think> no", None, Action::Final);
        check("<think> a\n<record> b", None, Action::Think("a"));
        check("<think> a <final>", None, Action::Think("a"));
        check("<think>\nquery below", None, Action::Think("query below"));
        check("<think> query\nand chatter", None, Action::Think("query"));
        check("<think>", None, Action::Think(""));
        check("<think> <think> a", None, Action::Think(""));
        check("<think> a <search> made up <final>", None, Action::Think("a"));
        check("<search> made up <final>", None, Action::None);
        check("It is Paris.", None, Action::None);
        check("<record> only", Some("only"), Action::None);
        check("", None, Action::None);
    }

    /// METHOD.md section 5, defect 4.
    #[test]
    fn candidates_are_shown_from_1_and_counted_from_0() {
        let check = |text: &str, chosen: &[usize], is_exact| {
            assert_eq!(ranking(text, 3), Ranking { chosen: chosen.to_vec(), is_exact }, "{text:?}");
        };
        check("[3] > [1]", &[2, 0], true);
        check("2>1", &[1, 0], true);
        check("[1]", &[0], true);
        check("[4] > [2]", &[1], false);
        check("[0]", &[], false);
        check("[2] > [2] > [1]", &[1, 0], false);
        check("99999999999999999999999", &[], false);
        check("none of them", &[], false);
    }

    #[test]
    fn a_repeated_query_is_seen_through_case_and_punctuation() {
        assert_eq!(normalized_query("Who wrote  \"Dune\"?"), normalized_query("who wrote dune"));
        assert_eq!(normalized_query("?!"), "");
        assert_ne!(normalized_query("Straße 1"), normalized_query("Straße 2"));
    }

    #[test]
    fn passages_are_shown_on_one_line_and_cut_at_words() {
        let check = |text: &str, max_words, max_chars, expect: &str| {
            let hit = Hit { id: "1".into(), title: "A\nB".to_owned(), text: text.to_owned(), score: 1.0 };
            let shown = shown_hit(hit, max_words, max_chars);
            assert_eq!((shown.title.as_str(), shown.text.as_str()), ("A B", expect));
        };
        check("one two\n three", 9, 99, "one two three");
        check("one two three", 2, 99, "one two");
        check("one two three", 9, 7, "one two");
        check("one two three", 9, 9, "one two");
        check("東京東京東京", 9, 4, "東京東京");
    }
}
