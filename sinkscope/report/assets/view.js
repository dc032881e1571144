// Statistics of a model on a text. A layer or head of null is the mean over all; positions may be in bins.

const decoded = new WeakMap();

// The values of an array that `encode_uint16` in payload.py encoded.
export const decodeUint16 = (encoded) => {
  if (!decoded.has(encoded)) {
    const bytes = Uint8Array.from(atob(encoded.data), (character) => character.charCodeAt(0));
    const codes = new DataView(bytes.buffer);
    const values = new Float64Array(bytes.length / 2);
    for (let i = 0; i < values.length; i += 1) {
      const code = codes.getUint16(2 * i, true);
      values[i] = code === 65535 ? NaN : (code / 65534) ** 2 * encoded.scale;
    }
    decoded.set(encoded, values);
  }
  return decoded.get(encoded);
};

const selected = (count, index) => (index === null ? Array.from({ length: count }, (_, i) => i) : [index]);

export class View {
  constructor(payload) {
    Object.assign(this, payload);
    this.bins = Math.ceil(this.length / this.bin);
  }

  // The position or positions of a bin of `size`.
  positionLabel(bin, size = this.bin) {
    if (size === 1) return String(bin);
    return `${bin * size}–${Math.min(this.length, (bin + 1) * size) - 1}`;
  }

  // The number of passages that reach a bin, or an exact position.
  passageCount(bin, exact = null) {
    if (exact !== null) return String(this.exact.n[exact]);
    const [min, max] = this.n[bin];
    return min === max ? String(min) : `${min}–${max}`;
  }

  maxValue(statistic) {
    return Math.max(this.statistics[statistic].scale, this.exact ? this.exact.statistics[statistic].scale : 0);
  }

  // Layer × head at a bin, or at an exact position where positions are binned.
  grid(statistic, bin, exact = null) {
    const isExact = exact !== null;
    const values = decodeUint16((isExact ? this.exact : this).statistics[statistic]);
    const [width, index] = isExact ? [this.exact.positions.length, exact] : [this.bins, bin];
    return selected(this.layers, null).map((layer) =>
      selected(this.heads, null).map((head) => values[(layer * this.heads + head) * width + index]));
  }

  profile(statistic, layer, head) {
    return this.mean(decodeUint16(this.statistics[statistic]), this.bins, layer, head);
  }

  // α by bin: of the passage whose tokens are displayed if it is known, otherwise of all passages.
  tokenAlpha(layer, head) {
    return this.mean(decodeUint16(this.passageAlpha ?? this.statistics.alpha), this.bins, layer, head);
  }

  exactAlpha(layer, head) {
    return this.mean(decodeUint16(this.exact.statistics.alpha), this.exact.positions.length, layer, head);
  }

  mean(values, width, layer, head) {
    const [layers, heads] = [selected(this.layers, layer), selected(this.heads, head)];
    const total = new Array(width).fill(0);
    const count = new Array(width).fill(0);
    for (const l of layers) {
      for (const h of heads) {
        const start = (l * this.heads + h) * width;
        for (let i = 0; i < width; i += 1) {
          // layers that do not attend have no numbers
          if (Number.isNaN(values[start + i])) continue;
          total[i] += values[start + i];
          count[i] += 1;
        }
      }
    }
    return total.map((sum, i) => (count[i] ? sum / count[i] : NaN));
  }

  hasHead(layer, head) {
    return layer < this.layers && head < this.heads;
  }

  // Query × key, null above the diagonal; null without a map of this head.
  map(layer, head) {
    if (!this.pattern || !this.hasHead(layer, head)) return null;
    const { side } = this.pattern;
    const cells = this.mean(decodeUint16(this.pattern.cells), (side * (side + 1)) / 2, layer, head);
    const cell = (query, key) => (key <= query ? cells[(query * (query + 1)) / 2 + key] : null);
    return Array.from({ length: side }, (_, query) => Array.from({ length: side }, (__, key) => cell(query, key)));
  }

  // The exact position or bin with the highest mean α, of those that are ranked.
  strongest() {
    if (this.exact) {
      const alpha = this.exactAlpha(null, null);
      return alpha.indexOf(Math.max(...alpha));
    }
    const alpha = this.profile("alpha", null, null);
    return alpha.reduce((best, value, bin) => (this.ranked[bin] && value > alpha[best] ? bin : best), 0);
  }
}

export const binNote = (view) => (view.bin === 1 ? "" : `, mean of each ${view.bin} tokens`);
