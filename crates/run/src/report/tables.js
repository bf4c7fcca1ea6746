// Tables
function table(caption, columns, rows) {
  const head = el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)));
  const body = rows.map((row) => el("tr", {}, row.map((cell, idx) =>
    idx === 0 ? el("th", { scope: "row" }, cell) : cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell))));
  return el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, el("span", {}, caption)), el("thead", {}, head), el("tbody", {}, body)));
}
function estimateCell(estimate, isBest) {
  if (!estimate) return el("td", {}, "\u2013");
  return el("td", { class: isBest && "best" }, percent(estimate.mean),
    el("span", { class: "interval" }, percent(estimate.low) + " \u2013 " + percent(estimate.high)));
}
function scoreTable() {
  const columns = [
    ["exact match", (stage) => stage.scores.exact_match], ["F1", (stage) => stage.scores.f1],
    ["accuracy", (stage) => stage.scores.accuracy], ["accuracy, whole words", (stage) => stage.scores.accuracy_boundary],
  ];
  const ks = run.stages.flatMap((stage) => stage.retrieval.at_k.map((at) => at.top_k));
  if (run.stages.some((stage) => stage.all_gold)) columns.push(["all gold passages @" + Math.max(...ks), (stage) => stage.all_gold]);
  const best = columns.map(([, read]) => Math.max(...run.stages.map((stage) => { const e = read(stage); return e ? e.mean : -1; })));
  const failures = (stage) => {
    const outcomes = stage.outcomes;
    return Object.values(outcomes.failed).reduce((sum, n) => sum + n, 0) + outcomes.without_prediction + outcomes.missing_questions;
  };
  const rows = run.stages.map((stage) => [
    stage.name, ...columns.map(([, read], idx) => { const e = read(stage); return estimateCell(e, e && e.mean === best[idx] && e.mean > 0); }),
    number(stage.effort.mean_steps, 2), number(stage.effort.mean_tokens, 0), number(stage.effort.mean_model_tokens, 0),
    String(stage.effort.n_repeated_queries), String(failures(stage)),
  ]);
  const caption = "Percent, " + coverage() + " bootstrap intervals over " + count(run.stages[0].n_questions, "question")
    + "; questions that failed or are missing count as wrong. Accuracy: the answer is part of the prediction.";
  return table(caption, ["stage", ...columns.map(([name]) => name), "steps", "tokens", "by the model", "repeated queries", "no answer"], rows);
}
// Rows are what the stages count or score, columns are the stages. `read` gives a cell for a stage.
function byStage(caption, first, rows) {
  return table(caption, [first, ...run.stages.map((stage) => stage.name)], rows.map(([name, read]) => [name, ...run.stages.map(read)]));
}
function moreTables() {
  const labels = (read) => [...new Set(run.stages.flatMap(read))];
  const tables = [];
  const types = labels((stage) => stage.by_type.map((group) => group.label));
  if (types.length) tables.push(byStage("Exact match by type of question, percent.", "type", types.map((label) => [label, (stage) => {
    const group = stage.by_type.find((one) => one.label === label);
    return estimateCell(group && group.scores.exact_match);
  }])));
  const found = [["gold_recall", "gold passages found"], ["all_gold", "all gold passages found"], ["gold_precision", "passages that are gold"],
    ["answer_recall", "a passage holds an answer"], ["answer_precision", "passages that hold an answer"]];
  const ks = labels((stage) => stage.retrieval.at_k.map((at) => at.top_k));
  const rows = ks.flatMap((k) => found.map(([key, name]) => [name + " @" + k, (stage) => {
    const at = stage.retrieval.at_k.find((one) => one.top_k === k);
    return estimateCell(at && at[key]);
  }]));
  if (rows.length) tables.push(byStage("Retrieval, percent; @k: the first k passages of every step together. Gold over the questions with gold passages, "
    + "answer over those whose answer is not yes or no.", "retrieval", rows));
  if (!tables.length) return null;
  return el("details", { class: "card more" }, el("summary", {}, "By type of question, and retrieval"), tables);
}

function differenceTable() {
  const metrics = [["exact match", "exact_match"], ["F1", "f1"], ["accuracy, whole words", "accuracy_boundary"]];
  const rows = run.differences.map(({ before, after, difference }) => [after + " \u2212 " + before,
    ...metrics.map(([, key]) => {
      const { mean, low, high } = difference[key].estimate;
      return el("td", { class: (low > 0 || high < 0) && "best" }, signed(mean), el("span", { class: "interval" }, signed(low) + " to " + signed(high)));
    }), String(difference.exact_match.n_better), String(difference.exact_match.n_worse)]);
  return table("Percentage points on the same questions, paired bootstrap intervals; bold where the interval leaves out 0.",
    ["difference", ...metrics.map(([name]) => name), "questions gained", "questions lost"], rows);
}
function alarmList() {
  const items = run.stages.flatMap((stage) => stage.alarms.map((alarm) => el("li", { class: "alarm" }, el("strong", {}, stage.name), ": " + alarm)));
  return items.length ? el("ul", { class: "card issues", "aria-label": "alarms" }, items) : null;
}
function hopTable() {
  const labels = [...new Set(run.stages.flatMap((stage) => stage.by_hops.map((group) => group.label)))];
  const name = (label) => /^\d+$/.test(label) ? count(+label, "hop") : label + " hops";
  const size = (label) => run.stages.map((stage) => stage.by_hops.find((one) => one.label === label)).find((group) => group).n_questions;
  const rows = labels.flatMap((label) => [["exact match", "exact_match"], ["F1", "f1"]].map(([metric, key]) =>
    [name(label) + " (" + count(size(label), "question") + "), " + metric, (stage) => {
      const group = stage.by_hops.find((one) => one.label === label);
      return estimateCell(group && group.scores[key]);
    }]));
  return rows.length ? byStage("Scores by the number of hops, percent with " + coverage() + " intervals.", "hops", rows) : null;
}
function failureTable() {
  const labels = (read) => [...new Set(run.stages.flatMap(read))];
  const kinds = (map) => labels((stage) => Object.keys(stage.outcomes[map])).map((kind) => [
    (map === "incidents" ? "incident" : map) + ": " + words(kind), (stage) => String(stage.outcomes[map][kind] || 0)]);
  const plain = (key) => [words(key), (stage) => String(stage.outcomes[key])];
  return byStage("How the trajectories on the held-out questions ended, and what went wrong on the way; counts.", "outcome",
    [plain("answered"), ...kinds("forced"), ...kinds("failed"), plain("without_prediction"), plain("missing_questions"), ...kinds("incidents")]);
}

