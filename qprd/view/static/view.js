// The page: the list of slides, the panel of the open slide, the review, the keys.

import { Pane, boundsOf, moveTogether, pathOf } from "./pane.js";

const $ = (id) => document.getElementById(id);
const number = (value, digits = 2) => (value == null ? "–" : value.toFixed(digits));
const VERDICTS = {
  accepted: "accepted: tumor", rejected: "rejected: no tumor", other: "judged", none: "not judged",
};

let slides = [];       // as listed
let slide = null;      // the open one
let current = -1;      // the region under review
let request = null;    // of contours, while it is under way
let timer = 0;

const now = new Pane($("now"), { showNavigator: true, navigatorPosition: "BOTTOM_RIGHT" });
const { viewer } = now;
let before = null;     // the pane of the bundle before, once it is needed

async function ask(address, options) {
  const answer = await fetch(address, options);
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let told = text;
  try {
    const { problem, fix } = JSON.parse(text);
    told = [problem, fix].filter(Boolean).join(" ");
  } catch { /* plain text */ }
  throw new Error(told);
}

function element(tag, text, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text != null) made.textContent = text;
  return made;
}

function tell(problems) {
  $("problems").replaceChildren(...problems.map((text) => element("p", text)));
}

function address(id, what) {
  return ["slides", encodeURIComponent(id), ...(what ? [what] : [])].join("/");
}

// The list

function describe(row) {
  if (row.problem) return row.problem;
  if (!("score" in row)) return [row.split, "not predicted"].filter(Boolean).join(" · ");
  const score = row.probability == null
    ? `score ${number(row.score, 3)}` : `probability ${number(row.probability)}`;
  return [score, `${number(row.tumorMm2)} mm²`, row.split].filter(Boolean).join(" · ");
}

function makeRow(row) {
  const button = element("button", null, { type: "button" });
  const image = element("img", null, { alt: "", loading: "lazy", decoding: "async" });
  image.src = address(row.id, "thumbnail");
  button.append(
    image,
    element("span", row.name, { className: "title", title: row.name }),
    element("span", describe(row), { className: "quiet" }),
  );
  button.addEventListener("click", () => go(row.id));
  const item = element("li");
  item.append(button);
  return { ...row, item, button, folded: row.name.toLowerCase() };
}

function list() {
  const key = $("sort").value;
  const sign = $("reverse").getAttribute("aria-pressed") === "true" ? -1 : 1;
  const known = (row) => row[key] !== undefined && row[key] !== null;
  const order = (a, b) => {
    if (key === "project") return sign * (a.order - b.order);
    if (!known(a) || !known(b)) return known(b) - known(a) || a.order - b.order;
    const difference = typeof a[key] === "number" ? a[key] - b[key]
      : a[key].localeCompare(b[key], undefined, { numeric: true });
    return sign * difference || a.order - b.order;
  };
  slides.sort(order);
  $("slides").replaceChildren(...slides.map((row) => row.item));
  search();
}

function search() {
  const words = $("search").value.toLowerCase().split(/\s+/);
  let found = 0;
  for (const row of slides) {
    row.item.hidden = !words.every((word) => row.folded.includes(word));
    found += !row.item.hidden;
  }
  $("count").textContent = found === slides.length
    ? `${found} slides` : `${found} of ${slides.length} slides`;
}

const PAGES = { "index.html": "All results", "evaluation.html": "Evaluation" };

function listPages(pages) {
  $("pages").hidden = !pages?.length;
  $("pages").replaceChildren(...(pages ?? []).map(
    (name) => element("a", PAGES[name], { href: `results/${name}` }),
  ));
}

function listMistakes(mistakes) {
  for (const kind of ["falsePositives", "misses"]) {
    const links = (mistakes[kind] ?? []).map((one) => {
      const link = element("a", `${one.name}, score ${number(one.score, 3)}`);
      link.href = `#${new URLSearchParams({ slide: one.id, x: one.x, y: one.y, downsample: 1 })}`;
      const item = element("li");
      item.append(link);
      return item;
    });
    $(kind).replaceChildren(...links);
    if (links.length) $("mistakes").hidden = false;
  }
}

// The open slide

function go(id) {
  location.hash = new URLSearchParams({ slide: id });
}

function step(by) {
  const shown = slides.filter((row) => !row.item.hidden);
  const next = shown[shown.findIndex((row) => row.id === slide?.id) + by];
  if (next) go(next.id);
}

