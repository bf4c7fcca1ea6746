//! What needs no reference implementation; tests/chat_golden.rs compares with transformers.
use super::{ChatTemplate, HfChat, RenderOptions};
use crate::ModelError;
use exsearch_schema::Message;
use std::path::Path;

fn render(source: &str, now_unix_secs: Option<i64>) -> Result<String, ModelError> {
    let template = ChatTemplate::from_source(Path::new("folder/chat_template.jinja"), source.to_owned())?;
    template.render(&[Message::user("hi")], &RenderOptions { now_unix_secs, ..RenderOptions::default() })
}

fn check(source: &str, now_unix_secs: Option<i64>, expected: &str) {
    assert_eq!(render(source, now_unix_secs).expect("it renders"), expected, "{source}");
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (now, expected) in [
        (0, "Thu 1970-01-01 00:00:00"),
        (951_782_400, "Tue 2000-02-29 00:00:00"),
        (1_709_251_199, "Thu 2024-02-29 23:59:59"),
        (4_107_542_400, "Mon 2100-03-01 00:00:00"),
    ] {
        check("{{ strftime_now('%a %Y-%m-%d %H:%M:%S') }}", Some(now), expected);
    }
    check("{{ strftime_now('%-d %B, %I %p') }}", Some(1_709_251_199), "29 February, 11 PM");
    let error = render("{{ strftime_now('%Q') }}", Some(0)).expect_err("no such code").to_string();
    assert!(error.contains("`%Q`"), "{error}");
}

#[test]
fn without_a_clock_a_template_falls_back_to_its_own_date() {
    check("{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}2024{% endif %}", None, "2024");
}

#[test]
fn generation_tags_leave_their_body_and_their_white_space_control() {
    check("a {%- generation -%} {{ messages[0].content }} {%- endgeneration -%} b", None, "ahib");
    check("a{% generation %}\nb{% endgeneration %}\nc", None, "abc");
}

#[test]
fn failures_name_the_file_and_the_template_s_own_words() {
    let error = render("{{ raise_exception('no system role') }}", None).expect_err("it raises").to_string();
    assert!(error.contains("chat_template.jinja") && error.contains("no system role"), "{error}");
    let error = render("{% if %}", None).expect_err("it does not parse").to_string();
    assert!(error.contains("chat_template.jinja"), "{error}");
}

#[test]
fn the_default_of_several_named_templates_is_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = ChatTemplate::open(dir.path()).expect_err("there is none").to_string();
    assert!(error.contains("has no chat template; put one in chat_template.jinja"), "{error}");
    let several = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    std::fs::write(dir.path().join("tokenizer_config.json"), several).expect("written");
    assert_eq!(ChatTemplate::open(dir.path()).expect("it opens").source(), "d");
    std::fs::write(dir.path().join("chat_template.jinja"), "own").expect("written");
    assert_eq!(ChatTemplate::open(dir.path()).expect("it opens").source(), "own");
}

#[test]
fn a_template_that_drops_answers_is_refused() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny_tokenizer");
    let tokenizer = crate::tokenizer::Tokenizer::open(&tiny).expect("it opens");
    let template = ChatTemplate::from_source(Path::new("t.jinja"), "{{ messages[0].content }}".to_owned());
    let error = HfChat::new(tokenizer, template.expect("it compiles"), None).expect_err("no answers").to_string();
    assert!(error.contains("leaves out the content of an assistant turn"), "{error}");
}
