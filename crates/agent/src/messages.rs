//! Trajectories as chats in words, and such chats back to gold trajectories: the form in which people move from other programs
//! to this one and away.
//!
//! A chat is `instruction and question; <QUERY> query; <SEARCH> passages; <FACT> fact, <QUERY> query; ..; <FACT> fact, <FINAL>; answer prompt;
//! answer`, with the marks of the published code, or the paper's `<THINK>` and `<RECORD>`. For text only: what is trained on are the
//! recorded ids, and what is read here is played through [`crate::Agent::replay`] first.
use crate::Protocol;
use crate::parse::{self, Action};
use exsearch_schema::{GoldStep, GoldTrajectory, Message, Role, Trajectory};
use thiserror::Error;

/// Why a chat is no whole trajectory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChatFault {
    /// A question and a ranking: a select turn.
    #[error("it is a select turn, which is no trajectory")]
    SelectTurn,
    /// The first message of the user names no question.
    #[error("no question: the first message has neither `<USER QUERY>` nor `Question:`")]
    NoQuestion,
    /// No turn of the model is there, or the first has no known mark.
    #[error("the model's first turn has none of the marks <QUERY>, <THINK>, <think> and the like")]
    NoMarks,
    /// The model was made to answer, or wrote something else.
    #[error("turn {turn} of the model has neither a query nor the end of the search")]
    NoQuery {
        /// Which, from 1.
        turn: usize,
    },
    /// Nothing was recorded of a search.
    #[error("step {step} has no fact")]
    NoFact {
        /// Which, from 1.
        step: usize,
    },
    /// There is no answer behind the end of the search.
    #[error("no answer follows the end of the search")]
    NoAnswer,
}

impl Protocol {
    /// Our wording with the marks of the published code and its way to show passages.
    pub fn reference() -> Self {
        Self::marked("<QUERY>", "<FACT>")
    }

    /// The same with the paper's marks (arXiv 2505.20128 section 3).
    pub fn paper() -> Self {
        Self::marked("<THINK>", "<RECORD>")
    }

    fn marked(think: &str, record: &str) -> Self {
        Self {
            think: think.to_owned(),
            record: record.to_owned(),
            r#final: "<FINAL>".to_owned(),
            search: "<SEARCH>".to_owned(),
            passage: "[{rank}] Title: {title}. Content: {text}".to_owned(),
            ..Self::default()
        }
    }

