// One item at a time, by keys alone if wished. The next item is fetched while this one is read.
import { PLANES, SliceView } from "/slices.js";
import { BESIDE, NO_OVERLAY, VIEWS, ViewState } from "/view_state.js";
import { VolumeView, hasWebGL2 } from "/volumes.js";

const SCAN_CODES = ["motion", "metal", "noise", "artefact", "field_of_view", "missing_slices", "orientation", "body_part", "no_image"];
const LABEL_CODES = ["shifted", "mirrored", "outline", "class_missing", "wrong_class"]; // of predictions too
const QUESTIONS = { // the first of `overlays` that there is stands over the scan from the start
  usable: { title: "Is this scan fit to train on?", accept: "Accept", reject: "Reject", codes: SCAN_CODES },
  same_subject: { title: "Do both scans show one person?", accept: "One person", reject: "Two people", codes: SCAN_CODES },
  label_fits: { title: "Does the label fit the scan?", accept: "Fits", reject: "Does not fit", codes: LABEL_CODES, overlays: ["labels"] },
  prediction_correct: { title: "Is the segmentation correct?", accept: "Correct", reject: "Wrong", codes: LABEL_CODES, overlays: [BESIDE, "prediction"] },
};
const NO_VIEWER = "NiiVue is not installed, or not the pinned version: slices are drawn.";
const NO_WEBGL2 = "This browser has no WebGL 2: slices are drawn.";
const LOST = "The browser took the graphics away: slices are drawn.";
const byId = (id) => document.getElementById(id);
const items = new Map(); // by name, as they come
const slices = new SliceView(byId("slices"), { onMove: move, onScroll: scroll, onFail: (error) => say(`A slice could not be drawn: ${error.message}`) });
let volumes = null; // draws with NiiVue, where the browser can
let item = null, state = null, skipped = [], firstSeen = 0, hasNeighbours = false;

async function ask(address, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(address, options);
  const type = response.headers.get("content-type") || "";
  const content = type.includes("json") ? await response.json() : { error: await response.text() };
  if (!response.ok) throw new Error(content.error);
  return content;
}

function describe(name) {
  if (!items.has(name)) items.set(name, ask(`/items/${name}`));
  items.get(name).catch(() => items.delete(name));
  return items.get(name);
}

function startState(description) {
  return new ViewState(description, volumes ? state?.view || VIEWS[0] : "slices", QUESTIONS[description.question].overlays);
}

function drawer() { return state.view === "slices" ? slices : volumes; }

async function draw() {
  byId("window").querySelector("span").textContent = state.window.replace("_", " ");
  byId("plane").querySelector("span").textContent = state.plane;
  byId("view").querySelector("span").textContent = state.view;
  byId("detail").querySelector("span").textContent = state.detailText();
  byId("overlay").querySelector("span").textContent = state.overlay || "none";
  byId("overlay").setAttribute("aria-pressed", String(state.overlay !== NO_OVERLAY));
  byId("detail").disabled = !state.canDetail() || state.view === "slices";
  byId("volumes").hidden = state.view === "slices";
  byId("slices").hidden = state.view !== "slices";
  document.body.dataset.panels = state.panels(item).length;
  document.body.dataset.view = state.view;
  await drawer().draw(item, state);
}

function move(number, moved, plane = state.plane) {
  state.plane = plane;
  state.move(number, moved);
  return act("draw");
}

function scroll(plane, step) {
  state.plane = plane;
  const count = item.volumes[0].slices[plane];
  state.slices[plane] = Math.max(0, Math.min(count - 1, state.slices[plane] + step));
  return act("draw");
}

async function show(name) {
  const described = await describe(name), words = QUESTIONS[described.question];
  [item, state] = [described, startState(described)];
  byId("question").textContent = words.title;
  byId("finding").textContent = item.finding;
  for (const answer of ["accept", "reject"]) document.querySelector(`[data-answer=${answer}] span`).textContent = words[answer];
  drawCodes(words.codes);
  drawNeighbours();
  await draw();
  firstSeen = performance.now();
  document.body.dataset.item = name; // drawn
}

function drawCodes(codes) { // none is checked
  byId("codes").replaceChildren(byId("codes").querySelector("legend"), ...codes.map((code, at) => {
    const label = document.createElement("label"), box = document.createElement("input"), key = document.createElement("kbd");
    Object.assign(box, { type: "checkbox", value: code });
    key.textContent = at + 1;
    label.append(box, code.replaceAll("_", " "), key);
    return label;
  }));
}

function drawNeighbours() {
  byId("neighbours").hidden = !hasNeighbours;
  byId("similar").setAttribute("aria-pressed", String(hasNeighbours));
  byId("similar").disabled = !item.neighbours.length;
  if (!hasNeighbours) return;
  byId("neighbours").querySelector("ol").replaceChildren(...item.neighbours.map((similarity, rank) => {
    const entry = document.createElement("li"), image = document.createElement("img");
    Object.assign(image, { src: `/items/${item.name}/neighbours/${rank}.jpeg`, alt: `middle planes of neighbour ${rank + 1}` });
    entry.append(image, `similarity ${similarity.toFixed(2)}`);
    return entry;
  }));
}

