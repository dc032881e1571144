// All colors of the charts: themes, lines and outlines, color scales of heatmaps, tokens in images.

import { constants } from "./data.js";

export const { colors } = constants;
export const COLOR_SCALES = { sequential: "Viridis", diverging: colors.diverging };
export const THEMES = { light: { text: "#1b1b1b", line: "#999999" }, dark: { text: "#e8e8e8", line: "#666666" } };
export const INK = { shade: "76, 155, 232", text: "#1b1b1b", mark: "#b54708" }; // as in the light theme of page.css
