// Shows one system at a time under the film.
(() => {
  "use strict";
  const radios = [...document.querySelectorAll('input[name="system"]')];
  let figures;

  const show = (system) => {
    for (const part of document.querySelectorAll("[data-system]")) part.hidden = part.dataset.system !== system;
    const panels = figures.film[system];
    return Promise.all(["update", "reset", "memory", "share"].map((panel) => {
      for (const part of document.querySelectorAll(`[data-panel="${panel}"]`)) part.hidden = !(panel in panels);
      return panel in panels ? Plots.draw(`plot-${panel}`, panels[panel]) : null;
    }));
  };

  const chosen = () => radios.find((radio) => radio.checked).value;

  for (const radio of radios) radio.addEventListener("change", () => show(chosen()));
  Plots.start((read) => {
    figures = read;
    const curves = Object.entries(figures.curves).map(([name, figure]) => Plots.draw(`plot-${name}`, figure));
    return Promise.all([show(chosen()), ...curves]);
  });
})();
