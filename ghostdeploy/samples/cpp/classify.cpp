// Runs an OpenVINO bundle through OpenVINO's C++ API: classifies images, or replays its golden vectors.
//
//     g++ -std=c++17 -O2 -o classify $(python -m ghostdeploy.samples.cpp)
//     ./classify BUNDLE [IMAGE…]
//
// Headers and libraries are those of the `openvino` wheel; besides them zlib, libjpeg and libpng are needed. Without
// images it prints the class of each golden one, the largest difference to the reference, and how often the first class
// agrees. Exit codes: 0 within the tolerance of the bundle's precision, 1 outside it, 2 wrong usage, 3 a bundle or an
// image that cannot be used. The hashes of the manifest are not checked here: `ghostdeploy verify` does that.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <openvino/openvino.hpp>

#include "npz.hpp"
#include "preprocess.hpp"

namespace {

using Arrays = std::map<std::string, npz::Array>;

// The rows of ghostdeploy's tolerance table that golden vectors can judge; 0 is no bound. An INT8 graph is compared
// with its own execution in float, which the bundle records: its distance to the float model is no fault of the engine.
struct Tolerance {
    const char* precision;
    double relative;   // largest |error| over largest |reference|
    double cosine;     // smallest over the images
    double sqnr;       // signal over error, decibel
    double agreement;  // share of images with the same first class
};
constexpr Tolerance TOLERANCES[] = {
    {"fp32", 1e-4, 0.99999, 0, 0},
    {"fp16", 0, 0.9995, 0, 1},
    {"hybrid", 0, 0.999, 0, 0.99},
    {"int8", 0, 0, 28, 0},
};

std::string read_text(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error(path + " cannot be read");
    return {std::istreambuf_iterator<char>(stream), {}};
}

json::Value read_manifest(const std::string& bundle) {
    const std::string text = read_text(bundle + "/manifest.json");
    json::Value manifest = json::Reader(text).read();
    if (const std::string target = manifest.at("target").text; target != "openvino")
        throw std::runtime_error(bundle + " has target " + target + ", expected openvino");
    return manifest;
}

bool gives_probabilities(const json::Value& manifest) { return manifest.word("scores", "logits") == "probabilities"; }

std::vector<std::string> read_labels(const std::string& path) {
    std::vector<std::string> labels;
    std::ifstream stream(path);
    for (std::string line; std::getline(stream, line);) labels.push_back(line);
    return labels;
}

const npz::Array& golden(const Arrays& arrays, const std::string& name) {
    const auto found = arrays.find(name);
    if (found == arrays.end()) throw std::runtime_error("golden.npz lacks " + name);
    return found->second;
}

ov::CompiledModel compile(ov::Core& core, const std::string& path) {
    // float32 arithmetic, as the bundle was proven: processors with bfloat16 units would use those.
    return core.compile_model(path, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
                              ov::hint::inference_precision(ov::element::f32));
}

// One input tensor with rows [start, start + batch) of the golden array; behind its end the last row is repeated.
ov::Tensor input_tensor(const ov::Output<const ov::Node>& port, const npz::Array& array, size_t start, size_t batch) {
    if (array.dtype != (port.get_element_type() == ov::element::u8 ? "|u1" : "<f4"))
        throw std::runtime_error("golden input " + port.get_any_name() + " has dtype " + array.dtype);
    ov::Shape shape(array.shape.begin(), array.shape.end());
    shape[0] = batch;
    if (!port.get_partial_shape().compatible(shape))
        throw std::runtime_error("golden input " + port.get_any_name() + " does not fit the model");
    ov::Tensor tensor(port.get_element_type(), shape);
    for (size_t row = 0; row < batch; ++row)
        std::memcpy(static_cast<char*>(tensor.data()) + row * array.row_bytes(),
                    array.bytes.data() + std::min(start + row, array.rows() - 1) * array.row_bytes(), array.row_bytes());
    return tensor;
}

// The first output for all golden images, one row each.
std::vector<float> run(ov::CompiledModel& model, const Arrays& arrays) {
    const npz::Array& first = golden(arrays, model.input(0).get_any_name());
    const ov::Dimension dimension = model.input(0).get_partial_shape()[0];
    const size_t count = first.rows(), batch = dimension.is_dynamic() ? 1 : dimension.get_length();
    ov::InferRequest request = model.create_infer_request();
    std::vector<float> logits;
    for (size_t start = 0; start < count; start += batch) {
        for (const auto& port : model.inputs())
            request.set_tensor(port, input_tensor(port, golden(arrays, port.get_any_name()), start, batch));
        request.infer();
        const ov::Tensor output = request.get_output_tensor(0);
        const size_t row = output.get_size() / batch, wanted = std::min(batch, count - start) * row;
        logits.insert(logits.end(), output.data<float>(), output.data<float>() + wanted);
    }
    return logits;
}

size_t best(const float* logits, size_t classes) { return std::max_element(logits, logits + classes) - logits; }

double softmax(const float* logits, size_t classes, size_t index) {
    double sum = 0;
    for (size_t c = 0; c < classes; ++c) sum += std::exp(double{logits[c]} - logits[index]);
    return 1 / sum;
}

// A half-precision step of the largest logit: a narrower margin of the reference decides nothing.
bool undecided(const float* reference, size_t classes, size_t winner) {
    float second = -INFINITY, largest = 0;
    for (size_t c = 0; c < classes; ++c) {
        if (c != winner) second = std::max(second, reference[c]);
        largest = std::max(largest, std::abs(reference[c]));
    }
    return reference[winner] - second <= largest / 1024;
}

bool judge(const std::vector<float>& logits, const npz::Array& expected, const Tolerance& limit,
           const std::vector<std::string>& labels, bool probabilities) {
    const float* reference = expected.floats();
    const size_t count = expected.rows(), classes = expected.row_bytes() / sizeof(float);
    if (logits.size() != count * classes || !count) throw std::runtime_error("outputs have another shape than golden ones");
    double max_abs = 0, largest = 0, signal = 0, noise = 0, cosine = 1;
    size_t agreeing = 0, forgiven = 0;
    for (size_t image = 0; image < count; ++image) {
        const float *y = &logits[image * classes], *r = reference + image * classes;
        double dot = 0, yy = 0, rr = 0;
        for (size_t c = 0; c < classes; ++c) {
            const double error = std::abs(double{y[c]} - r[c]);
            max_abs = std::isfinite(error) ? std::max(max_abs, error) : INFINITY;
            largest = std::max(largest, std::abs(double{r[c]}));
            dot += double{y[c]} * r[c], yy += double{y[c]} * y[c], rr += double{r[c]} * r[c], noise += error * error;
        }
        signal += rr;
        cosine = std::min(cosine, yy && rr ? dot / std::sqrt(yy * rr) : double(yy == rr));
        const size_t got = best(y, classes), wanted = best(r, classes);
        agreeing += got == wanted;
        forgiven += got != wanted && undecided(r, classes, wanted);
        std::printf("image %zu: %s %.1f %%%s\n", image, got < labels.size() ? labels[got].c_str() : "?",
                    100 * (probabilities ? y[got] : softmax(y, classes, got)), got == wanted ? "" : "  (the reference says otherwise)");
    }
    const double sqnr = noise > 0 ? 10 * std::log10(signal / noise) : INFINITY;
    const double share = double(agreeing + forgiven) / count;
    std::printf("max abs difference %.3g of %.3g, cosine %.9f, SQNR %.1f dB, top-1 agreement %zu of %zu\n", max_abs,
                largest, cosine, sqnr, agreeing, count);
    return std::isfinite(max_abs) && (!limit.relative || max_abs <= limit.relative * largest) &&
           cosine >= limit.cosine && (!limit.sqnr || sqnr >= limit.sqnr) && share >= limit.agreement;
}

// The image as the model's input; a fixed batch is filled with copies of it.
ov::Tensor prepare(const ov::Output<const ov::Node>& port, const json::Value& record, const std::string& path) {
    const preprocess::Spec spec(record);
    const std::vector<uint8_t> pixels = preprocess::pixels(decode::file(path), spec);
    const size_t channels = spec.channels(), area = pixels.size() / channels, batch = port.get_partial_shape()[0].is_dynamic() ? 1 : port.get_partial_shape()[0].get_length();
    const size_t height = spec.size[0], width = spec.size[1];
    const bool last = record.word("layout", "nchw") == "nhwc";
    ov::Tensor tensor(port.get_element_type(), last ? ov::Shape{batch, height, width, channels} : ov::Shape{batch, channels, height, width});
    if (!port.get_partial_shape().compatible(tensor.get_shape())) throw std::runtime_error("the preprocessing does not fit the model");
    const bool bytes = tensor.get_element_type() == ov::element::u8;
    for (size_t row = 0; row < batch; ++row)
        for (size_t at = 0; at < area; ++at)
            for (size_t channel = 0; channel < channels; ++channel) {
                const uint8_t pixel = pixels[at * channels + channel];
                const size_t to = row * pixels.size() + (last ? at * channels + channel : channel * area + at);
                if (bytes) tensor.data<uint8_t>()[to] = pixel;
                else tensor.data<float>()[to] = preprocess::normalised(pixel, spec, channel);
            }
    return tensor;
}

int classify(const std::string& bundle, const std::vector<std::string>& paths) {
    const json::Value manifest = read_manifest(bundle);
    const std::vector<std::string> labels = read_labels(bundle + "/labels.txt");
    ov::Core core;
    ov::CompiledModel model = compile(core, bundle + "/model.xml");
    if (model.inputs().size() != 1) throw std::runtime_error(bundle + " takes more than an image");
    ov::InferRequest request = model.create_infer_request();
    int code = 0;
    for (const std::string& path : paths) {
        try {
            request.set_input_tensor(prepare(model.input(), manifest.at("preprocess"), path));
        } catch (const std::exception& error) {  // the other images are classified all the same
            std::fprintf(stderr, "error: %s\n", error.what());
            code = 3;
            continue;
        }
        request.infer();
        const ov::Tensor output = request.get_output_tensor(0);
        const float* logits = output.data<float>();
        const size_t classes = output.get_size() / output.get_shape()[0], winner = best(logits, classes);
        const double probability = gives_probabilities(manifest) ? logits[winner] : softmax(logits, classes, winner);
        std::printf("%s: %s %.4f\n", path.c_str(), winner < labels.size() ? labels[winner].c_str() : "?", probability);
    }
    return code;
}

int check(const std::string& bundle) {
    const json::Value manifest = read_manifest(bundle);
    const std::string precision = manifest.at("precision").text;
    const auto limit = std::find_if(std::begin(TOLERANCES), std::end(TOLERANCES),
                                    [&](const Tolerance& row) { return precision == row.precision; });
    if (limit == std::end(TOLERANCES)) throw std::runtime_error(bundle + " has unknown precision " + precision);
    ov::Core core;
    ov::CompiledModel model = compile(core, bundle + "/model.xml");  // the one payload name of this target
    const Arrays arrays = npz::read(bundle + "/golden.npz");
    const std::string output = model.output(0).get_any_name(), simulated = "simulated." + output;
    const std::vector<float> logits = run(model, arrays);
    const npz::Array& expected = golden(arrays, limit->sqnr && arrays.count(simulated) ? simulated : output);
    const bool passed =
        judge(logits, expected, *limit, read_labels(bundle + "/labels.txt"), gives_probabilities(manifest));
    std::printf("%s: %s the %s tolerance\n", bundle.c_str(), passed ? "within" : "outside", limit->precision);
    return passed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: classify BUNDLE [IMAGE…]\n");
        return 2;
    }
    try {
        return argc == 2 ? check(argv[1]) : classify(argv[1], {argv + 2, argv + argc});
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 3;
    }
}
