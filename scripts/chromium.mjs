// Headless Chromium for `check_report.mjs` and `check_serve.mjs`, by the DevTools protocol over a pipe: no package is
// needed. CHROMIUM is the path of the browser; without one that exists, the program ends with code 2.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const browsers = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const browser = browsers.find(path => path && existsSync(path));
if (!browser) {
  console.error('no Chromium found; set CHROMIUM to its path');
  process.exit(2);
}
const profile = mkdtempSync(join(tmpdir(), 'dualenc-check-'));
const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe', '--hide-scrollbars'];
const child = spawn(browser, [...flags, `--user-data-dir=${profile}`, 'about:blank'], {
  stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
});
const waiting = new Map();
// Called with every event of the browser.
export const listeners = new Set();
let received = '';
let number = 0;
child.stdio[4].on('data', data => {
  received += data;
  const messages = received.split('\0');
  received = messages.pop();
  for (const text of messages) {
    const message = JSON.parse(text);
    if (message.id) {
      const { done, failed } = waiting.get(message.id);
      waiting.delete(message.id);
      message.error ? failed(new Error(message.error.message)) : done(message.result);
    } else {
      for (const listener of listeners) listener(message);
    }
  }
});
// Sends a command, and waits for its result.
export const send = (method, params = {}, sessionId = undefined) =>
  new Promise((done, failed) => {
    number += 1;
    waiting.set(number, { done, failed });
    child.stdio[3].write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
  });

// Ends the browser, and removes its profile.
export const close = async () => {
  const ended = new Promise(done => child.on('exit', done));
  await send('Browser.close');
  await ended;
  rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
};
