"use strict";
// One item at a time, by keys alone if wished. The next item is fetched while this one is read.
const PLANES = ["axial", "coronal", "sagittal"];
const CODES = ["motion", "metal", "noise", "artefact", "field_of_view", "missing_slices", "orientation", "body_part", "no_image"];
const QUESTIONS = {
  usable: { title: "Is this scan fit to train on?", accept: "Accept", reject: "Reject" },
  same_subject: { title: "Do both scans show one person?", accept: "One person", reject: "Two people" },
};
const MAX_PICTURES = 400;
const byId = (id) => document.getElementById(id);
const pictures = new Map(); // addresses of slices, and their blobs
const items = new Map(); // by name, as they come
let item = null, skipped = [], state = null, firstSeen = 0;

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

function address(name, number, plane, index, view) {
  return `/items/${name}/${number}/${plane}/${index}.png?window=${view.window}&overlay=${view.overlay ? 1 : 0}`;
}

function picture(from) {
  if (!pictures.has(from)) {
    pictures.set(from, fetch(from).then((r) => (r.ok ? r.blob() : Promise.reject(new Error("a slice is missing")))).then(URL.createObjectURL));
    pictures.get(from).catch(() => pictures.delete(from));
    if (pictures.size > MAX_PICTURES) {
      const [oldest, blob] = pictures.entries().next().value;
      pictures.delete(oldest);
      blob.then(URL.revokeObjectURL, () => {});
    }
  }
  return pictures.get(from);
}

function startView(description) {
  const middle = Object.fromEntries(PLANES.map((plane) => [plane, description.volumes[0].slices[plane] >> 1]));
  return { window: "auto", overlay: false, plane: "axial", slices: middle };
}

function indexOf(number, plane) { // a scan beside another shows the same share of its height
  const [first, own] = [item.volumes[0].slices[plane], item.volumes[number].slices[plane]];
  return Math.min(own - 1, Math.round((state.slices[plane] / first) * own));
}

async function drawPlane(number, plane) {
  const figure = byId(`${number}-${plane}`), index = indexOf(number, plane);
  const from = address(item.name, number, plane, index, state);
  figure.dataset.wanted = from;
  figure.classList.toggle("scrolled", plane === state.plane);
  figure.querySelector("input").value = index;
  figure.querySelector("output").textContent = `${index + 1}/${item.volumes[number].slices[plane]}`;
  try {
    const blob = await picture(from);
    if (figure.dataset.wanted !== from) return;
    const image = figure.querySelector("img");
    image.src = blob;
    await image.decode();
  } catch (error) {
    if (figure.dataset.wanted === from) say(`A slice could not be drawn: ${error.message}`);
  }
}

async function draw() {
  const shown = item;
  byId("window").querySelector("span").textContent = state.window.replace("_", " ");
  byId("plane").querySelector("span").textContent = state.plane;
  byId("overlay").setAttribute("aria-pressed", String(state.overlay));
  await Promise.all(item.volumes.flatMap((_, number) => PLANES.map((plane) => drawPlane(number, plane))));
  if (item !== shown) return;
  for (const step of [-1, 1]) {
    const index = state.slices[state.plane] + step;
    if (index >= 0 && index < item.volumes[0].slices[state.plane]) picture(address(item.name, 0, state.plane, index, state));
  }
}

function layOut() {
  const volumes = item.volumes.map((volume, number) => {
    const section = document.createElement("section");
    section.className = "volume";
    const title = document.createElement("h2");
    title.textContent = `${item.volumes.length > 1 ? ["First scan", "Second scan"][number] : "Scan"}, voxels of ${volume.spacing} (z, y, x)`;
    const planes = document.createElement("div");
    planes.className = "planes";
    planes.append(...PLANES.map((plane) => {
      const figure = document.createElement("figure");
      figure.id = `${number}-${plane}`;
      const image = document.createElement("img"), caption = document.createElement("figcaption");
      image.alt = `${plane} slice`;
      const slider = document.createElement("input"), place = document.createElement("output");
      Object.assign(slider, { type: "range", min: 0, max: volume.slices[plane] - 1, ariaLabel: `${plane} slice` });
      slider.addEventListener("input", () => {
        state.plane = plane;
        state.slices[plane] = Math.min(item.volumes[0].slices[plane] - 1, Math.round((slider.value / volume.slices[plane]) * item.volumes[0].slices[plane]));
        draw();
      });
      figure.addEventListener("wheel", (event) => { event.preventDefault(); state.plane = plane; scroll(Math.sign(event.deltaY)); }, { passive: false });
      caption.append(plane, slider, place);
      figure.append(image, caption);
      return figure;
    }));
    section.append(title, planes);
    return section;
  });
  byId("volumes").replaceChildren(...volumes);
  byId("volumes").className = item.volumes.length > 1 ? "two" : "";
}

