// Shows one sequence and one layer at a time.
(() => {
  "use strict";
  const radios = (name) => [...document.querySelectorAll(`input[name="${name}"]`)];
  const chosen = (name) => Number(radios(name).find((radio) => radio.checked)?.value ?? 0);
  const panels = ["ahead", "answer", "lines", "text", "pictures", "map", "gates", "update", "reset", "memory", "share", "tail", "held", "flow"];
  let figures;

  const show = () => {
    const sequence = chosen("sequence"), layer = chosen("layer");
    const found = { ...figures.sequences[sequence].own, ...figures.sequences[sequence].layers[layer] };
    for (const part of document.querySelectorAll("[data-sequence]")) part.hidden = Number(part.dataset.sequence) !== sequence;
    for (const part of document.querySelectorAll("[data-of]")) part.hidden = part.dataset.of !== `${sequence}-${layer}`;
    for (const part of document.querySelectorAll("[data-when]")) {
      part.hidden = !found.lines?.data.some((trace) => trace.marker?.symbol === "line-ns-open");
    }
    return Promise.all(panels.map((panel) => {
      for (const part of document.querySelectorAll(`[data-panel="${panel}"]`)) part.hidden = !(panel in found);
      if (!(panel in found)) return null;
      const box = document.getElementById(`plot-${panel}`);
      const height = found[panel].layout.height;
      if (height) box.style.height = `${height}px`;
      return Plots.draw(box.id, found[panel]);
    }));
  };

  for (const radio of [...radios("sequence"), ...radios("layer")]) radio.addEventListener("change", show);
  Plots.start((read) => {
    figures = read;
    return Promise.all([show(), figures.check ? Plots.draw("plot-check", figures.check) : null]);
  });
})();
