// From a JPEG or PNG file to upright RGB pixels, as ghostdeploy/decode.py has them.
//
//   gray → RGB    palette → RGB    alpha is dropped    CMYK by Pillow's formula    16-bit gray → 8 bits, rounded
//   16-bit colour → its high bytes    EXIF orientation 1..8 applied
//
// Needs libjpeg and libpng.
#pragma once

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <jpeglib.h>

namespace decode {

constexpr uint64_t MAX_PIXELS = 64'000'000;

struct Image {
    int width = 0, height = 0;
    std::vector<uint8_t> pixels;  // rows of RGB

    Image(int w, int h) : width(w), height(h) {
        if (w < 1 || h < 1 || uint64_t(w) * h > MAX_PIXELS)
            throw std::runtime_error("image has " + std::to_string(w) + "×" + std::to_string(h) + " pixels, expected at most 64 million");
        pixels.resize(size_t(w) * h * 3);
    }
    uint8_t* at(int x, int y) { return &pixels[(size_t(y) * width + x) * 3]; }
    const uint8_t* at(int x, int y) const { return &pixels[(size_t(y) * width + x) * 3]; }
};

// The orientation in a TIFF block, 1 where there is none or it is damaged.
inline int orientation(const uint8_t* tiff, size_t size) {
    if (size < 8 || (tiff[0] != 'I' && tiff[0] != 'M')) return 1;
    const bool little = tiff[0] == 'I';
    const auto u16 = [&](size_t at) -> unsigned { return little ? tiff[at] | tiff[at + 1] << 8 : tiff[at] << 8 | tiff[at + 1]; };
    const auto u32 = [&](size_t at) -> size_t { return little ? u16(at) | size_t(u16(at + 2)) << 16 : size_t(u16(at)) << 16 | u16(at + 2); };
    const size_t table = u32(4);
    if (table + 2 > size) return 1;
    for (size_t entry = table + 2, last = entry + 12 * u16(table); entry < last && entry + 12 <= size; entry += 12)
        if (u16(entry) == 0x0112) {
            const unsigned found = u16(entry + 8);
            return found >= 1 && found <= 8 ? int(found) : 1;
        }
    return 1;
}

inline Image upright(const Image& image, int turn) {
    if (turn == 1) return image;
    const bool sideways = turn >= 5;
    Image out(sideways ? image.height : image.width, sideways ? image.width : image.height);
    const int right = image.width - 1, bottom = image.height - 1;
    for (int y = 0; y < out.height; ++y)
        for (int x = 0; x < out.width; ++x) {
            const int sx[] = {x, right - x, right - x, x, y, y, right - y, right - y};
            const int sy[] = {y, y, bottom - y, bottom - y, x, bottom - x, bottom - x, x};
            std::copy_n(image.at(sx[turn - 1], sy[turn - 1]), 3, out.at(x, y));
        }
    return out;
}

struct JpegErrors {
    jpeg_error_mgr base;
    std::jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
};

inline void escape_jpeg(j_common_ptr common) {
    auto* errors = reinterpret_cast<JpegErrors*>(common->err);
    common->err->format_message(common, errors->message);
    std::longjmp(errors->escape, 1);
}

inline uint8_t times(unsigned a, unsigned b) {  // a · b / 255, as Pillow rounds it
    const unsigned product = a * b + 128;
    return uint8_t((product + (product >> 8)) >> 8);
}

inline void row_to_rgb(const uint8_t* row, int width, int channels, bool inverted, uint8_t* out) {
    for (int x = 0; x < width; ++x, row += channels, out += 3) {
        if (channels == 3) {
            std::copy_n(row, 3, out);
        } else if (channels == 1) {
            std::fill_n(out, 3, row[0]);
        } else {
            const auto ink = [&](int i) -> unsigned { return inverted ? 255 - row[i] : row[i]; };
            const unsigned paper = 255 - ink(3);
            for (int i = 0; i < 3; ++i) out[i] = uint8_t(paper - times(ink(i), paper));
        }
    }
}

inline Image jpeg(const std::string& bytes) {
    jpeg_decompress_struct info{};
    JpegErrors errors{};
    info.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = escape_jpeg;
    errors.base.output_message = [](j_common_ptr) {};  // warnings; Pillow is silent about them, too
    std::vector<uint8_t> row;
    std::vector<Image> made;
    int turn = 1;
    if (setjmp(errors.escape)) {
        jpeg_destroy_decompress(&info);
        throw std::runtime_error(errors.message);
    }
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&info, TRUE);
    for (auto* marker = info.marker_list; marker; marker = marker->next)
        if (marker->data_length > 6 && std::equal(marker->data, marker->data + 6, "Exif\0"))
            turn = orientation(marker->data + 6, marker->data_length - 6);
    const bool inverted = info.saw_Adobe_marker;
    info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : info.num_components == 4 ? JCS_CMYK : JCS_RGB;
    if (uint64_t(info.image_width) * info.image_height > MAX_PIXELS) {
        jpeg_destroy_decompress(&info);
        throw std::runtime_error("image has more than 64 million pixels");
    }
    jpeg_start_decompress(&info);
    made.emplace_back(int(info.output_width), int(info.output_height));
    row.resize(size_t(info.output_width) * info.output_components);
    for (int y = 0; y < made[0].height; ++y) {
        uint8_t* line = row.data();
        jpeg_read_scanlines(&info, &line, 1);
        row_to_rgb(line, made[0].width, info.output_components, inverted, made[0].at(0, y));
    }
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    return upright(made[0], turn);
}

