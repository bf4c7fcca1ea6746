// Curves
const W = 640, H = 270, LEFT = 48, RIGHT = 14, TOP = 14, BOTTOM = 30;
function ticks(low, high) {
  const rough = (high - low || Math.abs(high) || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough - 1e-12);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0));
  const values = [];
  for (let idx = first; idx <= Math.max(last, first + 1); idx++) values.push(idx * step);
  return { values, digits };
}
function marker(shape, x, y) {
  const around = [[0, -6], [6, 5], [-6, 5]], diamond = [[0, -6.5], [6.5, 0], [0, 6.5], [-6.5, 0]];
  const polygon = (corners) => svg("polygon", { class: "point", points: corners.map(([dx, dy]) => (x + dx) + "," + (y + dy)).join(" ") });
  return [() => svg("circle", { class: "point", cx: x, cy: y, r: 5 }), () => svg("rect", { class: "point", x: x - 4.5, y: y - 4.5, width: 9, height: 9 }),
    () => polygon(diamond), () => polygon(around)][shape % 4]();
}
// series: [{name, points: [{x, y, low?, high?, label}]}], told apart by colour, mark and, past six, dashes; xTicks: [{x, label}]
const seriesClass = (idx) => "s" + idx % 6 + (idx >= 6 ? " dashed" : "");
function curves(title, unit, series, xTicks, options) {
  const { from = null, hasPoints = true, splits = [], note = "" } = options || {};
  series = series.map((one) => ({ ...one, points: one.points.filter((point) => isNumber(point.y)) })).filter((one) => one.points.length);
  if (!series.length) return null;
  const all = series.flatMap((one) => one.points);
  const ys = all.flatMap((p) => [p.y, p.low, p.high]).filter(isNumber);
  const { values, digits } = ticks(from === null ? Math.min(...ys) : Math.min(from, ...ys), Math.max(...ys));
  const xs = [...all.map((p) => p.x), ...xTicks.map((tick) => tick.x)];
  const [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
  const pad = hasPoints ? 36 : 0;
  const px = (x) => xHigh === xLow ? (LEFT + W - RIGHT) / 2 : LEFT + pad + (x - xLow) / (xHigh - xLow) * (W - LEFT - RIGHT - 2 * pad);
  const py = (y) => H - BOTTOM - (y - values[0]) / (values[values.length - 1] - values[0]) * (H - TOP - BOTTOM);
  const description = series.map((one) => one.name + ": " + (one.points.length > 12
    ? "from " + number(one.points[0].y, 3) + " to " + number(one.points[one.points.length - 1].y, 3)
    : one.points.map((p) => p.label).join("; "))).join(". ");
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title + ". " + description });
  for (const y of values) {
    drawing.append(svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: py(y), y2: py(y) }),
      svg("text", { x: LEFT - 8, y: py(y) + 4, "text-anchor": "end" }, y.toFixed(digits)));
  }
  for (const split of splits) {
    drawing.append(svg("line", { class: "split", x1: px(split.x), x2: px(split.x), y1: TOP, y2: H - BOTTOM }),
      svg("text", { x: px(split.x) + 4, y: TOP + 10 }, split.label));
  }
  const every = Math.ceil(xTicks.length / 8);
  xTicks.forEach((tick, idx) => {
    const anchor = hasPoints ? "middle" : idx === 0 ? "start" : idx === xTicks.length - 1 ? "end" : "middle";
    if (idx % every === 0) drawing.append(svg("text", { x: px(tick.x), y: H - 9, "text-anchor": anchor }, tick.label));
  });
  series.forEach((one, idx) => {
    // Series stand a little apart, so that their whiskers can be told apart.
    const shift = hasPoints ? (idx - (series.length - 1) / 2) * Math.min(9, 50 / series.length) : 0;
    const at = (p) => [px(p.x) + shift, py(p.y)];
    const group = svg("g", { class: seriesClass(idx) });
    group.append(svg("polyline", { class: "curve", points: one.points.map((p) => at(p).map((c) => c.toFixed(1)).join(",")).join(" ") }));
    for (const point of hasPoints ? one.points : []) {
      const [x, y] = at(point);
      const whiskers = isNumber(point.low) ? [
        svg("line", { class: "whisker", x1: x, x2: x, y1: py(point.low), y2: py(point.high) }),
        svg("line", { class: "whisker", x1: x - 4, x2: x + 4, y1: py(point.low), y2: py(point.low) }),
        svg("line", { class: "whisker", x1: x - 4, x2: x + 4, y1: py(point.high), y2: py(point.high) })] : [];
      group.append(svg("g", {}, svg("title", {}, one.name + ", " + point.label), whiskers, marker(idx, x, y)));
    }
    drawing.append(group);
  });
  const legend = series.length > 1 || note ? el("div", { class: "legend" },
    series.length > 1 && series.map((one, idx) => el("span", { class: seriesClass(idx) },
      svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, marker(idx, 6, 6)), one.name)),
    note && el("span", {}, note)) : null;
  return el("figure", {}, el("figcaption", {}, title, " ", el("span", {}, unit)), legend, drawing);
}
function scoreCurves() {
  const points = (metric) => run.stages.map((stage, x) => {
    const { mean, low, high } = stage.scores[metric];
    return { x, y: 100 * mean, low: 100 * low, high: 100 * high,
      label: `${stage.name}: ${percent(mean)} (${percent(low)} \u2013 ${percent(high)})` };
  });
  return curves("Exact match and F1", "percent, with " + coverage() + " intervals",
    [{ name: "exact match", points: points("exact_match") }, { name: "F1", points: points("f1") }],
    run.stages.map((stage, x) => ({ x, label: stage.name })), { from: 0 });
}
function diagnosticCurves() {
  const stages = run.stages.map((stage, x) => ({ stage, x })).filter(({ stage }) => stage.diagnostics);
  if (!stages.length) return [];
  const points = (read, digits) => stages.map(({ stage, x }) => {
    const y = read(stage.diagnostics);
    return { x, y, label: stage.name + ": " + number(y, digits) };
  });
  const labels = stages.map(({ stage, x }) => ({ x, label: stage.name }));
  const sizes = [...new Set(stages.map(({ stage }) => stage.diagnostics.n_samples))].join(", ");
  return [
    curves("Effective sample size", "of " + sizes + " trajectories; questions without weight count as 0",
      [{ name: "effective sample size", points: points((one) => one.ess_mean, 2) }], labels, { from: 0 }),
    histograms(stages, "Questions by effective sample size", "1: one trajectory has all the weight", "question", (one) => one.ess_hist, (one) => [1, one.n_samples]),
    histograms(stages, "Trajectories by weight", "of questions that contribute", "trajectory", (one) => one.weight_hist, () => [0, 1]),
    curves("Multi-sample bound", "mean log of the mean p(y | x, z), nats",
      [{ name: "train", points: points((one) => one.bound_train, 3) }, { name: "dev", points: points((one) => one.bound_dev, 3) }], labels),
    curves("Questions that no trajectory supports", "percent of the training questions",
      [{ name: "zero support", points: points((one) => 100 * one.zero_support_rate, 1) }], labels, { from: 0 }),
  ];
}
function histograms(stages, title, note, noun, read, range) {
  stages = stages.filter(({ stage }) => read(stage.diagnostics).length);
  if (!stages.length) return null;
  const most = Math.max(1, ...stages.flatMap(({ stage }) => read(stage.diagnostics)));
  const width = (W - 10) / stages.length;
  const plural = (n) => n === 1 ? "1 " + noun : n + " " + (noun.endsWith("y") ? noun.slice(0, -1) + "ies" : noun + "s");
  const drawing = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title + ". "
    + stages.map(({ stage }) => stage.name + ": " + read(stage.diagnostics).join(", ")).join(". ") });
  stages.forEach(({ stage }, idx) => {
    const bins = read(stage.diagnostics), [from, to] = range(stage.diagnostics);
    const left = 5 + idx * width + 8, bar = (width - 16) / bins.length;
    bins.forEach((n, bin) => {
      const height = n / most * (H - 70);
      const low = from + bin * (to - from) / bins.length, high = from + (bin + 1) * (to - from) / bins.length;
      drawing.append(svg("g", {}, svg("title", {}, `${stage.name}: ${plural(n)} between ${low.toFixed(2)} and ${high.toFixed(2)}`),
        svg("rect", { class: "bar", x: left + bin * bar + .5, y: H - 46 - height, width: Math.max(bar - 1, .5), height })));
    });
    drawing.append(svg("line", { class: "split", x1: left, x2: left + width - 16, y1: H - 46, y2: H - 46 }),
      svg("text", { x: left, y: H - 31 }, from), svg("text", { x: left + width - 16, y: H - 31, "text-anchor": "end" }, to),
      svg("text", { x: left + (width - 16) / 2, y: H - 9, "text-anchor": "middle" }, stage.name));
  });
  return el("figure", {}, el("figcaption", {}, title + " ", el("span", {}, note)), drawing);
}
const lossTicks = (last) => ticks(0, last).values.filter((x) => x <= last).map((x) => ({ x, label: String(Math.round(x)) }));
function lossCurve() {
  if (!run.loss.length) return null;
  const splits = [];
  const points = run.loss.map((point, idx) => {
    if (idx === 0 || point.stage !== run.loss[idx - 1].stage) splits.push({ x: idx * run.steps_per_loss_point, label: point.stage });
    return { x: idx * run.steps_per_loss_point, y: point.loss, label: point.stage + ", step " + point.step + ": " + number(point.loss, 3) };
  });
  const last = points[points.length - 1].x;
  const labels = last ? lossTicks(last) : [];
  const note = run.steps_per_loss_point > 1 ? "a point is the mean of " + run.steps_per_loss_point + " steps" : "";
  return curves("Training loss", "by optimizer step, all stages", [{ name: "loss", points }], labels, { hasPoints: points.length === 1, splits, note });
}


