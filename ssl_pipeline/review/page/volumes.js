// Draws an item with NiiVue: three planes and 3D in one canvas for each panel.
// Volumes come thinned ("coarse") and, on demand, in full; those of the next item are fetched ahead.
const AXES = ["sagittal", "coronal", "axial"]; // the planes across x, y, z
const MAX_IMAGES = 8;
const NARROW_PIXELS = 700; // below which planes stand two by two
const OPTIONS = {
  backColor: [0, 0, 0, 1], crosshairColor: [1, 0.77, 0.24, 1], crosshairWidth: 0.3, crosshairWidthUnit: "percent",
  isRadiologicalConvention: true, sagittalNoseLeft: true, show3Dcrosshair: true, isAntiAlias: false,
  dragAndDropEnabled: false, loadingText: "", logLevel: "silent",
};

export function hasWebGL2() {
  return document.createElement("canvas").getContext("webgl2") !== null;
}

export class VolumeView {
  // `onMove` gets the slices that a click leads to, `onWindow` the values that a drag chose;
  // `onFail` is called once the browser takes the graphics away.
  constructor(niivue, container, { onMove, onWindow, onFail }) {
    Object.assign(this, { niivue, container, onMove, onWindow, onFail });
    this.panels = []; // each with its canvas, and the NiiVue that draws on it
    this.images = new Map(); // by address: what was fetched, as NiiVue holds it
  }

  async draw(item, state) {
    const shown = state.panels(item);
    while (this.panels.length < shown.length) this.panels.push(await this.#makePanel());
    this.container.replaceChildren(...shown.map((_, at) => this.panels[at].figure));
    await Promise.all(shown.map((panel, at) => this.#drawPanel(this.panels[at], item, panel, state)));
  }

  prefetch(item, state) {
    return Promise.all(state.panels(item).flatMap((panel) => this.#layers(item, panel, state)));
  }

  async #makePanel() {
    const figure = document.createElement("figure"), frame = document.createElement("div");
    const canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
    canvas.setAttribute("role", "img");
    frame.className = "frame"; // NiiVue fills what it finds around the canvas
    frame.append(canvas);
    figure.append(frame, caption);
    this.container.append(figure);
    const viewer = new this.niivue.Niivue(OPTIONS);
    viewer.keyDownListener = viewer.keyUpListener = () => {}; // keys are the page's own
    canvas.addEventListener("webglcontextlost", () => this.onFail());
    await viewer.attachToCanvas(canvas);
    return { figure, canvas, caption, viewer, drawn: "", window: "" };
  }

  #layers(item, panel, state) {
    const address = `/items/${item.name}/${panel.number}`;
    return (panel.overlay ? ["scan", panel.overlay] : ["scan"]).map((layer) =>
      this.#image(`${address}/${layer}.nii?detail=${state.detail}`, layer, item.palette));
  }

  #image(address, layer, palette) {
    if (!this.images.has(address)) {
      this.images.set(address, this.#fetch(address, layer, palette));
      this.images.get(address).catch(() => this.images.delete(address));
      if (this.images.size > MAX_IMAGES) this.images.delete(this.images.keys().next().value);
    }
    return this.images.get(address);
  }

  async #fetch(address, layer, palette) {
    const response = await fetch(address);
    if (!response.ok) throw new Error((await response.json()).error);
    const content = await response.arrayBuffer();
    const image = await this.niivue.NVImage.loadFromUrl({ url: content, name: `${layer}.nii`, colormap: "gray" });
    if (layer !== "scan") {
      const [R, G, B] = [0, 1, 2].map((channel) => [0, ...palette.colours.map((colour) => colour[channel])]);
      image.setColormapLabel({ R, G, B, A: [0, ...palette.colours.map(() => 255)], I: R.map((_, at) => at) });
      image.opacity = palette.opacity;
    }
    return image;
  }

  async #drawPanel(panel, item, { number, overlay }, state) {
    const { viewer } = panel, { MULTIPLANAR_TYPE, SHOW_RENDER, SLICE_TYPE } = this.niivue;
    const key = [item.name, number, overlay, state.detail].join("/"), [low, high] = state.range(item, number);
    const layers = await Promise.all(this.#layers(item, { number, overlay }, state));
    if (!state.isCurrent(item)) return;
    if (panel.drawn !== key || panel.window !== `${low} ${high}`) {
      Object.assign(layers[0], { cal_min: low, cal_max: high });
      viewer.volumes = layers;
      viewer.setVolume(layers[0]); // as the background, the others over it
      Object.assign(panel, { drawn: key, window: `${low} ${high}` });
    }
    viewer.onLocationChange = () => this.onMove(number, this.#slicesOf(viewer, item, number, state));
    viewer.onIntensityChange = (image) => this.onWindow([image.cal_min, image.cal_max]);
    viewer.scene.crosshairPos = AXES.map((plane, axis) => {
      const [index, count, step] = this.#place(item, number, plane, axis, state);
      return (Math.floor(index / step) + 0.5) / Math.ceil(count / step);
    });
    viewer.opts.multiplanarShowRender = state.view === "3D" ? SHOW_RENDER.ALWAYS : SHOW_RENDER.NEVER;
    viewer.opts.multiplanarLayout = panel.canvas.clientWidth < NARROW_PIXELS ? MULTIPLANAR_TYPE.GRID : MULTIPLANAR_TYPE.AUTO;
    viewer.setSliceType(SLICE_TYPE.MULTIPLANAR); // draws
    const places = [...AXES].reverse().map((plane) => `${plane} ${state.index(item, number, plane) + 1}/${item.volumes[number].slices[plane]}`);
    panel.caption.textContent = [state.title(item, { number, overlay }), ...places].filter(Boolean).join(" · ");
    panel.canvas.setAttribute("aria-label", `Scan in three planes: ${panel.caption.textContent}`);
  }

  #place(item, number, plane, axis, state) {
    const { slices, steps } = item.volumes[number];
    return [state.index(item, number, plane), slices[plane], steps[state.detail][axis]];
  }

  #slicesOf(viewer, item, number, state) {
    return Object.fromEntries(AXES.map((plane, axis) => {
      const [, count, step] = this.#place(item, number, plane, axis, state);
      const thin = Math.floor(viewer.scene.crosshairPos[axis] * Math.ceil(count / step));
      return [plane, Math.max(0, Math.min(count - 1, thin * step))];
    }));
  }
}
