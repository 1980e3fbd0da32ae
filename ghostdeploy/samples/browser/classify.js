// Runs the bundles of this server: the first classifies, the other one, where there is one, is held against it.
//
//   manifest.json → hashes → engine          image → preprocess.js → scores → softmax, where they are logits → bars
//
// `?selftest` replays the golden vectors on load, `?example=NAME` classifies the example of that name.

import { openEngine } from "/engines.js";
import { fetched } from "/ghost.js";
import { judge, readNpz, reference } from "/golden.js";
import { cropped, decoded, sides, toInput } from "/preprocess.js";

const TOP = 5;
const ROUNDS = 2; // the time is the last one's: browsers compile what was run a while once more, for speed

const $ = (id) => document.getElementById(id);

async function selftest(engine) {
  const { bundle, manifest } = engine;
  const arrays = await readNpz(await bundle.file("golden.npz"));
  const inputs = Object.fromEntries(manifest.inputs.map(({ name }) => [name, arrays[name].data]));
  const { shape, data } = reference(arrays, manifest.outputs[0].name, manifest.precision);
  let rows, milliseconds;
  for (let round = 0; round < ROUNDS; round++) [rows, milliseconds] = await timed(() => engine.run(inputs, shape[0]));
  const references = rows.map((row, i) => data.subarray(i * row.length, (i + 1) * row.length));
  return { ...judge(rows, references, manifest.precision), count: rows.length, milliseconds: milliseconds / shape[0] };
}

async function timed(task) {
  const begin = performance.now();
  const found = await task();
  return [found, performance.now() - begin];
}

function say(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

function element(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - highest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function showClasses(labels, probabilities) {
  const best = probabilities.map((value, index) => ({ value, label: labels[index] }));
  best.sort((a, b) => b.value - a.value);
  const items = best.slice(0, TOP).map(({ value, label }) => {
    const item = element("li", "");
    item.dataset.probability = value;
    const track = element("div", "track");
    const bar = element("div", "bar");
    bar.style.width = `${100 * value}%`;
    track.append(bar);
    item.append(element("span", "label", label), element("span", "percent", `${(100 * value).toFixed(1)} %`), track);
    return item;
  });
  $("classes").replaceChildren(...items);
}

async function classify({ labels, engines }, file) {
  const { preprocess, inputs, scores } = engines[0].manifest;
  if (inputs.length > 1) throw new Error(`this model takes ${inputs.length} inputs, expected one image`);
  const [image, decode] = await timed(() => decoded(file));
  const begin = performance.now();
  const crop = cropped(image, preprocess);
  const input = toInput(crop, inputs[0], preprocess);
  const prepare = performance.now() - begin;
  const found = [];
  for (const engine of engines) {
    const [[row], milliseconds] = await timed(() => engine.run({ [inputs[0].name]: input }, 1));
    found.push({ engine, milliseconds, probabilities: scores === "probabilities" ? Array.from(row) : softmax(row) });
  }
  Object.assign($("seen"), { width: crop.width, height: crop.height });
  $("seen").getContext("2d").putImageData(crop, 0, 0);
  showClasses(labels, found[0].probabilities);
  const times = found.map(({ engine, milliseconds }) => `${milliseconds.toFixed(1)} ms by ${engine.name}`);
  $("times").textContent = `decoded in ${decode.toFixed(1)} ms, prepared in ${prepare.toFixed(1)} ms, inferred in ${times.join(", ")}`;
  const [first, ...others] = found.map(({ probabilities }) => probabilities);
  const differences = others.flatMap((other) => other.map((value, i) => Math.abs(value - first[i])));
  if (differences.length) $("result").dataset.difference = Math.max(...differences);
  $("result").hidden = false;
  $("result").dataset.file = file.name;
}

let attempts = 0;

// Runs a task of the page; what goes wrong is said on it. Of tasks that overlap, the last one begun has the word.
async function attempt(busy, task) {
  const turn = ++attempts;
  const conclude = (state, text) => turn === attempts && say(state, text);
  say("loading", busy);
  try {
    await task();
    conclude("ready", "Ready.");
  } catch (error) {
    conclude("error", error.message || String(error));
  }
}

// An example goes the way of a dropped file.
function dropFile(file) {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(file);
  $("drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}

async function dropExample(address) {
  const name = decodeURIComponent(address.split("/").pop());
  dropFile(new File([await fetched(address)], name));
}

function listen(model) {
  const take = (file) => file && attempt(`Classifying ${file.name}…`, () => classify(model, file));
  $("file").addEventListener("change", (event) => take(event.target.files[0]));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // a missed drop must not replace the page with the image
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }
  $("check").addEventListener("click", () => attempt("Replaying the golden vectors…", () => showSelftest(model)));
}

async function showSelftest({ engines }) {
  for (const [place, engine] of engines.entries()) {
    const found = await selftest(engine);
    const verdict = found.passed ? "passed" : "failed";
    const digits = (value) => value.toExponential(1);
    const shown = $(place ? "selftest-beside" : "selftest");
    Object.assign(shown.dataset, { verdict, maxAbs: found.maxAbs, largest: found.largest, agreeing: found.agreeing });
    shown.textContent =
      `${engine.name} ${verdict}: max difference ${digits(found.maxAbs)} of ${found.largest.toFixed(2)}, ` +
      `cosine ${found.cosine.toFixed(7)}, the same first class for ${found.agreeing} of ${found.count} images, ` +
      `${found.milliseconds.toFixed(1)} ms per image`;
    shown.hidden = false;
  }
}

async function showExamples() {
  const addresses = JSON.parse(new TextDecoder().decode(await fetched("/examples.json")));
  for (const address of addresses) {
    const name = decodeURIComponent(address.split("/").pop());
    const button = element("button", "");
    button.append(Object.assign(new Image(), { src: address, alt: name, title: name }));
    button.addEventListener("click", () => attempt(`Loading ${name}…`, () => dropExample(address)));
    $("examples").append(button);
  }
  $("examples").hidden = addresses.length === 0;
}

async function start() {
  const text = (bytes) => new TextDecoder().decode(bytes);
  const engines = [];
  for (const address of JSON.parse(text(await fetched("/bundles.json")))) engines.push(await openEngine(address));
  const { manifest, bundle } = engines[0];
  const labels = text(await bundle.file("labels.txt")).split("\n").slice(0, -1);
  const model = { engines, labels };
  $("model").textContent = document.title = manifest.name;
  const pixels = `${[...new Set(sides(manifest.preprocess))].join("×")} px`;
  const facts = [manifest.precision, `${manifest.model.num_classes} classes`, pixels, ...engines.map(({ name }) => name)];
  $("facts").replaceChildren(...facts.map((fact) => element("li", "", fact)));
  await showExamples();
  listen(model);
  $("file").disabled = $("check").disabled = false;
  const query = new URLSearchParams(location.search);
  if (query.has("selftest")) await showSelftest(model);
  if (query.has("example")) await dropExample(`/examples/${encodeURIComponent(query.get("example"))}`);
}

attempt("Loading the model…", start);