function scroll(step) {
  const count = item.volumes[0].slices[state.plane];
  state.slices[state.plane] = Math.max(0, Math.min(count - 1, state.slices[state.plane] + step));
  draw();
}

async function show(name) {
  const words = QUESTIONS[(item = await describe(name)).question];
  state = startView(item);
  byId("question").textContent = words.title;
  byId("finding").textContent = item.finding;
  for (const answer of ["accept", "reject"]) document.querySelector(`[data-answer=${answer}] span`).textContent = words[answer];
  byId("overlay").disabled = !item.volumes.some((volume) => volume.overlay);
  for (const box of document.querySelectorAll("#codes input")) box.checked = false;
  layOut();
  await draw();
  firstSeen = performance.now();
  document.body.dataset.item = name; // drawn
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
  describe(name).then((description) => {
    const view = startView(description);
    description.volumes.forEach((volume, number) => PLANES.forEach((plane) => {
      const index = Math.min(volume.slices[plane] - 1, Math.round((view.slices[plane] / description.volumes[0].slices[plane]) * volume.slices[plane]));
      picture(address(name, number, plane, index, view));
    }));
  }).catch(() => {});
}

function finish() {
  item = null;
  byId("volumes").replaceChildren();
  byId("question").textContent = "Nothing is left for you to answer.";
  byId("finding").textContent = "";
  document.body.dataset.item = "none";
  say("All saved. Stop the server with Ctrl-C, then run the workflow again.");
}

async function answer(word) {
  const codes = [...document.querySelectorAll("#codes input:checked")].map((box) => box.value);
  const slices = [...PLANES].map((plane) => state.slices[plane]); // axial is z, coronal y, sagittal x
  await ask(`/items/${item.name}/answer`, {
    answer: word, codes, dwell_s: (performance.now() - firstSeen) / 1000,
    view: { slices, window: state.window, overlay: state.overlay },
  });
  say(`Saved: ${word}.`);
  skipped = skipped.filter((name) => name !== item.name);
  await advance();
}

const ACTIONS = {
  a: () => item && answer("accept"), r: () => item && answer("reject"), u: () => item && answer("unsure"),
  n: () => { if (item) skipped.push(item.name); return advance(); },
  z: async () => { const { name } = await ask("/undo", {}); say(name ? "Your last answer was taken back." : "There is no answer to take back."); return advance(name); },
  w: () => { const names = item.volumes[0].windows; state.window = names[(names.indexOf(state.window) + 1) % names.length]; return draw(); },
  l: () => { if (!byId("overlay").disabled) state.overlay = !state.overlay; return draw(); },
  p: () => { state.plane = PLANES[(PLANES.indexOf(state.plane) + 1) % 3]; return draw(); },
  ArrowUp: () => scroll(1), ArrowDown: () => scroll(-1), PageUp: () => scroll(10), PageDown: () => scroll(-10),
};
const ALWAYS = ["n", "z"];
let busy = false;

async function act(key) {
  if (busy || (!item && !ALWAYS.includes(key))) return;
  busy = !key.startsWith("Arrow") && !key.startsWith("Page");
  try { await ACTIONS[key](); } catch (error) { say(error.message); } finally { busy = false; }
}

function say(text) { byId("message").textContent = text; }

function begin() {
  byId("codes").append(...CODES.map((code, at) => {
    const label = document.createElement("label"), box = document.createElement("input"), key = document.createElement("kbd");
    Object.assign(box, { type: "checkbox", value: code });
    key.textContent = at + 1;
    label.append(box, code.replaceAll("_", " "), key);
    return label;
  }));
  for (const button of document.querySelectorAll("button")) button.addEventListener("click", () => act(button.dataset.key));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isSlider = event.target.type === "range", box = document.querySelectorAll("#codes input")[event.key - 1];
    if (box && item) box.checked = !box.checked;
    else if (ACTIONS[event.key] && !(isSlider && event.key.length > 1)) { event.preventDefault(); act(event.key); }
  });
  advance().catch((error) => say(error.message));
}

begin();
