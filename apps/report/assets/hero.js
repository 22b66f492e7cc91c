// The one picture: how much of the gradient arrives at each layer, plain networks beside residual ones.
(() => {
  'use strict';
  const GF = window.GF;

  // The axis is the same for both panels and for all steps, so that moving the slider shows the change.
  let range = null;
  const axisRange = () => {
    if (range) return range;
    let low = -1, high = 1;
    for (const network of GF.networks) {
      for (const moment of network.moments) {
        for (const v of GF.relative(network, moment.step) || []) {
          const log = GF.log10(v);
          if (log !== null) { low = Math.min(low, log); high = Math.max(high, log); }
        }
      }
    }
    return range = [Math.floor(low) - 1, Math.ceil(high) + 1];
  };

  const niceStep = (span, room) => [1, 2, 5, 10, 20, 50, 100].find((s) => span / s <= room) || 200;

  // Moves labels apart so that none overlap, as little as possible: neighbours that clash become one group.
  const spread = (wanted, gap, top, bottom) => {
    const order = wanted.map((y, i) => [y, i]).sort((a, b) => a[0] - b[0]);
    const groups = [];
    for (const [y, i] of order) {
      groups.push({sum: y, members: [i], center: y});
      while (groups.length > 1) {
        const b = groups[groups.length - 1], a = groups[groups.length - 2];
        if (b.center - a.center >= gap * (a.members.length + b.members.length) / 2) break;
        a.sum += b.sum;
        a.members.push(...b.members);
        groups.pop();
        const half = gap * (a.members.length - 1) / 2;
        a.center = Math.min(Math.max(a.sum / a.members.length, top + half), Math.max(bottom - half, top + half));
      }
    }
    const placed = [];
    for (const g of groups) {
      g.members.forEach((i, k) => { placed[i] = g.center + gap * (k - (g.members.length - 1) / 2); });
    }
    return placed;
  };

  const path = (points) => {
    let d = '', pen = false;
    for (const p of points) {
      if (p === null) { pen = false; continue; }
      d += (pen ? 'L' : 'M') + p[0].toFixed(1) + ' ' + p[1].toFixed(1);
      pen = true;
    }
    return d;
  };

  const drawPanel = (box, title, networks, state) => {
    // Paper holds two narrow ones side by side.
    const printing = document.documentElement.classList.contains('printing');
    const width = printing ? 340 : Math.max(280, box.clientWidth - 22);
    const narrow = width < 420;
    const height = narrow ? 400 : 440;
    const plot = {left: narrow ? 152 : 196, right: width - 40, top: 26, bottom: height - 40};
    const [low, high] = axisRange();
    const depth = Math.max(2, ...networks.map((n) => n.depth));
    const x = (layer) => plot.left + (plot.right - plot.left) * (layer - 1) / (depth - 1);
    const y = (log) => plot.bottom - (plot.bottom - plot.top) * (log - low) / (high - low);
    const limits = GF.study.thresholds;
    const svg = GF.svg('svg', {viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', 'aria-label': title});

    const vanish = y(Math.log10(limits.vanish_below)), explode = y(Math.log10(limits.explode_above));
    const rect = (top, bottom, fill) => GF.svg('rect', {x: plot.left, width: plot.right - plot.left, y: top,
      height: Math.max(0, bottom - top), style: `fill: var(--${fill})`});
    if (vanish < plot.bottom) svg.append(rect(vanish, plot.bottom, 'vanish-tint'));
    if (explode > plot.top) svg.append(rect(plot.top, explode, 'explode-tint'));
    const tick = niceStep(high - low, 9);
    for (let e = Math.ceil(low / tick) * tick; e <= high; e += tick) {
      svg.append(GF.svg('line', {class: e === 0 ? 'zero' : 'grid', x1: plot.left, x2: plot.right, y1: y(e), y2: y(e)}));
      svg.append(GF.svg('text', {class: 'tick', x: plot.right + 6, y: y(e) + 4}, GF.power(e)));
    }
    const layerStep = niceStep(depth, narrow ? 4 : 6);
    for (const layer of [1, ...Array.from({length: Math.floor(depth / layerStep)}, (_, i) => (i + 1) * layerStep)]) {
      if (layer !== 1 && layer < layerStep * 0.6) continue;
      svg.append(GF.svg('text', {class: 'tick', x: x(layer), y: plot.bottom + 16, 'text-anchor': 'middle'}, String(layer)));
    }
    svg.append(GF.svg('text', {class: 'tick', x: (plot.left + plot.right) / 2, y: plot.bottom + 33, 'text-anchor': 'middle'},
      narrow ? 'layer   (← backward)' : 'layer   (← the way of the gradient)'));
    if (plot.bottom - vanish > 30) {
      svg.append(GF.svg('text', {class: 'band-text', x: plot.right - 6, y: plot.bottom - 8, 'text-anchor': 'end'},
        `vanishes: below ${GF.power(Math.round(Math.log10(limits.vanish_below)))}`));
    }
    if (explode - plot.top > 18) {
      svg.append(GF.svg('text', {class: 'band-text', x: plot.right - 6, y: plot.top + 14, 'text-anchor': 'end'},
        `explodes: above ${GF.power(Math.round(Math.log10(limits.explode_above)))}`));
    }

    const shown = networks.map((network) => ({network, relative: GF.relative(network, state.step)}))
      .filter((entry) => entry.relative);
    // Exact zeros lie on the floor of the picture, NaN leaves a gap.
    const place = (v, i) => v === null ? null : [x(i + 1), v > 0 ? y(Math.log10(v)) : plot.bottom];
    for (const entry of shown) {
      entry.points = entry.relative.map(place);
      entry.end = entry.points[0] || [plot.left, y(0)];
    }
    const labels = spread(shown.map((e) => e.end[1]), narrow ? 15.5 : 16.5, plot.top - 10, plot.bottom + 4);
    shown.forEach((entry, i) => {
      const {network} = entry;
      const kind = GF.judge(network, state.step);
      const color = `var(--${GF.colorName(network)})`;
      const selected = GF.isSelected(network);
      const ratio = entry.relative[0];
      const group = GF.svg('g', {class: 'net', tabindex: '0', role: 'button', 'data-id': network.id,
        'aria-label': `${GF.fullName(network)}: ${GF.arrives(ratio)}, ${kind ? GF.words(kind) : ''}`});
      const d = path(entry.points);
      group.append(GF.svg('path', {class: 'hit', d}));
      group.append(GF.svg('path', {class: 'curve', d, style: `stroke: ${color}`,
        'stroke-width': network.norm === 'bn' ? 1.4 : 2.6}));
      const predicted = GF.relative(network, state.step, 'predicted_norm');
      if (predicted) group.append(GF.svg('path', {class: 'prediction', d: path(predicted.map(place))}));
      const ly = labels[i];
      group.append(GF.svg('path', {class: 'leader', d: `M${plot.left - 16} ${ly}L${plot.left - 4} ${entry.end[1]}`}));
      group.append(GF.svg('circle', {cx: entry.end[0], cy: entry.end[1], r: 3.4, style: `stroke: ${color}; fill: ${
        network.init === 'he' ? color : 'var(--card)'}`, 'stroke-width': 1.8}));
      const value = kind === 'diverged' ? 'NaN' : GF.brief(ratio);
      if (!narrow) group.append(GF.svg('text', {x: plot.left - 20, y: ly + 4, 'text-anchor': 'end'}, value));
      group.append(
        GF.svg('text', {x: 2, y: ly + 4, class: 'mark-' + kind}, GF.marks[kind] || ''),
        GF.svg('text', {x: 17, y: ly + 4, style: `fill: ${GF.textColor(network)}`, 'font-weight': selected ? 700 : 500},
          `${GF.display(network.activation)} ${GF.display(network.init)}${network.norm === 'bn' ? ' BN' : ''}`));
      const emphasize = (on) => {
        svg.classList.toggle('dimming', on);
        group.classList.toggle('on', on);
      };
      group.addEventListener('pointerenter', () => emphasize(true));
      group.addEventListener('pointerleave', () => emphasize(false));
      group.addEventListener('focus', () => emphasize(true));
      group.addEventListener('blur', () => emphasize(false));
      group.addEventListener('click', () => GF.select(network));
      group.addEventListener('keydown', (event) => {
        if (event.key !== 'Enter' && event.key !== ' ') return;
        event.preventDefault();
        GF.select(network);
      });
      svg.append(group);
    });
    const counts = {};
    shown.forEach(({network}) => { const k = GF.judge(network, state.step); counts[k] = (counts[k] || 0) + 1; });
    const summary = Object.keys(GF.marks).filter((k) => counts[k])
      .map((k) => `${counts[k]} ${GF.fates[k] || GF.words(k)}`).join(', ');
    box.replaceChildren(GF.element('figcaption', {}, title, GF.element('span', {}, summary)), svg);
    return shown.length;
  };

  GF.drawHero = (state) => {
    const hero = document.getElementById('hero');
    const groups = [['Plain', GF.networks.filter((n) => !n.residual)], ['Residual', GF.networks.filter((n) => n.residual)]]
      .filter(([, networks]) => networks.length);
    hero.classList.toggle('single', groups.length === 1);
    if (hero.children.length !== groups.length) hero.replaceChildren(...groups.map(() => GF.element('figure')));
    let drawn = 0;
    groups.forEach(([title, networks], i) => { drawn += drawPanel(hero.children[i], title, networks, state); });
    if (drawn) GF.drawn('hero');
    GF.numbers(document.getElementById('hero-numbers'), () => [
      ['network', 'layer 1 / last', 'factor per layer', 'predicted factor', 'verdict'],
      ...GF.networks.map((n) => {
        const kind = GF.judge(n, state.step);
        return [GF.fullName(n), GF.pretty(GF.endToEnd(n, state.step)), GF.pretty(GF.factor(n, state.step)),
          state.step === 0 ? GF.pretty(n.at_init.predicted_factor) : '–', kind ? GF.words(kind) : '–'];
      })]);
  };

  GF.drawHeroLegend = () => {
    const sample = (content) => GF.svg('svg', {width: 26, height: 12, 'aria-hidden': 'true'}, ...content);
    const line = (width, css = 'curve') => GF.svg('path', {class: css, d: 'M1 6H25',
      style: css === 'curve' ? 'stroke: var(--soft)' : '', 'stroke-width': width});
    const dot = (fill) => GF.svg('circle', {cx: 13, cy: 6, r: 3.6, style: `stroke: var(--soft); fill: ${fill}`, 'stroke-width': 1.8});
    const item = (icon, text) => GF.element('span', {}, icon, ' ', text);
    document.getElementById('hero-legend').replaceChildren(
      item(sample([line(2.6)]), 'no norm'), item(sample([line(1.4)]), 'BN, batch norm'),
      item(sample([line(1, 'prediction')]), 'mean-field prediction (step 0)'),
      item(sample([dot('none')]), 'Xavier'), item(sample([dot('var(--soft)')]), 'He'),
      GF.element('span', {}, 'Warm colors: plain. Cool colors: residual.'));
  };
})();
