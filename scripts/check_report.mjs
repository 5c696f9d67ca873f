// Loads every page of a directory in headless Chromium and checks it; `scripts/check_report.sh` calls this.
// It speaks the DevTools protocol over a pipe, so it needs no packages.
import { readdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

import { close, listeners, send } from './chromium.mjs';

const directory = resolve(process.argv[2] ?? '.');

// Runs in the page: what is wrong with it.
const inspect = width => {
  const found = [];
  const root = document.documentElement;
  // Not `innerWidth` alone: on a phone, it grows with what is too wide.
  const needed = Math.max(root.scrollWidth, innerWidth);
  if (needed > width) found.push(`the page is ${needed} wide in ${width}`);
  if (!root.lang) found.push('no lang');
  const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
  const twice = ids.filter((id, place) => ids.indexOf(id) !== place);
  if (twice.length) found.push(`ids that stand twice: ${twice.slice(0, 5)}`);
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    if (!document.getElementById(link.hash.slice(1))) found.push(`no target for ${link.hash}`);
  }
  let level = 0;
  for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) found.push(`heading ${heading.textContent} skips a level`);
    level = next;
  }
  for (const image of document.images) {
    if (!image.alt) found.push(`no alt: ${image.title}`);
    if (!image.complete || !image.naturalWidth) found.push(`not decoded: ${image.title}`);
  }
  for (const plot of document.querySelectorAll('svg[role=img]')) {
    const named = plot.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id)?.textContent);
    if (!named) found.push('a plot has no title or description');
    const frame = plot.getBoundingClientRect();
    for (const text of plot.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      const inside = box.left >= frame.left - 3 && box.right <= frame.right + 3 && box.top >= frame.top - 3;
      if (frame.width && !inside) found.push(`text is cut in ${plot.closest('figure').id}: ${text.textContent}`);
    }
    const labels = [...plot.querySelectorAll(':scope > text:not(.name)')].map(text => [text, text.getBoundingClientRect()]);
    for (const [place, [text, a]] of labels.entries()) {
      for (const [other, b] of labels.slice(place + 1)) {
        const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 2 || b.bottom <= a.top + 2;
        if (frame.width && !apart) {
          found.push(`labels overlap in ${plot.closest('figure').id}: ${text.textContent}, ${other.textContent}`);
        }
      }
    }
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
    const skipped = 'script, style, title, desc, .on, .off, .hidden, .tip';
    if (!walker.currentNode.textContent.trim() || element.closest(skipped) || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const color = rgba(element.closest('svg') ? style.fill : style.color);
    const [a, b] = [light(color), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${element.tagName} ${element.className.baseVal ?? element.className}`;
    if (ratio < 4.5 && !seen.has(name)) {
      seen.add(name);
      found.push(`contrast of ${ratio.toFixed(2)}: ${name}: ${walker.currentNode.textContent.trim().slice(0, 30)}`);
    }
  }
  return found;
};

// Runs in the page: sorts each table by each of its columns with the button, as a keyboard does.
const sort = () => {
  const found = [];
  for (const details of document.querySelectorAll('details')) details.open = true;
  for (const table of document.querySelectorAll('table[data-sort]')) {
    const rows = () => document.querySelectorAll(`table[data-sort="${table.dataset.sort}"] tbody tr`).length;
    const before = rows();
    for (const button of table.querySelectorAll('thead button')) {
      button.focus();
      if (document.activeElement !== button) found.push('a button to sort by takes no focus');
      button.click();
      if (button.parentElement.getAttribute('aria-sort') !== 'ascending') found.push('no aria-sort after a click');
      const column = button.parentElement.cellIndex;
      const values = [...table.tBodies[0].rows].map(row => row.cells[column].dataset.v).filter(Boolean).map(Number);
      if (values.some((value, place) => place && values[place - 1] > value)) found.push(`column ${column} is not sorted`);
    }
    if (rows() !== before) found.push('sorting loses rows');
  }
  const mark = document.querySelector('.dot, .strip');
  if (mark) {
    mark.dispatchEvent(new PointerEvent('pointerover', { bubbles: true }));
    if (document.querySelector('.tip').hidden) found.push('no tooltip');
  }
  return found;
};

const modes = [
  { name: 'light', width: 1280, height: 900, scheme: 'light', media: 'screen' },
  { name: 'dark', width: 1280, height: 900, scheme: 'dark', media: 'screen' },
  { name: 'phone', width: 375, height: 812, scheme: 'light', media: 'screen' },
  { name: 'phone-dark', width: 375, height: 812, scheme: 'dark', media: 'screen' },
  { name: 'print', width: 794, height: 1123, scheme: 'dark', media: 'print' },
  { name: 'no-script', width: 1280, height: 900, scheme: 'light', media: 'screen', noScript: true },
];

async function check(file, mode) {
  const problems = [];
  const url = pathToFileURL(file).href;
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true });
  let loaded;
  const load = new Promise(done => (loaded = done));
  const listener = ({ method, params, sessionId: from }) => {
    if (from !== sessionId) return;
    if (method === 'Page.loadEventFired') loaded();
    if (method === 'Runtime.exceptionThrown') problems.push(params.exceptionDetails.exception?.description ?? 'exception');
    if (method === 'Runtime.consoleAPICalled') problems.push(`console: ${params.args.map(a => a.value).join(' ')}`);
    if (method === 'Log.entryAdded') problems.push(`log: ${params.entry.text}`);
    if (method === 'Network.requestWillBeSent') {
      const asked = params.request.url;
      if (asked !== url && !asked.startsWith('data:')) problems.push(`request: ${asked}`);
    }
  };
  listeners.add(listener);
  const call = (method, params) => send(method, params, sessionId);
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await call(`${domain}.enable`);
  const { width, height, scheme, media } = mode;
  await call('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 500 });
  const features = [{ name: 'prefers-color-scheme', value: scheme }];
  await call('Emulation.setEmulatedMedia', { media, features });
  if (mode.noScript) await call('Emulation.setScriptExecutionDisabled', { value: true });
  await call('Page.navigate', { url });
  await load;
  const run = async (code, ...given) => {
    const answer = await call('Runtime.evaluate', { expression: `(${code})(${given})`, returnByValue: true });
    if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception.description);
    problems.push(...answer.result.value);
  };
  const name = file.replace(/\.html$/, `-${mode.name}`);
  if (!mode.noScript) await run(inspect, width);
  const metrics = await call('Page.getLayoutMetrics');
  const size = metrics.cssContentSize;
  const clip = { x: 0, y: 0, width: size.width, height: Math.min(size.height, 16000), scale: 1 };
  const shot = await call('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true, clip });
  writeFileSync(`${name}.png`, Buffer.from(shot.data, 'base64'));
  if (media === 'print') {
    const pdf = await call('Page.printToPDF', { printBackground: true, preferCSSPageSize: true, paperWidth: 8.27, paperHeight: 11.69 });
    writeFileSync(`${name}.pdf`, Buffer.from(pdf.data, 'base64'));
  }
  if (mode.name === 'light') await run(sort);
  listeners.delete(listener);
  await send('Target.closeTarget', { targetId });
  return problems;
}

let failed = 0;
for (const file of readdirSync(directory).filter(name => name.endsWith('.html')).sort()) {
  for (const mode of modes) {
    const problems = await check(join(directory, file), mode);
    failed += problems.length;
    console.log(`${problems.length ? 'FAIL' : 'ok  '} ${file} ${mode.name}`);
    for (const problem of problems) console.log(`     ${problem}`);
  }
}
await close();
console.log(failed ? `${failed} problems; pages and screenshots are in ${directory}` : `all pages are fine; see ${directory}`);
process.exit(failed ? 1 : 0);
