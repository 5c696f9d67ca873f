// Uses the search page in headless Chromium as a person would, and checks it; `scripts/check_serve.sh` calls this.
// It speaks the DevTools protocol over a pipe, so it needs no packages.
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { close, listeners, send } from './chromium.mjs';

const [address, image, out] = process.argv.slice(2);

// Runs in the page: what is wrong with what it shows.
const inspect = width => {
  const found = [];
  // Not `innerWidth`: on a phone, it grows with what is too wide.
  const needed = Math.max(document.documentElement.scrollWidth, innerWidth);
  if (needed > width) found.push(`the page is ${needed} wide in ${width}`);
  for (const image of document.images) {
    const shown = image.checkVisibility() && image.getBoundingClientRect().top < innerHeight;
    if (shown && !image.alt) found.push(`no alt: ${image.src}`);
    if (shown && !(image.complete && image.naturalWidth)) found.push(`not decoded: ${image.src}`);
  }
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const seen = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest('script, .hidden') || !element.checkVisibility()) continue;
    const [a, b] = [rgba(getComputedStyle(element).color), behind(element)].map(light).sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${element.tagName} ${element.className}`;
    if (ratio < 4.5 && !seen.has(name)) {
      seen.add(name);
      found.push(`contrast of ${ratio.toFixed(2)}: ${name}: ${walker.currentNode.textContent.trim().slice(0, 30)}`);
    }
  }
  return found;
};

const modes = [
  { name: 'light', width: 1280, height: 900, scheme: 'light' },
  { name: 'dark', width: 1280, height: 900, scheme: 'dark' },
  { name: 'phone', width: 375, height: 812, scheme: 'light' },
  { name: 'phone-dark', width: 375, height: 812, scheme: 'dark' },
];

async function check({ name, width, height, scheme }) {
  const problems = [];
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
  let loaded;
  const load = new Promise(done => (loaded = done));
  let mayFail = false;
  const listener = ({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === 'Page.loadEventFired') loaded();
    if (method === 'Runtime.exceptionThrown') problems.push(params.exceptionDetails.exception?.description ?? 'exception');
    if (method === 'Runtime.consoleAPICalled') problems.push(`console: ${params.args.map(a => a.value).join(' ')}`);
    // The browser notes answers that are errors.
    if (method === 'Log.entryAdded' && !mayFail) problems.push(`log: ${params.entry.text}`);
    if (method === 'Network.requestWillBeSent') {
      const asked = params.request.url;
      if (!asked.startsWith(`${address}/`) && !/^(data|blob):/.test(asked)) problems.push(`request: ${asked}`);
    }
  };
  listeners.add(listener);
  const call = (method, params) => send(method, params, sessionId);
  for (const domain of ['Page', 'Runtime', 'Log', 'Network', 'DOM']) await call(`${domain}.enable`);
  await call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 500 });
  await call('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  await call('Page.navigate', { url: `${address}/` });
  await load;
  const run = async code => {
    const answer = await call('Runtime.evaluate', { expression: code, returnByValue: true, awaitPromise: true });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception.description);
    return answer.result.value;
  };
  const until = async (what, code) => {
    for (let tries = 0; tries < 300; tries += 1) {
      if (await run(code)) return;
      await new Promise(done => setTimeout(done, 50));
    }
    problems.push(`${what} did not happen: ${await run('document.body.innerText.slice(0, 300)')}`);
  };
  const key = async (named, text) => {
    const codes = { Enter: 13, Tab: 9, Escape: 27 };
    const event = { key: named, code: named, windowsVirtualKeyCode: codes[named], ...(text && { text }) };
    await call('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
    await call('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  };
  const shoot = async part => {
    problems.push(...(await run(`(${inspect})(${width})`)).map(problem => `${part}: ${problem}`));
    const shot = await call('Page.captureScreenshot', { format: 'png' });
    writeFileSync(join(out, `${name}-${part}.png`), Buffer.from(shot.data, 'base64'));
  };
  const hits = "document.querySelectorAll('#hits .hit').length";
  const pictures = "[...document.images].every(i => !i.checkVisibility() || i.loading === 'lazy' && i.getBoundingClientRect().top > innerHeight || i.complete && i.naturalWidth)";

  await until('the health', "document.getElementById('about').textContent.includes('dimensions')");
  await shoot('start');
  // By keyboard alone: the field has the focus.
  await call('Input.insertText', { text: 'a flag with a red circle' });
  await key('Enter', '\r');
  await until('a search by text', `${hits} === 24 && ${pictures}`);
  await shoot('text');
  await run("document.querySelector('#hits .hit').focus()");
  await key('Enter', '\r');
  await until('a large picture', "document.getElementById('large').open && document.getElementById('picture').naturalWidth > 0");
  await shoot('large');
  await key('Escape');
  await until('the end of the large picture', "!document.getElementById('large').open");
  const { root } = await call('DOM.getDocument');
  const { nodeId } = await call('DOM.querySelector', { nodeId: root.nodeId, selector: '#file' });
  await run("document.getElementById('hits').replaceChildren()");
  await call('DOM.setFileInputFiles', { nodeId, files: [resolve(image)] });
  await until('a search by image', `${hits} === 24 && ${pictures}`);
  const best = await run("document.querySelector('#hits .score').textContent");
  if (!best.startsWith('1.0000')) problems.push(`the image itself is not the first hit: ${best}`);
  await shoot('image');
  mayFail = true;
  await call('DOM.setFileInputFiles', { nodeId, files: [resolve('scripts/check_serve.mjs')] });
  await until('an error', "document.querySelector('#status.problem')?.textContent.includes('cannot be used')");
  const shot = await call('Page.captureScreenshot', { format: 'png' });
  writeFileSync(join(out, `${name}-error.png`), Buffer.from(shot.data, 'base64'));
  await run("document.getElementById('clear').click()");
  if (!(await run("document.getElementById('query').hidden && document.activeElement.id === 'text'"))) {
    problems.push('the image is not removed');
  }
  listeners.delete(listener);
  await send('Target.closeTarget', { targetId });
  return problems;
}

let failed = 0;
for (const mode of modes) {
  const problems = await check(mode);
  failed += problems.length;
  console.log(`${problems.length ? 'FAIL' : 'ok  '} ${mode.name}`);
  for (const problem of problems) console.log(`     ${problem}`);
}
await close();
console.log(failed ? `${failed} problems; screenshots are in ${out}` : `the page is fine; see ${out}`);
process.exit(failed ? 1 : 0);
