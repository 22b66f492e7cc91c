// Binary exponents of the gradient's elements by layer, and where the number formats round to zero.
(() => {
  'use strict';
  const GF = window.GF;
  const kMost = 4;  // networks side by side
  // Below half of the smallest subnormal, rounding to nearest gives zero.
  const limits = [['fp8 E5M2', -17], ['fp16', -25], ['bf16', -134], ['fp32', -150]];
  // Cividis, thinned out: even in lightness, safe for every kind of color vision.
  const ramp = [[0, 34, 78], [43, 68, 110], [92, 104, 113], [138, 134, 120], [190, 174, 105], [254, 232, 56]];
  let card = null;

  GF.makeHeatPanel = () => {
    card = GF.card('exponents', 'Exponents of the gradient’s elements',
      'How the elements of ∂L/∂z are spread over powers of two, by layer. What lies below a dashed line ' +
      'becomes exactly zero in that number format (without loss scaling).', true);
    card.box.className = '';
  };

  const isDark = () => {
    const [r, g, b] = GF.rgb('card');
    return r + g + b < 384;
  };
  const shade = (t, dark) => {
    const at = (dark ? t : 1 - t) * (ramp.length - 1);
    const i = Math.min(ramp.length - 2, Math.floor(at));
    const mix = ramp[i].map((v, k) => Math.round(v + (ramp[i + 1][k] - v) * (at - i)));
    return `rgb(${mix.join(',')})`;
  };
  // Shares of 100 % to 0.001 % over the ramp.
  const level = (share) => share > 0 ? Math.min(1, Math.max(0.04, 1 + Math.log10(share) / 5)) : 0;

  const histogram = (network, step) => {
    const exponents = GF.column(network, step, 'exponents');
    if (!exponents) return null;
    let low = Infinity, high = -Infinity;
    exponents.shares_ppm.forEach((shares, i) => shares.forEach((s, k) => {
      if (s > 0) { low = Math.min(low, exponents.first[i] + k); high = Math.max(high, exponents.first[i] + k); }
    }));
    return {network, exponents, low, high, zeros: GF.column(network, step, 'gradient_zeros') || []};
  };

  const draw = (canvas, entry, low, high) => {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth || 330, height = canvas.clientHeight || 300;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const ctx = canvas.getContext('2d');
    ctx.scale(ratio, ratio);
    const dark = isDark();
    const area = {left: 42, right: width - 6, top: 6, bottom: height - 52};
    const depth = entry.exponents.first.length;
    const cellWidth = (area.right - area.left) / depth;
    const y = (exponent) => area.top + (area.bottom - area.top) * (high + 1 - exponent) / (high + 1 - low);
    ctx.strokeStyle = GF.css('line');
    ctx.strokeRect(area.left, area.top, area.right - area.left, area.bottom - area.top);
    for (let layer = 0; layer < depth; ++layer) {
      const x = area.left + layer * cellWidth;
      entry.exponents.shares_ppm[layer].forEach((ppm, k) => {
        const exponent = entry.exponents.first[layer] + k;
        if (!(ppm > 0) || exponent < low) return;
        ctx.fillStyle = shade(level(ppm * 1e-6), dark);
        ctx.fillRect(x, y(exponent + 1), cellWidth + 0.5, y(exponent) - y(exponent + 1) + 0.5);
      });
      const zero = level(entry.zeros[layer]);
      ctx.fillStyle = zero > 0 ? shade(zero, dark) : GF.css('bg');
      ctx.fillRect(x, area.bottom + 6, cellWidth + 0.5, 9);
    }
    ctx.strokeRect(area.left, area.bottom + 6, area.right - area.left, 9);
    ctx.fillStyle = GF.css('soft');
    ctx.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textAlign = 'right';
    ctx.textBaseline = 'middle';
    const step = [2, 4, 8, 16, 32, 64].find((s) => (high - low) / s <= 9) || 128;
    for (let e = Math.ceil(low / step) * step; e <= high; e += step) ctx.fillText(GF.power(e, '2'), area.left - 5, y(e));
    ctx.fillText('zero', area.left - 5, area.bottom + 11);
    ctx.textAlign = 'center';
    const layerStep = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((s) => depth / s <= 6) || 2000;
    for (let layer = layerStep; layer <= depth; layer += layerStep) {
      ctx.fillText(String(layer), area.left + (layer - 0.5) * cellWidth, area.bottom + 25);
    }
    ctx.fillText('1', area.left + 0.5 * cellWidth, area.bottom + 25);
    ctx.fillText('layer', (area.left + area.right) / 2, area.bottom + 42);
    ctx.setLineDash([5, 4]);
    ctx.lineWidth = 1.4;
    for (const [name, exponent] of limits) {
      if (exponent < low || exponent > high) continue;
      ctx.strokeStyle = GF.css('ink');
      ctx.beginPath();
      ctx.moveTo(area.left, y(exponent));
      ctx.lineTo(area.right, y(exponent));
      ctx.stroke();
      const text = `${name}: zero below`;
      ctx.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
      const wide = ctx.measureText(text).width;
      const at = y(exponent) + (name.startsWith('fp8') ? -10 : 10);
      ctx.fillStyle = GF.css('card');
      ctx.globalAlpha = 0.85;
      ctx.fillRect(area.right - wide - 10, at - 8, wide + 8, 16);
      ctx.globalAlpha = 1;
      ctx.fillStyle = GF.css('ink');
      ctx.textAlign = 'right';
      ctx.fillText(text, area.right - 6, at);
    }
    ctx.setLineDash([]);
    canvas.onpointermove = (event) => {
      const layer = Math.floor((event.offsetX - area.left) / cellWidth);
      const exponent = Math.floor(high + 1 - (event.offsetY - area.top) / (area.bottom - area.top) * (high + 1 - low));
      if (layer < 0 || layer >= depth || event.offsetY > area.bottom + 15) return GF.tip(null);
      const zero = event.offsetY > area.bottom;
      const ppm = entry.exponents.shares_ppm[layer][exponent - entry.exponents.first[layer]] || 0;
      GF.tip(event, `layer ${layer + 1}, ` + (zero ? `exactly zero: ${GF.percent(entry.zeros[layer] || 0)}`
        : `${GF.power(exponent, '2')} to ${GF.power(exponent + 1, '2')}: ${GF.percent(ppm * 1e-6, 2)}`));
    };
    canvas.onpointerleave = () => GF.tip(null);
  };

  GF.tip = (event, text) => {
    const tip = document.getElementById('tip');
    tip.hidden = !event;
    if (!event) return;
    tip.textContent = text;
    tip.style.left = Math.min(event.pageX + 14, document.documentElement.clientWidth - 200) + 'px';
    tip.style.top = event.pageY + 14 + 'px';
  };

  GF.drawHeat = (chosen, step) => {
    const entries = chosen.map((n) => histogram(n, step)).filter((e) => e && e.low <= e.high).slice(0, kMost);
    card.details.hidden = !entries.length;
    if (!entries.length) {
      card.box.replaceChildren(GF.element('p', {class: 'empty'}, 'No exponents were recorded for this choice.'));
      return;
    }
    let low = Math.min(-27, ...entries.map((e) => e.low));
    const high = Math.max(...entries.map((e) => e.high)) + 1;
    if (low < -100) low = Math.min(low, -164);
    const key = GF.element('div', {class: 'heat-key'}, 'share of the elements: 0.001 %', GF.element('i'), '100 %');
    const dark = isDark();
    key.querySelector('i').style.background =
      `linear-gradient(90deg, ${[0.04, 0.25, 0.5, 0.75, 1].map((t) => shade(t, dark)).join(',')})`;
    if (chosen.length > entries.length) key.append(`Shown: ${entries.length} of ${chosen.length} networks, those with finite elements, at most ${kMost}.`);
    const heat = GF.element('div', {class: 'heat'});
    const canvases = entries.map((entry) => {
      const canvas = GF.element('canvas', {role: 'img', 'aria-label':
        `Exponents of the gradient of ${GF.fullName(entry.network)}, from ${GF.power(entry.low, '2')} to ${GF.power(entry.high, '2')}`});
      heat.append(GF.element('figure', {}, GF.element('figcaption', {}, GF.fullName(entry.network)), canvas));
      return canvas;
    });
    card.box.replaceChildren(heat, key);
    entries.forEach((entry, i) => draw(canvases[i], entry, low, high));
    GF.drawn('exponents');
    GF.numbers(card.details, () => [['layer', ...entries.flatMap((e) => [`${GF.fullName(e.network)}: median exponent`, 'zero'])],
      ...entries[0].exponents.first.map((_, layer) => [layer + 1, ...entries.flatMap((e) => {
        const shares = e.exponents.shares_ppm[layer] || [];
        const half = shares.reduce((a, b) => a + b, 0) / 2;
        let sum = 0;
        const k = shares.findIndex((s) => (sum += s) >= half && half > 0);
        return [k < 0 ? '–' : GF.power(e.exponents.first[layer] + k, '2'), GF.percent(e.zeros[layer])];
      })])]);
  };
})();
