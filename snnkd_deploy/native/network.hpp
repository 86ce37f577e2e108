// A network as its file holds it: nodes in an order in which each comes after its inputs.
//
// The file is little-endian: "SNNKDNET", u32 version, u32 CRC-32 of the body, u64 bytes of the body, then the body that
// `Reader` takes apart below. Everything that is read is checked, so that a damaged file is an error and never a crash.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace snnkd {

constexpr uint32_t FILE_VERSION = 1;
constexpr int64_t LARGEST = 2147483647;  // of anything that is kept in an int32_t

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Shape {
    int channels = 1, height = 1, width = 1;
    int64_t size() const { return int64_t(channels) * height * width; }
    bool operator==(const Shape& other) const {
        return channels == other.channels && height == other.height && width == other.width;
    }
    bool operator!=(const Shape& other) const { return !(*this == other); }
};

enum class Kind : uint32_t { input, synapses, sum_pool, max_pool, flatten, add, attention, neuron, output };
enum class Reset : uint32_t { zero, subtract, subtract_late, none };

struct Window {
    int kernel[2] = {1, 1}, stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};  // vertical, horizontal
    int reach(int axis) const { return (kernel[axis] - 1) * dilation[axis]; }
};

struct Node {
    Kind kind;
    std::string name;
    std::vector<int> inputs;
    Shape shape;
    int dimensions = 3;     // 1: features, of which `shape` counts as channels
    int low = 0, high = 0;  // no value of any sample leaves them
    bool still = false;     // input: one picture for all steps
    Shape sample;           // input: what a sample brings; `constant` lies behind its channels
    std::vector<int32_t> constant;
    Window window;  // synapses, pools
    int groups = 1;
    std::vector<int8_t> weight;  // [out][in of the group][kernel row][kernel column]
    std::vector<int32_t> bias;
    int heads = 1;  // attention
    Reset reset = Reset::zero;
    int leak_bits = 0, fraction_bits = 0, own = 0;  // own: channels that are no relays
    std::vector<int32_t> leak, threshold;           // one, or one per channel
    int current_bits = 0;                           // of what is kept of a current, as the leak of a membrane
    std::vector<int32_t> current;
    int64_t membrane = 0;                           // no |v| exceeds it, in 2^-fraction_bits of a weight unit

    bool keeps_current() const {
        for (int32_t one : current)
            if (one) return true;
        return false;
    }
};

struct Network {
    int timesteps = 1;
    std::string name, digest;
    std::vector<Node> nodes;
};

class Reader {
  public:
    Reader(const uint8_t* at, const uint8_t* end) : at_(at), end_(end) {}

    template <class T> T number() {
        T value;
        std::memcpy(&value, take(sizeof(T)), sizeof(T));
        return value;
    }

    // A size or an index, which has to be in `least`..`most`.
    int count(int64_t least, int64_t most) {
        const int32_t value = number<int32_t>();
        if (value < least || value > most) throw Error("a size of " + std::to_string(value) + " where none can be");
        return value;
    }

    std::string text() {
        const int size = count(0, 65536);
        const uint8_t* from = take(size);
        return std::string(reinterpret_cast<const char*>(from), size);
    }

    template <class T> std::vector<T> array() {
        const int size = count(0, LARGEST);
        const uint8_t* from = take(int64_t(size) * sizeof(T));
        std::vector<T> values(size);
        if (size) std::memcpy(values.data(), from, values.size() * sizeof(T));
        return values;
    }

    Shape shape() {
        Shape one;
        for (int* side : {&one.channels, &one.height, &one.width}) *side = count(1, 1 << 24);
        if (double(one.channels) * one.height * one.width > double(LARGEST)) throw Error("a layer is too large");
        return one;
    }

    bool done() const { return at_ == end_; }

  private:
    const uint8_t *at_, *end_;

    const uint8_t* take(int64_t bytes) {
        if (bytes > end_ - at_) throw Error("it ends too early");
        const uint8_t* from = at_;
        at_ += bytes;
        return from;
    }
};

inline uint32_t crc32(const uint8_t* bytes, size_t count) {
    static const auto table = [] {
        std::vector<uint32_t> made(256);
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t value = byte;
            for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xEDB88320u ^ (value >> 1) : value >> 1;
            made[byte] = value;
        }
        return made;
    }();
    uint32_t state = ~0u;
    for (size_t i = 0; i < count; i++) state = table[(state ^ bytes[i]) & 255] ^ (state >> 8);
    return ~state;
}

inline Shape windowed(const Shape& in, int channels, const Window& w) {
    Shape out{channels, 0, 0};
    const int sides[2] = {in.height, in.width};
    int* found[2] = {&out.height, &out.width};
    for (int axis = 0; axis < 2; axis++) {
        const int64_t room = int64_t(sides[axis]) + 2 * int64_t(w.padding[axis]) - w.reach(axis) - 1;
        if (room < 0) throw Error("a kernel is larger than what it reads");
        *found[axis] = int(room / w.stride[axis]) + 1;
    }
    return out;
}

inline void read_window(Reader& from, Window& w, bool padded) {
    for (int axis = 0; axis < 2; axis++) w.kernel[axis] = from.count(1, 65536);
    for (int axis = 0; axis < 2; axis++) w.stride[axis] = from.count(1, 65536);
    for (int axis = 0; padded && axis < 2; axis++) w.padding[axis] = from.count(0, 65536);
    for (int axis = 0; padded && axis < 2; axis++) w.dilation[axis] = from.count(1, 16384);
}

inline void check(bool sound, const Node& node, const char* what) {
    if (!sound) throw Error(node.name + ": " + what);
}

