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

    // Whether the same leaves a node at each step.
    static bool still(const Plan& plan, int i) {
        const Node& node = plan.network.nodes[i];
        const auto each = [&](int one) { return still(plan, one); };
        switch (node.kind) {
            case Kind::synapses: return plan.values[node.inputs[0]].steps == 1;
            case Kind::sum_pool:
            case Kind::max_pool:
            case Kind::flatten:
            case Kind::add: return std::all_of(node.inputs.begin(), node.inputs.end(), each);
            default: return plan.values[i].steps == 1;
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
        const int position = given.layout.position;
        for (int y = 0; y < in.height; y++)
            for (int x = 0; x < in.width; x++, to++) {
                const uint8_t* from = given.place(y, x);
                if (!whole) {
                    for (int c = first; c < first + count; c++) *to |= uint8_t(given.get(c, y, x));
                } else if (position >= 8) {
                    for (int byte = 0; byte < position; byte += 8) *to |= load<uint64_t>(from + byte) != 0;
                } else {
                    for (int byte = 0; byte < position; byte++) *to |= from[byte] != 0;
                }
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
        const int position = out.layout.position;
        const uint8_t* from = marked.data();
        for (int y = 0; y < out.layout.shape.height; y++) {
            uint8_t* to = out.place(y, 0);
            for (int x = 0; x < out.layout.shape.width; x++, from++, to += position)
                if (*from)
                    for (int byte = 0; byte < position; byte++) to[byte] |= bytes[byte];
        }
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
                const int left = kx * w.dilation[1] - w.padding[1], stride = w.stride[1];
                const int first = left < 0 ? (stride - 1 - left) / stride : 0;  // whose column is one of the input's
                const int past = left < in.width ? std::min(width, (in.width - 1 - left) / stride + 1) : 0;
                for (int y = 0; y < height; y++) {
                    const int row = y * w.stride[0] + ky * w.dilation[0] - w.padding[0];
                    if (row < 0 || row >= in.height) continue;
                    const uint8_t* from = given.data() + int64_t(row) * in.width + left;
                    uint8_t* to = found.data() + int64_t(y) * width;
                    if (stride == 1)
                        for (int x = first; x < past; x++) to[x] |= from[x];
                    else
                        for (int x = first; x < past; x++) to[x] |= from[x * stride];
                }
            }
        return found;
    }
};

}  // namespace snnkd
