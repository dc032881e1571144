// Static figures: downloads and numbers of the SVG images in the page.

import { csvButton, element, imageButtons, saveFile, savePng } from "./dom.js";
import { numbersFold } from "./tables.js";

const download = (name, image, format) => {
  if (format === "png") {
    savePng(name, image, image.naturalWidth, image.naturalHeight);
    return;
  }
  const bytes = Uint8Array.from(atob(image.src.split(",")[1]), (character) => character.charCodeAt(0));
  saveFile(`${name}.svg`, "image/svg+xml", new Blob([bytes], { type: "image/svg+xml" }));
};

export const addFigureTools = (figure, { name, data }) => {
  const image = figure.querySelector("img");
  const fold = numbersFold(() => data, name);
  const buttons = [...imageButtons(name, (format) => download(name, image, format)), csvButton(() => name, name, () => data)];
  figure.append(element("div", { class: "tools" }, ...buttons), fold.details);
};
