// The study, and what all parts of the page share: numbers as text, colors, marks, errors.
(() => {
  'use strict';
  const report = {ready: false, charts: [], errors: []};
  window.gradflowReport = report;
  const GF = window.GF = {report};

  // A copy in the document, so that a browser without a script console can be asked what happened.
  GF.mirror = () => {
    const root = document.documentElement;
    report.overflow = Math.max(0, root.scrollWidth - root.clientWidth);
    root.setAttribute('data-gradflow-report', JSON.stringify(report));
  };
  window.addEventListener('error', (event) => {
    report.errors.push(String(event.message) + ' (line ' + event.lineno + ')');
    GF.mirror();
  });
  document.addEventListener('securitypolicyviolation', (event) => {
    report.errors.push('blocked by policy: ' + event.violatedDirective + ' ' + event.blockedURI);
    GF.mirror();
  });
  GF.drawn = (name) => { if (!report.charts.includes(name)) report.charts.push(name); };

  GF.study = JSON.parse(document.getElementById('study').textContent);
  GF.derived = JSON.parse(document.getElementById('derived').textContent);
  GF.networks = GF.study.networks.filter((network) => !network.yardstick);
  GF.yardstick = GF.study.networks.find((network) => network.yardstick) || null;
  GF.steps = [...new Set(GF.networks.flatMap((n) => n.moments.map((m) => m.step)))].sort((a, b) => a - b);
  if (!GF.steps.length) GF.steps = [0];

  // ---- Numbers as text
  const superscripts = {'-': '⁻', 0: '⁰', 1: '¹', 2: '²', 3: '³', 4: '⁴', 5: '⁵', 6: '⁶', 7: '⁷', 8: '⁸', 9: '⁹'};
  GF.superscript = (n) => [...String(n)].map((c) => superscripts[c] || c).join('');
  GF.power = (exponent, base = 10) => exponent === 0 ? '1' : base + GF.superscript(exponent);
  GF.isNumber = (x) => typeof x === 'number' && Number.isFinite(x);
  GF.pretty = (x, digits = 3) => {
    if (!GF.isNumber(x)) return '–';
    if (x === 0) return '0';
    const size = Math.abs(Number(x.toPrecision(digits)));
    if (size >= 1e-3 && size < 1e4) {
      return x.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size)))).replace('-', '−');
    }
    const [mantissa, exponent] = x.toExponential(1).split('e');
    return mantissa.replace('-', '−') + '·10' + GF.superscript(Number(exponent));
  };
  GF.percent = (x, decimals = 1) => GF.isNumber(x) ? (100 * x).toFixed(decimals) + '\u00a0%' : '–';
  // "2·10⁻³¹" for far away numbers, "0.12" for near ones: labels with little room.
  GF.brief = (x) => {
    if (!GF.isNumber(x) || x === 0 || Math.abs(Math.round(Math.log10(Math.abs(x)))) < 4) return GF.pretty(x, 2);
    const [digit, exponent] = x.toExponential(0).split('e');
    return (digit === '1' ? '' : digit + '·') + '10' + GF.superscript(Number(exponent));
  };
  GF.log10 = (x) => GF.isNumber(x) && x > 0 ? Math.log10(x) : null;

  // ---- Names
  const names = {relu: 'ReLU', xavier: 'Xavier', he: 'He', lecun: 'LeCun', none: 'no norm', bn: 'batch norm'};
  GF.display = (level) => names[level] || level;
  GF.skipName = (network) => network.residual ? 'residual' : 'plain';
  GF.fullName = (n) => n.yardstick ? 'shallow network'
    : [GF.skipName(n), GF.display(n.activation), GF.display(n.init), GF.display(n.norm)].join(', ');
  // What tells these networks apart, in few words.
  GF.shortNames = (networks) => {
    const parts = [(n) => GF.skipName(n), (n) => GF.display(n.activation), (n) => GF.display(n.init),
      (n) => n.norm === 'none' ? '' : n.norm === 'bn' ? 'BN' : n.norm];
    const varying = parts.filter((part) => new Set(networks.map(part)).size > 1);
    return networks.map((n) => (varying.length ? varying : [parts[0]]).map((part) => part(n)).filter(Boolean).join(' '));
  };

  // ---- Colors and marks. The document's style sheet owns the colors, in light and dark.
  GF.css = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
  GF.colorName = (n) => n.yardstick ? 'yardstick' : (n.residual ? 'residual-' : 'plain-') + n.activation;
  GF.color = (n) => GF.css(GF.colorName(n)) || GF.css('ink');
  // For words: the color, brought halfway to the ink where it is too faint to read.
  const sixDigits = (hex) => hex.length === 4 ? '#' + [...hex.slice(1)].map((c) => c + c).join('') : hex;
  const parts = (hex) => [1, 3, 5].map((i) => parseInt(sixDigits(hex).slice(i, i + 2), 16));
  GF.rgb = (name) => parts(GF.css(name));
  GF.textColor = (n) => {
    const color = GF.rgb(GF.colorName(n)), ink = GF.rgb('ink');
    return `rgb(${color.map((v, k) => Math.round(0.68 * v + 0.32 * ink[k])).join(',')})`;
  };
  GF.marks = {vanishes: '▼', explodes: '▲', healthy: '●', dead: '✕', does_not_learn: '■', diverged: '◆',
    not_measured: '○'};
  GF.fates = {vanishes: 'vanish', explodes: 'explode', healthy: 'within bounds', dead: 'dead', diverged: 'diverged'};
  GF.words = (kind) => kind.replaceAll('_', ' ');
  GF.pointStyle = (n) => ({sigmoid: 'rect', tanh: 'triangle', relu: 'circle'})[n.activation] || 'crossRot';

  GF.isFilled = (n) => n.init === 'he';
  // A short piece of a network's line with its mark, as the charts draw it.
  GF.icon = (n) => {
    const stroke = `stroke: var(--${GF.colorName(n)})`;
    const style = `${stroke}; fill: ${GF.isFilled(n) ? `var(--${GF.colorName(n)})` : 'var(--card)'}`;
    const mark = {rect: 'M12 3h7v7h-7z', triangle: 'M15.5 2.5L20 10H11z',
      circle: 'M12 6.5a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z'}[GF.pointStyle(n)];
    const svg = GF.svg('svg', {width: 31, height: 13, 'aria-hidden': 'true'},
      GF.svg('path', {class: 'curve', d: 'M1 6.5H30', style: stroke, 'stroke-width': n.norm === 'bn' ? 1.5 : 2.6}));
    if (mark) svg.append(GF.svg('path', {d: mark, style, 'stroke-width': 1.5}));
    return svg;
  };

  // A network that diverged has no accuracy: its outputs are no numbers.
  GF.shownAccuracy = (n) => n.diverged_at === null ? n.final_accuracy : null;

  // ---- Measurements
  GF.momentAt = (network, step) => network.moments.find((m) => m.step === step) || null;
  GF.column = (network, step, name) => {
    const moment = GF.momentAt(network, step);
    return moment && moment.layers[name] || null;
  };
  // |dL/dz^l| relative to the last layer, per layer; null where there is nothing.
  GF.relative = (network, step, name = 'gradient_norm') => {
    const values = GF.column(network, step, name);
    if (!values) return null;
    const top = values[values.length - 1];
    return values.map((v) => GF.isNumber(v) && top > 0 ? v / top : null);
  };
  GF.endToEnd = (network, step) => {
    const relative = GF.relative(network, step);
    return relative ? relative[0] : null;
  };
  // "1.7·10⁻³¹ arrives", "12.0 times as much arrives"
  GF.arrives = (ratio) => GF.pretty(ratio) + (ratio > 1 ? ' times as much' : '') + ' arrives';
  // The program's verdict on the gradient at this step; null where nothing was measured.
  GF.judge = (network, step) => {
    const index = network.moments.findIndex((m) => m.step === step);
    return index < 0 ? null : GF.derived.kinds[network.id][index];
  };

  // The factor per layer that was fitted to this step's gradient, as in the verdicts.
  GF.factor = (network, step) => {
    const index = network.moments.findIndex((m) => m.step === step);
    return index < 0 ? null : GF.derived.factors[network.id][index];
  };

  // ---- Small helpers for the document
  GF.element = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === 'class') node.className = value; else if (value !== null) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };
  GF.svg = (tag, attributes = {}, ...children) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  // A table below a chart, filled when it is opened. rows() gives [header, ...lines] of texts.
  GF.numbers = (details, rows) => {
    const fill = () => {
      details.querySelectorAll('.table-box').forEach((box) => box.remove());
      if (!details.open) return;
      const [header, ...lines] = rows();
      const head = GF.element('tr', {}, ...header.map((text) => GF.element('th', {scope: 'col'}, text)));
      const body = lines.map(([first, ...rest]) => GF.element('tr', {}, GF.element('th', {scope: 'row'}, String(first)),
        ...rest.map((text) => GF.element('td', {}, text))));
      details.append(GF.element('div', {class: 'table-box', tabindex: '0'},
        GF.element('table', {}, GF.element('thead', {}, head), GF.element('tbody', {}, ...body))));
    };
    if (!details.gradflowFill) details.addEventListener('toggle', () => details.gradflowFill());
    details.gradflowFill = fill;
    fill();
  };
})();
