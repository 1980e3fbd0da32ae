// Runs an ncnn payload on a device without Python, image by image as ghostdeploy/runtimes/ncnn does.
//
//   runner probe                                                        what this device is: one JSON line
//   runner replay MODEL.param MODEL.bin INPUTS OUTPUTS --threads N      one JSON line; the outputs go to OUTPUTS
//   runner bench MODEL.param MODEL.bin INPUTS --threads N --batch B --calls C   a line before, per call, and after
//   runner rates --threads N                                            what this device can do at best: one JSON line
//
// INPUTS and OUTPUTS are containers, see arrays.hpp. Every switch of ncnn that changes numbers is off. An error is one
// line {"error": …} and the exit code: 2 the words, 3 a file, 4 the outputs cannot be written, 5 the engine.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <map>
#include <new>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "cpu.h"
#include "datareader.h"
#include "net.h"

#include "arrays.hpp"
#include "probe.hpp"
#include "rates.hpp"

namespace {

using Words = std::vector<std::string>;
using Image = std::map<std::string, ncnn::Mat>;

constexpr size_t LONGEST_NAME = 255;  // ncnn reads names into 256 bytes
constexpr double WARM_SECONDS = 0.3;  // as deploy/measure/bench_worker.py

bool is_number(const std::string& word, size_t digits) {
    const bool fits = !word.empty() && word.size() <= digits;
    return fits && word.find_first_not_of("0123456789") == std::string::npos;
}

struct Input {
    std::string name;
    std::vector<uint32_t> sizes;
    bool pixels;
};

// The grammar and checks of ghostdeploy/runtimes/ncnn/param.py: ncnn itself would read on past the end.
struct Param {
    std::vector<Input> inputs;
    std::vector<std::string> outputs;  // that no layer reads, in the order of the file

    explicit Param(const std::string& text) {
        std::vector<Words> rows = split(text);
        if (rows.size() < 2 || rows[0] != Words{"7767517"}) refuse("does not begin with 7767517");
        std::vector<std::string> order;
        for (size_t i = 2; i < rows.size(); i++) layer(rows[i], order);
        const Words counts{std::to_string(rows.size() - 2), std::to_string(made_.size())};
        if (rows[1] != counts) refuse("has not as many layers and blobs as it declares");
        for (const auto& name : read_)
            if (!made_.count(name)) refuse("reads " + name + ", which no layer makes");
        std::copy_if(order.begin(), order.end(), std::back_inserter(outputs), [&](auto& n) { return !read_.count(n); });
    }

private:
    std::set<std::string> made_, read_;

    [[noreturn]] static void refuse(const std::string& why) { throw Failure(BAD_FILE, "the param file " + why); }

    static std::vector<Words> split(const std::string& text) {
        std::vector<Words> rows;
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);) {
            std::istringstream words(line);
            Words row;
            for (std::string word; words >> word;) row.push_back(word);
            if (!row.empty()) rows.push_back(row);
        }
        return rows;
    }

    void layer(const Words& row, std::vector<std::string>& order) {
        const bool counted = row.size() >= 4 && is_number(row[2], 6) && is_number(row[3], 6);
        const size_t outputs_at = counted ? 4 + std::stoul(row[2]) : 0;
        const size_t params_at = counted ? outputs_at + std::stoul(row[3]) : 0;
        if (!counted || row.size() < params_at) refuse("has a layer that is not whole: " + row[0].substr(0, 80));
        for (size_t i = 0; i < params_at; i++)
            if (row[i].size() > LONGEST_NAME) refuse("has a name of " + std::to_string(row[i].size()) + " bytes");
        read_.insert(row.begin() + 4, row.begin() + outputs_at);
        for (size_t i = outputs_at; i < params_at; i++) {
            if (!made_.insert(row[i]).second) refuse("makes " + row[i] + " twice");
            if (row[0] != "Input") order.push_back(row[i]);
        }
        std::map<std::string, uint32_t> params;
        for (size_t i = params_at; i < row.size(); i++) {
            const size_t equal = row[i].find('=');
            if (equal == std::string::npos) refuse("has a layer that is not whole: " + row[1].substr(0, 80));
            const std::string value = row[i].substr(equal + 1);
            if (is_number(value, 7)) params[row[i].substr(0, equal)] = uint32_t(std::stoul(value));
        }
        if (row[0] != "Input" || params_at != outputs_at + 1) return;
        Input one{row[outputs_at], {}, params["20"] == 1};
        for (const char* size : {"2", "11", "1", "0"})  // channels, depth, height, width
            if (params[size]) one.sizes.push_back(params[size]);
        inputs.push_back(one);
    }
};

// Gives ncnn the weights from memory; it gets no more than there is.
class Weights : public ncnn::DataReader {
public:
    explicit Weights(const Bytes& data) : data_(data) {}

    size_t read(void* to, size_t count) const override {
        const size_t got = std::min(count, data_.size() - place);
        if (got) std::memcpy(to, data_.data() + place, got);
        place += got;
        return got;
    }

    mutable size_t place = 0;

private:
    const Bytes& data_;
};

