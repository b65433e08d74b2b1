// A pane: the slide, and over it scores, stripes, outlines. Coordinates are level-0 pixels of the slide.

const LINE = "#7df9ff", CASING = "#10243a", CHOSEN = "#ffe600";

/** Closed outlines as one path. */
export function pathOf(rings) {
  const path = new Path2D();
  for (const ring of rings) {
    path.moveTo(ring[0], ring[1]);
    for (let i = 2; i < ring.length; i += 2) path.lineTo(ring[i], ring[i + 1]);
    path.closePath();
  }
  return path;
}

/** Left, top, right and bottom of outlines. */
export function boundsOf(rings) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      left = Math.min(left, ring[i]); right = Math.max(right, ring[i]);
      top = Math.min(top, ring[i + 1]); bottom = Math.max(bottom, ring[i + 1]);
    }
  }
  return [left, top, right, bottom];
}

/** The largest of 1, 2, 5, 10, ... that is at most a length. */
export function roundLength(most) {
  // A hair more, for the logarithm of what is just below a power of ten may be a whole number.
  const limit = most * (1 + 1e-9), power = 10 ** Math.floor(Math.log10(limit));
  return [5, 2, 1].find((digit) => digit * power <= limit) * power;
}

/** Lets two panes show the same part of the slide, whichever of them is moved. */
export function moveTogether(first, second) {
  let shown = [];
  const follow = (moved, other) => {
    if (second.element.hidden || !other.viewer.world.getItemCount()) return;
    const { viewport } = moved.viewer, zoom = viewport.getZoom(true), { x, y } = viewport.getCenter(true);
    if ([zoom, x, y].every((value, i) => Math.abs(value - shown[i]) < 1e-9)) return;
    shown = [zoom, x, y];
    other.viewer.viewport.zoomTo(zoom, null, true).panTo(new OpenSeadragon.Point(x, y), true);
  };
  first.viewer.addHandler("update-viewport", () => follow(first, second));
  second.viewer.addHandler("update-viewport", () => follow(second, first));
  second.viewer.addHandler("open", () => {
    shown = [];
    follow(first, second);
  });
}

export class Pane {
  /** layers: heatmap and unscored are images {image, x, y, pixel}; the others lists of shapes. */
  constructor(element, options = {}) {
    this.element = element;
    [this.canvas, this.scaleBar, this.caption] = element.querySelectorAll("canvas, .scale, .caption");
    this.viewer = OpenSeadragon({
      element: element.querySelector(".viewer"), drawer: "canvas", showNavigationControl: false,
      animationTime: 0.3, maxZoomPixelRatio: 8, visibilityRatio: 0.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true }, ...options,
    });
    this.viewer.canvas.setAttribute("role", "application");
    this.tell("");
    // OpenSeadragon's own letters turn and flip the slide.
    this.viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = /^[a-z]$/i.test(event.originalEvent.key);
    });
    // Under the small map in the corner.
    this.viewer.canvas.append(this.canvas);
    this.clear();
    for (const event of ["update-viewport", "resize", "open"]) {
      this.viewer.addHandler(event, () => this.draw());
    }
  }

  /** Whose result it shows; empty if there is but one pane. */
  tell(whose) {
    this.caption.textContent = whose;
    this.caption.hidden = !whose;
    const name = whose ? `Slide, ${whose}` : "Slide";
    this.viewer.canvas.setAttribute("aria-label", `${name}: arrows move, plus and minus zoom`);
  }

  clear() {
    this.layers = { heatmap: null, unscored: null, drawn: [], contours: [], regions: [] };
    this.chosen = null;
    this.place = null;
    this.mpp = null;
  }

  draw() {
    if (this.element.hidden || !this.shown) return;
    const item = this.viewer.world.getItemAt(0), { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!item) return;
    const at = (x) => item.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, 0));
    const origin = at(0), size = item.getContentSize();
    const scale = (at(size.x).x - origin.x) / size.x;
    context.setTransform(scale * ratio, 0, 0, scale * ratio, origin.x * ratio, origin.y * ratio);
    const shown = this.shown;
    this.#image(context, shown.heatmap && this.layers.heatmap, shown.opacity);
    this.#image(context, shown.unscored && this.layers.unscored, 1);
    const stroke = (path, color, pixels) => {
      context.strokeStyle = color;
      context.lineWidth = pixels / scale;
      context.stroke(path);
    };
    if (shown.drawn) {
      for (const { path, color } of this.layers.drawn) stroke(path, color, 2.5);
    }
    if (shown.contours) {
      for (const path of this.layers.contours) {
        stroke(path, CASING, 4);
        stroke(path, LINE, 2);
      }
    }
    for (const region of this.layers.regions) {
      const open = !region.isContour && region.verdict === "none";
      if (region === this.chosen || !open || !shown.contours) continue;
      context.setLineDash([6 / scale, 4 / scale]);
      stroke(region.path, CASING, 4);
      stroke(region.path, LINE, 2);
      context.setLineDash([]);
    }
    if (this.chosen) {
      stroke(this.chosen.path, CASING, 7);
      stroke(this.chosen.path, CHOSEN, 3.5);
    }
    if (this.place) {
      const [x, y] = this.place, reach = 24 / scale, cross = new Path2D();
      for (const sign of [-1, 1]) {
        cross.moveTo(x + sign * reach, y); cross.lineTo(x + (sign * reach) / 3, y);
        cross.moveTo(x, y + sign * reach); cross.lineTo(x, y + (sign * reach) / 3);
      }
      stroke(cross, CASING, 6);
      stroke(cross, CHOSEN, 3);
    }
    this.#scale(scale);
  }

  /** The shape under a point of the slide, of those listed. */
  hit(shapes, x, y) {
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    return shapes.find((shape) => context.isPointInPath(shape.path, x, y, "evenodd"));
  }

  #image(context, layer, opacity) {
    if (!layer) return;
    const { image, x, y, pixel } = layer;
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(image, x, y, image.naturalWidth * pixel, image.naturalHeight * pixel);
    context.globalAlpha = 1;
  }

  #scale(scale) {
    const micrometers = this.mpp ?? 1;
    const length = roundLength((140 * micrometers) / scale);
    const [bar, text] = this.scaleBar.children;
    bar.style.width = `${(length * scale) / micrometers}px`;
    const unit = this.mpp === null ? "px" : length < 1000 ? "µm" : "mm";
    text.textContent = `${Number((unit === "mm" ? length / 1000 : length).toPrecision(3))} ${unit}`;
    this.scaleBar.setAttribute("aria-label", `Scale bar: ${text.textContent}`);
    this.scaleBar.style.visibility = "visible";
  }
}