async function advance(first) {
  const status = await ask("/status");
  byId("progress").textContent = `${status.left} left for you, ${status.awaiting} of ${status.total} await a reader`;
  const open = first ? [first, ...status.next] : status.next.filter((name) => !skipped.includes(name));
  const name = open[0] || (skipped = [], status.next[0]);
  if (!name) return finish();
  try { await show(name); } catch (error) { skipped.push(name); throw error; } // the next key goes on
  const after = open.filter((other) => other !== name)[0];
  if (after) prefetch(after);
}

function prefetch(name) {
  describe(name).then((description) => drawer().prefetch(description, startState(description))).catch(() => {});
}

function finish() {
  item = null;
  for (const id of ["volumes", "slices"]) byId(id).replaceChildren();
  byId("neighbours").hidden = true;
  byId("question").textContent = "Nothing is left for you to answer.";
  byId("finding").textContent = "";
  document.body.dataset.item = "none";
  say("All saved. Stop the server with Ctrl-C, then run the workflow again.");
}

async function answer(word) {
  const codes = [...document.querySelectorAll("#codes input:checked")].map((box) => box.value);
  await ask(`/items/${item.name}/answer`, {
    answer: word, codes, dwell_s: (performance.now() - firstSeen) / 1000,
    view: { // axial is z, coronal y, sagittal x
      slices: PLANES.map((plane) => state.slices[plane]), window: state.window, overlay: state.overlay,
    },
  });
  say(`Saved: ${word}.`);
  skipped = skipped.filter((name) => name !== item.name);
  await advance();
}

const ACTIONS = {
  a: () => answer("accept"), r: () => answer("reject"), u: () => answer("unsure"),
  n: () => { if (item) skipped.push(item.name); return advance(); },
  z: async () => { const { name } = await ask("/undo", {}); say(name ? "Your last answer was taken back." : "There is no answer to take back."); return advance(name); },
  w: () => { state.nextWindow(); return draw(); },
  ",": () => { state.shiftWindow(-1, 0); return draw(); }, ".": () => { state.shiftWindow(1, 0); return draw(); },
  "-": () => { state.shiftWindow(0, -1); return draw(); }, "+": () => { state.shiftWindow(0, 1); return draw(); },
  l: () => { state.cycle("overlay", state.overlays()); return draw(); },
  p: () => { state.cycle("plane", PLANES); return draw(); },
  v: () => { if (volumes) state.cycle("view", VIEWS); return draw(); },
  f: () => { if (!byId("detail").disabled) state.cycle("detail", ["coarse", "full"]); return draw(); },
  e: () => { hasNeighbours = !hasNeighbours && item.neighbours.length > 0; drawNeighbours(); },
  ArrowUp: () => scroll(state.plane, 1), ArrowDown: () => scroll(state.plane, -1),
  PageUp: () => scroll(state.plane, 10), PageDown: () => scroll(state.plane, -10),
  draw,
};
const BETWEEN_ITEMS = ["n", "z"]; // keys that also work where no item is shown
const CHANGES_ITEM = ["a", "r", "u", "n", "z"]; // one at a time; the page may be redrawn meanwhile
let busy = false;

async function act(key) {
  if (busy || (!item && !BETWEEN_ITEMS.includes(key))) return;
  busy = CHANGES_ITEM.includes(key);
  try { await ACTIONS[key](); } catch (error) { say(error.message); } finally { if (CHANGES_ITEM.includes(key)) busy = false; }
}

function say(text) { byId("message").textContent = text; }

function withoutVolumes(sentence) {
  volumes = null;
  byId("view").disabled = true;
  say(sentence);
  if (state) { state.view = "slices"; act("draw"); }
}

async function findViewer() {
  if (!(await ask("/status")).viewer) return withoutVolumes(NO_VIEWER);
  if (!hasWebGL2()) return withoutVolumes(NO_WEBGL2);
  volumes = new VolumeView(await import("/niivue.js"), byId("volumes"), {
    onMove: move, onWindow: (range) => { state.setRange(range); act("draw"); }, onFail: () => withoutVolumes(LOST),
  });
}

function begin() {
  for (const button of document.querySelectorAll("button")) button.addEventListener("click", () => act(button.dataset.key));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isSlider = event.target.type === "range", box = document.querySelectorAll("#codes input")[event.key - 1];
    if (box && item) box.checked = !box.checked;
    else if (ACTIONS[event.key] && event.key !== "draw" && !(isSlider && event.key.length > 1)) { event.preventDefault(); act(event.key); }
  });
  findViewer().then(() => advance()).catch((error) => say(error.message));
}

begin();
