// The engines of the page: each has a bundle, a name, and `run(inputs, count)` for the first output of `count` images, row
// after row. `inputs` has one typed array per input, in C order.

import { Ghost, openBundle } from "/ghost.js";

export async function openEngine(address) {
  const bundle = await openBundle(address);
  return (bundle.manifest.target === "native" ? NativeEngine : OnnxEngine).open(bundle);
}

class NativeEngine {
  static async open(bundle) {
    return new NativeEngine(bundle, await Ghost.load(bundle));
  }

  constructor(bundle, network) {
    Object.assign(this, { bundle, network, manifest: bundle.manifest, name: "native WebAssembly" });
  }

  async run(inputs, count) {
    const output = this.manifest.outputs[0].name;
    return Array.from({ length: count }, (_, row) => {
      const one = {};
      for (const { name } of this.manifest.inputs) {
        const size = inputs[name].length / count;
        one[name] = inputs[name].subarray(row * size, (row + 1) * size);
      }
      return this.network.run(one)[output];
    });
  }
}

class OnnxEngine {
  static async open(bundle) {
    const ort = await import("/engine/ort.wasm.bundle.min.mjs");
    ort.env.wasm.numThreads = 1; // threads need SharedArrayBuffer, and that needs cross-origin isolation
    ort.env.wasm.wasmPaths = { wasm: "/engine/ort-wasm-simd-threaded.wasm" };
    const session = await ort.InferenceSession.create(await bundle.file(bundle.manifest.payload));
    return new OnnxEngine(bundle, session, ort);
  }

  constructor(bundle, session, ort) {
    const name = `onnxruntime-web ${ort.env.versions.web ?? ort.env.versions.common}`;
    Object.assign(this, { bundle, session, name, manifest: bundle.manifest, Tensor: ort.Tensor });
  }

  async run(inputs, count) {
    const output = this.manifest.outputs[0].name;
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
        feeds[name] = new this.Tensor(dtype, part, [batch, ...tail]);
      }
      const { data, dims } = (await this.session.run(feeds, [output]))[output];
      const size = data.length / dims[0];
      for (let i = 0; i < Math.min(batch, count - start); i++) rows.push(data.slice(i * size, (i + 1) * size));
    }
    return rows;
  }
}
