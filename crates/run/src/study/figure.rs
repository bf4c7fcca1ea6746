//! A study's results to a figure: exact match and F1 of each variant at the last stage, with interval and seeds.
//!
//! One SVG file that needs nothing else and follows the reader's choice of light or dark.
use super::results::{Pooled, StudyResults};
use exsearch_evaluation::Estimate;
use std::fmt::Write;

const LABELS: f64 = 150.0;
const PANEL: f64 = 270.0;
const GAP: f64 = 30.0;
const TOP: f64 = 76.0;
const ROW: f64 = 34.0;

const STYLE: &str = "\
svg{--back:#fff;--ink:#1f2328;--faint:#d1d9e0;--soft:#59636e;--mark:#0969da;font:13px system-ui,sans-serif}\
@media (prefers-color-scheme:dark){svg{--back:#0d1117;--ink:#f0f6fc;--faint:#3d444d;--soft:#9198a1;--mark:#4493f8}}\
.back{fill:var(--back)}text{fill:var(--ink)}.soft{fill:var(--soft);font-size:11px}.grid{stroke:var(--faint)}\
.interval{stroke:var(--mark);stroke-width:2}.mean{fill:var(--mark)}.seed{fill:none;stroke:var(--soft)}\
.first{stroke:var(--soft);stroke-dasharray:3 3}.title{font-size:15px;font-weight:600}";

pub(super) fn render(results: &StudyResults) -> String {
    let metrics: [(&str, Column); 2] = [
        ("exact match, %", |it| (it.scores.exact_match, &it.exact_match_by_seed)),
        ("F1, %", |it| (it.scores.f1, &it.f1_by_seed)),
    ];
    let width = LABELS + 2.0 * PANEL + 2.0 * GAP;
    let bottom = TOP + ROW * results.variants.len() as f64;
    let height = bottom + 44.0;
    let title =
        escape(&format!("{}: the last stage, {} questions ({})", results.study, results.n_questions, results.set));
    let note = format!(
        "dot: mean over seeds; line: {}% interval over questions; circles: single seeds; dashed: the first variant",
        100.0 * results.confidence
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"t d\">\
         <title id=\"t\">{title}</title><desc id=\"d\">{}</desc><style>{STYLE}</style>\
         <rect class=\"back\" width=\"{width}\" height=\"{height}\"/>\
         <text class=\"title\" x=\"16\" y=\"26\">{title}</text><text class=\"soft\" x=\"16\" y=\"44\">{note}</text>\n",
        escape(&description(results))
    );
    for (idx, variant) in results.variants.iter().enumerate() {
        let y = row_y(idx) + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
            LABELS - 8.0,
            escape(&variant.name)
        );
    }
    for (panel_idx, (name, column)) in metrics.into_iter().enumerate() {
        let left = LABELS + panel_idx as f64 * (PANEL + GAP);
        panel(&mut svg, results, name, column, (left, bottom));
    }
    svg + "</svg>\n"
}

/// A metric of a variant, and each seed's.
type Column = fn(&Pooled) -> (Estimate, &Vec<f64>);

