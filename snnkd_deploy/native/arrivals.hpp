// Where anything arrives at neurons: events, or biases that are not zero. A bit for each neuron, as planes lie.
#pragma once

#include "values.hpp"

namespace snnkd {

struct Bits {
    Value layout;  // of one step and one plane
    uint8_t* at;

    uint8_t* place(int y, int x) const { return at + y * layout.row + int64_t(x) * layout.position; }
    bool get(int c, int y, int x) const { return place(y, x)[c / 8] >> c % 8 & 1; }
    void set(int c, int y, int x) { place(y, x)[c / 8] |= uint8_t(1 << c % 8); }
};

class Arrivals {
  public:
    explicit Arrivals(const Share& share) : share_(share), plan_(share.plan) {}

    // Whether every output of a node has a bias, or is the sum of one that has.
    static bool everywhere(const Network& network, int i) {
        const Node& node = network.nodes[i];
        switch (node.kind) {
            case Kind::synapses:
                return std::all_of(node.bias.begin(), node.bias.end(), [](int32_t one) { return one != 0; });
            case Kind::sum_pool:
            case Kind::max_pool:
            case Kind::flatten: return everywhere(network, node.inputs[0]);
            case Kind::add:
                return std::any_of(node.inputs.begin(), node.inputs.end(), [&](int one) { return everywhere(network, one); });
            default: return false;
        }
    }

    // What leaves a node at one step.
    Bits behind(int i, int step) {
        const Node& node = plan_.network.nodes[i];
        switch (node.kind) {
            case Kind::synapses: return through_synapses(node, step);
            case Kind::sum_pool:
            case Kind::max_pool: return through_pool(behind(node.inputs[0], step), node);
            case Kind::flatten: return flattened(behind(node.inputs[0], step), node);
            case Kind::add: {
                Bits all = behind(node.inputs[0], step);
                for (size_t k = 1; k < node.inputs.size(); k++) join(all, behind(node.inputs[k], step).at);
                return all;
            }
            default: return events(i, step);
        }
    }

    static void join(Bits& all, const uint8_t* other) {
        for (int64_t at = 0; at < all.layout.plane(); at += 8) {
            const uint64_t word = load<uint64_t>(all.at + at) | load<uint64_t>(other + at);
            std::memcpy(all.at + at, &word, 8);
        }
    }

  private:
    const Share& share_;
    const Plan& plan_;

    Bits none(const Shape& shape) {
        Bits made{planes_value(shape, 1, 1), nullptr};
        made.at = share_.scratch.take<uint8_t>(made.layout.plane());
        std::memset(made.at, 0, size_t(made.layout.plane()));
        return made;
    }

    // Where a value is not zero.
    Bits events(int i, int step) {
        const Value& value = plan_.values[i];
        Bits found = none(value.shape);
        if (value.form == Form::planes) {
            for (int plane = 0; plane < value.planes; plane++)
                join(found, share_.bits(value, value.steps == 1 ? 0 : step, plane, 0));
            return found;
        }
        const int32_t* from = unpacked(share_, value, step);
        for (int y = 0; y < value.shape.height; y++)
            for (int x = 0; x < value.shape.width; x++)
                for (int c = 0; c < value.shape.channels; c++)
                    if (*from++) found.set(c, y, x);
        return found;
    }

    Bits through_synapses(const Node& node, int step) {
        const Bits given = events(node.inputs[0], step);
        const Shape& in = plan_.network.nodes[node.inputs[0]].shape;
        const Window& w = node.window;
        Bits out = none(node.shape);
        const bool apart = node.groups == in.channels && node.groups == node.shape.channels;
        if (apart && w.kernel[0] * w.kernel[1] * w.stride[0] * w.stride[1] == 1 && !w.padding[0] && !w.padding[1]) {
            join(out, given.at);
        } else {
            const int outs = node.shape.channels / node.groups, per = in.channels / node.groups;
            for (int group = 0; group < node.groups; group++)
                put_where(any_in_windows(any_of(given, in, group * per, per), in, node), group * outs, outs, out);
        }
        put_where(std::vector<uint8_t>(size_t(node.shape.height) * node.shape.width, 1), node.bias, out);
        return out;
    }

