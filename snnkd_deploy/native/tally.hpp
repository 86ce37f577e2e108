// What a run hands back beside the logits: spikes, and counts that are kept by each thread and added up at its end.
#pragma once

#include <mutex>

#include "snnkd_native.h"
#include "values.hpp"

namespace snnkd {

// Calls found(position, channel, plane) for each bit of a value at one step.
template <class F> void each_bit(const Share& share, const Value& value, int step, F found) {
    for (int plane = 0; plane < value.planes; plane++)
        for (int y = 0; y < value.shape.height; y++) {
            const uint8_t* row = share.bits(value, step, plane, y);
            for (int x = 0; x < value.shape.width; x++)
                for (int byte = 0; byte < value.position; byte++)
                    for (unsigned bits = row[x * value.position + byte]; bits; bits &= bits - 1)
                        found(int64_t(y) * value.shape.width + x, byte * 8 + __builtin_ctz(bits), plane);
        }
}

// Where something arrives: a byte for each output of a node, or everywhere.
struct Arrivals {
    bool everywhere = false;
    std::vector<uint8_t> at;  // [channel][row][column]
};

class Tally {
  public:
    Tally(const Plan& plan, const snnkd_results& wanted) : plan_(plan), wanted_(wanted) {
        const size_t nodes = plan.network.nodes.size();
        nonzero_.resize(nodes);
        sums_.resize(nodes);
        steps_.resize(nodes);
        reached_.assign(nodes, 0);
        reach.assign(nodes, 0);
        changes.assign(nodes, 0);
        for (size_t i = 0; i < nodes; i++) {
            const size_t size = plan.held[i] ? plan.values[i].shape.size() : 0;
            if (wanted.nonzero && wanted.nonzero[i]) nonzero_[i].assign(size, 0);
            if (wanted.sums && wanted.sums[i]) sums_[i].assign(size, 0);
            if (wanted.step_spikes && wanted.step_spikes[i]) steps_[i].assign(plan.network.timesteps, 0);
        }
    }

    std::vector<int64_t> reach;
    std::vector<int64_t> changes;  // of the sample in flight, but for those of the first step

    // One sample has been computed.
    void note(const Share& share, int64_t sample, int64_t count) {
        const Node& last = plan_.network.nodes.back();
        if (wanted_.logits)
            std::memcpy(wanted_.logits + sample * last.shape.size(),
                        share.numbers(plan_.values.back(), 0), 4 * last.shape.size());
        for (size_t i = 0; i < nonzero_.size(); i++) {
            if (!plan_.held[i]) continue;
            if (!nonzero_[i].empty() || !sums_[i].empty()) count_values(share, int(i));
            if (plan_.network.nodes[i].kind != Kind::neuron) continue;
            if (wanted_.spikes && wanted_.spikes[i]) copy_spikes(share, int(i), sample, count);
            if (!steps_[i].empty()) count_steps(share, int(i));
            if (wanted_.reached) count_reached(share, int(i));
            if (wanted_.changes) {
                wanted_.changes[sample * nonzero_.size() + i] = changes[i] + plan_.values[i].shape.size();
                changes[i] = 0;
            }
        }
    }

    // At the end of a thread's work.
    void hand_over(std::mutex& mutex) {
        std::lock_guard<std::mutex> lock(mutex);
        for (const Operation& op : plan_.operations)
            if (op.what == What::fire) reach[op.out] = in_file_units(op);
        for (size_t i = 0; i < nonzero_.size(); i++) {
            if (!nonzero_[i].empty()) add_up(plan_.values[i], nonzero_[i], wanted_.nonzero[i]);
            if (!sums_[i].empty()) add_up(plan_.values[i], sums_[i], wanted_.sums[i]);
            for (size_t step = 0; step < steps_[i].size(); step++) wanted_.step_spikes[i][step] += steps_[i][step];
            if (wanted_.reached) wanted_.reached[i] += reached_[i];
            if (wanted_.reach) wanted_.reach[i] = std::max(wanted_.reach[i], reach[i]);
        }
    }

  private:
    const Plan& plan_;
    const snnkd_results& wanted_;
    std::vector<std::vector<int64_t>> nonzero_, sums_, steps_;  // the first two [row][column][channel]
    std::vector<int64_t> reached_;

    // The largest membrane, which was computed with a point elsewhere where nothing falls below it.
    int64_t in_file_units(const Operation& op) const {
        const int bits = op.node->fraction_bits - op.fraction;
        return bits < 0 ? reach[op.out] >> -bits : reach[op.out] << bits;
    }

    static void add_up(const Value& value, const std::vector<int64_t>& from, int64_t* to) {
        const int64_t places = int64_t(value.shape.height) * value.shape.width;
        for (int64_t place = 0; place < places; place++)
            for (int c = 0; c < value.shape.channels; c++)
                to[c * places + place] += from[place * value.shape.channels + c];
    }

    void count_values(const Share& share, int i) {
        const Value& value = plan_.values[i];
        for (int step = 0; step < value.steps; step++)
            if (value.form == Form::planes) count_bits(share, i, step);
            else count_numbers(share.numbers(value, step), i);
    }

    void count_bits(const Share& share, int i, int step) {
        const Value& value = plan_.values[i];
        if (!sums_[i].empty())
            each_bit(share, value, step, [&](int64_t place, int c, int plane) {
                sums_[i][place * value.shape.channels + c] += int64_t(1) << plane;
            });
        if (nonzero_[i].empty()) return;
        if (value.planes == 1)
            each_bit(share, value, step, [&](int64_t place, int c, int) { nonzero_[i][place * value.shape.channels + c]++; });
        else
            count_numbers(unpacked(share, value, step), i, false);
    }

