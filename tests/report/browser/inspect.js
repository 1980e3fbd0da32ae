// Opens a page in headless Chromium by its debugging protocol and prints what was seen, one JSON document.
//
//     node inspect.js CHROMIUM PROFILE PAGE [SCREENSHOTS]
//
// For each theme and width, and on paper: messages of the console, requests, overlapping and cut text, numbers that are not those of
// the record in the page, what axe-core finds, and the elements that Tab reaches. With SCREENSHOTS a folder of PNG.

import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import WebSocket from "ws";
import { layout, numbers } from "./looks.js";

const [chromium, profile, page, screenshots] = process.argv.slice(2);
const WIDTHS = [360, 768, 1440];
const PAPER = 718; // pixels of A4 between Chromium's margins
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Starts Chromium; gives its process and the address of its debugger. */
function start() {
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
  const child = spawn(chromium, [...flags, `--user-data-dir=${profile}`, "--remote-debugging-port=0", "about:blank"]);
  return new Promise((resolve, reject) => {
    let said = "";
    child.stderr.on("data", (data) => {
      said += data;
      const found = said.match(/DevTools listening on (ws:\S+)/);
      if (found) resolve([child, found[1]]);
    });
    child.on("exit", () => reject(new Error(said)));
  });
}

/** A connection: `send` gives the answer, `on` listens to events of a session. */
function connect(address) {
  const socket = new WebSocket(address, { perMessageDeflate: false, maxPayload: 1 << 28 });
  const waiting = new Map();
  const listeners = [];
  let last = 0;
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    if (message.id === undefined) {
      for (const listener of listeners) listener(message.method, message.params);
      return;
    }
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    if (message.error) reject(new Error(JSON.stringify(message.error)));
    else resolve(message.result);
  });
  const send = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve, reject) => {
      last += 1;
      waiting.set(last, { resolve, reject });
      socket.send(JSON.stringify({ id: last, method, params, sessionId }));
    });
  return new Promise((resolve) => {
    socket.on("open", () => resolve({ send, on: (listener) => listeners.push(listener), close: () => socket.close() }));
  });
}

/** Evaluates a function of this file in the page. */
async function run(call, source) {
  const done = await call("Runtime.evaluate", { expression: source, awaitPromise: true, returnByValue: true });
  if (done.exceptionDetails) throw new Error(JSON.stringify(done.exceptionDetails));
  return done.result.value;
}

const [child, address] = await start();
try {
  const browser = await connect(address);
  const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
  const call = (method, params) => browser.send(method, params, sessionId);
  const seen = { console: [], requests: [], looks: [], numbers: null, tabs: [] };
  let loaded = () => {};
  browser.on((method, params) => {
    if (method === "Page.loadEventFired") loaded();
    if (method === "Runtime.consoleAPICalled") seen.console.push(params.args.map((one) => one.value ?? one.description).join(" "));
    if (method === "Runtime.exceptionThrown") seen.console.push(params.exceptionDetails.text);
    if (method === "Log.entryAdded") seen.console.push(params.entry.text);
    if (method === "Network.requestWillBeSent" && !params.request.url.startsWith("data:")) seen.requests.push(params.request.url);
  });
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await call(`${domain}.enable`);
  for (const [theme, widths] of [["light", WIDTHS], ["dark", WIDTHS], ["print", [PAPER]]]) {
    const features = [{ name: "prefers-color-scheme", value: theme === "print" ? "light" : theme }];
    await call("Emulation.setEmulatedMedia", { media: theme === "print" ? "print" : "screen", features });
    for (const width of widths) {
      await call("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false });
      const ready = new Promise((resolve) => { loaded = resolve; });
      await call("Page.navigate", { url: pathToFileURL(page).href });
      await ready;
      const look = await run(call, `(${layout})()`);
      seen.numbers ??= await run(call, `(${numbers})()`);
      if (screenshots) {
        const shot = await call("Page.captureScreenshot", { format: "png", captureBeyondViewport: theme === "print" });
        writeFileSync(join(screenshots, `${theme}-${width}.png`), Buffer.from(shot.data, "base64"));
      }
      await run(call, AXE);
      const axe = await run(call, "axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160) + ' ' + (node.any[0]?.message ?? '')).join(' | ')}`))");
      seen.looks.push({ theme, width, ...look, axe });
    }
  }
  await call("Emulation.setEmulatedMedia", { media: "screen", features: [] });
  for (let press = 0; press < 400; press += 1) {
    for (const type of ["keyDown", "keyUp"]) await call("Input.dispatchKeyEvent", { type, key: "Tab", code: "Tab", windowsVirtualKeyCode: 9 });
    const name = await run(call, "document.activeElement === document.body ? '' : [...document.querySelectorAll('*')].indexOf(document.activeElement) + ' ' + document.activeElement.tagName + ' ' + (document.activeElement.getAttribute('href') ?? document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).slice(0, 60)");
    if (name === "" || (press > 0 && name === seen.tabs[0])) break;
    seen.tabs.push(name);
  }
  console.log(JSON.stringify(seen));
  browser.close();
} finally {
  child.kill();
}
