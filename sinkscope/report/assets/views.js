"use strict";
// One model on one text: numbers by layer, head and (bin of) positions, and maps of heads. A layer or head of null means the mean over all.

class View {
  constructor(payload) {
    Object.assign(this, payload);
    this.bins = Math.ceil(this.length / this.bin);
  }

  // the position, or the positions, of a bin of `size`
  place(bin, size = this.bin) {
    if (size === 1) return String(bin);
    return `${bin * size}–${Math.min(this.length, (bin + 1) * size) - 1}`;
  }

  // how many passages reach the positions of a bin, the fewest and the most; or an exact position
  reached(bin, exact = null) {
    if (exact !== null) return String(this.exact.n[exact]);
    const [least, most] = this.n[bin];
    return least === most ? String(least) : `${least}–${most}`;
  }

  // the largest value of a statistic anywhere
  most(statistic) {
    return Math.max(this.statistics[statistic].scale, this.exact ? this.exact.statistics[statistic].scale : 0);
  }

  // layer × head at one bin, or at an exact position where positions are binned
  grid(statistic, bin, exact = null) {
    const [values, width, at] = exact === null
      ? [unpack(this.statistics[statistic]), this.bins, bin]
      : [unpack(this.exact.statistics[statistic]), this.exact.positions.length, exact];
    return Array.from({ length: this.layers }, (_, layer) =>
      Array.from({ length: this.heads }, (_, head) => values[(layer * this.heads + head) * width + at]));
  }

  // by bin, mean over what is null
  profile(statistic, layer, head, packed = this.statistics[statistic]) {
    return this.mean(unpack(packed), this.bins, layer, head);
  }

  mean(values, width, layer, head) {
    const total = new Array(width).fill(0);
    let count = 0;
    for (let l = 0; l < this.layers; l += 1) {
      if (layer !== null && l !== layer) continue;
      for (let h = 0; h < this.heads; h += 1) {
        if (head !== null && h !== head) continue;
        const start = (l * this.heads + h) * width;
        for (let i = 0; i < width; i += 1) total[i] += values[start + i];
        count += 1;
      }
    }
    return total.map((sum) => sum / count);
  }

  // query × key, null above the diagonal
  map(layer, head) {
    if (!this.pattern || layer >= this.layers || head >= this.heads) return null;
    const side = this.pattern.side;
    const cells = this.mean(unpack(this.pattern.cells), (side * (side + 1)) / 2, layer, head);
    return Array.from({ length: side }, (_, query) =>
      Array.from({ length: side }, (_, key) => (key <= query ? cells[(query * (query + 1)) / 2 + key] : null)));
  }

  // the bin, or the exact position, with the highest mean α, without the last positions, which too few queries see
  strongest() {
    if (this.exact) {
      const width = this.exact.positions.length;
      const alpha = this.mean(unpack(this.exact.statistics.alpha), width, null, null);
      return alpha.indexOf(Math.max(...alpha));
    }
    const alpha = this.profile("alpha", null, null);
    const last = Math.max(1, Math.floor((this.length - report.constants.queries + 1) / this.bin));
    let best = 0;
    for (let bin = 1; bin < last; bin += 1) if (alpha[bin] > alpha[best]) best = bin;
    return best;
  }
}
