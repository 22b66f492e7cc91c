// plain-56 and ResNet-56 in their first steps: curves by layer at several steps, both networks on one scale.
(() => {
  'use strict';
  const GF = window.GF;
  const pair = GF.study.pair && GF.study.pair.networks.length === 2 ? GF.study.pair : null;
  const steps = GF.derived.pair_steps || [];

  // of(column): what is drawn, by layer, given the columns of the step and of step 0.
  const quantities = [
    {name: 'pair-gradient', title: 'gradient by layer', of: (now) => now('gradient_norm'),
      text: '|∂L/∂z|, z the output of a convolution before its batch norm. The loss is on the right. The teeth of the residual ' +
        'network are the two convolutions of each block.'},
    {name: 'pair-rate', title: 'effective learning rate by layer', labels: 'left',
      of: (now, start) => ratio(now('effective_rate'), start('effective_rate')),
      text: 'lr/|W|², relative to step 0: batch norm cancels the length of W, so this is what its turning goes by.'},
    {name: 'pair-turn', title: 'angle turned by layer',
      of: (now) => product(now('effective_rate'), now('weight_norm'), now('weight_gradient_norm')).map(Math.atan),
      text: 'arctan(lr·|∂L/∂W|/|W|): the angle in radians by which this step’s gradient alone turns the weight, without ' +
        'momentum and weight decay. π/2 is the most: what was there before no longer counts.'}
  ];
  const product = (...columns) => columns[0].map((_, l) => columns.reduce((p, c) => GF.isNumber(c[l]) ? p * c[l] : NaN, 1));
  const ratio = (a, b) => a.map((v, l) => v / b[l]);
  const nameOf = (network) => network.title.split(',')[0];  // "ResNet-56"

  // One line a step; the head has no batch norm behind it and is left out.
  const lines = (network, q) => steps.map((step, i) => {
    const at = (when) => (name) => GF.column(network, when, name) || [];
    const values = q.of(at(step), at(0)).slice(0, network.depth - 1).map((v) => GF.isNumber(v) ? v : null);
    if (!values.length) return null;
    return {values, x: network.layers.slice(0, values.length).map((l) => l.layer), name: 'step ' + step, endLabel: 'step ' + step,
      color: GF.css('t' + i), thin: i > 0 && i < steps.length - 1, plain: true};
  }).filter(Boolean);

  GF.makePair = () => {
    if (!pair) return;
    for (const q of quantities) {
      for (const network of pair.networks) {
        GF.card(`${q.name}-${network.residual ? 'residual' : 'plain'}`, `${nameOf(network)}: ${q.title}`, q.text, false, 'pair-panels');
      }
    }
    GF.card('pair-loss', 'Training loss', 'Mean since the point before, on a logarithmic scale. Dotted: guessing, all classes alike.', true,
      'pair-panels');
  };

  GF.drawPair = () => {
    if (!pair) return;
    for (const q of quantities) {
      const shared = pair.networks.flatMap((n) => lines(n, q));
      for (const network of pair.networks) {
        GF.lineChart(`${q.name}-${network.residual ? 'residual' : 'plain'}`, lines(network, q),
          {x: {title: 'convolution', min: 1, max: network.depth - 1, precision: 0}, y: {log: true}, labels: q.labels || 'right', shared});
      }
    }
    const last = Math.max(1, ...pair.networks.flatMap((n) => n.curve.step));
    const curves = pair.networks.map((n) => ({network: n, values: n.curve.train_loss, x: n.curve.step, name: nameOf(n), endLabel: nameOf(n)}));
    const guess = Math.log(GF.study.settings.classes);
    curves.push({values: [guess, guess], x: [0, last], name: 'guessing', endLabel: 'guessing', color: GF.css('soft'), dash: [2, 3],
      thin: true, plain: true, reference: true});
    GF.lineChart('pair-loss', curves, {x: {title: 'step', min: 0, max: last, precision: 0}, y: {log: true}, labels: 'right'},
      'No training curve was recorded.');
  };
})();