async function open() {
  const wanted = new URLSearchParams(location.hash.slice(1)), id = wanted.get("slide");
  if (id === null) return;
  if (slide?.id !== id) {
    try {
      const found = await ask(address(id));
      if (new URLSearchParams(location.hash.slice(1)).get("slide") !== id) return;
      show(found);
      await new Promise((done) => viewer.addOnceHandler("open", done));
    } catch (error) {
      viewer.close();
      now.clear();
      now.draw();
      slide = null;
      compare();
      $("name").textContent = slides.find((row) => row.id === id)?.name ?? "";
      tell([error.message]);
      return;
    }
  }
  if (wanted.has("x") && wanted.has("y")) {
    const place = [Number(wanted.get("x")), Number(wanted.get("y"))];
    mark({ place });
    zoomTo(...place, ...place, Number(wanted.get("downsample")) || 1);
  }
}

function show(found) {
  slide = found;
  current = -1;
  now.clear();
  before?.clear();
  $("empty").hidden = true;
  $("name").textContent = document.title = slide.name;
  for (const row of slides) row.button.setAttribute("aria-current", row.id === slide.id);
  slides.find((row) => row.id === slide.id)?.button.scrollIntoView({ block: "nearest" });
  tell([...slide.problems, ...(slide.notes ?? [])]);
  setDrawn(slide.annotations ?? []);
  setFacts();
  setThreshold();
  setRegions(slide.regions ?? []);
  $("comparison").hidden = !slide.earlier;
  $("other").textContent = slide.earlier?.bundle ?? "";
  openIn(now, slide);
  compare();
}

/** Shows the pixels of the slide, and the scores of one of its results. */
function openIn(pane, result) {
  const { id, version, width, height, tileSize, lastLevel } = slide;
  pane.mpp = slide.mpp ?? null;
  pane.viewer.open({
    width, height, tileSize, minLevel: 0, maxLevel: lastLevel,
    getTileUrl: (level, x, y) => `${address(id, `tiles/${level}/${x}/${y}`)}?v=${version}`,
  });
  pane.result = result;
  if (result.heatmap) loadImage(pane, "heatmap", result.heatmap);
  loadUnscored();
}

/** Puts the result of the bundle before beside that of now, or away again. */
function compare() {
  const earlier = ($("compare").checked && slide?.earlier) || null;
  $("before").hidden = !earlier;
  if (!earlier) {
    now.tell("");
    return;
  }
  if (!before) {
    before = new Pane($("before"));
    moveTogether(now, before);
  }
  if (before.result !== earlier) openIn(before, earlier);
  caption(now, slide);
  caption(before, earlier);
  Object.assign(before, { shown: now.shown, chosen: now.chosen, place: now.place });
  before.layers.drawn = now.layers.drawn;
  redraw();
}

/** Says whose tumor a pane shows, and how much there is of it at a raw threshold. */
function caption(pane, { threshold, tumorMm2 }) {
  if ($("before").hidden) return;
  const area = threshold == null ? "no threshold" : `${number(tumorMm2, 3)} mm² at ${number(threshold, 3)}`;
  pane.tell(`${pane.result.bundle}: ${area}`);
}

/** What all panes show alike: the chosen region, a place. */
function mark(marked) {
  for (const pane of panes()) Object.assign(pane, marked).draw();
}

function panes() {
  return before ? [now, before] : [now];
}

function setDrawn(annotations) {
  const drawn = annotations.map(drawnShape);
  for (const pane of panes()) pane.layers.drawn = drawn;
}

function drawnShape({ rings, color }) {
  return { path: pathOf(rings), color: `rgb(${color.join(" ")})` };
}

function loadImage(pane, layer, place) {
  const image = new Image(), { result } = pane, { id, version, width } = slide;
  image.onload = () => {
    if (pane.result !== result) return;
    pane.layers[layer] = { image, ...place, pixel: place.pixel ?? width / image.naturalWidth };
    pane.draw();
  };
  const query = new URLSearchParams({ v: `${version}-${result.created}`, of: which(pane) });
  image.src = `${address(id, layer)}?${query}`;
}

function which(pane) {
  return pane === before ? "earlier" : "now";
}

function loadUnscored() {
  for (const pane of panes()) {
    if ($("unscored").checked && slide && pane.result?.heatmap && !pane.layers.unscored) {
      loadImage(pane, "unscored", { x: 0, y: 0 });
    }
  }
}

