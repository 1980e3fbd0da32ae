// What this device is, from the kernel's files. What cannot be read is null.
#pragma once

#include <map>
#include <sstream>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "arrays.hpp"

// A small file of the kernel without its last line break or NUL, quoted.
inline std::string fact(const std::string& path) {
    Bytes data;
    if (!read_file(path, data)) return "null";
    while (!data.empty() && (data.back() == '\n' || data.back() == 0)) data.pop_back();
    return data.empty() ? "null" : quoted(std::string(data.begin(), data.end()));
}

inline std::string number(const std::string& path) {
    const std::string text = fact(path);
    if (text == "null" || text.size() > 20) return "null";
    const std::string digits = text.substr(1, text.size() - 2), bare = digits.substr(digits[0] == '-');
    const bool whole = !bare.empty() && bare.find_first_not_of("0123456789") == std::string::npos;
    return whole ? std::to_string(std::stoll(digits)) : "null";
}

// The speed of a core; frequencies in kHz.
inline std::string speed(const std::string& processor) {
    const std::string place = "/sys/devices/system/cpu/cpu" + processor + "/cpufreq/";
    std::string found = "\"governor\": " + fact(place + "scaling_governor");
    for (const char* key : {"scaling_cur_freq", "cpuinfo_min_freq", "cpuinfo_max_freq"})
        found += ", " + quoted(key) + ": " + number(place + key);
    return found;
}

// One object per core, keys as the kernel writes them.
inline std::string cores() {
    Bytes data;
    if (!read_file("/proc/cpuinfo", data)) return "[]";
    std::map<std::string, std::string> core;
    std::string found;
    std::istringstream lines(std::string(data.begin(), data.end()) + "\n\n");
    for (std::string line; std::getline(lines, line);) {
        const size_t colon = line.find(':');
        if (colon != std::string::npos) {
            const size_t first = line.find_first_not_of(" \t", colon + 1);
            const std::string key = line.substr(0, line.find_last_not_of(" \t:", colon) + 1);
            core[key] = first == std::string::npos ? "" : line.substr(first);
        } else if (line.empty() && core.count("processor")) {
            found += (found.empty() ? "{\"processor\": " : ", {\"processor\": ") + quoted(core["processor"]);
            for (const char* key : {"CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
                                    "Features", "model name"})
                found += ", " + quoted(key) + ": " + (core.count(key) ? quoted(core[key]) : "null");
            found += ", " + speed(core["processor"]) + "}";
            core.clear();
        }
    }
    return "[" + found + "]";
}

inline std::string zones() {
    std::string found;
    for (int i = 0; i < 128; i++) {
        const std::string place = "/sys/class/thermal/thermal_zone" + std::to_string(i) + "/";
        const std::string kind = fact(place + "type");
        if (kind == "null") continue;
        found += found.empty() ? "{\"type\": " : ", {\"type\": ";
        found += kind + ", \"millidegrees\": " + number(place + "temp") + "}";
    }
    return "[" + found + "]";
}

// The bytes of a line of a file such as /proc/meminfo, which counts in kB.
inline std::string bytes_of(const std::string& path, const std::string& key) {
    Bytes data;
    if (!read_file(path, data)) return "null";
    std::istringstream lines(std::string(data.begin(), data.end()));
    for (std::string line; std::getline(lines, line);)
        if (line.rfind(key + ":", 0) == 0)
            return std::to_string(1024 * std::strtoull(line.c_str() + key.size() + 1, nullptr, 10));
    return "null";
}

// What changes while a device works.
inline std::string state() {
    return "\"thermal zones\": " + zones() + ", \"cores\": " + cores() + ", \"memory available\": "
        + bytes_of("/proc/meminfo", "MemAvailable");
}

inline bool same_file(const char* one, const char* other) {
    struct stat found[2] {};
    bool known = true;
    for (int i = 0; i < 2; i++) {
        const int file = open(i ? other : one, O_RDONLY | O_CLOEXEC);
        known = known && file >= 0 && fstat(file, &found[i]) == 0;
        if (file >= 0) close(file);
    }
    return !known || (found[0].st_dev == found[1].st_dev && found[0].st_ino == found[1].st_ino);
}

// The program that computes this processor; null where the kernel runs this program itself. An emulator of programs
// answers for /proc/self in the name of what it computes; under the folder's other name the kernel tells what it runs.
inline std::string executed_by() {
    const char* kernel = "/proc/thread-self/exe";
    if (same_file("/proc/self/exe", kernel)) return "null";
    char name[4096];
    const ssize_t length = readlink(kernel, name, sizeof name);
    const std::string path(name, length > 0 ? size_t(length) : 0);
    return quoted(path.empty() ? "another program" : path.substr(path.rfind('/') + 1));
}

inline std::string device() {
    utsname system{};
    struct sysinfo memory {};
    const bool named = uname(&system) == 0, counted = sysinfo(&memory) == 0;
    const std::string model = fact("/proc/device-tree/model");
    return "\"kernel\": " + (named ? quoted(system.release) : "null")
        + ", \"machine\": " + (named ? quoted(system.machine) : "null")
        + ", \"model\": " + (model == "null" ? fact("/sys/firmware/devicetree/base/model") : model)
        + ", \"executed by\": " + executed_by()
        + ", \"memory\": " + (counted ? std::to_string(uint64_t(memory.totalram) * memory.mem_unit) : "null");
}
