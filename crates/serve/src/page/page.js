// The search page: asks the server it came from, and nobody else.
'use strict';

const by = id => document.getElementById(id);
let image = null; // The file that is searched for.
let asked = 0; // Number of the newest search; answers to older ones are dropped.
let pictures = false;

const say = (text, isProblem = false) => {
  by('status').textContent = text;
  by('status').classList.toggle('problem', isProblem);
};

const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};

// The answer to a request, or an error with a message that says what to do.
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error('The server cannot be reached. Is it still running?');
  }
  const found = await response.json().catch(() => ({}));
  if (!response.ok) {
    const text = [found.error ?? `The server answered ${response.status}`, found.advice].filter(Boolean).join('; ');
    throw new Error(text);
  }
  return found;
}

const toBase64 = file =>
  new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });

function show(hits) {
  by('hits').classList.toggle('texts', !pictures);
  by('hits').replaceChildren(...hits.map(hit => {
    const item = make('li');
    const name = hit.path ?? hit.text ?? `row ${hit.row}`;
    const card = make(pictures ? 'button' : 'div', 'hit');
    if (pictures) {
      card.type = 'button';
      const picture = make('img');
      picture.src = `/image/${hit.row}`;
      picture.alt = `Hit ${hit.rank}: ${name}`;
      picture.loading = 'lazy';
      picture.decoding = 'async';
      picture.addEventListener('error', () => {
        picture.replaceWith(make('span', 'none', 'no picture'));
        card.disabled = true;
      });
      card.append(picture);
      card.addEventListener('click', () => enlarge(hit, name));
    }
    const what = make('span', 'what');
    const score = make('span', 'score');
    score.append(make('span', '', hit.score.toFixed(4)), make('span', '', `#${hit.rank}`));
    const meter = make('meter');
    meter.min = 0;
    meter.max = 1;
    meter.value = hit.score;
    meter.setAttribute('aria-label', 'Cosine similarity');
    const path = make('span', 'path');
    path.append(make('bdi', '', name));
    path.title = name;
    what.append(score, meter, path);
    card.append(what);
    item.append(card);
    return item;
  }));
}

function enlarge(hit, name) {
  by('picture').src = `/image/${hit.row}`;
  by('picture').alt = name;
  by('caption').textContent = `#${hit.rank} · score ${hit.score.toFixed(4)} · row ${hit.row} · ${name}`;
  by('large').showModal();
}

async function search() {
  const text = by('text').value.trim();
  if (!image && !text) return;
  asked += 1;
  const number = asked;
  say('Searching …');
  const begun = performance.now();
  try {
    const query = image ? { image: await toBase64(image) } : { text };
    const found = await ask('/search', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ...query, top: Number(by('top').value) }),
    });
    if (number !== asked) return;
    show(found.hits);
    const milliseconds = Math.round(performance.now() - begun);
    say(`${found.hits.length} ${found.hits.length === 1 ? 'hit' : 'hits'} in ${milliseconds} ms, by cosine similarity`);
  } catch (error) {
    if (number !== asked) return;
    by('hits').replaceChildren();
    say(error.message, true);
  }
}

function take(file) {
  if (!file) return;
  image = file;
  URL.revokeObjectURL(by('preview').src);
  by('preview').hidden = false;
  by('preview').src = URL.createObjectURL(file);
  by('name').textContent = file.name;
  by('query').hidden = false;
  by('text').value = '';
  search();
}

function drop() {
  image = null;
  by('file').value = '';
  by('query').hidden = true;
}

by('form').addEventListener('submit', event => {
  event.preventDefault();
  if (by('text').value.trim()) drop();
  search();
});
by('file').addEventListener('change', () => take(by('file').files[0]));
by('top').addEventListener('change', search);
by('preview').addEventListener('error', () => (by('preview').hidden = true));
by('clear').addEventListener('click', () => {
  asked += 1; // An answer that is still to come is of the image that is removed.
  drop();
  by('hits').replaceChildren();
  say('');
  by('text').focus();
});
addEventListener('dragover', event => {
  event.preventDefault();
  document.body.classList.add('over');
});
addEventListener('dragleave', event => {
  if (!event.relatedTarget) document.body.classList.remove('over');
});
addEventListener('drop', event => {
  event.preventDefault();
  document.body.classList.remove('over');
  take(event.dataTransfer.files[0]);
});
addEventListener('paste', event => take([...event.clipboardData.files][0]));

ask('/health').then(
  health => {
    const index = health.index;
    pictures = Boolean(index?.images);
    if (index && !pictures) by('text').placeholder = 'What to search for';
    const rows = index ? `${index.rows.toLocaleString('en')} ${pictures ? 'images' : 'rows'}` : 'no index';
    by('about').textContent = `${rows} · ${health.model} · ${health.dim} dimensions · dualenc ${health.version}`;
    if (!index) say('There is nothing to search: start the server with --index FILE.', true);
  },
  error => say(error.message, true),
);
