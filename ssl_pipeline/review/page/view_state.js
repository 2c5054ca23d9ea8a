// What is shown of an item: slices, window, overlay, detail and view, whoever draws it.
import { PLANES } from "/slices.js";

export const VIEWS = ["3D", "planes", "slices"];
export const NO_OVERLAY = "", BESIDE = "labels beside prediction";
const LEVEL_STEP = 0.05, WIDTH_STEP = 1.15; // of a window's width, for each key

export class ViewState {
  constructor(item, view, overlays = []) {
    Object.assign(this, { item, view, window: "auto", custom: null, overlay: NO_OVERLAY, detail: "coarse", plane: "axial" });
    this.overlay = overlays.find((overlay) => this.overlays().includes(overlay)) || NO_OVERLAY;
    this.slices = Object.fromEntries(PLANES.map((plane) => [plane, item.volumes[0].slices[plane] >> 1]));
  }

  isCurrent(item) { return this.item === item; }

  overlays() { // that can be chosen
    const names = new Set(this.item.volumes.flatMap((volume) => volume.overlays));
    const beside = names.has("labels") && names.has("prediction") && this.item.volumes.length === 1;
    return [NO_OVERLAY, ...names, ...(beside ? [BESIDE] : [])];
  }

  panels(item) { // each a volume of the item, and what lies over it
    if (this.overlay === BESIDE) return ["labels", "prediction"].map((overlay) => ({ number: 0, overlay }));
    return item.volumes.map((volume, number) => ({ number, overlay: volume.overlays.includes(this.overlay) ? this.overlay : NO_OVERLAY }));
  }

  title(item, { number, overlay }) {
    const scan = item.volumes.length > 1 ? ["First scan", "Second scan"][number] : "Scan";
    return `${scan}${overlay ? ` with ${overlay}` : ""}, voxels of ${item.volumes[number].spacing} (z, y, x)`;
  }

  index(item, number, plane) { // a scan beside another shows the same share of its height
    const [first, own] = [item.volumes[0].slices[plane], item.volumes[number].slices[plane]];
    return Math.min(own - 1, Math.round((this.slices[plane] / first) * own));
  }

  move(number, slices) {
    for (const [plane, index] of Object.entries(slices)) {
      const [first, own] = [this.item.volumes[0].slices[plane], this.item.volumes[number].slices[plane]];
      this.slices[plane] = Math.max(0, Math.min(first - 1, Math.round((index / own) * first)));
    }
  }

  range(item, number) { // lowest and highest value
    return this.custom || item.volumes[number].windows[this.window] || item.volumes[number].windows.auto;
  }

  cycle(key, values) {
    this[key] = values[(values.indexOf(this[key]) + 1) % values.length];
  }

  nextWindow() {
    if (!this.custom) this.cycle("window", Object.keys(this.item.volumes[0].windows));
    else Object.assign(this, { window: "auto", custom: null });
  }

  setRange(range) { Object.assign(this, { window: "custom", custom: range }); }

  shiftWindow(levels, widths) {
    const [low, high] = this.range(this.item, 0), width = high - low, centre = (low + high) / 2 + levels * LEVEL_STEP * width;
    const half = (width / 2) * WIDTH_STEP ** widths;
    this.setRange([centre - half, centre + half]);
  }

  canDetail() { return this.item.volumes.some(({ steps }) => String(steps.coarse) !== String(steps.full)); }

  detailText() {
    const step = Math.max(...this.item.volumes.flatMap(({ steps }) => steps[this.detail]));
    return step === 1 || this.view === "slices" ? "every voxel" : `1 of ${step} voxels a side`;
  }
}
