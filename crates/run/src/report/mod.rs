//! Runs' numbers and trajectories to one HTML page that needs nothing but itself: `page.html`, `page.css` and the scripts beside this
//! file are the page, this file puts them together with the data as JSON.
//!
//! Knows nothing of run folders: the caller reads them. Passages and answers come from corpora and models and may hold
//! anything, markup included; the page shows them as text only.
mod data;
mod input;
#[cfg(test)]
mod tests;

pub use input::{
    DEFAULT_MAX_QUESTIONS, Diagnostics, HitView, LossPoint, PartTime, ReportInput, StageDifference, StageResult,
    StepView, TrajectoryView,
};

use data::Page;
pub(crate) use data::choose_ids;

/// The scripts in the order in which the page runs them; all share one scope.
const SCRIPTS: [&str; 5] = [
    include_str!("base.js"),
    include_str!("tables.js"),
    include_str!("curves.js"),
    include_str!("browser.js"),
    include_str!("page.js"),
];

/// The page as HTML text. Several runs come side by side, and one of them at a time in detail.
pub fn render(title: &str, runs: &[ReportInput]) -> String {
    let json = serde_json::to_string(&Page::new(runs)).expect("the page's maps have string keys");
    // In JSON "<" stands in strings only. Escaped, the text can neither end the script element nor open a comment.
    let data = json.replace('<', "\\u003c");
    // The template is cut before any data goes in, so that nothing in the input is taken for a mark of the template.
    let template = template();
    let (before, after) = template.split_once("{{data}}").expect("the template has a place for data");
    let before = before.replace("{{title}}", &escape_html(title));
    [&before, &data, after].concat()
}

/// The page without data.
fn template() -> String {
    include_str!("page.html").replace("{{style}}", include_str!("page.css")).replace("{{script}}", &SCRIPTS.concat())
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
