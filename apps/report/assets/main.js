// Start, and what makes a redraw necessary: another width, another color scheme, printing.
(() => {
  'use strict';
  const GF = window.GF;
  if (GF.networks.length) {
    GF.makeControls();
    GF.drawHeroLegend();
    GF.makePanels();
    GF.makePair();
    GF.redraw();
    let width = document.documentElement.clientWidth;
    let timer = 0;
    window.addEventListener('resize', () => {
      if (document.documentElement.clientWidth === width) return;  // a phone's address bar came or went
      width = document.documentElement.clientWidth;
      clearTimeout(timer);
      timer = setTimeout(GF.redraw, 120);
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', GF.redraw);
    // On paper: light colors and open sections. Canvases keep their pixels, so they are drawn again.
    const opened = [];
    window.addEventListener('beforeprint', () => {
      document.documentElement.classList.add('printing');
      for (const details of document.querySelectorAll('details:not(.numbers):not([open])')) {
        details.open = true;
        opened.push(details);
      }
      GF.redraw();
    });
    window.addEventListener('afterprint', () => {
      document.documentElement.classList.remove('printing');
      for (const details of opened.splice(0)) details.open = false;
      GF.redraw();
    });
  }
  // Ready after two frames, or, in a window that is given none (hidden, or on a busy machine), after a second.
  const ready = () => {
    if (GF.report.ready) return;
    GF.report.ready = true;
    GF.mirror();
  };
  requestAnimationFrame(() => requestAnimationFrame(ready));
  setTimeout(ready, 1000);
})();