// One image of an array (N, …) as ncnn has it: each channel begins at a multiple of 16 bytes.
ncnn::Mat image_of(const Array& array, size_t row) {
    const std::vector<int> size(array.sizes.begin() + 1, array.sizes.end());
    ncnn::Mat mat;
    if (size.size() == 1) mat.create(size[0]);
    if (size.size() == 2) mat.create(size[1], size[0]);
    if (size.size() == 3) mat.create(size[2], size[1], size[0]);
    if (size.size() == 4) mat.create(size[3], size[2], size[1], size[0]);
    if (mat.empty()) throw Failure(ENGINE, "out of memory");
    const size_t plane = size_t(mat.w) * mat.h * mat.d, width = array.type ? 1 : 4;
    const unsigned char* from = array.data.data() + row * plane * mat.c * width;
    for (int c = 0; c < mat.c; c++, from += plane * width) {
        float* to = static_cast<float*>(mat.data) + mat.cstep * c;
        if (array.type) std::copy(from, from + plane, to);
        else std::memcpy(to, from, plane * width);
    }
    return mat;
}

// Adds the blob of one image to an array (N, …).
void append(Array& array, const ncnn::Mat& blob) {
    std::vector<uint32_t> sizes{array.sizes.empty() ? 1 : array.sizes[0] + 1};
    if (blob.dims >= 3) sizes.push_back(blob.c);
    if (blob.dims == 4) sizes.push_back(blob.d);
    if (blob.dims >= 2) sizes.push_back(blob.h);
    sizes.push_back(blob.w);
    if (!array.sizes.empty() && !std::equal(sizes.begin() + 1, sizes.end(), array.sizes.begin() + 1, array.sizes.end()))
        throw Failure(ENGINE, array.name + " differs in shape from image to image");
    array.sizes = sizes;
    for (int c = 0; c < blob.c; c++) {
        const auto* from = static_cast<const unsigned char*>(blob.data) + blob.cstep * c * blob.elemsize;
        array.data.insert(array.data.end(), from, from + size_t(blob.w) * blob.h * blob.d * blob.elemsize);
    }
}

class Network {
public:
    const Param param;

    Network(const std::string& graph, const std::string& weights, int threads) : Network(required(graph)) {
        const Bytes data = required(weights);
        set_options(net_.opt, threads);
        const Weights reader(data);
        if (net_.load_param_mem(text_.c_str()) || net_.load_model(reader))
            throw Failure(ENGINE, "ncnn cannot load a network from the files");
        if (reader.place != data.size())
            throw Failure(BAD_FILE, "the weights have " + std::to_string(data.size()) + " bytes, the layers need "
                + std::to_string(reader.place));
    }

    // Returns how many images there are; every input of the network is there once, in its type and sizes.
    size_t count(const std::vector<Array>& arrays) const {
        std::set<std::string> given;
        for (const Array& array : arrays) {
            const auto named = [&](const Input& one) { return one.name == array.name; };
            const auto want = std::find_if(param.inputs.begin(), param.inputs.end(), named);
            if (want == param.inputs.end()) throw Failure(BAD_FILE, "the network has no input " + array.name);
            const std::vector<uint32_t> sizes(array.sizes.begin() + 1, array.sizes.end());
            if (sizes != want->sizes || bool(array.type) != want->pixels || array.sizes[0] != arrays[0].sizes[0])
                throw Failure(BAD_FILE, "input " + array.name + " has another type or shape than the network declares");
            given.insert(array.name);
        }
        if (given.empty() || given.size() != arrays.size() || given.size() != param.inputs.size())
            throw Failure(BAD_FILE, "not every input of the network is given once");
        return arrays[0].sizes[0];
    }

    std::vector<ncnn::Mat> run(const Image& image) const {
        ncnn::Extractor extractor = net_.create_extractor();
        for (const auto& [name, mat] : image)
            if (extractor.input(name.c_str(), mat)) throw Failure(ENGINE, "the network has no input " + name);
        std::vector<ncnn::Mat> found(param.outputs.size());
        for (size_t i = 0; i < found.size(); i++) {
            const int failed = extractor.extract(param.outputs[i].c_str(), found[i]);
            if (failed == -100) throw Failure(ENGINE, "out of memory");
            if (failed || found[i].empty() || found[i].elempack != 1 || found[i].elemsize != 4)
                throw Failure(ENGINE, "a layer before " + param.outputs[i] + " failed: " + std::to_string(failed));
        }
        return found;
    }

private:
    const std::string text_;
    mutable ncnn::Net net_;  // its `create_extractor` is not const

    explicit Network(const Bytes& graph) : param({graph.begin(), graph.end()}), text_(graph.begin(), graph.end()) {}
};

Image image_of(const std::vector<Array>& arrays, size_t row) {
    Image found;
    for (const Array& array : arrays) found[array.name] = image_of(array, row);
    return found;
}

std::string engine() {
    const auto has = [](int supported) { return supported ? "true" : "false"; };
    return "\"engine\": \"ncnn\", \"version\": " + quoted(NCNN_VERSION_STRING) + ", \"dot product\": "
        + has(ncnn::cpu_support_arm_asimddp()) + ", \"int8 matrices\": " + has(ncnn::cpu_support_arm_i8mm());
}

