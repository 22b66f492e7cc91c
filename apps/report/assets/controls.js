// What is chosen: the factors' levels and the step. The address bar holds it (#act=tanh&init=he&...&step=10).
(() => {
  'use strict';
  const GF = window.GF;
  const unique = (values) => [...new Set(values)];
  const factors = [
    {key: 'act', title: 'Activation', of: (n) => n.activation, all: 'all'},
    {key: 'init', title: 'Initialization', of: (n) => n.init, all: 'both'},
    {key: 'norm', title: 'Norm', of: (n) => n.norm, all: 'both'},
    {key: 'skip', title: 'Skip', of: (n) => GF.skipName(n), all: 'both'}
  ];
  const state = {step: GF.steps[0]};
  GF.state = state;

  // Opens on the plain network that loses most, beside its residual twin.
  const byLoss = GF.networks.filter((n) => GF.isNumber(GF.endToEnd(n, GF.steps[0])))
    .sort((a, b) => a.residual - b.residual || GF.endToEnd(a, GF.steps[0]) - GF.endToEnd(b, GF.steps[0]));
  const opening = byLoss[0] || GF.networks[0];
  for (const factor of factors) {
    factor.levels = unique(GF.networks.map(factor.of));
    state[factor.key] = opening ? factor.of(opening) : 'all';
  }
  state.skip = 'all';

  GF.isSelected = (network) => factors.every((f) => state[f.key] === 'all' || state[f.key] === f.of(network));
  GF.selected = () => GF.networks.filter(GF.isSelected);

  const readHash = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const f of factors) {
      const value = given.get(f.key);
      if (value === 'all' || f.levels.includes(value)) state[f.key] = value;
    }
    const step = Number(given.get('step'));
    if (given.has('step') && GF.steps.includes(step)) state.step = step;
  };
  const writeHash = () => {
    const text = '#' + factors.map((f) => `${f.key}=${state[f.key]}`).join('&') + '&step=' + state.step;
    if (location.hash === text) return;
    try { history.replaceState(null, '', text); } catch (error) { /* not allowed from some file viewers; nothing is lost */ }
  };

  const sliders = [document.getElementById('step-slider'),
    GF.element('input', {type: 'range', min: '0', step: '1', 'aria-label': 'Training step'})];
  const outputs = [document.getElementById('step-output'), GF.element('output')];
  const play = document.getElementById('step-play');
  const syncControls = () => {
    for (const f of factors) {
      for (const input of document.querySelectorAll(`input[name="${f.key}"]`)) input.checked = input.value === state[f.key];
    }
    for (const slider of sliders) {
      slider.value = String(GF.steps.indexOf(state.step));
      slider.setAttribute('aria-valuetext', 'step ' + state.step);
    }
    for (const output of outputs) output.textContent = String(state.step);
    const loaded = GF.networks.every((n) => n.init === 'loaded');
    document.getElementById('step-note').textContent = state.step === 0 && loaded
      ? 'Step 0: before any update, with the weights that the run was given.' : state.step === 0
      ? `Step 0 is the initialization, before any update: root mean square over ${GF.study.settings.init_seeds} random draw${GF.study.settings.init_seeds === 1 ? '' : 's'}.`
      : `Measured after ${state.step} update${state.step === 1 ? '' : 's'} of the weights, on one network each.`;
  };

  const drawShown = () => {
    const chosen = GF.selected();
    document.getElementById('shown').replaceChildren(...chosen.slice(0, 8).map((n) => {
      const kind = GF.judge(n, state.step);
      return GF.element('span', {class: 'chip'}, GF.icon(n), GF.element('b', {}, GF.fullName(n)),
        kind ? GF.element('span', {class: 'mark-' + kind}, `${GF.marks[kind]} ${GF.words(kind)}`) : 'not measured at this step',
        GF.element('span', {class: 'evidence'}, GF.isNumber(GF.endToEnd(n, state.step)) ? GF.arrives(GF.endToEnd(n, state.step)) : ''));
    }), chosen.length > 8 ? `and ${chosen.length - 8} more` : '');
  };

  const guarded = (draw) => {
    try { draw(); } catch (error) { GF.report.errors.push(String(error && error.stack || error)); }
  };
  GF.redraw = () => {
    writeHash();
    syncControls();
    for (const draw of [GF.drawHero, GF.drawMatrix, drawShown, GF.drawPanels, GF.drawPair]) guarded(() => draw(state));
    GF.mirror();
  };
  GF.select = (network) => {
    for (const f of factors) state[f.key] = f.of(network);
    state.skip = 'all';
    GF.redraw();
  };

  GF.makeControls = () => {
    const form = document.getElementById('controls');
    for (const f of factors) {
      if (f.levels.length < 2) continue;
      const options = [...f.levels, 'all'].map((level) => {
        const input = GF.element('input', {type: 'radio', name: f.key, value: level});
        input.addEventListener('change', () => { state[f.key] = level; GF.redraw(); });
        return GF.element('label', {}, input, level === 'all' ? f.all : GF.display(level));
      });
      form.append(GF.element('fieldset', {}, GF.element('legend', {}, f.title), GF.element('span', {class: 'choice'}, ...options)));
    }
    form.addEventListener('submit', (event) => event.preventDefault());
    document.getElementById('step-control').hidden = GF.steps.length < 2;
    if (GF.steps.length > 1) form.append(GF.element('span', {class: 'slide'}, 'Step ', outputs[1], sliders[1]));
    for (const slider of sliders) {
      slider.max = String(GF.steps.length - 1);
      slider.addEventListener('input', () => { state.step = GF.steps[Number(slider.value)]; GF.redraw(); });
    }
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = 'Play'; play.setAttribute('aria-pressed', 'false'); };
    play.addEventListener('click', () => {
      if (timer) return stop();
      if (state.step === GF.steps[GF.steps.length - 1]) state.step = GF.steps[0];
      play.textContent = 'Stop';
      play.setAttribute('aria-pressed', 'true');
      GF.redraw();
      timer = setInterval(() => {
        const next = GF.steps.indexOf(state.step) + 1;
        if (next >= GF.steps.length) return stop();
        state.step = GF.steps[next];
        GF.redraw();
      }, 900);
    });
    window.addEventListener('hashchange', () => { readHash(); GF.redraw(); });
    readHash();
  };
})();
