// The trajectory browser
const isRight = (trajectory) => trajectory.exact_match;
const tokens = (text) => [...text.matchAll(/[\p{L}\p{N}]+/gu)].map((m) => ({ word: m[0].toLowerCase(), start: m.index, end: m.index + m[0].length }));
function wholeMatches(phrase, text) {
  const found = [];
  if (!phrase.length) return found;
  for (let at = 0; at + phrase.length <= text.length; at++) {
    if (phrase.every((token, idx) => token.word === text[at + idx].word)) found.push([text[at].start, text[at + phrase.length - 1].end]);
  }
  return found;
}
// The record itself or, where it is worded differently, the runs of at least two words that it shares with the text.
function evidence(record, text) {
  const whole = wholeMatches(record, text);
  if (whole.length || record.length < 3) return whole;
  const found = [];
  for (let at = 0; at < text.length; at++) {
    let longest = 0;
    for (let from = 0; from < record.length; from++) {
      let n = 0;
      while (at + n < text.length && from + n < record.length && text[at + n].word === record[from + n].word) n++;
      longest = Math.max(longest, n);
    }
    if (longest >= 2 && text.slice(at, at + longest).some((token) => token.word.length > 3)) {
      found.push([text[at].start, text[at + longest - 1].end]);
      at += longest - 1;
    }
  }
  return found;
}
function marked(text, evidenceSpans, goldSpans) {
  const cuts = [...new Set([0, text.length, ...evidenceSpans.flat(), ...goldSpans.flat()])].sort((a, b) => a - b);
  const within = (spans, start) => spans.some(([from, to]) => from <= start && start < to);
  return cuts.slice(0, -1).map((start, idx) => {
    let piece = document.createTextNode(text.slice(start, cuts[idx + 1]));
    if (within(goldSpans, start)) piece = el("span", { class: "gold" }, piece);
    return within(evidenceSpans, start) ? el("mark", {}, piece) : piece;
  });
}
function passageView(passage, rank, step, question) {
  const text = tokens(passage.text);
  const spans = evidence(tokens(step.record || ""), text);
  const polar = new Set(["yes", "no"]);
  const gold = question.answers.filter((answer) => !polar.has(answer.toLowerCase())).flatMap((answer) => wholeMatches(tokens(answer), text));
  return el("details", { open: spans.length > 0 },
    el("summary", {}, "[" + (rank + 1) + "] " + passage.title, " ",
      question.gold_ids.includes(passage.id) && el("span", { class: "badge right" }, "gold"), " ",
      step.chosen && step.chosen.includes(rank) && el("span", { class: "badge plain" }, "chosen")),
    el("p", {}, marked(passage.text, spans, gold)));
}
const line = (tag, ...content) => el("div", { class: "line" }, el("span", { class: "tag" }, tag), el("span", {}, ...content));
function stepView(step, question) {
  const passages = step.hits.map((at, rank) => passageView(run.passages[at], rank, step, question));
  // A record that no passage holds stays unmarked: it may be made up, or say that nothing was found.
  const isFound = passages.some((passage) => passage.querySelector("mark"));
  return el("li", {},
    line("think", step.query),
    el("div", { class: "passages" }, passages.length ? passages : el("span", { class: "muted small" }, "no passages")),
    line("record", !step.record ? el("span", { class: "muted" }, "nothing") : isFound ? el("mark", {}, step.record) : step.record));
}
function outcomeWords(outcome) {
  if (typeof outcome === "string") return outcome === "answered" ? "" : words(outcome);
  const [[kind, why]] = Object.entries(outcome);
  return kind + ": " + words(why);
}
const sampleName = (trajectory) => run.stages[trajectory.stage_idx].name + ", sample " + (trajectory.sample_idx + 1);
const verdictOf = (trajectory) => isRight(trajectory) ? ["right", "\u2713 right"]
  : trajectory.accuracy_boundary ? ["part", "\u2248 holds the answer"] : ["wrong", "\u2717 wrong"];
