//! Parts of a decomposition to queries in words: references to earlier answers filled in, relations said as questions.

/// Wikidata's relations, as MuSiQue and 2WikiMultihopQA name them, as questions. Others become `What is the RELATION of SUBJECT?`.
const QUESTIONS: &[(&str, &str)] = &[
    ("applies to jurisdiction", "Which jurisdiction does {} apply to?"),
    ("author", "Who wrote {}?"),
    ("award received", "Which award did {} receive?"),
    ("capital of", "What is {} the capital of?"),
    ("cause of death", "What did {} die of?"),
    ("child", "Who is a child of {}?"),
    ("composer", "Who composed {}?"),
    ("conflict", "Which war did {} fight in?"),
    ("continent", "Which continent is {} on?"),
    ("country", "Which country is {} in?"),
    ("country of citizenship", "Which country is {} a citizen of?"),
    ("country of origin", "Which country is {} from?"),
    ("creator", "Who created {}?"),
    ("date of birth", "When was {} born?"),
    ("date of death", "When did {} die?"),
    ("developer", "Who developed {}?"),
    ("director", "Who directed {}?"),
    ("educated at", "Where was {} educated?"),
    ("employer", "Who employed {}?"),
    ("father", "Who is the father of {}?"),
    ("followed by", "What came after {}?"),
    ("follows", "What came before {}?"),
    ("founded by", "Who founded {}?"),
    ("headquarters location", "Where are the headquarters of {}?"),
    ("inception", "When was {} founded?"),
    ("instance of", "What is {}?"),
    ("licensed to broadcast to", "Where is {} licensed to broadcast?"),
    ("located in or next to body of water", "Which body of water is {} next to?"),
    ("located in the administrative territorial entity", "Which county, state or region is {} in?"),
    ("located on terrain feature", "Which terrain feature is {} on?"),
    ("location", "Where is {}?"),
    ("location of formation", "Where was {} formed?"),
    ("manufacturer", "Who makes {}?"),
    ("member of", "What is {} a member of?"),
    ("member of political party", "Which political party is {} a member of?"),
    ("member of sports team", "Which team does {} play for?"),
    ("mother", "Who is the mother of {}?"),
    ("mouth of the watercourse", "Where does {} flow into?"),
    ("named after", "What is {} named after?"),
    ("original language of film or TV show", "What is the original language of {}?"),
    ("owned by", "Who owns {}?"),
    ("part of", "What is {} part of?"),
    ("performer", "Who performed {}?"),
    ("place of birth", "Where was {} born?"),
    ("place of burial", "Where was {} buried?"),
    ("place of death", "Where did {} die?"),
    ("position held", "Which position did {} hold?"),
    ("producer", "Who produced {}?"),
    ("publication date", "When was {} released?"),
    ("publisher", "Who published {}?"),
    ("residence", "Where did {} live?"),
    ("screenwriter", "Who wrote the screenplay of {}?"),
    ("shares border with", "What shares a border with {}?"),
    ("sibling", "Who is a sibling of {}?"),
    ("sport", "Which sport does {} play?"),
    ("spouse", "Who is married to {}?"),
];

/// The question for the object of a triple.
pub(super) fn question(subject: &str, relation: &str) -> String {
    let (subject, relation) = (subject.trim(), relation.trim());
    match QUESTIONS.iter().find(|(name, _)| *name == relation) {
        Some((_, template)) => template.replace("{}", subject),
        None => format!("What is the {relation} of {subject}?"),
    }
}

/// A part of MuSiQue, `#1` and so on filled in; `None` where one names a step that is not earlier.
pub(super) fn resolve(part: &str, answers: &[String]) -> Option<String> {
    let mut filled = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('#') {
        let after = &rest[at + 1..];
        let n_digits = after.bytes().take_while(u8::is_ascii_digit).count();
        filled.push_str(&rest[..at]);
        if n_digits == 0 {
            filled.push('#');
        } else {
            let number: usize = after[..n_digits].parse().ok()?;
            filled.push_str(answers.get(number.checked_sub(1)?)?.trim());
        }
        rest = &after[n_digits..];
    }
    filled.push_str(rest);
    // MuSiQue sets references apart: "who is #1 's son ?".
    Some(filled.replace(" ?", "?").replace(" 's", "'s").replace(" ,", ",").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_become_questions() {
        assert_eq!(question("Up", "director"), "Who directed Up?");
        assert_eq!(question(" Rome ", "head of government"), "What is the head of government of Rome?");
    }

    #[test]
    fn references_are_filled_in_from_earlier_answers() {
        let answers = ["Ann Lee".to_owned(), " Oslo".to_owned()];
        let check = |part: &str, expect: Option<&str>| assert_eq!(resolve(part, &answers).as_deref(), expect, "{part}");
        check("who is #1 's son in #2 ?", Some("who is Ann Lee's son in Oslo?"));
        check("#1 >> spouse", Some("Ann Lee >> spouse"));
        check("the # sign", Some("the # sign"));
        for part in ["#3 >> spouse", "#0", "#99999999999999999999999"] {
            check(part, None);
        }
    }
}
