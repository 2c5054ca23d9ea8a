// Draws an item as PNG slices, which the server makes: every voxel, and no WebGL is needed.
export const PLANES = ["axial", "coronal", "sagittal"];
const MAX_PICTURES = 400;

export class SliceView {
  // `onMove` gets the slice of a plane that a reader chose; `onFail` a sentence.
  constructor(container, { onMove, onScroll, onFail }) {
    Object.assign(this, { container, onMove, onScroll, onFail });
    this.pictures = new Map(); // by address of a slice: its blob
    this.laidOut = "";
  }

  async draw(item, state) {
    const panels = state.panels(item), layout = [item.name, ...panels.map(({ number, overlay }) => number + overlay)].join();
    if (this.laidOut !== layout || !this.container.querySelector("img")) {
      this.container.replaceChildren(...panels.map((panel, at) => this.#panel(item, panel, at, state)));
      this.laidOut = layout;
    }
    await Promise.all(panels.flatMap((panel, at) => PLANES.map((plane) => this.#drawPlane(item, panel, at, plane, state))));
    if (!state.isCurrent(item)) return;
    for (const step of [-1, 1]) {
      const index = state.slices[state.plane] + step;
      if (index >= 0 && index < item.volumes[0].slices[state.plane]) this.#picture(this.#address(item, panels[0], state.plane, index, state));
    }
  }

  prefetch(item, state) {
    return Promise.all(state.panels(item).flatMap((panel) => PLANES.map((plane) =>
      this.#picture(this.#address(item, panel, plane, state.index(item, panel.number, plane), state)))));
  }

  #address(item, { number, overlay }, plane, index, state) {
    const [low, high] = state.range(item, number);
    return `/items/${item.name}/${number}/${plane}/${index}.png?low=${low}&high=${high}&overlay=${overlay}`;
  }

  #picture(from) {
    if (!this.pictures.has(from)) {
      this.pictures.set(from, fetch(from).then(async (r) => (r.ok ? r.blob() : Promise.reject(new Error((await r.json()).error)))).then(URL.createObjectURL));
      this.pictures.get(from).catch(() => this.pictures.delete(from));
      if (this.pictures.size > MAX_PICTURES) {
        const [oldest, blob] = this.pictures.entries().next().value;
        this.pictures.delete(oldest);
        blob.then(URL.revokeObjectURL, () => {});
      }
    }
    return this.pictures.get(from);
  }

  async #drawPlane(item, panel, at, plane, state) {
    const figure = document.getElementById(`${at}-${plane}`), index = state.index(item, panel.number, plane);
    const from = this.#address(item, panel, plane, index, state);
    figure.dataset.wanted = from;
    figure.classList.toggle("scrolled", plane === state.plane);
    figure.querySelector("input").value = index;
    figure.querySelector("output").textContent = `${index + 1}/${item.volumes[panel.number].slices[plane]}`;
    try {
      const blob = await this.#picture(from);
      if (figure.dataset.wanted !== from) return;
      const image = figure.querySelector("img");
      image.src = blob;
      await image.decode();
    } catch (error) {
      if (figure.dataset.wanted === from) this.onFail(error);
    }
  }

  #panel(item, panel, at, state) {
    const section = document.createElement("section"), title = document.createElement("h2"), planes = document.createElement("div");
    section.className = "volume";
    title.textContent = state.title(item, panel);
    planes.className = "planes";
    planes.append(...PLANES.map((plane) => this.#figure(item, panel, at, plane)));
    section.append(title, planes);
    return section;
  }

  #figure(item, { number }, at, plane) {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption"), slider = document.createElement("input"), place = document.createElement("output");
    figure.id = `${at}-${plane}`;
    image.alt = `${plane} slice`;
    Object.assign(slider, { type: "range", min: 0, max: item.volumes[number].slices[plane] - 1, ariaLabel: `${plane} slice` });
    slider.addEventListener("input", () => this.onMove(number, { [plane]: Number(slider.value) }, plane));
    figure.addEventListener("wheel", (event) => { event.preventDefault(); this.onScroll(plane, Math.sign(event.deltaY)); }, { passive: false });
    caption.append(plane, slider, place);
    figure.append(image, caption);
    return figure;
  }
}