    // For each position whether one of these channels is there; of a picture that is read as a row, for all of it.
    static std::vector<uint8_t> any_of(const Bits& given, const Shape& in, int first, int count) {
        const bool whole = count == in.channels;
        if (in.height * in.width == 1 && whole)
            return {uint8_t(std::any_of(given.at, given.at + given.layout.plane(), [](uint8_t one) { return one != 0; }))};
        std::vector<uint8_t> found(size_t(in.height) * in.width, 0);
        uint8_t* to = found.data();
        for (int y = 0; y < in.height; y++)
            for (int x = 0; x < in.width; x++, to++) {
                const uint8_t* from = given.place(y, x);
                for (int byte = 0; whole && byte < given.layout.position; byte++) *to |= from[byte];
                for (int c = first; !whole && c < first + count; c++) *to |= uint8_t(given.get(c, y, x));
            }
        return found;
    }

    // Sets these channels at every position that is marked.
    static void put_where(const std::vector<uint8_t>& marked, int first, int count, Bits& out) {
        std::vector<int32_t> channels(out.layout.shape.channels, 0);
        std::fill(channels.begin() + first, channels.begin() + first + count, 1);
        put_where(marked, channels, out);
    }

    static void put_where(const std::vector<uint8_t>& marked, const std::vector<int32_t>& channels, Bits& out) {
        std::vector<uint8_t> bytes(size_t(out.layout.position), 0);
        for (size_t c = 0; c < channels.size(); c++) bytes[c / 8] |= uint8_t((channels[c] != 0) << c % 8);
        if (std::all_of(bytes.begin(), bytes.end(), [](uint8_t one) { return !one; })) return;
        const uint8_t* from = marked.data();
        for (int y = 0; y < out.layout.shape.height; y++)
            for (int x = 0; x < out.layout.shape.width; x++, from++)
                for (int byte = 0; *from && byte < out.layout.position; byte++) out.place(y, x)[byte] |= bytes[byte];
    }

    Bits through_pool(const Bits& given, const Node& node) {
        const Shape& in = plan_.network.nodes[node.inputs[0]].shape;
        Bits out = none(node.shape);
        for (int c = 0; c < in.channels; c++)
            put_where(any_in_windows(any_of(given, in, c, 1), in, node), c, 1, out);
        return out;
    }

    Bits flattened(const Bits& given, const Node& node) {
        const Shape& in = given.layout.shape;
        Bits out = none(node.shape);
        int feature = 0;
        for (int c = 0; c < in.channels; c++)
            for (int y = 0; y < in.height; y++)
                for (int x = 0; x < in.width; x++, feature++)
                    if (given.get(c, y, x)) out.set(feature, 0, 0);
        return out;
    }

    static std::vector<uint8_t> any_in_windows(const std::vector<uint8_t>& given, const Shape& in, const Node& node) {
        const Window& w = node.window;
        const int height = node.shape.height, width = node.shape.width;
        std::vector<uint8_t> found(size_t(height) * width, 0);
        for (int ky = 0; ky < w.kernel[0]; ky++)
            for (int kx = 0; kx < w.kernel[1]; kx++) {
                const int left = kx * w.dilation[1] - w.padding[1];
                for (int y = 0; y < height; y++) {
                    const int row = y * w.stride[0] + ky * w.dilation[0] - w.padding[0];
                    if (row < 0 || row >= in.height) continue;
                    const uint8_t* from = given.data() + int64_t(row) * in.width + left;
                    uint8_t* to = found.data() + int64_t(y) * width;
                    for (int x = 0; x < width; x++) {
                        const int column = x * w.stride[1] + left;
                        if (column >= 0 && column < in.width) to[x] |= from[x * w.stride[1]];
                    }
                }
            }
        return found;
    }
};

}  // namespace snnkd
