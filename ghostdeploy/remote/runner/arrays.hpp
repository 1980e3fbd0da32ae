// Files, JSON strings and containers of arrays: what goes into the runner and comes out of it.
//
// A container is little-endian, with nothing before, between or behind:
//
//   8 bytes  "GDARRAY1"        u32  number of arrays, then of each
//   u16 length, name in UTF-8  u8   type: 0 float32, 1 uint8     u8  rank, 1 to 5     u32 × rank  sizes
//   data in C order
//
// The first size is the number of images. A reader never reads or allocates more than the file has.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using Bytes = std::vector<unsigned char>;

enum { USAGE = 2, BAD_FILE = 3, UNWRITABLE = 4, ENGINE = 5 };

struct Failure : std::runtime_error {
    int code;
    Failure(int number, const std::string& what) : std::runtime_error(what), code(number) {}
};

inline bool read_file(const std::string& path, Bytes& data) {
    FILE* stream = std::fopen(path.c_str(), "rb");
    if (!stream) return false;
    unsigned char piece[65536];
    size_t count;
    data.clear();
    while ((count = std::fread(piece, 1, sizeof piece, stream)) > 0) data.insert(data.end(), piece, piece + count);
    const bool whole = !std::ferror(stream);
    std::fclose(stream);
    return whole;
}

inline Bytes required(const std::string& path) {
    Bytes data;
    if (!read_file(path, data)) throw Failure(BAD_FILE, path + " cannot be read");
    return data;
}

inline std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const unsigned char one : text) {
        char code[8];
        if (one == '"' || one == '\\') {
            out += {'\\', char(one)};
        } else if (one >= 32 && one != 127) {
            out += char(one);
        } else {
            std::snprintf(code, sizeof code, "\\u%04x", one);
            out += code;
        }
    }
    return out + '"';
}

struct Array {
    std::string name;
    uint8_t type = 0;
    std::vector<uint32_t> sizes;
    Bytes data;
};

class Reader {
public:
    Reader(const Bytes& data, std::string where) : data_(data), where_(std::move(where)) {}

    const unsigned char* take(uint64_t count) {
        if (count > left()) throw Failure(BAD_FILE, where_ + " ends in the middle of an array");
        place_ += count;
        return data_.data() + place_ - count;
    }

    uint64_t little(size_t bytes) {
        const unsigned char* from = take(bytes);
        uint64_t value = 0;
        for (size_t i = 0; i < bytes; i++) value |= uint64_t(from[i]) << (8 * i);
        return value;
    }

    size_t left() const { return data_.size() - place_; }

private:
    const Bytes& data_;
    std::string where_;
    size_t place_ = 0;
};

constexpr char CONTAINER[] = "GDARRAY1";

inline Array read_array(Reader& reader, const std::string& path) {
    Array one;
    const size_t length = reader.little(2);
    const unsigned char* name = reader.take(length);
    one.name.assign(name, name + length);
    one.type = uint8_t(reader.little(1));
    const size_t rank = reader.little(1);
    if (one.type > 1 || rank < 1 || rank > 5) throw Failure(BAD_FILE, path + " has an array of unknown type or rank");
    uint64_t bytes = one.type == 0 ? 4 : 1;
    for (size_t i = 0; i < rank; i++) {
        one.sizes.push_back(uint32_t(reader.little(4)));
        bytes *= one.sizes[i];  // before it at most the file's size: no overflow below 4 GB
        if (bytes < 1 || bytes > reader.left()) throw Failure(BAD_FILE, path + " has an array larger than the file");
    }
    const unsigned char* from = reader.take(bytes);
    one.data.assign(from, from + bytes);
    return one;
}

inline std::vector<Array> read_arrays(const std::string& path) {
    const Bytes data = required(path);
    if (data.size() > UINT32_MAX) throw Failure(BAD_FILE, path + " has more than 4 GB");
    Reader reader(data, path);
    if (std::memcmp(reader.take(8), CONTAINER, 8) != 0) throw Failure(BAD_FILE, path + " is no container of arrays");
    std::vector<Array> found;
    for (uint64_t left = reader.little(4); left > 0; left--) found.push_back(read_array(reader, path));
    if (reader.left())
        throw Failure(BAD_FILE, path + " has " + std::to_string(reader.left()) + " bytes behind its last array");
    return found;
}

inline void write_arrays(const std::string& path, const std::vector<Array>& arrays) {
    Bytes out(CONTAINER, CONTAINER + 8);
    const auto little = [&](uint64_t value, size_t bytes) {
        for (size_t i = 0; i < bytes; i++) out.push_back(uint8_t(value >> (8 * i)));
    };
    little(arrays.size(), 4);
    for (const Array& one : arrays) {
        little(one.name.size(), 2);
        out.insert(out.end(), one.name.begin(), one.name.end());
        little(one.type, 1);
        little(one.sizes.size(), 1);
        for (const uint32_t size : one.sizes) little(size, 4);
        out.insert(out.end(), one.data.begin(), one.data.end());
    }
    FILE* stream = std::fopen(path.c_str(), "wb");
    bool written = stream && std::fwrite(out.data(), 1, out.size(), stream) == out.size();
    if (stream) written = std::fclose(stream) == 0 && written;
    if (!written) throw Failure(UNWRITABLE, path + " cannot be written: disk full, or read-only");
}