void say(const std::string& fields) { std::printf("{%s}\n", fields.c_str()); }

void probe() {
    say(engine() + ", " + device() + ", \"cpus\": " + std::to_string(ncnn::get_cpu_count())
        + ", \"big cpus\": " + std::to_string(ncnn::get_big_cpu_count()) + ", " + state());
}

void replay(const Words& files, int threads) {
    const Network network(files[0], files[1], threads);
    const std::vector<Array> inputs = read_arrays(files[2]);
    const size_t images = network.count(inputs);
    std::vector<Array> outputs(network.param.outputs.size());
    for (size_t i = 0; i < outputs.size(); i++) outputs[i].name = network.param.outputs[i];
    for (size_t row = 0; row < images; row++) {
        const std::vector<ncnn::Mat> blobs = network.run(image_of(inputs, row));
        for (size_t i = 0; i < blobs.size(); i++) append(outputs[i], blobs[i]);
    }
    write_arrays(files[3], outputs);
    say(engine() + ", \"images\": " + std::to_string(images) + ", \"threads\": " + std::to_string(threads));
}

void require_finite(const std::vector<ncnn::Mat>& blobs, const std::vector<std::string>& names) {
    for (size_t i = 0; i < blobs.size(); i++)
        for (int c = 0; c < blobs[i].c; c++) {
            const auto* from = static_cast<const float*>(blobs[i].data) + blobs[i].cstep * c;
            const auto* end = from + size_t(blobs[i].w) * blobs[i].h * blobs[i].d;
            if (!std::all_of(from, end, [](float value) { return std::isfinite(value); }))
                throw Failure(ENGINE, "it gives NaN or infinity in " + names[i]);
        }
}

// A call is a batch, image by image; the inputs take turns.
void bench(const Words& files, int threads, int batch, int calls) {
    const auto began = Clock::now();
    const Network network(files[0], files[1], threads);
    const std::vector<Array> inputs = read_arrays(files[2]);
    std::vector<Image> images;
    for (size_t row = 0, count = network.count(inputs); row < count; row++) images.push_back(image_of(inputs, row));
    size_t next = 0;
    const auto call = [&] {
        for (int i = 1; i < batch; i++) network.run(images[next++ % images.size()]);
        return network.run(images[next++ % images.size()]);
    };
    require_finite(call(), network.param.outputs);
    const std::string first = std::to_string(int64_t(1e9 * seconds_since(began)));
    for (const auto warm = Clock::now(); seconds_since(warm) < WARM_SECONDS;) call();
    say(engine() + ", \"threads\": " + std::to_string(threads) + ", \"first ns\": " + first + ", " + state());
    for (int done = 0; done < calls; done++) {
        const auto start = Clock::now();
        call();
        const std::chrono::nanoseconds spent = Clock::now() - start;
        say("\"ns\": " + std::to_string(spent.count()));
    }
    say("\"peak bytes\": " + bytes_of("/proc/self/status", "VmHWM") + ", " + state());
}

// Takes `--name NUMBER` out of the words.
int option(Words& words, const std::string& name, int most) {
    const auto at = std::find(words.begin(), words.end(), name);
    if (at == words.end() || at + 1 == words.end()) throw Failure(USAGE, name + " is missing");
    const std::string text = *(at + 1);
    const int value = is_number(text, 6) ? std::stoi(text) : 0;
    if (value < 1 || value > most)
        throw Failure(USAGE, name + " is " + text + ", expected 1 to " + std::to_string(most));
    words.erase(at, at + 2);
    return value;
}

void act(Words words) {
    const std::string what = words.empty() ? "" : words[0];
    if (what == "probe" && words.size() == 1) return probe();
    if (what == "replay" || what == "bench" || what == "rates") {
        words.erase(words.begin());
        const int threads = option(words, "--threads", 256);
        const int batch = what == "bench" ? option(words, "--batch", 100000) : 1;
        const int calls = what == "bench" ? option(words, "--calls", 100000) : 0;
        if (what == "replay" && words.size() == 4) return replay(words, threads);
        if (what == "bench" && words.size() == 3) return bench(words, threads, batch, calls);
        if (what == "rates" && words.empty()) return say(rates(threads));
    }
    throw Failure(USAGE, "expected probe, rates --threads N, replay PARAM BIN INPUTS OUTPUTS --threads N, or bench "
                         "PARAM BIN INPUTS --threads N --batch B --calls C");
}

int fail(int code, const std::string& why) {
    say("\"error\": " + quoted(why));
    return code;
}

}  // namespace

int main(int count, char** words) {
    try {
        act({words + 1, words + count});
        return std::fflush(stdout) == 0 ? 0 : int(ENGINE);
    } catch (const Failure& failure) {
        return fail(failure.code, failure.what());
    } catch (const std::bad_alloc&) {
        return fail(ENGINE, "out of memory");
    } catch (const std::exception& error) {
        return fail(ENGINE, error.what());
    }
}
