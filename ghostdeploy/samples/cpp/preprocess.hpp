// From upright RGB pixels to the model's input, as ghostdeploy/preprocess does it.
//
//   RGB or gray → crop, stretch or letterbox → (x / white − mean) / std
//
// The resize computes what Pillow's does, integer for integer: weights in units of 2⁻²², clipped to 8 bits after each
// pass, the vertical pass first where the height shrinks by more than twice as many pixels as the width.
#pragma once

#include <array>
#include <cmath>

#include "decode.hpp"
#include "json.hpp"

namespace preprocess {

using decode::Image;

struct Spec {
    std::string resize, interpolation, rounding, anchor, color, unit;
    double crop_fraction;
    bool upscale;
    std::array<int, 2> size;  // height, width
    std::vector<double> mean, std, pad;

    // From `preprocess` of the manifest, where fields with their usual value are left out.
    explicit Spec(const json::Value& record)
        : resize(record.word("resize", "crop")),
          interpolation(record.word("interpolation", "bilinear")),
          rounding(record.word("rounding", "round")),
          anchor(record.word("anchor", "center")),
          color(record.word("color", "rgb")),
          unit(record.word("unit", "0-1")),
          crop_fraction(record.at("crop_fraction").number()),
          upscale(record.word("upscale", "true") == "true"),
          mean(record.at("mean").numbers()),
          std(record.at("std").numbers()) {
        const std::vector<double> sides = record.at("size").numbers();
        size = {int(sides.front()), int(sides.back())};
        if (size[0] < 1 || size[1] < 1 || mean.size() != channels() || std.size() != channels())
            throw std::runtime_error("manifest.json has a preprocessing that cannot be read");
        if (record.word("ready", "false") == "true")
            throw std::runtime_error("this model takes ready arrays, not an image");
        if (record.word("sampling", "half-pixel") != "half-pixel")
            throw std::runtime_error("this model samples from the corner, which this program cannot do");
        pad = record.find("pad") ? record.at("pad").numbers() : std::vector<double>{0};
        pad.resize(channels(), pad[0]);
        if (record.word("pad_space", "pixels") == "normalized")
            for (size_t i = 0; i < pad.size(); ++i) pad[i] = std::nearbyint((pad[i] * std[i] + mean[i]) * white());
    }
    size_t channels() const { return color == "gray" ? 1 : 3; }
    double white() const { return unit == "0-1" ? 255 : 1; }
    double rounded(double x) const {
        return rounding == "floor" ? std::floor(x) : rounding == "ceil" ? std::ceil(x - 1e-9) : std::nearbyint(x);
    }
};

struct Place {
    std::array<int, 2> sides, corner;  // rows and columns: of the resized image, and of its first pixel in the input
};

inline Place place(const Spec& spec, std::array<int, 2> own) {
    Place found{spec.size, {0, 0}};
    if (spec.resize == "stretch") return found;
    if (spec.resize == "letterbox") {
        double ratio = std::min(double(spec.size[0]) / own[0], double(spec.size[1]) / own[1]);
        if (!spec.upscale) ratio = std::min(ratio, 1.0);
        for (int i = 0; i < 2; ++i) {
            const double side = ratio == double(spec.size[i]) / own[i] ? spec.size[i] : spec.rounded(own[i] * ratio);
            found.sides[i] = int(std::min<double>(spec.size[i], std::max(1.0, side)));
            found.corner[i] = spec.anchor == "corner" ? 0 : (spec.size[i] - found.sides[i]) / 2;
        }
        return found;
    }
    std::array<double, 2> covered;
    for (int i = 0; i < 2; ++i) covered[i] = spec.rounded(spec.size[i] / spec.crop_fraction);
    const int shorter = std::min(own[0], own[1]);
    const double ratio = std::min(own[0] / covered[0], own[1] / covered[1]);
    for (int i = 0; i < 2; ++i) {
        if (covered[0] != covered[1]) found.sides[i] = int(std::nearbyint(own[i] / ratio));
        else if (shorter == covered[0]) found.sides[i] = own[i];
        else found.sides[i] = own[i] == shorter ? int(covered[0]) : int(covered[0] * own[i] / shorter);
        found.corner[i] = -int(std::nearbyint((found.sides[i] - spec.size[i]) / 2.0));
    }
    return found;
}

struct Taps {
    int begin;
    std::vector<int64_t> weights;
};

inline double weigh(bool bicubic, double x) {
    const double d = std::abs(x);
    if (!bicubic) return std::max(0.0, 1 - d);
    if (d < 1) return (1.5 * d - 2.5) * d * d + 1;  // Keys' kernel with a = −1/2
    return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
}

inline std::vector<Taps> taps(int from, int to, bool bicubic) {
    const double scale = double(from) / to, stretch = std::max(scale, 1.0), support = (bicubic ? 2 : 1) * stretch;
    std::vector<Taps> found;
    for (int position = 0; position < to; ++position) {
        const double centre = (position + 0.5) * scale;
        const int begin = std::max(0, int(centre - support + 0.5)), end = std::min(from, int(centre + support + 0.5));
        std::vector<double> weights;
        double sum = 0;
        for (int i = begin; i < end; ++i) sum += weights.emplace_back(weigh(bicubic, (i - centre + 0.5) * (1 / stretch)));
        Taps one{begin, {}};
        for (double weight : weights) one.weights.push_back(int64_t(weight / sum * (1 << 22) + (weight < 0 ? -0.5 : 0.5)));
        found.push_back(one);
    }
    return found;
}

inline Image resampled(const Image& image, int to, int axis, bool bicubic) {
    const std::vector<Taps> places = taps(axis ? image.width : image.height, to, bicubic);
    Image out(axis ? to : image.width, axis ? image.height : to);
    for (int y = 0; y < out.height; ++y)
        for (int x = 0; x < out.width; ++x) {
            const Taps& here = places[axis ? x : y];
            for (int channel = 0; channel < 3; ++channel) {
                int64_t sum = 1 << 21;
                for (size_t i = 0; i < here.weights.size(); ++i) {
                    const int from = here.begin + int(i);
                    sum += here.weights[i] * (axis ? image.at(from, y) : image.at(x, from))[channel];
                }
                out.at(x, y)[channel] = uint8_t(std::min<int64_t>(255, std::max<int64_t>(0, sum >> 22)));
            }
        }
    return out;
}

inline Image resized(const Image& image, std::array<int, 2> sides, bool bicubic) {
    const int saved = image.height - sides[0];
    Image found = image;
    const bool rows_first = saved > 0 && saved > 2 * (image.width - sides[1]);
    for (int axis : {rows_first ? 0 : 1, rows_first ? 1 : 0})
        if (sides[axis] != (axis ? found.width : found.height)) found = resampled(found, sides[axis], axis, bicubic);
    return found;
}

// The image as it fills the input: pixels (height, width, channels) in the order of `color`, 8 bits.
inline std::vector<uint8_t> pixels(Image image, const Spec& spec) {
    if (spec.color == "gray")
        for (size_t i = 0; i < image.pixels.size(); i += 3) {
            const uint8_t* p = &image.pixels[i];
            std::fill_n(&image.pixels[i], 3, uint8_t((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16));
        }
    const Place where = place(spec, {image.height, image.width});
    const Image ready = resized(image, where.sides, spec.interpolation == "bicubic");
    std::vector<uint8_t> out;
    for (int y = 0; y < spec.size[0]; ++y)
        for (int x = 0; x < spec.size[1]; ++x) {
            const int row = y - where.corner[0], column = x - where.corner[1];
            const bool inside = row >= 0 && row < ready.height && column >= 0 && column < ready.width;
            for (size_t channel = 0; channel < spec.channels(); ++channel) {
                const size_t from = spec.color == "bgr" ? 2 - channel : channel;
                out.push_back(inside ? ready.at(column, row)[from] : uint8_t(spec.pad[channel]));
            }
        }
    return out;
}

// One normalised value, each step in float32, as NumPy does it.
inline float normalised(uint8_t pixel, const Spec& spec, size_t channel) {
    return (pixel / float(spec.white()) - float(spec.mean[channel])) / float(spec.std[channel]);
}

}  // namespace preprocess
