// Reads .npz files of NumPy: a ZIP archive of .npy arrays, stored or deflated, at most 4 GiB.
//
// Layouts: PKWARE APPNOTE 6.3 (end of central directory → entries → local headers) and NumPy's NEP 1. Every offset
// that a file gives is checked before it is used. Needs zlib.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace npz {

struct Array {
    std::string dtype;  // NumPy's spelling: "<f4", "|u1"
    std::vector<size_t> shape;
    std::string bytes;  // C order

    size_t rows() const { return shape.empty() ? 0 : shape[0]; }
    size_t row_bytes() const { return rows() ? bytes.size() / rows() : 0; }
    const float* floats() const {
        if (dtype != "<f4") throw std::runtime_error("array has dtype " + dtype + ", expected <f4");
        return reinterpret_cast<const float*>(bytes.data());
    }
};

inline std::string slice(const std::string& text, size_t begin, size_t count) {
    if (begin > text.size() || count > text.size() - begin) throw std::runtime_error("file ends too early");
    return text.substr(begin, count);
}

template <class T>
T number(const std::string& text, size_t offset) {  // both formats are little-endian, as are the machines this is for
    T value;
    std::memcpy(&value, slice(text, offset, sizeof value).data(), sizeof value);
    return value;
}

inline std::string inflated(const std::string& packed, size_t size) {
    std::string out(size, '\0');
    z_stream stream{};
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(size);
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::runtime_error("zlib cannot start");
    const int state = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    if (state != Z_STREAM_END || stream.avail_out) throw std::runtime_error("compressed data are damaged");
    return out;
}

inline Array parse_npy(const std::string& file) {
    if (slice(file, 0, 6) != "\x93NUMPY") throw std::runtime_error("an entry is not an .npy array");
    const bool wide = number<uint8_t>(file, 6) > 1;
    const size_t begin = wide ? 12 : 10, length = wide ? number<uint32_t>(file, 8) : number<uint16_t>(file, 8);
    const std::string header = slice(file, begin, length);
    const auto after = [&](const std::string& key) {
        const size_t found = header.find(key);
        if (found == std::string::npos) throw std::runtime_error("an .npy header lacks " + key);
        return found + key.size();
    };
    if (header.compare(after("'fortran_order': "), 5, "False")) throw std::runtime_error("array is in Fortran order");
    Array array;
    const size_t kind = after("'descr': '");
    array.dtype = header.substr(kind, header.find('\'', kind) - kind);
    size_t count = 1, at = after("'shape': (");
    for (; at < header.size() && header[at] != ')'; ++at) {
        if (header[at] < '0' || header[at] > '9') continue;
        size_t digits = 0;
        array.shape.push_back(std::stoul(header.substr(at), &digits));
        count *= array.shape.back();
        at += digits - 1;
    }
    array.bytes = file.substr(begin + length);
    if (array.dtype.size() != 3 || array.bytes.size() != count * (array.dtype[2] - '0'))
        throw std::runtime_error("an .npy array has another size than its header says");
    return array;
}

inline std::map<std::string, Array> read(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error(path + " cannot be read");
    const std::string file{std::istreambuf_iterator<char>(stream), {}};
    const size_t end = file.rfind("PK\x05\x06");
    if (end == std::string::npos) throw std::runtime_error(path + " is not an .npz file");
    std::map<std::string, Array> arrays;
    size_t entry = number<uint32_t>(file, end + 16);
    for (int left = number<uint16_t>(file, end + 10); left > 0; --left) {
        if (slice(file, entry, 4) != "PK\x01\x02") throw std::runtime_error(path + " has a damaged directory");
        const auto method = number<uint16_t>(file, entry + 10);
        const auto crc = number<uint32_t>(file, entry + 16), packed = number<uint32_t>(file, entry + 20);
        const auto size = number<uint32_t>(file, entry + 24), local = number<uint32_t>(file, entry + 42);
        const auto name_length = number<uint16_t>(file, entry + 28);
        std::string name = slice(file, entry + 46, name_length);
        entry += 46 + name_length + number<uint16_t>(file, entry + 30) + number<uint16_t>(file, entry + 32);
        const size_t data = size_t{local} + 30 + number<uint16_t>(file, local + 26) + number<uint16_t>(file, local + 28);
        std::string bytes = slice(file, data, packed);
        if (method == Z_DEFLATED) bytes = inflated(bytes, size);
        if (crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())) != crc)
            throw std::runtime_error(path + ": " + name + " is damaged");
        arrays[name.substr(0, name.rfind(".npy"))] = parse_npy(bytes);
    }
    return arrays;
}

}  // namespace npz