fn panel(svg: &mut String, results: &StudyResults, name: &str, column: Column, (left, bottom): (f64, f64)) {
    let rows = || results.variants.iter().map(|variant| variant.last.as_ref().map(column));
    let values =
        rows().flatten().flat_map(|(mean, seeds)| [mean.low, mean.high].into_iter().chain(seeds.iter().copied()));
    let (low, high, step) = axis(values.map(|value| 100.0 * value));
    let x = |share: f64| left + PANEL * (100.0 * share - low) / (high - low);
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\">{name}</text>", TOP - 12.0);
    let n_ticks = ((high - low) / step).round() as usize;
    for tick in (0..=n_ticks).map(|idx| low + step * idx as f64) {
        let at = x(tick / 100.0);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"soft\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            bottom + 16.0
        );
    }
    if let Some((mean, _)) = rows().next().flatten() {
        let at = x(mean.mean);
        let _ = writeln!(svg, "<line class=\"first\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
    }
    for (idx, (mean, seeds)) in rows().enumerate().filter_map(|(idx, row)| Some((idx, row?))) {
        let y = row_y(idx);
        let (from, to, at) = (x(mean.low), x(mean.high), x(mean.mean));
        for seed in seeds {
            let _ = write!(svg, "<circle class=\"seed\" cx=\"{:.1}\" cy=\"{}\" r=\"3\"/>", x(*seed), y + 8.0);
        }
        let _ = writeln!(
            svg,
            "<line class=\"interval\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y}\" y2=\"{y}\"/>\
             <circle class=\"mean\" cx=\"{at:.1}\" cy=\"{y}\" r=\"5\"/>"
        );
    }
}

fn row_y(idx: usize) -> f64 {
    TOP + ROW * (idx as f64 + 0.5) - 4.0
}

/// The least and the greatest tick, and the step between ticks: at most six of 1, 2, 5, 10, 20 or 25 points.
fn axis(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let (least, most) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), it| (least.min(it), most.max(it)));
    let (least, most) = if least <= most { (least, most) } else { (0.0, 100.0) };
    let ends =
        |step: f64| ((least / step).floor() * step, (most / step).ceil().max((least / step).floor() + 1.0) * step);
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 25.0];
    let fits = |step: &f64| (ends(*step).1 - ends(*step).0) / step <= 6.0;
    let step = steps.into_iter().find(fits).unwrap_or(25.0);
    let (low, high) = ends(step);
    (low, high, step)
}

/// The figure in words, for who cannot see it.
fn description(results: &StudyResults) -> String {
    let variant = |it: &super::VariantResults| {
        let pooled = it.last.as_ref()?;
        let (em, f1) = (pooled.scores.exact_match, pooled.scores.f1);
        let [mean, low, high, f1] = [em.mean, em.low, em.high, f1.mean].map(|share| 100.0 * share);
        Some(format!("{}: exact match {mean:.1} ({low:.1} to {high:.1}), F1 {f1:.1}.", it.name))
    };
    results.variants.iter().filter_map(variant).collect::<Vec<_>>().join(" ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::results::tests::example;

    #[test]
    fn ticks_hold_all_values_and_are_few() {
        assert_eq!(axis([0.0, 100.0].into_iter()), (0.0, 100.0, 20.0));
        assert_eq!(axis([23.4, 51.6].into_iter()), (20.0, 60.0, 10.0));
        assert_eq!(axis([3.0].into_iter()), (3.0, 4.0, 1.0));
        assert_eq!(axis(std::iter::empty()), (0.0, 100.0, 20.0));
    }

    #[test]
    fn every_variant_has_its_mark_where_its_mean_is() {
        let mut results = example();
        results.set = "a<b".into();
        let svg = render(&results);
        assert_eq!(svg.matches("class=\"mean\"").count(), 2 * 3);
        assert_eq!(svg.matches("class=\"seed\"").count(), 2 * (2 + 2 + 1));
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        for outside in ["http:", "https:", "url("] {
            assert_eq!(svg.matches(outside).count(), usize::from(outside == "http:"), "the namespace only: {outside}");
        }
        // Exact match of posterior, 50 %, lies between its seeds, 40 and 60.
        let x = |class: &str, nth: usize| {
            let tag = svg.split(&format!("class=\"{class}\" cx=\"")).nth(nth + 1).expect("a circle");
            tag.split('"').next().and_then(|number| number.parse::<f64>().ok()).expect("a number")
        };
        assert!((x("mean", 0) - (x("seed", 0) + x("seed", 1)) / 2.0).abs() < 0.2);
        assert!(x("seed", 0) < x("mean", 0) && x("mean", 1) < x("mean", 0));
    }
}
