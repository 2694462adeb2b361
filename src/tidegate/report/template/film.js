// Draws the plots in the page's own colours, and shows one system at a time under the film.
(() => {
  "use strict";
  const text = document.getElementById("figures").textContent;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const radios = [...document.querySelectorAll('input[name="system"]')];
  const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
  let figures;

  // A colour in a figure is the name of a custom property of the style sheet: light or dark, it is said there once.
  const read = () => {
    const style = getComputedStyle(document.documentElement);
    figures = JSON.parse(text, (_, value) => {
      const name = typeof value === "string" && /^var\((--[a-z-]+)\)$/.exec(value);
      return (name && style.getPropertyValue(name[1]).trim()) || value;
    });
  };

  const draw = (id, figure) => {
    const box = document.getElementById(id);
    return Plotly.react(box, figure.data, figure.layout, config).then(() => Plotly.Plots.resize(box));
  };

  const show = (system) => {
    for (const part of document.querySelectorAll("[data-system]")) part.hidden = part.dataset.system !== system;
    const panels = figures.film[system];
    return Promise.all(["update", "reset", "memory", "share"].map((panel) => {
      for (const part of document.querySelectorAll(`[data-panel="${panel}"]`)) part.hidden = !(panel in panels);
      return panel in panels ? draw(`plot-${panel}`, panels[panel]) : null;
    }));
  };

  const chosen = () => radios.find((radio) => radio.checked).value;

  const all = () => {
    read();
    const curves = Object.entries(figures.curves).map(([name, figure]) => draw(`plot-${name}`, figure));
    return Promise.all([show(chosen()), ...curves]);
  };

  for (const radio of radios) radio.addEventListener("change", () => show(chosen()));
  dark.addEventListener("change", all);
  all().then(() => document.documentElement.setAttribute("data-drawn", "yes"));
})();