    /// The steps of a trajectory as a chat in this wording, with `answer` at its end. What broke the protocol is not in it.
    pub fn messages(&self, trajectory: &Trajectory, answer: &str) -> Vec<Message> {
        let mut messages = vec![Message::user(self.instruction(&trajectory.question, true))];
        let mut record: Option<&str> = None;
        let turn = |record: Option<&str>, action: String| {
            let evidence = record.map(|record| format!("{} {}\n", self.record, parse::one_line(record)));
            Message::assistant(evidence.unwrap_or_default() + &action)
        };
        for step in &trajectory.steps {
            messages.push(turn(record, format!("{} {}", self.think, parse::one_line(&step.query))));
            messages.push(Message::user(self.results(&step.hits)));
            record = step.record.as_deref();
        }
        messages.push(turn(record, self.r#final.clone()));
        messages.push(Message::user(self.answer(&trajectory.question)));
        messages.push(Message::assistant(answer));
        messages
    }
}

/// Reads a chat with the marks of the published code, the paper or this program. What was shown is left out: its ids are not in the
/// text, and a replay shows what the retriever in use finds.
pub fn read_messages(id: &str, messages: &[Message]) -> Result<GoldTrajectory, ChatFault> {
    let said: Vec<&str> = of_role(messages, Role::Assistant).collect();
    let first = said.first().ok_or(ChatFault::NoMarks)?;
    let is_ranking = first.contains('[') && first.chars().all(|c| c.is_ascii_digit() || "[]> \n".contains(c));
    if said.len() == 1 && is_ranking {
        return Err(ChatFault::SelectTurn);
    }
    let protocols = [Protocol::reference(), Protocol::paper(), Protocol::default()];
    let is_spoken = |protocol: &&Protocol| first.contains(&protocol.think) || first.contains(&protocol.r#final);
    let protocol = protocols.iter().find(is_spoken).ok_or(ChatFault::NoMarks)?;
    let question = of_role(messages, Role::User).find_map(question).ok_or(ChatFault::NoQuestion)?;
    let mut steps: Vec<GoldStep> = Vec::new();
    let mut answer = None;
    for (turn_idx, text) in said.iter().enumerate() {
        let parsed = parse::search_turn(protocol, text);
        if let (Some(record), Some(step)) = (parsed.record, steps.last_mut()) {
            step.fact = parse::one_line(record);
        }
        match parsed.action {
            Action::Think(query) if !query.is_empty() => {
                steps.push(GoldStep { query: query.to_owned(), docs: Vec::new(), fact: String::new() });
            }
            Action::Final => {
                let behind = text.split_once(protocol.r#final.as_str()).map_or("", |(_, behind)| behind);
                answer = said.get(turn_idx + 1).copied().or(Some(behind));
                break;
            }
            Action::Think(_) | Action::None => return Err(ChatFault::NoQuery { turn: turn_idx + 1 }),
        }
    }
    if let Some(step_idx) = steps.iter().position(|step| step.fact.is_empty()) {
        return Err(ChatFault::NoFact { step: step_idx + 1 });
    }
    let answer = answer.map(parse::one_line).filter(|answer| !answer.is_empty()).ok_or(ChatFault::NoAnswer)?;
    if steps.is_empty() {
        return Err(ChatFault::NoQuery { turn: 1 });
    }
    Ok(GoldTrajectory { id: id.to_owned(), question, steps, answer, dataset: None })
}

fn of_role(messages: &[Message], role: Role) -> impl Iterator<Item = &str> {
    messages.iter().filter(move |message| message.role == role).map(|message| message.content.as_str())
}

/// The question in the first message.
fn question(text: &str) -> Option<String> {
    let published = || {
        let (_, behind) = text.rsplit_once("<USER QUERY>")?;
        Some(behind.rsplit_once("Your Output:").map_or(behind, |(question, _)| question))
    };
    let ours = || Some(text.rsplit_once("Question:")?.1.lines().next().unwrap_or_default());
    published().or_else(ours).map(parse::one_line).filter(|question| !question.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsearch_schema::{Hit, Outcome, Step};

    fn trajectory() -> Trajectory {
        let hit = Hit { id: "7".into(), title: "Low Tide".into(), text: "A song by Jon Falk.".into(), score: 1.0 };
        let step = |query: &str, hits: Vec<Hit>, record: &str| Step {
            query: query.to_owned(),
            hits,
            select: None,
            record: Some(record.to_owned()),
        };
        Trajectory {
            question_id: "q1".into(),
            question: "Whom did the singer of Low Tide marry?".into(),
            sample_idx: 0,
            seed: 0,
            source: None,
            steps: vec![step("Low Tide singer", vec![hit], "Jon\nFalk"), step("Jon Falk wife", vec![], "Mira Olsen")],
            prediction: Some("Mira".into()),
            outcome: Outcome::Answered,
            incidents: Vec::new(),
            segments: Vec::new(),
            messages: Vec::new(),
            secs: 0.0,
        }
    }

    #[test]
    fn what_is_written_in_any_marks_is_read_back() {
        for protocol in [Protocol::reference(), Protocol::paper(), Protocol::default()] {
            protocol.check().expect("a protocol that an agent could use");
            let messages = protocol.messages(&trajectory(), "Mira Olsen");
            let gold = read_messages("q1", &messages).expect("whole");
            let steps: Vec<_> = gold.steps.iter().map(|step| (step.query.as_str(), step.fact.as_str())).collect();
            assert_eq!(steps, [("Low Tide singer", "Jon Falk"), ("Jon Falk wife", "Mira Olsen")]);
            assert_eq!((gold.question, gold.answer), (trajectory().question, "Mira Olsen".to_owned()));
        }
    }

    #[test]
    fn a_chat_has_the_shape_of_the_published_code() {
        let messages = Protocol::reference().messages(&trajectory(), "Mira Olsen");
        let contents: Vec<_> = messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(
            contents[1..3],
            ["<QUERY> Low Tide singer", "<SEARCH> [1] Title: Low Tide. Content: A song by Jon Falk."]
        );
        assert_eq!(contents[3], "<FACT> Jon Falk\n<QUERY> Jon Falk wife");
        assert_eq!(contents[5], "<FACT> Mira Olsen\n<FINAL>");
        let roles: Vec<_> = messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant].repeat(4));
    }

    #[test]
    fn a_chat_of_the_published_code_is_read() {
        let prompt = "You search.\n(3) <FACT>: Extract.\n\n<USER QUERY> Whom did\nhe marry?\nYour Output:";
        let check = |turns: &[&str], expect: Result<&str, ChatFault>| {
            let mut messages = vec![Message::user(prompt)];
            for turn in turns {
                messages.extend([Message::assistant(*turn), Message::user("<SEARCH> [2, 1] Jon Falk | A singer.")]);
            }
            let read = read_messages("1", &messages);
            if let Ok(gold) = &read {
                assert_eq!(gold.question, "Whom did he marry?");
            }
            assert_eq!(read.map(|gold| gold.answer), expect.map(str::to_owned), "{turns:?}");
        };
        check(&["<QUERY> his wife", "<FACT> Mira Olsen\n<FINAL>", "Mira"], Ok("Mira"));
        check(&["<QUERY> his wife", "<FACT> Mira Olsen\n<FINAL> Mira O."], Ok("Mira O."));
        check(
            &["<QUERY> his wife", "<FACT> \n<QUERY> her", "<FACT> b\n<FINAL>", "c"],
            Err(ChatFault::NoFact { step: 1 }),
        );
        check(&["<QUERY> his wife", "Mira"], Err(ChatFault::NoQuery { turn: 2 }));
        check(&["<QUERY> his wife", "<FACT> b\n<FINAL>"], Err(ChatFault::NoAnswer));
        check(&["<FINAL>", "Mira"], Err(ChatFault::NoQuery { turn: 1 }));
        check(&["[3] > [1]"], Err(ChatFault::SelectTurn));
        check(&["Mira"], Err(ChatFault::NoMarks));
        check(&[], Err(ChatFault::NoMarks));
        let unasked = [Message::user("Hello"), Message::assistant("<THINK> a")];
        assert_eq!(read_messages("1", &unasked), Err(ChatFault::NoQuestion));
    }
}
