// A native bundle in the browser, without a dependency: WebAssembly with SIMD, its weights, and nothing else.
//
//   const bundle = await openBundle("/bundle");          // reads manifest.json
//   const network = await Ghost.load(bundle);            // every file's SHA-256 is compared before it is used
//   const { logits } = network.run({ input: pixels });   // one image, of the type and order in the manifest
//
// Export it with: ghostdeploy export -t native --arch wasm32

const text = (bytes) => new TextDecoder().decode(bytes);

export async function fetched(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address} cannot be loaded: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

async function sha256(bytes) {
  if (!crypto.subtle) throw new Error("hashes can only be checked on https or on localhost; open the page there");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// A bundle: its manifest, and its files, each of them after its SHA-256 was compared with the manifest's.
export async function openBundle(address) {
  const manifest = JSON.parse(text(await fetched(`${address}/manifest.json`)));
  if (manifest.schema !== 1) throw new Error(`manifest has schema ${manifest.schema}, expected 1`);
  const file = async (name) => {
    const bytes = await fetched(`${address}/${name}`);
    const found = await sha256(bytes);
    const wanted = manifest.files.find((one) => one.path === name)?.sha256;
    if (found !== wanted) throw new Error(`${name} was altered: its SHA-256 is ${found.slice(0, 12)}…, not the manifest's`);
    return bytes;
  };
  return { manifest, file };
}

// A network in memory of its own. Calls of `run` take turns, as all calls in one thread do.
export class Ghost {
  static async load(bundle) {
    const plan = JSON.parse(text(await bundle.file("plan.json")));
    if (plan.schema !== 1) throw new Error(`plan.json has schema ${plan.schema}, expected 1`);
    const library = plan.libraries.wasm32;
    if (!library) throw new Error(`${bundle.manifest.name} has no library for browsers: export it with --arch wasm32`);
    const [code, weights] = await Promise.all([bundle.file(library), bundle.file("weights.bin")]);
    const { instance } = await WebAssembly.instantiate(code);
    return new Ghost(plan, instance.exports, weights);
  }

  constructor(plan, wasm, weights) {
    if (cString(wasm, wasm.ghost_identity()) !== plan.identity) throw new Error("the library is of another network than its plan");
    Object.assign(this, { plan, wasm, weights: taken(wasm, weights.length), arena: taken(wasm, wasm.ghost_arena_bytes()) });
    this.inputs = plan.inputs.map((port, i) => ({ ...port, at: taken(wasm, wasm.ghost_input_bytes(i)) }));
    this.outputs = plan.outputs.map((port, i) => ({ ...port, size: wasm.ghost_output_floats(i) }));
    for (const one of this.outputs) one.at = taken(wasm, 4 * one.size);
    this.given = addresses(wasm, this.inputs);
    this.made = addresses(wasm, this.outputs);
    new Uint8Array(wasm.memory.buffer).set(weights, this.weights); // after the last growth, which moves the memory
  }

  // The outputs of one image by name, Float32Array in C order. Inputs are Float32Array or Uint8Array, as the plan says.
  run(inputs) {
    const { wasm } = this;
    this.inputs.forEach(({ name, at, dtype }, i) => {
      const Kind = { float32: Float32Array, uint8: Uint8Array }[dtype];
      const wanted = wasm.ghost_input_bytes(i) / Kind.BYTES_PER_ELEMENT;
      const found = inputs[name];
      if (!(found instanceof Kind) || found.length !== wanted) {
        throw new Error(`${name} is ${found?.constructor.name} of ${found?.length}, expected ${Kind.name} of ${wanted}`);
      }
      new Kind(wasm.memory.buffer, at, wanted).set(found);
    });
    const failed = wasm.ghost_run(this.weights, this.arena, this.given, this.made);
    if (failed) throw new Error(`the library returned ${failed}`);
    return Object.fromEntries(
      this.outputs.map(({ name, at, size }) => [name, new Float32Array(wasm.memory.buffer, at, size).slice()]),
    );
  }
}

function taken(wasm, size) {
  const at = wasm.ghost_wasm_take(size);
  if (!at) throw new Error(`the browser gives no memory for ${size} bytes`);
  return at >>> 0; // addresses beyond 2 GiB come as negative numbers
}

function addresses(wasm, ports) {
  const at = taken(wasm, 4 * ports.length);
  new Uint32Array(wasm.memory.buffer, at, ports.length).set(ports.map((port) => port.at));
  return at;
}

function cString(wasm, at) {
  const bytes = new Uint8Array(wasm.memory.buffer, at);
  return text(bytes.subarray(0, bytes.indexOf(0)));
}
