// From image file to model input, as ghostdeploy/preprocess.py does it.
//
//   decode → EXIF orientation → RGB → resize (short side) → centre crop → (x / 255 − mean) / std
//
// The resize computes what Pillow's does, integer for integer, so it cannot differ from training. What may differ is the
// browser's decoder: another JPEG library can round a pixel by one or two, and a canvas forgets the colour below alpha.

const MAX_PIXELS = 64_000_000;

// Python's round(): halves go to the even neighbour.
function roundHalfEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor;
}

const FILTERS = {
  bilinear: { support: 1, weigh: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    // Keys' kernel with a = −1/2
    support: 2,
    weigh: (x) => {
      const d = Math.abs(x);
      if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
      return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
    },
  },
};

// Where Pillow's filter lies for each output position: it is stretched when the image shrinks (antialiasing), and its
// weights are integers in units of 2⁻²².
function taps(from, to, { support, weigh }) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: to }, (_, position) => {
    const centre = (position + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const end = Math.min(from, Math.trunc(centre + support * stretch + 0.5));
    const weights = Array.from({ length: end - begin }, (_, i) => weigh((begin + i - centre + 0.5) / stretch));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { begin, weights: weights.map((w) => Math.trunc((w / sum) * 2 ** 22 + Math.sign(w) * 0.5)) };
  });
}

// One pass of the separable resize along an axis of `from` samples, `step` apart; `lines` are where each line begins.
// Sums stay below 2⁵³, so doubles are exact; the result is clipped to 8 bits after each pass, as in Pillow.
function resampled(pixels, out, lines, step, outLines, outStep, places) {
  lines.forEach((line, n) => {
    places.forEach(({ begin, weights }, position) => {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 2 ** 21;
        for (let i = 0; i < weights.length; i++) sum += weights[i] * pixels[line + (begin + i) * step + channel];
        out[outLines[n] + position * outStep + channel] = Math.floor(sum / 2 ** 22);
      }
    });
  });
}

// RGBX pixels in, RGBX pixels out; Uint8ClampedArray clips what the bicubic filter overshoots.
function resize(pixels, width, height, newWidth, newHeight, filter) {
  const starts = (count, step) => Array.from({ length: count }, (_, i) => i * step);
  let [source, columns] = [pixels, width];
  if (newWidth !== width) {
    source = new Uint8ClampedArray(4 * newWidth * height);
    columns = newWidth;
    resampled(pixels, source, starts(height, 4 * width), 4, starts(height, 4 * columns), 4, taps(width, newWidth, filter));
  }
  if (newHeight === height) return source;
  const out = new Uint8ClampedArray(4 * columns * newHeight);
  const lines = starts(columns, 4);
  resampled(source, out, lines, 4 * columns, lines, 4 * columns, taps(height, newHeight, filter));
  return out;
}

// The upright pixels of an image file, RGBX; no colour profile is applied, as Pillow applies none.
export async function decoded(blob) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(blob, options).catch(() => {
    throw new Error(`${blob.name || "this file"} is not an image that this browser can decode`);
  });
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Error(`image has ${width}×${height} pixels, expected at most ${MAX_PIXELS}`);
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  canvas.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.getImageData(0, 0, width, height);
}

// The resized centre crop as ImageData of size × size; outside the image it is black.
export function cropped({ data, width, height }, { size, crop_fraction, interpolation }) {
  const target = roundHalfEven(size / crop_fraction);
  const short = Math.min(width, height);
  let pixels = data;
  if (short !== target) {
    const [newWidth, newHeight] = [width, height].map((side) => (side === short ? target : Math.trunc((target * side) / short)));
    if (newWidth * newHeight > MAX_PIXELS) throw new Error(`image of ${width}×${height} pixels is too long to be resized`);
    pixels = resize(data, width, height, newWidth, newHeight, FILTERS[interpolation]);
    [width, height] = [newWidth, newHeight];
  }
  const [left, top] = [width, height].map((side) => roundHalfEven((side - size) / 2));
  const crop = new ImageData(size, size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const from = 4 * ((y + top) * width + x + left);
      const inside = x + left >= 0 && x + left < width && y + top >= 0 && y + top < height;
      crop.data.set(inside ? pixels.subarray(from, from + 3) : [0, 0, 0], 4 * (y * size + x));
      crop.data[4 * (y * size + x) + 3] = 255;
    }
  }
  return crop;
}

// The crop as the payload takes it: normalised float32, or uint8 pixels where the graph normalises.
export function toInput({ data }, { dtype, layout }, { mean, std }) {
  const count = data.length / 4;
  const out = dtype === "uint8" ? new Uint8Array(3 * count) : new Float32Array(3 * count);
  const f = Math.fround; // each step in float32, as NumPy does it
  for (let channel = 0; channel < 3; channel++) {
    const values = Array.from({ length: 256 }, (_, pixel) =>
      dtype === "uint8" ? pixel : f(f(f(pixel / 255) - f(mean[channel])) / f(std[channel])),
    );
    for (let i = 0; i < count; i++) {
      out[layout === "nhwc" ? 3 * i + channel : channel * count + i] = values[data[4 * i + channel]];
    }
  }
  return out;
}
