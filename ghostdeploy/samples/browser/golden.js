// Golden vectors: reading `golden.npz`, and comparing outputs with the reference's.

// The rows of ghostdeploy's tolerance table that golden vectors can judge. An INT8 graph is compared with its own
// execution in float, which the bundle records: its distance to the float model is no fault of the engine.
const TOLERANCES = {
  fp32: { relative: 1e-4, cosine: 0.99999 },
  fp16: { cosine: 0.9995 },
  hybrid: { cosine: 0.999, agreement: 0.99 },
  int8: { sqnr: 28 },
};

// The arrays of an .npz file (a ZIP archive of .npy arrays, stored or deflated) by name, in C order.
export async function readNpz(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("golden.npz is not a ZIP archive");
  const arrays = {};
  let entry = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [nameLength, extra, comment] = [28, 30, 32].map((at) => view.getUint16(entry + at, true));
    const name = new TextDecoder().decode(bytes.subarray(entry + 46, entry + 46 + nameLength));
    const local = view.getUint32(entry + 42, true);
    const data = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    let file = bytes.slice(data, data + view.getUint32(entry + 20, true));
    if (view.getUint16(entry + 10, true) === 8) {
      const stream = new Blob([file]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
      file = new Uint8Array(await new Response(stream).arrayBuffer());
    }
    arrays[name.replace(/\.npy$/, "")] = parseNpy(file, name);
    entry += 46 + nameLength + extra + comment;
  }
  return arrays;
}

function parseNpy(file, name) {
  const view = new DataView(file.buffer);
  const [begin, length] = file[6] > 1 ? [12, view.getUint32(8, true)] : [10, view.getUint16(8, true)];
  const header = new TextDecoder().decode(file.subarray(begin, begin + length));
  const [, dtype] = header.match(/'descr': '([^']+)'/);
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((part) => part.trim()).map(Number);
  const Kind = { "<f4": Float32Array, "|u1": Uint8Array }[dtype];
  if (!Kind || header.includes("'fortran_order': True")) throw new Error(`${name} is ${dtype}, expected float32 or uint8`);
  return { shape, data: new Kind(file.slice(begin + length).buffer) };
}

// What the first output is compared with: {shape, data}.
export function reference(arrays, output, precision) {
  const simulated = arrays[`simulated.${output}`];
  return TOLERANCES[precision].sqnr && simulated ? simulated : arrays[output];
}

// Compares rows of logits; `passed` says whether they are within the tolerance of the precision.
export function judge(rows, references, precision) {
  const limit = TOLERANCES[precision];
  const found = compare(rows, references);
  const passed =
    Number.isFinite(found.maxAbs) &&
    found.maxAbs <= (limit.relative ?? Infinity) * found.largest &&
    found.cosine >= (limit.cosine ?? -1) &&
    found.sqnr >= (limit.sqnr ?? -Infinity) &&
    found.agreeing >= (limit.agreement ?? 0) * rows.length;
  return { ...found, passed };
}

function compare(rows, references) {
  let [maxAbs, largest, cosine, signal, noise, agreeing] = [0, 0, 1, 0, 0, 0];
  rows.forEach((y, n) => {
    const r = references[n];
    let [dot, yy, rr] = [0, 0, 0];
    y.forEach((value, i) => {
      const error = Math.abs(value - r[i]);
      maxAbs = Math.max(maxAbs, error); // NaN stays NaN
      largest = Math.max(largest, Math.abs(r[i]));
      [dot, yy, rr, noise] = [dot + value * r[i], yy + value * value, rr + r[i] * r[i], noise + error * error];
    });
    signal += rr;
    cosine = Math.min(cosine, yy && rr ? dot / Math.sqrt(yy * rr) : Number(yy === rr));
    agreeing += y.indexOf(Math.max(...y)) === r.indexOf(Math.max(...r));
  });
  return { maxAbs, largest, cosine, sqnr: noise ? 10 * Math.log10(signal / noise) : Infinity, agreeing };
}
