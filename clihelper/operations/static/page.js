// Shows what the daemon does, as its events say. What they bring is only ever shown as text.
'use strict';

const KEPT = 360;           // samples in an hour
const INTERVAL = 10;        // seconds between two of them
const SILENCE = 5000;       // milliseconds without an event after which what is shown is old
const RETRY = 5000;         // milliseconds before another attempt if the server has refused
const HEIGHT = 150, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20;  // of a plot, in pixels

const $ = id => document.getElementById(id);
let samples = [];
let state = null;
let heard = 0;
let width = 440;             // of a plot: the same as on the screen, so that letters have their size

// Text

function duration(seconds) {
  const whole = Math.max(Math.floor(seconds), 0);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

function short(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds >= 1) return `${digits(seconds)} s`;
  if (seconds >= 0.001) return `${digits(seconds * 1e3)} ms`;
  return `${digits(seconds * 1e6)} µs`;
}

const digits = number => String(Number(number.toPrecision(3)));

function amount(number) {
  if (number === null || number === undefined) return '–';
  return Number.isInteger(number) ? number.toLocaleString('en') : digits(number);
}

const perSecond = number => number === null ? '–' : `${digits(number)}/s`;
const mebibytes = bytes => `${Math.round(bytes / 2 ** 20)} MiB`;
const ago = time => `${duration(Date.now() / 1000 - time)} ago`;
const clock = time => new Date(time * 1000).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'});

