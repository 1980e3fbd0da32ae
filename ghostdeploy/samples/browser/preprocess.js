// From image file to model input, as ghostdeploy/preprocess does it.
//
//   decode → EXIF orientation → RGB or gray → crop, stretch or letterbox → (x − mean) / std
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

// RGBX pixels in, RGBX pixels out; Uint8ClampedArray clips what the bicubic filter overshoots. Pillow 13 takes the
// vertical pass first where the height shrinks by more than twice as many pixels as the width.
function resize(pixels, width, height, newWidth, newHeight, filter) {
  const starts = (count, step) => Array.from({ length: count }, (_, i) => i * step);
  let image = { data: pixels, width, height };
  const horizontally = ({ data, width, height }) => {
    const out = new Uint8ClampedArray(4 * newWidth * height);
    resampled(data, out, starts(height, 4 * width), 4, starts(height, 4 * newWidth), 4, taps(width, newWidth, filter));
    return { data: out, width: newWidth, height };
  };
  const vertically = ({ data, width, height }) => {
    const out = new Uint8ClampedArray(4 * width * newHeight);
    const lines = starts(width, 4);
    resampled(data, out, lines, 4 * width, lines, 4 * width, taps(height, newHeight, filter));
    return { data: out, width, height: newHeight };
  };
  const passes = [newWidth !== width && horizontally, newHeight !== height && vertically];
  const saved = height - newHeight;
  if (saved > 0 && saved > 2 * (width - newWidth)) passes.reverse();
  for (const pass of passes.filter(Boolean)) image = pass(image);
  return image.data;
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

const ROUNDINGS = { round: roundHalfEven, floor: Math.floor, ceil: (x) => Math.ceil(x - 1e-9) };

// Height and width of the model input.
export const sides = ({ size }) => (Array.isArray(size) ? size : [size, size]);

// Where an image lands: its height and width after the resize, and the place of its corner; see geometry.py.
function place(spec, own) {
  const { resize = "crop", crop_fraction, rounding = "round", anchor = "center", upscale = true } = spec;
  const full = sides(spec);
  const rounded = ROUNDINGS[rounding];
  if (resize === "stretch") return { sides: full, corner: [0, 0] };
  if (resize === "letterbox") {
    const ratio = Math.min(...full.map((most, i) => most / own[i]), upscale ? Infinity : 1);
    const fitted = own.map((side, i) => (ratio === full[i] / side ? full[i] : rounded(side * ratio)));
    const found = fitted.map((side, i) => Math.min(full[i], Math.max(1, side)));
    return { sides: found, corner: found.map((side, i) => (anchor === "corner" ? 0 : Math.floor((full[i] - side) / 2))) };
  }
  const covered = full.map((side) => rounded(side / crop_fraction));
  const short = Math.min(...own);
  const ratio = Math.min(...own.map((side, i) => side / covered[i]));
  const square = (side) => (side === short ? covered[0] : short === covered[0] ? side : Math.trunc((covered[0] * side) / short));
  const found = own.map((side) => (covered[0] === covered[1] ? square(side) : roundHalfEven(side / ratio)));
  return { sides: found, corner: found.map((side, i) => -roundHalfEven((side - full[i]) / 2)) };
}

// Pillow's luma, in all three channels.
function gray(data) {
  const out = new Uint8ClampedArray(data.length);
  for (let i = 0; i < data.length; i += 4) {
    out.fill((data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16, i, i + 3);
  }
  return out;
}

// What one pixel of the padding is, RGB.
function padding({ pad = 0, pad_space = "pixels", color, mean, std, unit = "0-1" }) {
  const values = Array.isArray(pad) ? pad : mean.map(() => pad);
  const white = unit === "0-1" ? 255 : 1;
  const found = pad_space === "pixels" ? values : values.map((p, i) => roundHalfEven((p * std[i] + mean[i]) * white));
  return color === "bgr" ? found.reverse() : found.length === 1 ? [found[0], found[0], found[0]] : found;
}

// The image as it fills the model input, as ImageData; a crop that is larger than the image is black outside.
export function cropped({ data, width, height }, spec) {
  if (spec.ready) throw new Error("this model takes ready arrays, not an image");
  if (spec.sampling === "corner") throw new Error("this model samples from the corner, which this page cannot do");
  const {
    sides: [newHeight, newWidth],
    corner: [top, left],
  } = place(spec, [height, width]);
  if (newWidth * newHeight > MAX_PIXELS) throw new Error(`image of ${width}×${height} pixels is too long to be resized`);
  const source = spec.color === "gray" ? gray(data) : data;
  const pixels = resize(source, width, height, newWidth, newHeight, FILTERS[spec.interpolation]);
  const outside = padding(spec);
  const [rows, columns] = sides(spec);
  const crop = new ImageData(columns, rows);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const from = 4 * ((y - top) * newWidth + x - left);
      const inside = x >= left && x < left + newWidth && y >= top && y < top + newHeight;
      crop.data.set(inside ? pixels.subarray(from, from + 3) : outside, 4 * (y * columns + x));
      crop.data[4 * (y * columns + x) + 3] = 255;
    }
  }
  return crop;
}

// The crop as the payload takes it: normalised float32, or uint8 pixels where the graph normalises.
export function toInput({ data }, { dtype, layout }, { mean, std, color, unit = "0-1" }) {
  const count = data.length / 4;
  const channels = mean.length;
  const out = dtype === "uint8" ? new Uint8Array(channels * count) : new Float32Array(channels * count);
  const f = Math.fround; // each step in float32, as NumPy does it
  const white = unit === "0-1" ? 255 : 1;
  for (let channel = 0; channel < channels; channel++) {
    const values = Array.from({ length: 256 }, (_, pixel) =>
      dtype === "uint8" ? pixel : f(f(f(pixel / white) - f(mean[channel])) / f(std[channel])),
    );
    const from = color === "bgr" ? 2 - channel : channel;
    for (let i = 0; i < count; i++) {
      out[layout === "nhwc" ? channels * i + channel : channel * count + i] = values[data[4 * i + from]];
    }
  }
  return out;
}