// Several runs in one figure: a curve for each, over the stages that any of them has.
function runCurves() {
  const names = [...new Set(page.runs.flatMap((one) => one.stages.map((stage) => stage.name)))];
  const stageTicks = names.map((label, x) => ({ x, label }));
  const score = (metric) => page.runs.map((one) => ({ name: one.name, points: one.stages.map((stage) => {
    const { mean, low, high } = stage.scores[metric];
    return { x: names.indexOf(stage.name), y: 100 * mean, low: 100 * low, high: 100 * high,
      label: `${stage.name}: ${percent(mean)} (${percent(low)} \u2013 ${percent(high)})` };
  }) }));
  const diagnostic = (read, digits) => page.runs.map((one) => ({ name: one.name, points: one.stages.filter((stage) => stage.diagnostics).map((stage) => {
    const y = read(stage.diagnostics);
    return { x: names.indexOf(stage.name), y, label: stage.name + ": " + number(y, digits) };
  }) }));
  const loss = page.runs.map((one) => ({ name: one.name, points: one.loss.map((point, idx) => (
    { x: idx * one.steps_per_loss_point, y: point.loss, label: point.stage + ", step " + point.step + ": " + number(point.loss, 3) })) }));
  const last = Math.max(0, ...loss.flatMap((one) => one.points.map((point) => point.x)));
  const intervals = "percent, with " + coverage(page.runs[0]) + " intervals";
  const sampled = stageTicks.filter(({ label }) => page.runs.some((one) => one.stages.some((stage) => stage.name === label && stage.diagnostics)));
  return [
    curves("Exact match by run", intervals, score("exact_match"), stageTicks, { from: 0 }),
    curves("F1 by run", intervals, score("f1"), stageTicks, { from: 0 }),
    curves("Multi-sample bound by run", "training questions, nats", diagnostic((one) => one.bound_train, 3), sampled),
    curves("Effective sample size by run", "mean over questions", diagnostic((one) => one.ess_mean, 2), sampled, { from: 0 }),
    last > 0 && curves("Training loss by run", "by optimizer step", loss, lossTicks(last), { hasPoints: false }),
  ];
}