function weightBar(weight) {
  const bar = el("div", {});
  bar.style.width = 100 * Math.min(1, weight) + "%";
  return el("div", { class: "meter", role: "img", "aria-label": "weight " + number(weight, 3) }, bar);
}
function trajectoryCard(trajectory, question, title, isOpen) {
  const [kind, verdict] = verdictOf(trajectory);
  const ending = outcomeWords(trajectory.outcome);
  const hasWeight = isNumber(trajectory.weight);
  return el("article", { class: "card" },
    el("header", {},
      el("div", { class: "row" }, el("h3", {}, title), el("span", { class: "badge " + kind }, verdict)),
      hasWeight && line("weight", number(trajectory.weight, 3), weightBar(trajectory.weight)),
      line("answer", trajectory.prediction || el("span", { class: "muted" }, "none")),
      el("div", { class: "row small muted" }, el("span", {}, "F1 " + percent(trajectory.f1)
        + (isNumber(trajectory.answer_logprob) ? " \u00b7 log p(gold) " + number(trajectory.answer_logprob, 2) : "")),
        ending && el("span", { class: "badge part" }, ending))),
    el("details", { open: isOpen }, el("summary", {}, count(trajectory.steps.length, "step")),
      trajectory.steps.length ? el("ol", { class: "steps" }, trajectory.steps.map((step) => stepView(step, question)))
        : el("p", { class: "muted small", style: "padding:0 .9rem .6rem" }, "The model searched for nothing.")),
    trajectory.incidents.length > 0 && el("ul", { class: "issues", "aria-label": "incidents" }, trajectory.incidents.map((incident) =>
      el("li", {}, "step " + (incident.step_idx + 1) + ": " + words(incident.boundary) + (incident.detail ? " (" + incident.detail + ")" : "")))));
}

