// What the detail panels show of the chosen networks.
(() => {
  'use strict';
  const GF = window.GF;
  const kLabels = 8;  // more lines than that carry no labels
  const layerAxis = (chosen) => ({title: 'layer', min: 1, max: Math.max(2, ...chosen.map((n) => n.depth)), precision: 0});

  // One line per network that has the column at the step.
  const byLayer = (chosen, step, names, column, extra) => chosen.map((network, i) => {
    const values = GF.column(network, step, column);
    if (!values) return null;
    return {network, values, x: network.layers.map((l) => l.layer), name: GF.fullName(network),
      endLabel: chosen.length <= kLabels ? names[i] : undefined, ...(extra ? extra(network) : {})};
  }).filter(Boolean);

  const definitions = [
    {
      name: 'gradient', title: 'Gradient by layer',
      text: '|∂L/∂z|. Dashed: mean-field prediction; band: smallest to largest initialization (both step 0 only).',
      draw: (chosen, names, step) => {
        const lines = byLayer(chosen, step, names, 'gradient_norm', (n) => ({
          low: GF.column(n, step, 'gradient_norm_low'), high: GF.column(n, step, 'gradient_norm_high')}));
        for (const n of chosen) {
          const values = GF.column(n, step, 'predicted_norm');
          if (values) lines.push({
            network: n, values, x: n.layers.map((l) => l.layer), name: GF.fullName(n) + ', predicted',
            dash: [6, 5], thin: true, plain: true, color: GF.css('ink'), order: 0});
        }
        GF.lineChart('gradient', lines, {x: layerAxis(chosen), y: {log: true}});
      }},
    {
      name: 'factor', title: 'Layer-to-layer factor',
      text: 'What each layer multiplies the gradient’s norm by on the way back. At 1 nothing is lost or ' +
        'gained. Stem and head follow other rules than the layers between.',
      draw: (chosen, names, step) => {
        const one = {values: [1, 1], x: [1, layerAxis(chosen).max], name: 'unchanged', color: GF.css('soft'), dash: [2, 3], thin: true,
          plain: true, reference: true};
        GF.lineChart('factor', [...byLayer(chosen, step, names, 'factor'), one],
          {x: layerAxis(chosen), y: {log: true}});
      }},
    {
      name: 'weight-gradient', title: 'Weight gradients',
      text: '|∂L/∂W|. Beware: for ReLU these can be level while the gradient vanishes, because they contain ' +
        'the signal too.',
      draw: (chosen, names, step) => GF.lineChart('weight-gradient', byLayer(chosen, step, names, 'weight_gradient_norm'),
        {x: layerAxis(chosen), y: {log: true}})},
    {
      name: 'update-ratio', title: 'Update ratio',
      text: '|change of W in one step| / |W|: how fast a layer really moves. Weight decay moves all layers: a ' +
        'flat floor is not learning.',
      draw: (chosen, names, step) => GF.lineChart('update-ratio', byLayer(chosen, step, names, 'update_ratio'),
        {x: layerAxis(chosen), y: {log: true}}, 'No update was measured at this step. Move the slider.')},
    {
      name: 'units', title: 'Saturated or dead units',
      text: 'Sigmoid, tanh: share of outputs on the flat parts. ReLU: share of units that are never positive.',
      draw: (chosen, names, step) => {
        const lines = [...byLayer(chosen, step, names, 'saturated'), ...byLayer(chosen, step, names, 'dead')];
        GF.lineChart('units', lines, {x: layerAxis(chosen), y: {percent: true, min: 0, suggestedMax: 0.1}});
      }},
    {
      name: 'signal', title: 'Signal on the way up',
      text: 'Root mean square of z, before the activation. It need not fade for the gradient to vanish.',
      draw: (chosen, names, step) => GF.lineChart('signal', byLayer(chosen, step, names, 'z_rms'),
        {x: layerAxis(chosen), y: {log: true}})},
    {
      name: 'zeros', title: 'Exact zeros and denormals',
      text: 'Share of the elements of ∂L/∂z that are exactly zero; dotted: denormal, the last numbers before zero.',
      draw: (chosen, names, step) => {
        const unlabelled = {dash: [2, 3], thin: true, plain: true, endLabel: undefined};
        const dotted = byLayer(chosen, step, names, 'gradient_denormals', () => unlabelled)
          .map((line) => ({...line, name: line.name + ', denormal'}));
        GF.lineChart('zeros', [...byLayer(chosen, step, names, 'gradient_zeros'), ...dotted],
          {x: layerAxis(chosen), y: {percent: true, min: 0, suggestedMax: 0.1}});
      }},
    {
      name: 'skip-branch', title: 'Where it came from: skip or branch',
      text: 'Below the line the share that came by the skip, above it the branch’s. Dotted: cosine between the two.',
      draw: (chosen, names, step) => {
        const lines = [];
        const residuals = chosen.filter((n) => n.residual).length;
        chosen.forEach((n, i) => {
          const skip = GF.column(n, step, 'skip_norm'), branch = GF.column(n, step, 'branch_norm');
          if (!skip || !branch) return;
          const x = n.layers.map((l) => l.layer);
          const share = skip.map((s, k) => GF.isNumber(s) && GF.isNumber(branch[k]) && s + branch[k] > 0
            ? s * s / (s * s + branch[k] * branch[k]) : null);
          lines.push({network: n, values: share, x, name: GF.fullName(n) + ', skip',
            endLabel: residuals === 1 ? 'skip' : chosen.length <= kLabels ? names[i].replace('residual ', '') : undefined,
            shaded: residuals === 1});
          const cosine = GF.column(n, step, 'skip_branch_cosine');
          if (cosine) lines.push({network: n, values: cosine, x, name: GF.fullName(n) + ', cosine',
            thin: true, plain: true, dash: [2, 3]});
        });
        GF.lineChart('skip-branch', lines, {x: layerAxis(chosen), y: {suggestedMin: 0, max: 1}},
          residuals ? 'No finite gradient at this step.'
            : 'Only residual networks have a skip.' + (GF.networks.some((n) => n.residual) ? ' Choose “residual” or “both”.' : ''));
      }},
    {
      name: 'training-loss', title: 'Training loss',
      text: 'Mean since the point before. ' + (GF.yardstick ? 'Dotted: the shallow network, the yardstick. ' : '') +
        'What leaves the picture upward diverges.',
      draw: (chosen, names) => curves('training-loss', chosen, names, 'train_loss', {min: 0, max: lossLimit(chosen)})},
    {
      name: 'accuracy', title: 'Held-out accuracy',
      text: (GF.yardstick ? 'Dotted: the shallow network, and the accuracy from which a network counts as learning. ' : '') +
        'Batch norm works with its running averages here, which lag behind in the first steps.',
      draw: (chosen, names) => curves('accuracy', chosen, names, 'test_accuracy', {percent: true, min: 0, max: 1})}
  ];

  // A network that diverges would flatten all others: the axis ends above the highest loss of those that do not.
  const lossLimit = (chosen) => {
    const steady = [...chosen, GF.yardstick].filter((n) => n && n.diverged_at === null);
    const losses = steady.flatMap((n) => n.curve.train_loss.filter(GF.isNumber));
    return losses.length ? Math.ceil(2.1 * Math.max(...losses)) / 2 : undefined;
  };

  const curves = (name, chosen, names, column, y) => {
    const line = (n, endLabel, extra) => ({
      network: n, values: n.curve[column], x: n.curve.step, name: GF.fullName(n), endLabel, ...extra});
    const lines = chosen.map((n, i) => line(n, chosen.length <= kLabels ? names[i] : undefined, {}));
    const reference = {dash: [2, 3], thin: true, plain: true, reference: true};
    if (GF.yardstick) {
      lines.push(line(GF.yardstick, 'shallow', reference));
      if (name === 'accuracy') {
        const {chance, learning_bar: bar} = GF.derived;
        const last = Math.max(1, ...GF.yardstick.curve.step);
        lines.push({values: [bar, bar], x: [0, last], name: 'learns', endLabel: 'learns', color: GF.css('soft'), ...reference});
        lines.push({values: [chance, chance], x: [0, last], name: 'chance', endLabel: 'chance', color: GF.css('soft'), ...reference});
      }
    }
    const last = Math.max(1, ...lines.flatMap((l) => l.x));
    GF.lineChart(name, lines, {x: {title: 'step', min: 0, max: last, precision: 0}, y, labels: 'right'},
      'No training curve was recorded.');
  };

  GF.makePanels = () => {
    definitions.forEach(({name, title, text}, i) => {
      if (i === definitions.length - 2) GF.makeHeatPanel();
      GF.card(name, title, text);
    });
  };

  GF.drawPanels = (state) => {
    const chosen = GF.selected();
    const names = GF.shortNames(chosen);
    for (const {draw} of definitions) draw(chosen, names, state.step);
    GF.drawHeat(chosen, state.step);
  };
})();
