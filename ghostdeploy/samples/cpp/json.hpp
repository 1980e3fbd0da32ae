// Reads JSON (RFC 8259) into a tree; escapes of text stay as they are written, which no field read here has.
#pragma once

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace json {

struct Value {
    std::string text;  // of a string, a number, true, false or null
    std::vector<Value> items;
    std::map<std::string, Value> fields;

    const Value* find(const std::string& key) const {
        const auto found = fields.find(key);
        return found == fields.end() || found->second.text == "null" ? nullptr : &found->second;
    }
    const Value& at(const std::string& key) const {
        if (const Value* found = find(key)) return *found;
        throw std::runtime_error("manifest.json has no \"" + key + "\"");
    }
    std::string word(const std::string& key, const std::string& otherwise) const {
        const Value* found = find(key);
        return found ? found->text : otherwise;
    }
    double number() const {
        char* end = nullptr;
        const double found = std::strtod(text.c_str(), &end);
        if (text.empty() || *end) throw std::runtime_error("manifest.json has \"" + text + "\", expected a number");
        return found;
    }
    std::vector<double> numbers() const {  // one number is a list of one
        if (items.empty()) return {number()};
        std::vector<double> found;
        for (const Value& item : items) found.push_back(item.number());
        return found;
    }
};

class Reader {
  public:
    explicit Reader(const std::string& text) : text_(text) {}

    Value read(int depth = 0) {
        if (depth > 64) fail();
        Value value;
        const char first = peek();
        if (first == '{' || first == '[') {
            const char last = first == '{' ? '}' : ']';
            ++at_;
            if (peek() == last) return ++at_, value;
            for (;;) {
                if (first == '[') {
                    value.items.push_back(read(depth + 1));
                } else {
                    const std::string key = string();
                    take(':');
                    value.fields[key] = read(depth + 1);
                }
                if (peek() == last) return ++at_, value;
                take(',');
            }
        }
        value.text = first == '"' ? string() : plain();
        return value;
    }

  private:
    char peek() {
        at_ = text_.find_first_not_of(" \t\r\n", at_);
        if (at_ == std::string::npos) fail();
        return text_[at_];
    }
    void take(char wanted) {
        if (peek() != wanted) fail();
        ++at_;
    }
    std::string string() {
        take('"');
        const size_t begin = at_;
        for (; at_ < text_.size() && text_[at_] != '"'; ++at_)
            if (text_[at_] == '\\') ++at_;
        if (at_ >= text_.size()) fail();
        return text_.substr(begin, at_++ - begin);
    }
    std::string plain() {
        const size_t begin = at_;
        at_ = std::min(text_.find_first_of(",]} \t\r\n", at_), text_.size());
        if (at_ == begin) fail();
        return text_.substr(begin, at_ - begin);
    }
    [[noreturn]] void fail() const { throw std::runtime_error("manifest.json is damaged"); }

    const std::string& text_;
    size_t at_ = 0;
};

}  // namespace json