// Two trajectories of a question against each other. Words outside of the longest common subsequence are marked.
function wordDiff(left, right) {
  const [a, b] = [left, right].map((text) => (text || "").split(/\s+/).filter(Boolean).slice(0, 300));
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) common[i][j] = a[i] === b[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
  }
  const sides = [[], []];
  let [i, j] = [0, 0];
  const only = (side, word) => sides[side].push(el("span", { class: "only" }, word), " ");
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { sides[0].push(a[i] + " "); sides[1].push(b[j] + " "); i++; j++; }
    else if (j >= b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) only(0, a[i++]);
    else only(1, b[j++]);
  }
  return sides.map((side) => side.length ? el("span", {}, side) : el("span", { class: "muted" }, "nothing"));
}
function diffTable(left, right) {
  const rows = [];
  const verdict = (one) => { const [kind, text] = verdictOf(one); return el("span", { class: "badge " + kind }, text); };
  const row = (name, cells) => rows.push(el("tr", {}, el("th", { scope: "row" }, name), cells.map((cell) => el("td", {}, cell))));
  row("answer", wordDiff(left.prediction, right.prediction).map((cell, side) => [cell, " ", verdict([left, right][side])]));
  if (isNumber(left.weight) || isNumber(right.weight)) row("weight", [number(left.weight, 3), number(right.weight, 3)]);
  for (let at = 0; at < Math.max(left.steps.length, right.steps.length); at++) {
    const steps = [left.steps[at], right.steps[at]];
    row("think " + (at + 1), wordDiff(steps[0] && steps[0].query, steps[1] && steps[1].query));
    const hits = steps.map((step) => step ? step.hits : []);
    row("passages", hits.map((own, side) => own.length ? own.map((hit) => el("div", {},
      el("span", { class: !hits[1 - side].includes(hit) && "only" }, run.passages[hit].title))) : el("span", { class: "muted" }, "nothing")));
    row("record", wordDiff(steps[0] && steps[0].record, steps[1] && steps[1].record));
  }
  const head = el("tr", {}, el("th", { scope: "col" }, ""), [left, right].map((one) => el("th", { scope: "col" }, sampleName(one))));
  return el("div", { class: "wide diff", tabindex: 0, role: "region", "aria-label": "Two trajectories against each other" },
    el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
}
function comparison(question) {
  const all = question.trajectories;
  if (all.length < 2) return null;
  const heaviest = (list) => list.reduce((a, b) => (b.weight || 0) > (a.weight || 0) ? b : a);
  const right = all.filter(isRight), wrong = all.filter((one) => !isRight(one));
  const pair = right.length && wrong.length ? [heaviest(right), heaviest(wrong)] : [all[0], all[all.length - 1]];
  const place = el("div", { "aria-live": "polite" });
  const choices = pair.map((chosen, side) => el("select", { "aria-label": side ? "Right side" : "Left side" }, all.map((one) =>
    el("option", { selected: one === chosen }, (isRight(one) ? "\u2713 " : "\u2717 ") + sampleName(one)
      + (isNumber(one.weight) ? ", weight " + number(one.weight, 2) : "")))));
  const show = () => place.replaceChildren(diffTable(...choices.map((choice) => all[choice.selectedIndex])));
  choices.forEach((choice) => choice.addEventListener("change", show));
  show();
  const isMixed = right.length > 0 && wrong.length > 0;
  return el("details", { class: "card more", open: isMixed }, el("summary", {}, "Compare two of them" + (isMixed ? ": a right one with a wrong one" : "")),
    el("div", { class: "controls inner" }, choices), place);
}
const FILTERS = {
  heldOut() {
    const last = run.stages.length - 1;
    const rightAt = (question, stageIdx) => question.trajectories.some((one) => one.stage_idx === stageIdx && isRight(one));
    return {
      "all": () => true,
      "right at the last stage": (question) => rightAt(question, last),
      "wrong at the last stage": (question) => !rightAt(question, last),
      "gained: wrong at first, right at last": (question) => !rightAt(question, 0) && rightAt(question, last),
      "lost: right at first, wrong at last": (question) => rightAt(question, 0) && !rightAt(question, last),
      "with incidents": (question) => question.trajectories.some((one) => one.incidents.length),
    };
  },
  training() {
    return {
      "all": () => true,
      "some right, some wrong": (question) => question.trajectories.some(isRight) && !question.trajectories.every(isRight),
      "all right": (question) => question.trajectories.every(isRight),
      "all wrong": (question) => !question.trajectories.some(isRight),
      "most weight on a wrong one": (question) => question.trajectories.some((one) => one.weight > .5 && !isRight(one)),
      "no weight at all": (question) => !question.trajectories.some((one) => one.weight > 0),
      "with incidents": (question) => question.trajectories.some((one) => one.incidents.length),
    };
  },
};
function stageGroups(question, isTraining) {
  const stages = [...new Set(question.trajectories.map((one) => one.stage_idx))];
  if (!isTraining) {
    const several = (one) => question.trajectories.filter((other) => other.stage_idx === one.stage_idx).length > 1;
    return el("div", { class: "stages" }, question.trajectories.map((one) => trajectoryCard(one, question,
      several(one) ? sampleName(one) : run.stages[one.stage_idx].name, one.stage_idx === run.stages.length - 1 || run.stages.length < 3)));
  }
  return stages.map((stageIdx) => {
    const samples = question.trajectories.filter((one) => one.stage_idx === stageIdx);
    const squares = samples.reduce((sum, one) => sum + one.weight ** 2, 0);
    const sum = samples.reduce((total, one) => total + one.weight, 0);
    const heading = run.stages[stageIdx].name + ": " + count(samples.length, "sample") + ", " + samples.filter(isRight).length + " right, "
      + (squares > 0 ? "effective sample size " + number(sum * sum / squares, 2) : "no weight");
    return el("div", {}, el("h3", { class: "stage" }, heading),
      el("div", { class: "stages" }, samples.map((one) => trajectoryCard(one, question, "sample " + (one.sample_idx + 1), samples.length <= 4))));
  });
}
function browser() {
  const sets = run.sets;
  const view = el("div", { "aria-live": "polite" }), note = el("p", { class: "muted small" });
  let set = sets[0], filters = {}, shown = [];
  const setChoice = el("select", { id: "set" }, sets.map((one) => el("option", {}, one.is_training ? "training questions, as sampled in the E-steps"
    : "held-out questions, as evaluated")));
  const filter = el("select", { id: "filter" }), choice = el("select", { id: "question" });
  const back = el("button", { type: "button" }, "\u2190 Previous"), forth = el("button", { type: "button" }, "Next \u2192");
  function show() {
    const question = shown[choice.selectedIndex];
    back.disabled = choice.selectedIndex <= 0;
    forth.disabled = choice.selectedIndex >= shown.length - 1;
    if (!question) { view.replaceChildren(el("p", { class: "muted" }, "No question.")); return; }
    const facts = [question.id, question.hops && count(question.hops, "hop"), question.type].filter(Boolean).join(" \u00b7 ");
    view.replaceChildren(
      el("div", { class: "question" }, el("strong", {}, question.question),
        line("gold", el("span", { class: "gold" }, question.answers[0]),
          question.answers.length > 1 && el("span", { class: "muted small" }, " or " + question.answers.slice(1).join(" / "))),
        el("div", { class: "muted small" }, facts)),
      ...[stageGroups(question, set.is_training), comparison(question)].flat().filter(Boolean));
  }
  // A mark for each stage, or for each sample of an iteration.
  function marks(question) {
    const of = (stageIdx) => question.trajectories.filter((one) => one.stage_idx === stageIdx);
    const tick = (isTrue) => isTrue ? "\u2713" : "\u2717";
    return run.stages.map((_, stageIdx) => of(stageIdx)).filter((list) => list.length || !set.is_training)
      .map((list) => set.is_training ? list.filter(isRight).length + "/" + list.length : tick(list.some(isRight))).join(set.is_training ? " " : "");
  }
  function refill() {
    shown = set.questions.filter(filters[filter.value]);
    choice.replaceChildren(...shown.map((question, idx) => el("option", {}, (idx + 1) + ". " + marks(question) + " " + question.question)));
    show();
  }
  function chooseSet() {
    set = sets[setChoice.selectedIndex];
    filters = set.is_training ? FILTERS.training() : FILTERS.heldOut();
    filter.replaceChildren(...Object.keys(filters).map((name) => {
      const n = set.questions.filter(filters[name]).length;
      return el("option", { value: name, disabled: n === 0 }, name + " (" + n + ")");
    }));
    const which = set.is_training ? "training question" : "question";
    const scope = set.questions.length < set.n_questions
      ? `This page holds ${set.questions.length} of ${count(set.n_questions, which)}, evenly spaced${set.is_training ? " among those sampled most often" : " in their file"}; `
        + "the tables above count all. " : "";
    note.replaceChildren(scope, el("mark", {}, "Marked"), ": what the model recorded. ", el("span", { class: "gold" }, "Underlined"), ": a gold answer. ",
      set.is_training ? "How many samples of each iteration are right stands before every question." : "A tick or cross for each stage stands before every question.");
    refill();
  }
  setChoice.addEventListener("change", chooseSet);
  filter.addEventListener("change", refill);
  choice.addEventListener("change", show);
  back.addEventListener("click", () => { choice.selectedIndex -= 1; show(); });
  forth.addEventListener("click", () => { choice.selectedIndex += 1; show(); });
  section("Trajectories", note,
    el("div", { class: "controls" }, sets.length > 1 && el("label", {}, "Of", setChoice), el("label", {}, "Show", filter),
      el("label", { class: "grow" }, "Question", choice), el("span", { class: "pair" }, back, forth)), view);
  chooseSet();
}

