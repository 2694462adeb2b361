// Draws plots in the page's own colours. A page calls Plots.start(all), where all() draws what is to be seen.
const Plots = (() => {
  "use strict";
  const text = document.getElementById("figures").textContent;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };

  // Numbers of a map in 0..top, as 16 bits each, row after row; 65535 is one that is not there.
  const unpacked = ({ packed, rows, top }) => {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const all = new Uint16Array(bytes.buffer);
    const columns = all.length / rows;
    return Array.from({ length: rows }, (_, row) =>
      Array.from(all.subarray(row * columns, (row + 1) * columns), (code) => (code === 65535 ? null : (top * code) / 65534)));
  };

  // A colour in a figure is the name of a custom property of the style sheet: light or dark, it is said there once.
  const read = () => {
    const style = getComputedStyle(document.documentElement);
    return JSON.parse(text, (_, value) => {
      const name = typeof value === "string" && /^var\((--[a-z-]+)\)$/.exec(value);
      if (name) return style.getPropertyValue(name[1]).trim() || value;
      return value && typeof value === "object" && "packed" in value ? unpacked(value) : value;
    });
  };

  // A map whose shade is the root of its numbers, so that small ones are seen; what is told are the numbers.
  const shaded = (trace) => {
    if (trace.customdata !== "z") return trace;
    const z = trace.root ? trace.z.map((row) => row.map((value) => (value === null ? null : Math.sqrt(value)))) : trace.z;
    return { ...trace, z, customdata: trace.z };
  };

  const draw = (id, figure) => {
    const box = document.getElementById(id);
    return Plotly.react(box, figure.data.map(shaded), figure.layout, config).then(() => Plotly.Plots.resize(box));
  };

  const start = (all) => {
    dark.addEventListener("change", () => all(read()));
    Promise.resolve(all(read())).then(() => document.documentElement.setAttribute("data-drawn", "yes"));
  };

  return { draw, start };
})();
