// Writes the prepared pixels of images to standard output: pixels SPEC.json IMAGE…
#include <iostream>

#include "preprocess.hpp"

int main(int argc, char** argv) {
    std::ifstream stream(argv[1]);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    const preprocess::Spec spec(json::Reader(text).read());
    for (int i = 2; i < argc; ++i) {
        const std::vector<uint8_t> found = preprocess::pixels(decode::file(argv[i]), spec);
        std::cout.write(reinterpret_cast<const char*>(found.data()), found.size());
    }
}
