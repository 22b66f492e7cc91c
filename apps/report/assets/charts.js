// Line charts by layer or by step, on top of Chart.js: theme, logarithmic axis, labels at the ends of the lines.
(() => {
  'use strict';
  const GF = window.GF;
  const Chart = window.Chart;
  const cards = new Map();  // name -> {box, details, chart, title}

  // Chart.js' own logarithmic axis draws a line for every digit; ours plots log10 on a linear one.
  const logTick = (value) => {
    if (Number.isInteger(Number(value.toFixed(6)))) return Math.round(value) === 1 ? '10' : GF.power(Math.round(value));
    const v = 10 ** value;
    return v >= 1e-3 && v < 1e4 ? String(Number(v.toPrecision(3))) : GF.pretty(v, 2);
  };

  // Whole decades where there are some, else 1, 2, 5 times a power of ten, else even steps of the number itself.
  const logTicks = (low, high) => {
    const span = high - low;
    if (span >= 3) {
      const step = [1, 2, 5, 10, 20, 50, 100].find((s) => span / s <= 8) || 200;
      const first = Math.ceil(low / step) * step;
      return Array.from({length: Math.floor((high - first) / step) + 1}, (_, i) => first + i * step);
    }
    const digits = span >= 1.6 ? [1, 3] : [1, 2, 5];
    if (span >= 0.7) {
      const ticks = [];
      for (let e = Math.floor(low); e <= Math.ceil(high); ++e) digits.forEach((d) => ticks.push(e + Math.log10(d)));
      return ticks.filter((t) => t >= low && t <= high);
    }
    const from = 10 ** low, to = 10 ** high;
    const rough = (to - from) / 6, unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((s) => s * unit >= rough);
    const ticks = [];
    for (let v = Math.ceil(from / step) * step; v <= to; v += step) ticks.push(Math.log10(v));
    return ticks;
  };

  // Room around the curves: whole decades for wide ranges, a little for narrow ones.
  const logRange = (lines) => {
    const values = lines.flatMap((line) => [line.values, line.low, line.high].filter(Boolean).flat());
    const logs = values.map(GF.log10).filter((v) => v !== null);
    const low = Math.min(...logs), high = Math.max(...logs);
    if (high - low > 3) return {min: Math.floor(low), max: Math.ceil(high)};
    const pad = Math.max(0.08 * (high - low), 0.02);
    return {min: low - pad, max: high + pad};
  };

  const endLabels = {
    id: 'endLabels',
    afterDatasetsDraw(chart, _, options) {
      if (!options.side) return;
      const {ctx, chartArea} = chart;
      const left = options.side === 'left';
      const entries = [];
      chart.data.datasets.forEach((set, i) => {
        if (!set.endLabel) return;
        const points = chart.getDatasetMeta(i).data.filter((p) => Number.isFinite(p.y) && !p.skip);
        if (points.length) entries.push({text: set.endLabel, color: set.labelColor, y: Math.min(Math.max(points[left ? 0 : points.length - 1].y, chartArea.top), chartArea.bottom)});
      });
      entries.sort((a, b) => a.y - b.y);
      const gap = 14;
      entries.forEach((e, i) => { e.at = i ? Math.max(e.y, entries[i - 1].at + gap) : e.y; });
      const excess = entries.length ? entries[entries.length - 1].at - (chartArea.bottom - 2) : 0;
      if (excess > 0) entries.reduceRight((limit, e) => (e.at = Math.min(e.at, limit)) - gap, chartArea.bottom - 2);
      ctx.save();
      ctx.font = labelFont();
      ctx.textBaseline = 'middle';
      ctx.textAlign = left ? 'right' : 'left';
      for (const e of entries) {
        ctx.fillStyle = e.color;
        ctx.fillText(e.text, left ? chartArea.left - 9 : chartArea.right + 9, e.at);
      }
      ctx.restore();
    }
  };

  GF.card = (name, title, text, wide = false, parent = 'panels') => {
    const box = GF.element('div', {class: 'canvas-box'});
    const details = GF.element('details', {class: 'numbers'}, GF.element('summary', {}, 'The numbers of this picture'));
    const section = GF.element('section', {class: 'panel' + (wide ? ' wide' : ''), 'data-chart': name},
      GF.element('h3', {}, title), GF.element('p', {}, text), box, details);
    document.getElementById(parent).append(section);
    cards.set(name, {box, details, title, chart: null});
    return cards.get(name);
  };

  const themed = () => {
    Chart.defaults.color = GF.css('soft');
    Chart.defaults.borderColor = GF.css('grid');
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.font.size = 12;
  };

  const axis = (options, position) => ({
    type: 'linear', position, title: {display: !!options.title, text: options.title || ''},
    ...(options.log ? {afterBuildTicks: (scale) => {
      scale.ticks = logTicks(scale.min, scale.max).map((value) => ({value}));
    }} : {}),
    min: options.min, max: options.max, suggestedMin: options.suggestedMin, suggestedMax: options.suggestedMax,
    grid: {color: GF.css('grid'), borderColor: GF.css('line')},
    ticks: {maxTicksLimit: 8, precision: options.log ? undefined : options.precision,
      callback: options.log ? (v) => logTick(v) : options.percent ? (v) => GF.percent(v, 0) : undefined}
  });

  // A line: {network, values (one per x), x, name, options}. Values are raw; the axis decides about logarithms.
  const dataset = (line, log) => {
    const color = line.color || GF.color(line.network);
    const point = (v) => GF.isNumber(v) ? (log ? GF.log10(v) : v) : null;
    const marks = line.x.length > 20 ? Math.ceil(line.x.length / 9) : 1;
    return {
      label: line.name, data: line.x.map((x, i) => ({x, y: point(line.values[i]), raw: line.values[i]})),
      borderColor: color, backgroundColor: color, spanGaps: false, tension: 0, clip: 6,
      fill: line.shaded ? {target: {value: 0}, above: color + '3a'} : false,
      borderWidth: line.thin ? 1.2 : line.network && line.network.norm === 'bn' ? 1.5 : 2.6,
      pointBackgroundColor: line.network && !GF.isFilled(line.network) ? GF.css('card') : color, borderDash: line.dash || [],
      pointStyle: line.network ? GF.pointStyle(line.network) : 'circle',
      pointRadius: line.plain ? 0 : (c) => c.dataIndex % marks === 0 || line.x.length === 1 ? 3.6 : 0,
      pointHoverRadius: 5, pointHitRadius: 8, endLabel: line.endLabel,
      labelColor: line.color || GF.textColor(line.network), hidden: false, order: line.order ?? 1
    };
  };

  const band = (line, log) => {
    const color = line.color || GF.color(line.network);
    const edge = (values, fill) => ({
      label: '', data: line.x.map((x, i) => ({x, y: log ? GF.log10(values[i]) : values[i]})), borderWidth: 0, pointRadius: 0,
      pointHitRadius: 0, borderColor: 'transparent', backgroundColor: color + '2e', fill, order: 5, isBand: true
    });
    return [edge(line.low, false), edge(line.high, '-1')];
  };

  const labelFont = () => `600 12px ${Chart.defaults.font.family}`;
  // Room for the longest label.
  const labelGutter = (lines) => {
    if (!lines.length) return 0;
    const ctx = document.createElement('canvas').getContext('2d');
    ctx.font = labelFont();
    return 17 + Math.ceil(Math.max(...lines.map((line) => ctx.measureText(line.endLabel).width)));
  };

  // The labels go where the lines are further apart.
  const widerEnd = (lines, log) => {
    const spread = (pick) => {
      const ends = lines.map((line) => pick(line.values.filter((v) => log ? v > 0 : GF.isNumber(v)))).map((v) => log ? Math.log(v) : v);
      return Math.max(...ends) - Math.min(...ends);
    };
    return lines.length > 1 && spread((v) => v[v.length - 1]) > 1.5 * spread((v) => v[0]) ? 'right' : 'left';
  };

  // lines as above; axes: {x: {...}, y: {log, percent, min, ...}, labels: 'left'|'right', shared: lines that a logarithmic axis
  // must hold as well}. `empty` is said if nothing was measured.
  GF.lineChart = (name, lines, axes, empty) => {
    const entry = cards.get(name);
    if (entry.chart) { entry.chart.destroy(); entry.chart = null; }
    const log = !!axes.y.log;
    const usable = lines.filter((line) => line.values.some((v) => log ? v > 0 : GF.isNumber(v)));
    entry.details.hidden = !usable.length;
    if (!usable.some((line) => !line.reference)) {
      entry.box.replaceChildren(GF.element('p', {class: 'empty'}, empty || 'Not measured for this choice.'));
      return;
    }
    const labelled = usable.filter((line) => line.endLabel);
    const side = axes.labels || widerEnd(labelled, log);
    if (log) Object.assign(axes.y, logRange(axes.shared || usable));
    themed();
    let gutter = labelGutter(labelled);
    if (gutter > 0.36 * entry.box.clientWidth) {  // no room: the list above the charts must do
      gutter = 0;
      labelled.forEach((line) => { line.endLabel = undefined; });
    }
    const canvas = GF.element('canvas', {role: 'img', 'aria-label': entry.title + '. ' + usable.map((line) => {
      const known = line.values.filter(GF.isNumber);
      return `${line.name}: from ${GF.pretty(known[0])} to ${GF.pretty(known[known.length - 1])}`;
    }).join('; ')});
    entry.box.replaceChildren(canvas);
    const datasets = [];
    for (const line of usable) {
      datasets.push(dataset(line, log));
      if (line.low && line.high) datasets.push(...band(line, log));
    }
    const scales = {x: {...axis(axes.x, 'bottom'), grid: {display: false, borderColor: GF.css('line')}},
      y: axis(axes.y, side === 'left' ? 'right' : 'left')};
    entry.chart = new Chart(canvas, {
      type: 'line', data: {datasets},
      options: {
        animation: false, responsive: true, maintainAspectRatio: false, parsing: true,
        layout: {padding: {left: side === 'left' ? gutter : 0, right: side === 'right' ? gutter : 0, top: 6}},
        interaction: {mode: 'nearest', axis: 'x', intersect: false},
        scales,
        plugins: {
          legend: {display: false}, endLabels: {side},
          tooltip: {
            filter: (item) => !item.dataset.isBand,
            callbacks: {
              title: (items) => items.length ? `${axes.x.title} ${items[0].raw.x}` : '',
              label: (item) => ` ${item.dataset.label}: ${(axes.y.percent ? GF.percent : GF.pretty)(item.raw.raw)}`
            }
          }
        }
      },
      plugins: [endLabels, {id: 'drawn', afterDraw: (chart) => {
        // Drawn means: something of the first line lies within the plotting area.
        const {left, right, top, bottom} = chart.chartArea;
        const inside = (p) => p.x >= left - 1 && p.x <= right + 1 && p.y >= top - 1 && p.y <= bottom + 1;
        if (chart.getDatasetMeta(0).data.some(inside)) GF.drawn(name);
      }}]
    });
    GF.numbers(entry.details, () => {
      const xs = [...new Set(usable.flatMap((line) => line.x))].sort((a, b) => a - b);
      return [[axes.x.title, ...usable.map((line) => line.name)],
        ...xs.map((x) => [x, ...usable.map((line) => GF.pretty(line.values[line.x.indexOf(x)], 4))])];
    });
  };
})();