// Time: [class, name, seconds] of every kind of work in a part. What is not measured is the rest.
const KINDS = ["encode", "search", "prefill", "decode", "score", "train", "other"];
function work(part) {
  const found = part.part === "training" ? { train: part.secs }
    : Object.fromEntries(KINDS.filter((kind) => part.work && part.work[kind]).map((kind) => [kind, part.work[kind]]));
  const known = Object.values(found).reduce((sum, secs) => sum + secs, 0);
  return { ...found, other: Math.max(0, part.secs - known) };
}
function timeParts() {
  const total = run.timings.reduce((sum, part) => sum + part.secs, 0);
  const names = [...new Set(run.timings.map((part) => part.stage))];
  const sum = (parts) => Object.fromEntries(KINDS.map((kind) => [kind, parts.reduce((secs, part) => secs + (work(part)[kind] || 0), 0)]));
  const used = KINDS.filter((kind) => run.timings.some((part) => work(part)[kind] > 0));
  const longest = Math.max(...names.map((name) => Object.values(sum(run.timings.filter((part) => part.stage === name))).reduce((a, b) => a + b, 0)), 1e-9);
  const bars = names.map((name) => {
    const parts = run.timings.filter((part) => part.stage === name);
    const spent = sum(parts);
    const bar = el("div", { class: "stack" }, used.map((kind) => {
      const piece = el("span", { class: "k-" + kind, title: kind + ": " + duration(spent[kind]) });
      piece.style.width = 100 * spent[kind] / longest + "%";
      return piece;
    }));
    return [el("span", {}, name), bar, el("span", { class: "muted small" }, duration(parts.reduce((secs, part) => secs + part.secs, 0)))];
  });
  const legend = el("div", { class: "legend" }, used.map((kind) => el("span", {}, el("i", { class: "k-" + kind }), kind)));
  const tokens = [["tokens computed", (part) => isNumber(part.n_trained_tokens) ? part.n_trained_tokens : part.work && part.work.n_tokens],
    ["from caches", (part) => part.work && part.work.n_reused]].filter(([, read]) => run.timings.some(read));
  const cell = (secs) => secs > 0 ? duration(secs) : "\u2013";
  const rows = run.timings.map((part) => [part.stage + ": " + part.part, duration(part.secs), percent(part.secs / (total || 1)) + " %",
    ...used.map((kind) => cell(work(part)[kind])), ...tokens.map(([, read]) => read(part) ? read(part).toLocaleString("en") : "\u2013")]);
  const caption = "Wall time, " + duration(total) + " in all. Encode, search, prefill, decode and score are measured while trajectories are sampled; "
    + "other is the rest of the wall time.";
  return [el("figure", { class: "time" }, el("figcaption", {}, "Time by stage ", el("span", {}, "seconds of work by kind")), legend,
    el("div", { class: "bars" }, bars)), el("div", { class: "more" }, table(caption, ["part", "wall", "share", ...used, ...tokens.map(([name]) => name)], rows))];
}

// Several runs
function runTable() {
  const best = (one) => one.stages.reduce((a, b) => b.scores.f1.mean > a.scores.f1.mean ? b : a);
  const rows = page.runs.map((one) => {
    const last = one.stages[one.stages.length - 1];
    if (!last) return [one.name, "0", "\u2013", "\u2013", "\u2013", "\u2013", "\u2013", "\u2013"];
    const against = one.against_first && one.against_first.exact_match.estimate;
    return [one.name, String(one.stages.length), last.name, estimateCell(last.scores.exact_match), estimateCell(last.scores.f1), best(one).name,
      against ? el("td", { class: (against.low > 0 || against.high < 0) && "best" }, signed(against.mean),
        el("span", { class: "interval" }, signed(against.low) + " to " + signed(against.high))) : "\u2013",
      duration(one.timings.reduce((sum, part) => sum + part.secs, 0))];
  });
  return table("The last stage of each run, percent with " + coverage(page.runs[0]) + " intervals. The difference is paired, on the same questions; bold where "
    + "its interval leaves out 0.", ["run", "stages", "last stage", "exact match", "F1", "best F1 at", "exact match \u2212 first run's", "time"], rows);
}
