// Runs the ONNX bundle of this server with onnxruntime-web.
//
//   manifest.json → hashes → session          image → preprocess.js → scores → softmax, where they are logits → bars
//
// `?selftest` replays the golden vectors on load, `?example=NAME` classifies the example of that name.

import * as ort from "/engine/ort.wasm.bundle.min.mjs";
import { judge, readNpz, reference } from "/golden.js";
import { cropped, decoded, sides, toInput } from "/preprocess.js";

ort.env.wasm.numThreads = 1; // threads need SharedArrayBuffer, and that needs cross-origin isolation
ort.env.wasm.wasmPaths = { wasm: "/engine/ort-wasm-simd-threaded.wasm" };

const TOP = 5;

const $ = (id) => document.getElementById(id);

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

// A file of the bundle, after its SHA-256 was compared with the manifest's.
async function bundleFile(manifest, name) {
  if (!crypto.subtle) throw new Error("hashes can only be checked on https or on localhost; open the page there");
  const bytes = await fetched(`/bundle/${name}`);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const wanted = manifest.files.find((file) => file.path === name)?.sha256;
  if (found !== wanted) throw new Error(`${name} was altered: its SHA-256 is ${found.slice(0, 12)}…, not the manifest's`);
  return bytes;
}

class Model {
  static async load() {
    const text = new TextDecoder();
    const manifest = JSON.parse(text.decode(await fetched("/bundle/manifest.json")));
    if (manifest.schema !== 1) throw new Error(`manifest has schema ${manifest.schema}, expected 1`);
    const labels = text.decode(await bundleFile(manifest, "labels.txt")).split("\n").slice(0, -1);
    const session = await ort.InferenceSession.create(await bundleFile(manifest, manifest.payload));
    return new Model(manifest, labels, session);
  }

  constructor(manifest, labels, session) {
    Object.assign(this, { manifest, labels, session, output: manifest.outputs[0].name });
  }

  // The first output for `count` images, row after row. `inputs` has one typed array per input, in C order.
  async run(inputs, count) {
    const batch = this.manifest.inputs[0].shape[0] ?? 1; // null is any number
    const rows = [];
    for (let start = 0; start < count; start += batch) {
      const feeds = {};
      for (const { name, dtype, shape } of this.manifest.inputs) {
        const tail = shape.slice(1);
        const size = tail.reduce((product, side) => product * side, 1);
        const part = new inputs[name].constructor(batch * size);
        for (let i = 0; i < batch; i++) {
          const row = Math.min(start + i, count - 1); // behind the end the last image again
          part.set(inputs[name].subarray(row * size, (row + 1) * size), i * size);
        }
        feeds[name] = new ort.Tensor(dtype, part, [batch, ...tail]);
      }
      const { data, dims } = (await this.session.run(feeds, [this.output]))[this.output];
      const size = data.length / dims[0];
      for (let i = 0; i < Math.min(batch, count - start); i++) rows.push(data.slice(i * size, (i + 1) * size));
    }
    return rows;
  }
}

async function selftest(model) {
  const { manifest, output } = model;
  const arrays = await readNpz(await bundleFile(manifest, "golden.npz"));
  const inputs = Object.fromEntries(manifest.inputs.map(({ name }) => [name, arrays[name].data]));
  const { shape, data } = reference(arrays, output, manifest.precision);
  const begin = performance.now();
  const rows = await model.run(inputs, shape[0]);
  const milliseconds = (performance.now() - begin) / shape[0];
  const references = rows.map((row, i) => data.subarray(i * row.length, (i + 1) * row.length));
  return { ...judge(rows, references, manifest.precision), count: rows.length, milliseconds };
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

async function classify(model, file) {
  const { preprocess, inputs } = model.manifest;
  if (inputs.length > 1) throw new Error(`this model takes ${inputs.length} inputs, expected one image`);
  const times = [performance.now()];
  const image = await decoded(file);
  times.push(performance.now());
  const crop = cropped(image, preprocess);
  const input = toInput(crop, inputs[0], preprocess);
  times.push(performance.now());
  const [logits] = await model.run({ [inputs[0].name]: input }, 1);
  times.push(performance.now());
  Object.assign($("seen"), { width: crop.width, height: crop.height });
  $("seen").getContext("2d").putImageData(crop, 0, 0);
  showClasses(model.labels, model.manifest.scores === "probabilities" ? Array.from(logits) : softmax(logits));
  const [decode, prepare, infer] = [0, 1, 2].map((i) => (times[i + 1] - times[i]).toFixed(1));
  $("times").textContent = `decoded in ${decode} ms, prepared in ${prepare} ms, inferred in ${infer} ms`;
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

async function showSelftest(model) {
  const found = await selftest(model);
  const verdict = found.passed ? "passed" : "failed";
  const digits = (value) => value.toExponential(1);
  Object.assign($("selftest").dataset, { verdict, maxAbs: found.maxAbs, largest: found.largest, agreeing: found.agreeing });
  $("selftest").textContent =
    `${verdict}: max difference ${digits(found.maxAbs)} of ${found.largest.toFixed(2)}, cosine ${found.cosine.toFixed(7)}, ` +
    `the same first class for ${found.agreeing} of ${found.count} images, ${found.milliseconds.toFixed(1)} ms per image`;
  $("selftest").hidden = false;
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
  const model = await Model.load();
  const { manifest } = model;
  const version = ort.env.versions.web ?? ort.env.versions.common;
  $("model").textContent = document.title = manifest.name;
  const facts = [manifest.precision, `${manifest.model.num_classes} classes`, `${[...new Set(sides(manifest.preprocess))].join("×")} px`, `onnxruntime-web ${version}`];
  $("facts").replaceChildren(...facts.map((fact) => element("li", "", fact)));
  await showExamples();
  listen(model);
  $("file").disabled = $("check").disabled = false;
  const query = new URLSearchParams(location.search);
  if (query.has("selftest")) await showSelftest(model);
  if (query.has("example")) await dropExample(`/examples/${encodeURIComponent(query.get("example"))}`);
}

attempt("Loading the model…", start);