inline void read_synapses(Reader& from, Node& node, const Shape& in) {
    read_window(from, node.window, true);
    node.groups = from.count(1, in.channels);
    node.weight = from.array<int8_t>();
    node.bias = from.array<int32_t>();
    const int64_t fan_in = int64_t(in.channels) / node.groups * node.window.kernel[0] * node.window.kernel[1];
    check(in.channels % node.groups == 0 && node.shape.channels % node.groups == 0, node, "its groups do not divide");
    check(windowed(in, node.shape.channels, node.window) == node.shape, node, "its shape is not what its kernel gives");
    check(int64_t(node.weight.size()) == fan_in * node.shape.channels, node, "it has another number of weights");
    check(int(node.bias.size()) == node.shape.channels, node, "it has another number of biases");
}

inline void read_neuron(Reader& from, Node& node) {
    node.reset = Reset(from.count(0, 3));
    node.leak_bits = from.count(0, 15);
    node.fraction_bits = from.count(0, 16);
    node.own = from.count(0, node.shape.channels);
    node.membrane = from.number<int32_t>();
    node.leak = from.array<int32_t>();
    node.threshold = from.array<int32_t>();
    node.current_bits = from.count(0, 15);
    node.current = from.array<int32_t>();
    for (const auto* one : {&node.leak, &node.threshold, &node.current})
        check(one->size() == 1 || int(one->size()) == node.shape.channels, node, "it has another number of channels");
    for (int32_t leak : node.leak) check(leak >= 0 && leak <= 1 << node.leak_bits, node, "its leak is not in 0..1");
    for (int32_t kept : node.current)
        check(kept >= 0 && kept <= 1 << node.current_bits, node, "what it keeps of a current is not in 0..1");
    for (int32_t threshold : node.threshold)
        check(threshold > 0 && int64_t(threshold) << node.fraction_bits <= LARGEST, node, "its threshold is too large");
    check(node.membrane >= 0, node, "its membrane is too large");
}

inline void read_kind(Reader& from, Node& node, const std::vector<Node>& before) {
    std::vector<Shape> given;
    for (int one : node.inputs) given.push_back(before[one].shape);
    const size_t wanted = node.kind == Kind::input ? 0 : node.kind == Kind::attention ? 3 : 1;
    check(node.kind == Kind::add ? given.size() > 1 : given.size() == wanted, node, "it has another number of inputs");
    switch (node.kind) {
        case Kind::input:
            node.still = from.count(0, 1);
            node.sample = from.shape();
            node.constant = from.array<int32_t>();
            check(int64_t(node.constant.size()) + node.sample.size() == node.shape.size() &&
                      node.sample.height == node.shape.height && node.sample.width == node.shape.width,
                  node, "its constants do not fill its shape");
            return;
        case Kind::synapses: return read_synapses(from, node, given[0]);
        case Kind::sum_pool:
        case Kind::max_pool:
            read_window(from, node.window, false);
            check(windowed(given[0], given[0].channels, node.window) == node.shape, node, "its shape does not fit");
            return;
        case Kind::flatten:
            check(node.shape == Shape{int(given[0].size()), 1, 1}, node, "its shape does not fit");
            return;
        case Kind::attention: node.heads = from.count(1, node.shape.channels); [[fallthrough]];
        case Kind::add:
        case Kind::output:
        case Kind::neuron:
            for (const Shape& one : given) check(one == node.shape, node, "its shape is not that of its inputs");
            check(node.shape.channels % node.heads == 0, node, "its heads do not divide its channels");
            if (node.kind == Kind::neuron) read_neuron(from, node);
    }
}

inline Node read_node(Reader& from, const std::vector<Node>& before) {
    Node node;
    node.kind = Kind(from.count(0, int(Kind::output)));
    node.name = from.text();
    for (int left = from.count(0, 65536); left > 0; left--)
        node.inputs.push_back(from.count(0, int64_t(before.size()) - 1));
    node.dimensions = from.count(1, 3);
    node.shape = from.shape();
    node.low = from.number<int32_t>();
    node.high = from.number<int32_t>();
    check((node.kind == Kind::input) == before.empty(), node, "the first node, and no other, has to be the input");
    check(node.low <= node.high, node, "its range is empty");
    read_kind(from, node, before);
    return node;
}

inline Network read_body(const uint8_t* body, size_t bytes) {
    Reader from(body, body + bytes);
    Network network;
    network.timesteps = from.count(1, 1 << 20);
    network.name = from.text();
    network.digest = from.text();
    const int count = from.count(2, 1 << 20);
    for (int i = 0; i < count; i++) network.nodes.push_back(read_node(from, network.nodes));
    if (network.nodes.back().kind != Kind::output || !from.done()) throw Error("its last node is not the output");
    for (int i = 0; i + 1 < count; i++)
        if (network.nodes[i].kind == Kind::output) throw Error("it has several outputs");
    return network;
}

// Error if the bytes are not a file of this version, whole and sound.
inline Network read_network(const void* file, size_t bytes) {
    constexpr size_t header = 24;
    const uint8_t* from = static_cast<const uint8_t*>(file);
    if (bytes < header || std::memcmp(from, "SNNKDNET", 8)) throw Error("not a network file of snnkd-deploy");
    Reader head(from + 8, from + header);
    const uint32_t version = head.number<uint32_t>(), sum = head.number<uint32_t>();
    const uint64_t length = head.number<uint64_t>();
    if (version != FILE_VERSION)
        throw Error("version " + std::to_string(version) + ", this library reads " + std::to_string(FILE_VERSION));
    if (length != bytes - header)
        throw Error("truncated: " + std::to_string(bytes - header) + " of " + std::to_string(length) + " bytes");
    if (crc32(from + header, length) != sum) throw Error("damaged: its checksum is another");
    return read_body(from + header, length);
}

}  // namespace snnkd