// Elements: what is there is changed only where it differs, so that the selection and the focus
// of who reads it stay.

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function svg(name, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function put(target, children) {
  const old = [...target.childNodes];
  children.forEach((child, index) => {
    const before = old[index];
    if (!before) target.append(child);
    else if (!before.isEqualNode(child)) before.replaceWith(child);
  });
  old.slice(children.length).forEach(each => each.remove());
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// Cells are texts, or [text, class].
function table(target, heading, rows, none) {
  if (!target.tHead) {
    const row = element('tr');
    row.append(...heading.map(([text, className]) => {
      const cell = element('th', text, className);
      cell.scope = 'col';
      return cell;
    }));
    target.createTHead().append(row);
    target.createTBody();
  }
  const made = rows.map(cells => {
    const row = element('tr');
    row.append(...cells.map((cell, index) => {
      const [text, className] = Array.isArray(cell) ? cell : [cell];
      const made = element(index ? 'td' : 'th', text, className || heading[index][1]);
      if (!index) made.scope = 'row';
      return made;
    }));
    return row;
  });
  if (!made.length) {
    const row = element('tr');
    const cell = element('td', none, 'none');
    cell.colSpan = heading.length;
    row.append(cell);
    made.push(row);
  }
  put(target.tBodies[0], made);
}

// The parts of the page

function showHead() {
  const name = state.program || state.name;
  write($('program'), name);
  document.title = `${state.ready ? '' : '(not ready) '}${name}`;
  write($('ready'), state.ready ? 'ready' : 'not ready');
  $('ready').className = `badge ${state.ready ? 'good' : 'bad'}`;
  const version = state.version ? `version ${state.version}, ` : '';
  write($('about'), `${version}pid ${state.pid}, up ${duration(state.uptime)}`);
  const alarms = Object.entries(state.missing || {})
    .map(([worker, why]) => `Worker ${worker} cannot be started: ${why}`);
  if (state.reload_failed) alarms.push(`The last reload failed: ${state.reload_failed}`);
  const reasons = state.processes.map(({broker}) => broker && !broker.consuming && broker.why);
  alarms.push(...new Set(reasons.filter(Boolean)));
  $('alarms').hidden = !alarms.length;
  write($('alarms'), alarms.join('\n'));
}

// Several queues may have one queue for their dead letters: then each tells what is in that.
function deadLetters() {
  const found = new Map(Object.entries(state.queues).map(
    ([name, queue]) => [queue.dead_letter_queue || `of ${name}`, queue.dead_letters || 0]));
  return [...found.values()].reduce((sum, each) => sum + each, 0);
}

function showFigures() {
  const queues = Object.values(state.queues);
  const sum = key => queues.reduce((total, queue) => total + (queue[key] || 0), 0);
  const working = state.processes.length;
  const wanted = state.workers || 1;
  const known = key => queues.some(queue => queue[key] !== null);
  const shown = [
    ['Workers', working < wanted ? `${working} of ${wanted}` : `${working}`, working < wanted],
    ['In hand', amount(state.processes.reduce((total, each) => total + each.in_hand, 0))],
  ];
  if (queues.length) {
    shown.push(
      ['Ready in queues', known('ready') ? amount(sum('ready')) : '–'],
      ['Handled a minute', amount(sum('runs_last_minute'))],
      ['Failed a minute', amount(sum('failed_last_minute')), sum('failed_last_minute') > 0],
      ['Dead letters', known('dead_letters') ? amount(deadLetters()) : '–', deadLetters() > 0],
    );
  }
  for (const [key, label] of [['published', 'Published'], ['ticks', 'Ticks'],
                              ['worker_restarts', 'Worker restarts'], ['reconnects', 'Reconnects']]) {
    if (state.counted[key]) shown.push([label, amount(state.counted[key])]);
  }
  put($('figures'), shown.map(([label, value, alarm]) => {
    const pair = element('div');
    pair.append(element('dt', label), element('dd', value, alarm ? 'alarm' : ''));
    return pair;
  }));
}

function showQueues() {
  const heading = [['Queue', 'text'], ['Ready'], ['As of'], ['Consumers'], ['A minute'], ['Failed'],
                   ['Retried'], ['Given up'], ['Dead letters'], ['p50'], ['p99']];
  const rows = Object.entries(state.queues).map(([name, queue]) => [
    name, amount(queue.ready), queue.asked_ago === null ? '–' : `${duration(queue.asked_ago)} ago`,
    amount(queue.consumers), amount(queue.runs_last_minute),
    [amount(queue.failed_last_minute), queue.failed_last_minute ? 'alarm' : ''],
    amount(queue.retried), amount(queue.dead_lettered),
    [amount(queue.dead_letters), queue.dead_letters ? 'alarm' : ''],
    short(queue.p50), short(queue.p99),
  ]);
  table($('queue-table'), heading, rows, 'No queue is consumed.');
}

function showWorkers() {
  const heading = [['Worker', 'text'], ['PID'], ['State', 'text'], ['In hand', 'text'], ['Up'],
                   ['Messages'], ['Failures'], ['Memory']];
  const rows = state.processes.map(each => [
    `${each.worker}`, `${each.pid}`, each.state, inHand(each), duration(each.uptime),
    amount(each.messages), amount(each.failures), mebibytes(each.rss),
  ]);
  table($('worker-table'), heading, rows, 'No process works.');
  const brokers = new Map();
  for (const {broker} of state.processes) {
    if (!broker) continue;
    const words = `${broker.url}: ${broker.consuming ? 'consuming' : broker.why || 'not consuming'}`;
    const [since, consuming] = brokers.get(words) || [broker.since, broker.consuming];
    brokers.set(words, [Math.min(since, broker.since), consuming]);
  }
  put($('brokers'), [...brokers].map(([words, [since, consuming]]) =>
    element('li', `Broker ${words}, for ${duration(Date.now() / 1000 - since)}`,
            consuming ? '' : 'notice')));
}

// Why queues are not consumed for now, and until when.
function showPaused() {
  const now = Date.now() / 1000;
  put($('paused'), Object.entries(state.paused || {}).map(([name, {by, since, until}]) => {
    const why = {operator: 'paused', breaker: 'its breaker is open', handler: 'paused by its handler'}[by];
    const when = until === null ? '' : ` in ${duration(Math.max(until - now, 0))}`;
    const then = by === 'operator' ? '' : `; one message is tried${when}`;
    return element('li', `Queue ${name}: ${why}, for ${duration(now - since)}${then}`, 'notice');
  }));
}

function inHand(worker) {
  if (!worker.in_hand) return '–';
  return `${worker.in_hand}, ${worker.in_hand_queue} for ${duration(worker.in_hand_since || 0)}`;
}

function showDeadLetters() {
  const heading = [['Queue', 'text'], ['Reason', 'text'], ['Exception', 'text'], ['Since the start']];
  const rows = state.dead_letter_groups.slice(0, 100).map(group => [
    group.queue, group.reason, group.exception || '–', amount(group.count)]);
  table($('dead-table'), heading, rows, 'There was none since the daemon was started.');
  const about = [document.createTextNode('Counted since the daemon was started. What is there now is listed by '),
                 element('code', `clihelper dead-letters list -c ${state.config || "FILE"}`),
                 document.createTextNode('.')];
  put($('dead-about'), about);
}

function showErrors() {
  const errors = state.last_errors.map(error => {
    const item = element('li');
    const time = element('time', `${clock(error.time)}, ${ago(error.time)}`);
    time.dateTime = new Date(error.time * 1000).toISOString();
    item.append(time, element('div', error.error), element('div', `${error.message}: ${error.outcome}`, 'soft'));
    return item;
  });
  put($('errors'), errors.length ? errors : [element('li', 'None.')]);
}

function showConfigurationAge() {
  write($('configuration-about'), `${state.config || 'No file'}, read ${duration(state.config_age)} ago. `
    + 'Values from the environment and from files, passwords and other secrets are hidden.');
}

function showConfiguration(sections) {
  put($('configuration'), Object.entries(sections).map(([name, section]) => {
    const details = element('details');
    const open = [...$('configuration').querySelectorAll('details[open] > summary')];
    details.open = open.some(each => each.textContent === name);
    details.append(element('summary', name), element('pre', lines(section, '').join('\n')));
    return details;
  }));
}

function lines(value, indent) {
  if (Array.isArray(value)) {
    return value.length ? value.flatMap(each => {
      const [first, ...rest] = lines(each, `${indent}  `);
      return [`${indent}- ${first.trimStart()}`, ...rest];
    }) : [`${indent}[]`];
  }
  if (value && typeof value === 'object') {
    const entries = Object.entries(value);
    return entries.length ? entries.flatMap(([key, each]) => {
      const isNested = each && typeof each === 'object' && Object.keys(each).length;
      return isNested ? [`${indent}${key}:`, ...lines(each, `${indent}  `)]
        : [`${indent}${key}: ${lines(each, '')[0]}`];
    }) : [`${indent}{}`];
  }
  return [`${indent}${value === null ? 'null' : value}`];
}

// The plots

const PLOTS = [
  {title: 'Handled a second', form: perSecond, area: true,
   curves: [['handled', rate(0)], ['failed', rate(1)]]},
  {title: 'Time that handlers take', form: short,
   curves: [['p50', longest(2)], ['p99', longest(3)]]},
  {title: 'Ready in queues', form: amount, area: true, curves: [['messages', total(4)]]},
];

function rows(sample) {
  const chosen = $('choice').value;
  if (!chosen) return Object.values(sample.queues);
  return chosen in sample.queues ? [sample.queues[chosen]] : [];
}

function rate(column) {
  return sample => rows(sample).reduce((sum, row) => sum + row[column], 0) / sample.seconds;
}

function longest(column) {
  return sample => {
    const known = rows(sample).map(row => row[column]).filter(each => each !== null);
    return known.length ? Math.max(...known) : null;
  };
}

function total(column) {
  return sample => {
    const known = rows(sample).map(row => row[column]).filter(each => each !== null);
    return known.length ? known.reduce((sum, each) => sum + each, 0) : null;
  };
}

// The places of the samples: the newest is at the right, and one that is missing leaves a gap.
function places() {
  const found = new Array(KEPT).fill(null);
  if (!samples.length) return found;
  const last = samples.at(-1).time;
  for (const sample of samples) {
    const place = KEPT - 1 - Math.round((last - sample.time) / INTERVAL);
    if (place >= 0) found[place] = sample;
  }
  return found;
}

function rounded(greatest) {
  if (!(greatest > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(greatest));
  return [1, 2, 5, 10].map(digit => digit * power).find(bound => bound >= greatest * 0.999);
}

const x = place => LEFT + place / (KEPT - 1) * (width - LEFT - RIGHT);
const y = (value, top) => HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);

function path(values, top) {
  let text = '', drawn = false;
  values.forEach((value, place) => {
    if (value === null) { drawn = false; return; }
    const isAlone = !drawn && (values[place + 1] ?? null) === null;
    text += `${drawn ? 'L' : 'M'}${x(place).toFixed(1)} ${y(value, top).toFixed(1)}${isAlone ? 'h1' : ''}`;
    drawn = true;
  });
  return text;
}

function area(values, top) {
  const known = [...values.keys()].filter(place => values[place] !== null);
  if (known.length < 2) return '';
  const base = HEIGHT - BOTTOM;
  const points = known.map(place => `L${x(place).toFixed(1)} ${y(values[place], top).toFixed(1)}`);
  return `M${x(known[0]).toFixed(1)} ${base}${points.join('')}L${x(known.at(-1)).toFixed(1)} ${base}Z`;
}

function draw() {
  width = $('plots').querySelector('svg')?.clientWidth || width;
  const found = places();
  const cursor = Number($('cursor').value);
  const mark = found[cursor];
  const isNow = cursor === KEPT - 1;
  write($('moment'), isNow ? 'now' : mark ? clock(mark.time) : `${duration((KEPT - 1 - cursor) * INTERVAL)} ago`);
  $('cursor').setAttribute('aria-valuetext', $('moment').textContent);
  put($('plots'), PLOTS.map(plot => {
    const curves = plot.curves.map(([name, read]) => [name, found.map(sample => sample && read(sample))]);
    const top = rounded(Math.max(...curves.flatMap(([, values]) => values.map(each => each ?? 0))));
    const values = curves.map(([name, all], index) =>
      element('span', `${name} ${plot.form(all[cursor])}`, `value ${index ? 'second' : ''}`.trim()));
    const caption = element('figcaption');
    const heading = element('h3', plot.title);
    caption.append(heading, ...values);
    const figure = element('figure');
    figure.append(caption, drawing(plot, curves, top, cursor, isNow));
    return figure;
  }));
}

function drawing(plot, curves, top, cursor, isNow) {
  const last = curves.map(([name, values]) => `${name} ${plot.form(values.at(-1))}`).join(', ');
  const made = svg('svg', {viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img',
                           'aria-label': `${plot.title} in the last hour; now ${last}`});
  for (const share of [0, 0.5, 1]) {
    const level = y(share * top, top);
    made.append(svg('line', {class: 'grid', x1: LEFT, x2: width - RIGHT, y1: level, y2: level}),
                svg('text', {x: LEFT - 5, y: level + 4, 'text-anchor': 'end'},
                    share ? plot.form(share * top).replace('/s', '') : '0'));
  }
  [[0, '60 min ago', 'start'], [KEPT / 2, '30 min', 'middle'], [KEPT - 1, 'now', 'end']].forEach(
    ([place, text, anchor]) => made.append(
      svg('text', {x: x(place), y: HEIGHT - 5, 'text-anchor': anchor}, text)));
  if (plot.area) made.append(svg('path', {class: 'area', d: area(curves[0][1], top)}));
  curves.forEach(([, values], index) => made.append(
    svg('path', {class: index ? 'curve second' : 'curve', d: path(values, top)})));
  if (!isNow) made.append(svg('line', {class: 'mark', x1: x(cursor), x2: x(cursor), y1: TOP, y2: HEIGHT - BOTTOM}));
  return made;
}

function showChoice() {
  const names = Object.keys(state.queues);
  const chosen = $('choice').value;
  put($('choice'), [['', 'all queues'], ...names.map(name => [name, name])].map(([value, text]) => {
    const option = element('option', text);
    option.value = value;
    return option;
  }));
  if ($('choice').value !== chosen) $('choice').value = names.includes(chosen) ? chosen : '';
}

function point(event) {
  const drawn = event.target.closest('svg');
  if (!drawn || event.pointerType === 'touch' && event.type === 'pointermove') return;
  const box = drawn.getBoundingClientRect();
  const place = ((event.clientX - box.left) / box.width * width - LEFT) / (width - LEFT - RIGHT);
  $('cursor').value = Math.round(Math.min(Math.max(place, 0), 1) * (KEPT - 1));
  draw();
}

function forget() {
  $('cursor').value = KEPT - 1;
  draw();
}

// The events

function connected(is, text) {
  document.documentElement.classList.toggle('old', !is);
  $('connection').classList.toggle('lost', !is);
  write($('connection'), text);
}

function lost() {
  const since = heard ? ` What is shown is of ${duration((Date.now() - heard) / 1000)} ago.` : '';
  connected(false, `The connection is lost; trying again.${since}`);
}

const HANDLERS = {
  hour(data) { samples = data; draw(); },
  sample(data) { samples = [...samples, data].slice(-KEPT); draw(); },
  configuration: showConfiguration,
  state(data) {
    state = data;
    showHead();
    showFigures();
    showChoice();
    showQueues();
    showWorkers();
    showPaused();
    showDeadLetters();
    showErrors();
    showConfigurationAge();
    connected(true, 'Live');
  },
};

function connect() {
  const source = new EventSource('events');
  for (const [name, handle] of Object.entries(HANDLERS)) {
    source.addEventListener(name, event => {
      heard = Date.now();
      handle(JSON.parse(event.data));
    });
  }
  source.addEventListener('error', () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY);
  });
}

$('choice').addEventListener('change', draw);
$('cursor').addEventListener('input', draw);
new ResizeObserver(draw).observe($('plots'));
$('plots').addEventListener('pointermove', point);
$('plots').addEventListener('pointerdown', point);
$('plots').addEventListener('pointerleave', forget);
setInterval(() => { if (heard && Date.now() - heard > SILENCE) lost(); }, 1000);
draw();
connect();
