// All networks in a table, one small curve each; the cells choose what the panels show.
(() => {
  'use strict';
  const GF = window.GF;
  const unique = (values) => [...new Set(values)];

  const sparkline = (network, step, low, high) => {
    const values = GF.relative(network, step);
    const svg = GF.svg('svg', {viewBox: '0 0 100 30', preserveAspectRatio: 'none', 'aria-hidden': 'true'});
    const y = (log) => 27 - 24 * (log - low) / (high - low);
    svg.append(GF.svg('line', {class: 'grid', x1: 0, x2: 100, y1: y(0), y2: y(0), 'vector-effect': 'non-scaling-stroke'}));
    if (!values) return svg;
    let d = '', pen = false;
    values.forEach((v, i) => {
      if (v === null) { pen = false; return; }
      const log = v > 0 ? Math.log10(v) : low;
      d += (pen ? 'L' : 'M') + (100 * i / Math.max(1, values.length - 1)).toFixed(1) + ' ' + y(log).toFixed(1);
      pen = true;
    });
    svg.append(GF.svg('path', {class: 'curve', d, style: `stroke: var(--${GF.colorName(network)})`, 'stroke-width': 2,
      'vector-effect': 'non-scaling-stroke'}));
    return svg;
  };

  const cell = (network, state, low, high) => {
    const kind = GF.judge(network, state.step);
    const ratio = GF.endToEnd(network, state.step);
    const button = GF.element('button', {type: 'button', 'aria-pressed': String(GF.isSelected(network)),
      title: GF.fullName(network)});
    button.setAttribute('aria-label', `${GF.fullName(network)}: ${kind ? GF.words(kind) : 'not measured'}, ${
      GF.arrives(ratio)}; after training ${GF.words(network.trained.kind)}, accuracy ${GF.percent(GF.shownAccuracy(network))}`);
    const mark = (k) => GF.element('span', {class: 'mark-' + k}, GF.marks[k] || '');
    const word = (k) => GF.element('span', {class: 'word'}, ' ' + GF.words(k));
    const ends = network.trained.kind;
    button.append(sparkline(network, state.step, low, high),
      GF.element('span', {class: 'ratio'}, kind ? mark(kind) : '', ' ', GF.brief(ratio)),
      GF.element('span', {class: 'say'}, mark(ends), word(ends)),
      GF.element('span', {class: 'got'}, GF.percent(GF.shownAccuracy(network))));
    button.addEventListener('click', () => GF.select(network));
    return GF.element('td', {}, button);
  };

  GF.drawMatrix = (state) => {
    let low = -1, high = 1;
    for (const network of GF.networks) {
      for (const v of GF.relative(network, state.step) || []) {
        const log = GF.log10(v);
        if (log !== null) { low = Math.min(low, log); high = Math.max(high, log); }
      }
    }
    const columns = [];
    for (const residual of unique(GF.networks.map((n) => n.residual))) {
      for (const norm of unique(GF.networks.map((n) => n.norm))) columns.push({residual, norm});
    }
    const head = GF.element('tr', {}, GF.element('td'), ...columns.map((c) =>
      GF.element('th', {scope: 'col'}, `${GF.skipName(c)}, ${GF.display(c.norm)}`)));
    const rows = [];
    for (const activation of unique(GF.networks.map((n) => n.activation))) {
      for (const init of unique(GF.networks.map((n) => n.init))) {
        rows.push(GF.element('tr', {}, GF.element('th', {scope: 'row'}, `${GF.display(activation)}, ${GF.display(init)}`),
          ...columns.map((c) => {
            const network = GF.networks.find((n) => n.residual === c.residual && n.norm === c.norm &&
              n.activation === activation && n.init === init);
            return network ? cell(network, state, low, high) : GF.element('td', {}, '–');
          })));
      }
    }
    const focused = document.activeElement && document.activeElement.title;
    document.getElementById('matrix').replaceChildren(GF.element('table', {class: 'matrix'},
      GF.element('thead', {}, head), GF.element('tbody', {}, ...rows)));
    if (focused) {
      const again = [...document.querySelectorAll('.matrix button')].find((b) => b.title === focused);
      if (again) again.focus({preventScroll: true});
    }
    if (GF.networks.length) GF.drawn('matrix');
  };
})();