function setFacts() {
  const facts = {
    "The slide": slide.score,
    Tumor: slide.tumorMm2 == null ? null : `${number(slide.tumorMm2, 3)} mm²`,
    Bundle: slide.bundle,
    Predicted: slide.created?.slice(0, 16).replace("T", " "),
  };
  $("facts").replaceChildren(...Object.entries(facts).filter(([, text]) => text)
    .flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}

function showLayers() {
  mark({
    shown: {
      heatmap: $("heatmap").checked, opacity: Number($("opacity").value),
      contours: $("contours").checked, drawn: $("drawn").checked, unscored: $("unscored").checked,
    },
  });
}

function zoomTo(left, top, right, bottom, downsample = 1) {
  const item = viewer.world.getItemAt(0);
  // Three times as large as the region, and no larger than the pixels of the slide.
  const width = Math.max(3 * (right - left), downsample * viewer.container.clientWidth);
  const height = Math.max(3 * (bottom - top), downsample * viewer.container.clientHeight);
  const [x, y] = [(left + right - width) / 2, (top + bottom - height) / 2];
  viewer.viewport.fitBounds(item.imageToViewportRectangle(x, y, width, height), true);
}

// The threshold

/** The contours of the prediction; those that are judged are drawn in the color of their class. */
function predicted() {
  return slide.regions.filter(({ isContour, verdict }) => isContour && verdict === "none")
    .map(({ path }) => path);
}

function setThreshold() {
  const input = $("threshold");
  $("thresholds").disabled = !slide.heatmap;
  $("reset").disabled = true;
  if (!slide.heatmap) {
    $("above").textContent = "";
    return;
  }
  const [low, high] = slide.range;
  $("low").textContent = number(low, 1);
  $("high").textContent = number(high, 1);
  $("unit").textContent = slide.calibrated ? "Probability" : "Raw score";
  Object.assign(input, { min: low, max: high, step: (high - low) / 200 });
  input.value = (slide.calibrated ? slide.probability : slide.threshold) ?? high;
  tellThreshold(slide.threshold, slide.tumorMm2);
}

function tellThreshold(raw, area) {
  const value = Number($("threshold").value);
  const told = slide.calibrated ? `${number(value, 3)} (raw score ${number(raw, 3)})` : number(raw, 3);
  $("above").textContent = raw == null
    ? "It was predicted without a threshold." : `Tumor at ${told}: ${number(area, 3)} mm²`;
  $("threshold").setAttribute("aria-valuetext", number(value, 3));
}

function moveThreshold() {
  $("reset").disabled = false;
  clearTimeout(timer);
  timer = setTimeout(redraw, 60);
}

async function redraw() {
  request?.abort();
  request = new AbortController();
  try {
    await Promise.all(panes().map((pane) => redrawIn(pane, request.signal)));
  } catch (error) {
    if (error.name !== "AbortError") tell([error.message]);
  }
}

/** Contours at the threshold; only a probability means the same to another bundle. */
async function redrawIn(pane, signal) {
  const { result } = pane, isMoved = !$("reset").disabled;
  if (pane.element.hidden || (pane === now && !isMoved)) return;
  const query = new URLSearchParams({ of: which(pane) });
  if (isMoved && slide.calibrated && result.calibrated) query.set("probability", $("threshold").value);
  else if (pane === now) query.set("threshold", $("threshold").value);
  else if (result.threshold != null) query.set("threshold", result.threshold);
  else return;
  const found = await ask(address(slide.id, `contours?${query}`), { signal });
  if (pane.result !== result) return;
  if (found.created !== result.created) throw new Error("The slide was predicted anew: reload the page.");
  pane.layers.contours = found.contours.map(pathOf);
  pane.draw();
  caption(pane, found);
  if (pane === now) tellThreshold(found.threshold, found.tumorMm2);
}

function nudge(by) {
  const input = $("threshold");
  if ($("thresholds").disabled) return;
  input.value = Number(input.value) + 2 * by * Number(input.step);
  moveThreshold();
}

// The review

function setRegions(regions) {
  slide.regions = regions;
  for (const region of regions) region.path = pathOf(region.rings);
  now.layers.regions = regions;
  mark({ chosen: regions[current] ?? null });
  if ($("reset").disabled) now.layers.contours = predicted();
  tellRegion();
}

function tellRegion() {
  const { regions } = slide, region = regions[current];
  const left = regions.filter(({ verdict }) => verdict === "none").length;
  $("review").disabled = !regions.length;
  $("left").textContent = !regions.length ? "There is nothing to review."
    : left ? `${left} of ${regions.length} left` : `All ${regions.length} are judged.`;
  const mean = region && (region.probability == null
    ? `mean score ${number(region.score, 3)}` : `mean probability ${number(region.probability)}`);
  $("region").textContent = !region ? "" : [
    `${current + 1}. ${region.isContour ? "contour" : "region"}`, mean, `${number(region.areaMm2, 3)} mm²`,
    VERDICTS[region.verdict] + (region.inQuPath ? " in QuPath, which alone can change it" : "")
      + (region.by && !region.inQuPath ? `, by ${region.by}` : ""),
  ].join(" · ");
  for (const verdict of ["accepted", "rejected", "none"]) {
    $(verdict).disabled = !region || region.inQuPath;
    $(verdict).setAttribute("aria-pressed", region?.verdict === verdict && verdict !== "none");
  }
  $("none").removeAttribute("aria-pressed");
  $("note").disabled = !region || region.inQuPath;
  $("note").value = region?.note ?? "";
}

function choose(index) {
  if (!slide?.regions?.length) return;
  current = Math.max(0, Math.min(slide.regions.length - 1, index));
  mark({ chosen: slide.regions[current], place: null });
  tellRegion();
  zoomTo(...boundsOf(now.chosen.rings));
}

async function judge(verdict) {
  const region = slide?.regions?.[current], { id } = slide ?? {}, form = $("review");
  if (form.ariaBusy === "true" || !region || region.inQuPath) return;
  form.ariaBusy = "true";
  const body = JSON.stringify({
    region: region.id, verdict, note: $("note").value, name: $("reviewer").value,
  });
  try {
    const regions = await ask(address(id, "judgments"), {
      method: "POST", body, headers: { "Content-Type": "application/json" },
    });
    if (slide?.id !== id) return;
    setRegions(regions);
    const { annotations } = await ask(address(id));
    if (slide?.id !== id) return;
    setDrawn(annotations ?? []);
    mark({});
  } catch (error) {
    tell([error.message]);
    return;
  } finally {
    form.ariaBusy = "false";
  }
  if (verdict === "none") return;
  const { regions } = slide, at = current;
  const open = [...regions.keys()].filter((index) => regions[index].verdict === "none");
  if (open.length) choose(open.find((index) => index > at) ?? open[0]);
}

// Everything together

const KEYS = {
  n: () => choose(current + 1), p: () => choose(current < 0 ? 0 : current - 1),
  N: () => step(1), P: () => step(-1),
  a: () => judge("accepted"), r: () => judge("rejected"), u: () => judge("none"),
  t: () => $("note").focus(), "/": () => $("search").focus(), v: () => viewer.canvas.focus(),
  h: () => $("heatmap").click(), c: () => $("contours").click(), d: () => $("drawn").click(),
  x: () => $("unscored").click(), b: () => $("compare").click(), ",": () => nudge(-1), ".": () => nudge(1),
  "+": () => zoom(2), "-": () => zoom(0.5), 0: () => zoom(0),
};

function zoom(by) {
  if (!viewer.world.getItemCount()) return;
  if (by) viewer.viewport.zoomBy(by);
  else viewer.viewport.goHome();
  viewer.viewport.applyConstraints();
}

document.addEventListener("keydown", (event) => {
  const writing = event.target.matches("input:not([type=checkbox]):not([type=range]), select");
  if (event.ctrlKey || event.metaKey || event.altKey || writing || !$("keys").checked) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  event.stopPropagation();
  KEYS[event.key]();
}, true);

for (const id of ["heatmap", "opacity", "contours", "drawn", "unscored"]) {
  $(id).addEventListener("input", showLayers);
}
$("unscored").addEventListener("input", loadUnscored);
$("compare").addEventListener("input", compare);
$("threshold").addEventListener("input", moveThreshold);
$("reset").addEventListener("click", () => {
  now.layers.contours = predicted();
  setThreshold();
  now.draw();
  caption(now, slide);
  redraw();
});
$("next").addEventListener("click", KEYS.n);
$("previous").addEventListener("click", KEYS.p);
for (const verdict of ["accepted", "rejected", "none"]) {
  $(verdict).addEventListener("click", () => judge(verdict));
}
$("note").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  judge(slide.regions[current].verdict);
  viewer.canvas.focus();
});
$("search").addEventListener("input", search);
$("sort").addEventListener("input", list);
$("reverse").addEventListener("click", ({ currentTarget: button }) => {
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  list();
});
$("reviewer").addEventListener("change", () => localStorage.setItem("reviewer", $("reviewer").value));
for (const button of document.querySelectorAll("[data-zoom]")) {
  button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
}
viewer.addHandler("canvas-click", ({ quick, position }) => {
  const item = viewer.world.getItemAt(0);
  if (!quick || !item) return;
  const at = item.viewerElementToImageCoordinates(position);
  const region = now.hit(slide.regions, at.x, at.y);
  if (!region) return;
  current = slide.regions.indexOf(region);
  mark({ chosen: region });
  tellRegion();
});
viewer.addHandler("tile-load-failed", ({ message }) => tell([`A tile cannot be shown: ${message}`]));
window.addEventListener("hashchange", open);

showLayers();
try {
  const project = await ask("project");
  $("project").textContent = project.name;
  $("reviewer").value = localStorage.getItem("reviewer") ?? project.reviewer;
  slides = project.slides.map((row, order) => makeRow({ ...row, order }));
  listPages(project.pages);
  listMistakes(project.mistakes);
  list();
  await open();
} catch (error) {
  tell([error.message]);
}
