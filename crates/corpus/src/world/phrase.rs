//! Relations as words: gold queries, noun phrases and questions. `{}` is the subject.
//!
//! Patterns in which something follows the subject ("the city where {} was born") take a bare name only; wrapped around
//! a longer phrase they would be hard to read.
use super::facts::{Kind, Relation};
use super::random::Random;

/// The patterns of a relation: those for any subject, then those for a bare name.
struct Patterns {
    any: &'static [&'static str],
    name_only: &'static [&'static str],
}

/// The gold query of one step, uniform so that a small model learns it from few examples: `mother of James Stone`.
pub(crate) fn query(relation: Relation, kind: Kind, name: &str) -> String {
    format!("{} of {name}", keyword(relation, kind))
}

/// The one word or two that gold queries use for a relation.
pub(crate) fn keyword(relation: Relation, kind: Kind) -> &'static str {
    match relation {
        Relation::Mother => "mother",
        Relation::Father => "father",
        Relation::Spouse => "spouse",
        Relation::Employer => "employer",
        Relation::Job => "job",
        Relation::Birthplace => "birthplace",
        Relation::BirthYear => "birth year",
        Relation::Founder => "founder",
        Relation::Boss => "boss",
        Relation::Headquarters => "headquarters",
        Relation::FoundingYear => "founding year",
        Relation::Mayor => "mayor",
        Relation::Region => "region",
        Relation::Capital => "capital",
        Relation::Governor => "governor",
        Relation::ReleaseYear => "release year",
        Relation::Setting => "setting",
        Relation::Label => "label",
        Relation::Creator => match kind {
            Kind::Book => "author",
            Kind::Film => "director",
            _ => "singer",
        },
    }
}

/// The gold query for the one person who was born in a city and works for a company.
pub(crate) fn pair_query(city: &str, company: &str) -> String {
    format!("person born in {city} who works for {company}")
}

/// The subject's relation as a phrase: "the mother of James Stone". `is_name` says that the subject is a bare name.
pub(crate) fn noun_phrase(relation: Relation, kind: Kind, subject: &str, is_name: bool, random: &mut Random) -> String {
    choose(noun_patterns(relation, kind), subject, is_name, random)
}

/// A question for the subject's relation: "Who is the mother of James Stone?".
pub(crate) fn question(relation: Relation, kind: Kind, subject: &str, is_name: bool, random: &mut Random) -> String {
    choose(question_patterns(relation, kind), subject, is_name, random)
}

/// Which of two was born, founded or released earlier (or later).
pub(crate) fn comparison(kind: Kind, earlier: bool, names: [&str; 2], random: &mut Random) -> String {
    let [first, second] = names;
    let patterns: &[&str] = match (kind, earlier) {
        (Kind::Woman | Kind::Man, true) => &["Who was born earlier, {1} or {2}?", "Who is older, {1} or {2}?"],
        (Kind::Woman | Kind::Man, false) => &["Who was born later, {1} or {2}?", "Who is younger, {1} or {2}?"],
        (Kind::City, true) => &["Which city was founded earlier, {1} or {2}?", "Which city is older, {1} or {2}?"],
        (Kind::City, false) => &["Which city was founded later, {1} or {2}?", "Which city is younger, {1} or {2}?"],
        (Kind::Company, true) => {
            &["Which company was founded earlier, {1} or {2}?", "Which company is older, {1} or {2}?"]
        }
        (Kind::Company, false) => {
            &["Which company was founded later, {1} or {2}?", "Which company is younger, {1} or {2}?"]
        }
        (_, true) => &["Which came out earlier, {1} or {2}?", "Which was released first, {1} or {2}?"],
        (_, false) => &["Which came out later, {1} or {2}?", "Which was released last, {1} or {2}?"],
    };
    random.pick(patterns).replace("{1}", first).replace("{2}", second)
}

/// Who was born in one place and works for one company, either of them a name or a phrase.
pub(crate) fn pair_question(city: &str, company: &str, random: &mut Random) -> String {
    let patterns = [
        "Which person born in {1} works for {2}?",
        "Who was born in {1} and works for {2}?",
        "Who works for {2} and was born in {1}?",
    ];
    random.pick(&patterns).replace("{1}", city).replace("{2}", company)
}

fn choose(patterns: Patterns, subject: &str, is_name: bool, random: &mut Random) -> String {
    let name_only = if is_name { patterns.name_only } else { &[] };
    // No "the city where Rapid Labs is based based?".
    let stutters = |pattern: &&str| {
        let (_, behind) = pattern.split_once("{}").expect("a pattern has a subject");
        let next_word = behind.split([' ', '?']).find(|word| !word.is_empty());
        next_word.is_some() && next_word == subject.split(' ').next_back()
    };
    let usable: Vec<_> = patterns.any.iter().chain(name_only).copied().filter(|pattern| !stutters(pattern)).collect();
    random.pick(&usable).replace("{}", subject)
}

