// The parts of the page in order
function contents() {
  const links = [...document.querySelectorAll("section > h2")].map((heading) =>
    el("a", { href: "#" + heading.parentElement.id }, heading.textContent));
  byId("contents").replaceChildren(...links);
}
function showRun(at) {
  run = page.runs[at];
  place = byId("parts");
  place.replaceChildren();
  if (page.runs.length > 1) place.append(el("p", { class: "muted" }, run.description));
  if (run.stages.length) {
    section("Scores", alarmList(), scoreTable(), moreTables());
    section("Curves", el("div", { class: "charts" }, scoreCurves(), lossCurve(), diagnosticCurves()));
    section("Hops and failures", hopTable(), el("div", { class: "more" }, failureTable()));
  }
  if (run.differences.length) section("Differences", differenceTable());
  if (run.sets.length) browser();
  if (run.timings.length) section("Time", timeParts());
  if (run.config_toml) {
    section("Configuration", el("details", { class: "card" }, el("summary", {}, "The resolved configuration"),
      el("pre", { tabindex: 0 }, run.config_toml)));
  }
  contents();
}

if (page.runs.length > 1) {
  byId("description").append("Side by side, and one of them at a time in detail below.");
  place = byId("overview");
  section("Runs", runTable(), el("div", { class: "charts more" }, runCurves()));
  const choice = el("select", { id: "run" }, page.runs.map((one, idx) => el("option", { value: idx }, one.name)));
  choice.addEventListener("change", () => showRun(choice.selectedIndex));
  byId("choice").append(el("div", { class: "controls" }, el("label", { class: "grow" }, "In detail", choice)));
} else {
  byId("description").append(run.description);
}
showRun(0);
