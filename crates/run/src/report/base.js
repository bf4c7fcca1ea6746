"use strict";
// All text goes in through text nodes: passages and answers may hold markup.
const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
// The run that is shown in detail, and where sections go.
let run = page.runs[0], place = byId("parts");

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const percent = (share) => isNumber(share) ? (100 * share).toFixed(1) : "\u2013";
const number = (value, digits) => isNumber(value) ? value.toFixed(digits) : "\u2013";
const words = (name) => name.replaceAll("_", " ");
const count = (n, noun) => n + " " + noun + (n === 1 ? "" : "s");
function section(title, ...children) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  place.append(el("section", { id, "aria-labelledby": id + "-heading" }, el("h2", { id: id + "-heading" }, title), ...children.filter(Boolean)));
}
const signed = (share) => !isNumber(share) ? "\u2013" : (share < 0 ? "\u2212" : "+") + Math.abs(100 * share).toFixed(1);
const coverage = (one = run) => one.stages.length ? Math.round(1000 * one.stages[0].confidence) / 10 + "%" : "";
function duration(secs) {
  if (secs < 60) return secs.toFixed(secs < 10 ? 1 : 0) + " s";
  const minutes = Math.floor(secs / 60);
  return minutes < 60 ? minutes + " min " + Math.floor(secs % 60) + " s" : Math.floor(minutes / 60) + " h " + minutes % 60 + " min";
}