#[rustfmt::skip]
fn noun_patterns(relation: Relation, kind: Kind) -> Patterns {
    let (any, name_only): (&[_], &[_]) = match relation {
        Relation::Mother => (&["the mother of {}"], &["{}'s mother"]),
        Relation::Father => (&["the father of {}"], &["{}'s father"]),
        Relation::Spouse => (&["the spouse of {}", "the person married to {}"], &["{}'s spouse"]),
        Relation::Employer => (&["the employer of {}"], &["the company that {} works for", "{}'s employer"]),
        Relation::Job => (&["the job of {}"], &["{}'s job"]),
        Relation::Birthplace => (&["the birthplace of {}"], &["the city where {} was born", "{}'s birthplace"]),
        Relation::BirthYear => (&["the birth year of {}"], &["{}'s birth year"]),
        Relation::Founder => (&["the founder of {}", "the person who founded {}"], &[]),
        Relation::Boss => (&["the boss of {}", "the person who runs {}"], &[]),
        Relation::Headquarters => (&["the headquarters city of {}"], &["the city where {} is based"]),
        Relation::FoundingYear => (&["the founding year of {}"], &[]),
        Relation::Mayor => (&["the mayor of {}"], &[]),
        Relation::Region => (&["the region of {}"], &["the region that {} lies in"]),
        Relation::Capital => (&["the capital of {}"], &[]),
        Relation::Governor => (&["the governor of {}"], &[]),
        Relation::ReleaseYear => (&["the release year of {}"], &[]),
        Relation::Setting => (&["the setting of {}"], &["the city where {} is set"]),
        Relation::Label => (&["the label of {}"], &[]),
        Relation::Creator => match kind {
            Kind::Book => (&["the author of {}", "the person who wrote {}"], &[]),
            Kind::Film => (&["the director of {}", "the person who directed {}"], &[]),
            _ => (&["the singer of {}", "the person who sang {}"], &[]),
        },
    };
    Patterns { any, name_only }
}

#[rustfmt::skip]
fn question_patterns(relation: Relation, kind: Kind) -> Patterns {
    let (any, name_only): (&[_], &[_]) = match relation {
        Relation::Mother => (&["Who is the mother of {}?", "What is the name of the mother of {}?"], &["Who is {}'s mother?"]),
        Relation::Father => (&["Who is the father of {}?", "What is the name of the father of {}?"], &["Who is {}'s father?"]),
        Relation::Spouse => (&["Who is the spouse of {}?", "Who is married to {}?"], &["Who is {}'s spouse?"]),
        Relation::Employer => (&["What is the employer of {}?", "Which company employs {}?"], &["Which company does {} work for?"]),
        Relation::Job => (&["What is the job of {}?"], &["What does {} do for a living?", "What is {}'s job?"]),
        Relation::Birthplace => (&["What is the birthplace of {}?", "In which city was {} born?"], &["Where was {} born?"]),
        Relation::BirthYear => (&["When was {} born?", "In which year was {} born?", "What is the birth year of {}?"], &[]),
        Relation::Founder => (&["Who is the founder of {}?", "Who founded {}?"], &[]),
        Relation::Boss => (&["Who is the boss of {}?", "Who runs {}?"], &[]),
        Relation::Headquarters => (&["Where are the headquarters of {}?", "In which city is {} based?"], &["Where is {} based?"]),
        Relation::FoundingYear => (&["When was {} founded?", "In which year was {} founded?", "What is the founding year of {}?"], &[]),
        Relation::Mayor => (&["Who is the mayor of {}?", "What is the name of the mayor of {}?"], &[]),
        Relation::Region => (&["In which region is {}?", "What is the region of {}?"], &["Which region does {} lie in?"]),
        Relation::Capital => (&["What is the capital of {}?", "Which city is the capital of {}?"], &[]),
        Relation::Governor => (&["Who is the governor of {}?", "What is the name of the governor of {}?"], &[]),
        Relation::ReleaseYear => (&["When did {} come out?", "In which year was {} released?"], &[]),
        Relation::Setting => (&["In which city is {} set?", "What is the setting of {}?"], &["Where is {} set?"]),
        Relation::Label => (&["What is the label of {}?", "Which company is the label of {}?"], &[]),
        Relation::Creator => match kind {
            Kind::Book => (&["Who is the author of {}?", "Who wrote {}?"], &[]),
            Kind::Film => (&["Who is the director of {}?", "Who directed {}?"], &[]),
            _ => (&["Who is the singer of {}?", "Who sang {}?"], &[]),
        },
    };
    Patterns { any, name_only }
}
