// Marks the boxes that hold more than they show, and on which side it is hidden; film.css shades that edge.
(() => {
  "use strict";
  for (const box of document.querySelectorAll(".sideways")) {
    const scroll = box.querySelector(".scroll");
    const mark = () => {
      const hidden = scroll.scrollWidth - scroll.clientWidth;
      box.toggleAttribute("data-overflows", hidden > 1);
      box.toggleAttribute("data-before", hidden > 1 && scroll.scrollLeft > 1);
      box.toggleAttribute("data-after", hidden > 1 && scroll.scrollLeft < hidden - 1);
    };
    scroll.addEventListener("scroll", mark, { passive: true });
    const sizes = new ResizeObserver(mark);
    for (const part of [scroll, ...scroll.children]) sizes.observe(part);
    mark();
  }
})();