    void count_numbers(const int32_t* from, int i, bool sums = true) {
        for (size_t at = 0; at < nonzero_[i].size(); at++) nonzero_[i][at] += from[at] != 0;
        for (size_t at = 0; sums && at < sums_[i].size(); at++) sums_[i][at] += from[at];
    }

    void copy_spikes(const Share& share, int i, int64_t sample, int64_t count) {
        const Value& value = plan_.values[i];
        const int64_t size = value.shape.size(), places = size / value.shape.channels;
        for (int step = 0; step < value.steps; step++) {
            uint8_t* to = wanted_.spikes[i] + (step * count + sample) * size;
            std::memset(to, 0, size);
            each_bit(share, value, step, [&](int64_t place, int c, int) { to[c * places + place] = 1; });
        }
    }

    void count_steps(const Share& share, int i) {
        const Value& value = plan_.values[i];
        for (int step = 0; step < value.steps; step++)
            for (int64_t byte = 0; byte < value.step(); byte += 8)
                steps_[i][step] += __builtin_popcountll(load<uint64_t>(share.bits(value, step, 0, 0) + byte));
    }

    void count_reached(const Share& share, int i) {
        const Value& value = plan_.values[i];
        const int64_t places = int64_t(value.shape.height) * value.shape.width;
        for (int step = 0; step < value.steps; step++) {
            Arrivals found = arrivals(share, plan_.network.nodes[i].inputs[0], step);
            if (found.everywhere) {
                reached_[i] += value.shape.size();
                continue;
            }
            each_bit(share, value, step, [&](int64_t place, int c, int) { found.at[c * places + place] = 1; });
            for (uint8_t one : found.at) reached_[i] += one;
        }
    }

    // Where an event, or a bias that is not zero, arrives at what reads node `i`.
    Arrivals arrivals(const Share& share, int i, int step) {
        const Node& node = plan_.network.nodes[i];
        switch (node.kind) {
            case Kind::synapses: return through_synapses(share, i, step);
            case Kind::sum_pool:
            case Kind::max_pool: return through_pool(arrivals(share, node.inputs[0], step), i);
            case Kind::flatten: return arrivals(share, node.inputs[0], step);
            case Kind::add: {
                Arrivals all{false, std::vector<uint8_t>(node.shape.size(), 0)};
                for (int one : node.inputs) {
                    const Arrivals found = arrivals(share, one, step);
                    all.everywhere |= found.everywhere;
                    for (size_t at = 0; at < found.at.size(); at++) all.at[at] |= found.at[at];
                }
                return all;
            }
            default: return {false, events(share, i, step)};
        }
    }

    // Where a value is not zero, [channel][row][column].
    std::vector<uint8_t> events(const Share& share, int i, int step) {
        const Value& value = plan_.values[i];
        const int32_t* from = unpacked(share, value, step);
        const int64_t places = int64_t(value.shape.height) * value.shape.width;
        std::vector<uint8_t> found(value.shape.size());
        for (int64_t place = 0; place < places; place++)
            for (int c = 0; c < value.shape.channels; c++)
                found[c * places + place] = from[place * value.shape.channels + c] != 0;
        return found;
    }

    Arrivals through_synapses(const Share& share, int i, int step) {
        const Node& node = plan_.network.nodes[i];
        Arrivals found{true, {}};
        for (int32_t one : node.bias) found.everywhere &= one != 0;
        if (found.everywhere) return found;
        found.at.assign(node.shape.size(), 0);
        const std::vector<uint8_t> given = events(share, node.inputs[0], step);
        const Shape& in = plan_.network.nodes[node.inputs[0]].shape;
        const int outs = node.shape.channels / node.groups, per = in.channels / node.groups;
        const int64_t places = int64_t(in.height) * in.width, reached = int64_t(node.shape.height) * node.shape.width;
        for (int group = 0; group < node.groups; group++) {
            std::vector<uint8_t> some(places, 0);
            for (int c = group * per; c < (group + 1) * per; c++)
                for (int64_t at = 0; at < places; at++) some[at] |= given[c * places + at];
            const std::vector<uint8_t> read = any_in_windows(some, in, node);
            for (int o = group * outs; o < (group + 1) * outs; o++)
                for (int64_t at = 0; at < reached; at++) found.at[o * reached + at] = read[at] || node.bias[o];
        }
        return found;
    }

    Arrivals through_pool(Arrivals given, int i) {
        const Node& node = plan_.network.nodes[i];
        if (given.everywhere) return given;
        const Shape& in = plan_.network.nodes[node.inputs[0]].shape;
        Arrivals found;
        const int64_t places = int64_t(in.height) * in.width;
        for (int c = 0; c < in.channels; c++) {
            const auto from = given.at.begin() + c * places;
            const std::vector<uint8_t> read = any_in_windows(std::vector<uint8_t>(from, from + places), in, node);
            found.at.insert(found.at.end(), read.begin(), read.end());
        }
        return found;
    }

    static std::vector<uint8_t> any_in_windows(const std::vector<uint8_t>& given, const Shape& in, const Node& node) {
        const Window& w = node.window;
        std::vector<uint8_t> found(int64_t(node.shape.height) * node.shape.width, 0);
        for (int ky = 0; ky < w.kernel[0]; ky++)
            for (int kx = 0; kx < w.kernel[1]; kx++)
                for (int y = 0; y < node.shape.height; y++)
                    for (int x = 0; x < node.shape.width; x++) {
                        const int row = y * w.stride[0] + ky * w.dilation[0] - w.padding[0];
                        const int column = x * w.stride[1] + kx * w.dilation[1] - w.padding[1];
                        if (row >= 0 && row < in.height && column >= 0 && column < in.width)
                            found[y * node.shape.width + x] |= given[row * in.width + column];
                    }
        return found;
    }
};

}  // namespace snnkd
