// What this device can do at best, as ghostdeploy/deploy/measure/machine_rates.py measures it elsewhere.
//
//   GEMM rate     n³ / t of a float32 n × n product, n = 512, by ncnn's own matrix product
//   bandwidth(s)  s / t of a = b + c on float32 arrays of s bytes together, each thread on its own share
//
// The best of many repetitions counts: a limit is what can happen, not what usually does.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "datareader.h"
#include "net.h"

#include "arrays.hpp"
#include "probe.hpp"

using Clock = std::chrono::steady_clock;

constexpr int GEMM_SIZE = 512;
constexpr size_t MOVED = size_t(1) << 27, MOST_SET = size_t(1) << 29, USUAL_CACHE = size_t(32) << 20;
constexpr double GEMM_SECONDS = 0.4, STREAM_SECONDS = 0.15;

inline double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// The shortest time of a call, of at least three and for so many seconds.
template <typename Call>
double shortest(const Call& call, double seconds) {
    call();
    double best = 1e9;
    const auto begin = Clock::now();
    for (int done = 0; done < 3 || seconds_since(begin) < seconds; done++) {
        const auto start = Clock::now();
        call();
        best = std::min(best, seconds_since(start));
    }
    return best;
}

// Every switch that trades accuracy for speed is off, as in ghostdeploy/runtimes/ncnn.
inline void set_options(ncnn::Option& opt, int threads) {
    opt.use_vulkan_compute = opt.use_fp16_packed = opt.use_fp16_storage = opt.use_fp16_arithmetic = false;
    opt.use_bf16_packed = opt.use_bf16_storage = false;
    opt.num_threads = threads;
}

inline double gemm_rate(int threads) {
    ncnn::Net net;
    set_options(net.opt, threads);
    const unsigned char* none = nullptr;
    const bool failed = net.load_param_mem("7767517\n3 3\nInput a 0 1 a\nInput b 0 1 b\nGemm c 2 1 a b c\n")
        || net.load_model(ncnn::DataReaderFromMemory(none));
    ncnn::Mat left(GEMM_SIZE, GEMM_SIZE), right(GEMM_SIZE, GEMM_SIZE);
    if (failed || left.empty() || right.empty()) throw Failure(ENGINE, "out of memory");
    left.fill(0.5f);
    right.fill(0.25f);
    const double seconds = shortest([&] {
        ncnn::Extractor extractor = net.create_extractor();
        ncnn::Mat product;
        if (extractor.input("a", left) || extractor.input("b", right) || extractor.extract("c", product))
            throw Failure(ENGINE, "the matrix product failed");
    }, GEMM_SECONDS);
    return double(GEMM_SIZE) * GEMM_SIZE * GEMM_SIZE / seconds;
}

inline double stream_rate(size_t size, int threads) {
    const size_t length = std::max<size_t>(1, size / (3 * sizeof(float) * threads));
    const size_t calls = std::max<size_t>(1, MOVED / size);  // starting a thread must not be what is measured
    std::vector<std::vector<float>> arrays(3 * size_t(threads), std::vector<float>(length, 1.f));
    const double seconds = shortest([&] {
        #pragma omp parallel for num_threads(threads)
        for (int thread = 0; thread < threads; thread++) {
            float* out = arrays[3 * thread].data();
            const float *left = arrays[3 * thread + 1].data(), *right = arrays[3 * thread + 2].data();
            for (size_t call = 0; call < calls; call++) {
                #pragma omp simd
                for (size_t i = 0; i < length; i++) out[i] = left[i] + right[i];
                asm volatile("" ::: "memory");  // else all calls but the last may be left out
            }
        }
    }, STREAM_SECONDS);
    return 3. * sizeof(float) * double(length) * threads * double(calls) / seconds;
}

// The bytes of the largest cache of any core; a guess where the kernel does not tell.
inline size_t last_level_cache() {
    size_t most = 0;
    for (int core = 0; core < 64; core++)
        for (int index = 0; index < 8; index++) {
            const std::string size = fact("/sys/devices/system/cpu/cpu" + std::to_string(core) + "/cache/index"
                + std::to_string(index) + "/size");
            if (size.size() < 4 || size.size() > 10) continue;  // quoted: "512K"
            const size_t unit = size[size.size() - 2] == 'M' ? size_t(1) << 20 : size_t(1) << 10;
            most = std::max(most, size_t(std::strtoul(size.c_str() + 1, nullptr, 10)) * unit);
        }
    return most ? most : USUAL_CACHE;
}

// JSON, by rising size; the last is memory, well beyond every cache.
inline std::string rates(int threads) {
    std::string found;
    double rate = 0;
    for (const size_t size : {std::min(MOST_SET, 4 * last_level_cache()), size_t(1) << 24, size_t(1) << 22,
                              size_t(1) << 20, size_t(1) << 18}) {
        rate = std::max(rate, stream_rate(size, threads));  // what a large set can do a small one can
        const std::string one = "[" + std::to_string(size) + ", " + std::to_string(uint64_t(rate)) + "]";
        found = one + (found.empty() ? "" : ", ") + found;
    }
    return "\"threads\": " + std::to_string(threads) + ", \"macs per second\": "
        + std::to_string(uint64_t(gemm_rate(threads))) + ", \"bandwidths\": [" + found + "]";
}