struct Bytes {
    const std::string& all;
    size_t at;
};

inline Image png(const std::string& bytes) {
    Bytes source{bytes, 0};
    std::string message = "image is damaged";
    const auto fail = [](png_structp reader, png_const_charp said) {
        *static_cast<std::string*>(png_get_error_ptr(reader)) = said;
        png_longjmp(reader, 1);
    };
    png_structp reader = png_create_read_struct(PNG_LIBPNG_VER_STRING, &message, fail, [](png_structp, png_const_charp) {});
    png_infop info = png_create_info_struct(reader);
    std::vector<uint8_t> raw;
    std::vector<png_bytep> rows;
    if (setjmp(png_jmpbuf(reader))) {
        png_destroy_read_struct(&reader, &info, nullptr);
        throw std::runtime_error(message);
    }
    png_set_user_limits(reader, 1u << 26, 1u << 26);
    png_set_read_fn(reader, &source, [](png_structp self, png_bytep out, size_t count) {
        auto* from = static_cast<Bytes*>(png_get_io_ptr(self));
        if (count > from->all.size() - from->at) png_error(self, "file ends too early");
        std::copy_n(from->all.data() + from->at, count, reinterpret_cast<char*>(out));
        from->at += count;
    });
    png_read_info(reader, info);
    const int depth = png_get_bit_depth(reader, info), kind = png_get_color_type(reader, info);
    const bool wide_gray = depth == 16 && kind == PNG_COLOR_TYPE_GRAY;
    if (kind == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(reader);
    if (kind == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(reader);
    if (depth == 16 && !wide_gray) png_set_strip_16(reader);
    if (kind & PNG_COLOR_MASK_ALPHA) png_set_strip_alpha(reader);
    png_set_interlace_handling(reader);
    png_read_update_info(reader, info);
    const int width = int(png_get_image_width(reader, info)), height = int(png_get_image_height(reader, info));
    const size_t stride = png_get_rowbytes(reader, info);
    if (uint64_t(width) * height > MAX_PIXELS) png_error(reader, "image has more than 64 million pixels");
    raw.resize(stride * height);
    for (int y = 0; y < height; ++y) rows.push_back(&raw[stride * y]);
    png_read_image(reader, rows.data());
    png_read_end(reader, info);
    png_uint_32 size = 0;
    png_bytep exif = nullptr;
    const int turn = png_get_eXIf_1(reader, info, &size, &exif) ? orientation(exif, size) : 1;
    const int channels = png_get_channels(reader, info);
    Image image(width, height);
    for (int y = 0; y < height; ++y) {
        if (wide_gray) {
            for (int x = 0; x < width; ++x) {
                const unsigned value = rows[y][2 * x] << 8 | rows[y][2 * x + 1];
                std::fill_n(image.at(x, y), 3, uint8_t(value * (255.0 / 65535.0) + 0.5));
            }
        } else {  // a palette with transparency has four channels here, whose last is dropped
            for (int x = 0; x < width; ++x) {
                const uint8_t* pixel = rows[y] + size_t(x) * channels;
                for (int i = 0; i < 3; ++i) image.at(x, y)[i] = pixel[channels < 3 ? 0 : i];
            }
        }
    }
    png_destroy_read_struct(&reader, &info, nullptr);
    return upright(image, turn);
}

inline Image file(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error("image " + path + " cannot be read");
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    try {
        if (bytes.compare(0, 3, "\xFF\xD8\xFF") == 0) return jpeg(bytes);
        if (bytes.compare(0, 8, "\x89PNG\r\n\x1A\n") == 0) return png(bytes);
    } catch (const std::exception& error) {
        throw std::runtime_error("image " + path + ": " + error.what());
    }
    throw std::runtime_error("image " + path + " is no JPEG or PNG file");
}

}  // namespace decode
