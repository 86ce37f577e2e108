// What a run hands back beside the logits: spikes, and counts that are kept by each thread and added up at its end.
#pragma once

#include <mutex>

#include "arrivals.hpp"
#include "snnkd_native.h"

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

// How bits are counted, with the instructions of one set.
struct Counters {
    int64_t (*ones)(const uint8_t* from, int64_t bytes);
    int64_t (*either)(const uint8_t* from, const uint8_t* other, int64_t bytes);
    void (*add_steps)(const uint8_t* from, int64_t bytes, int64_t apart, int steps, uint8_t worth, uint8_t* map);
    int64_t (*weigh_narrow)(const uint8_t* map, const int16_t* table, int64_t size, int64_t most);
    int64_t (*weigh)(const uint8_t* map, const int32_t* table, int64_t size, int64_t most);
    void (*add_bytes)(uint8_t* to, const uint8_t* from, int64_t size);
};

// For each byte a word with a byte of one for each of its bits.
inline const uint64_t* spread_bits() {
    static const auto made = [] {
        std::vector<uint64_t> words(256, 0);
        for (int byte = 0; byte < 256; byte++)
            for (int bit = 0; bit < 8; bit++) words[byte] |= uint64_t(byte >> bit & 1) << 8 * bit;
        return words;
    }();
    return made.data();
}

constexpr int FULL = 255;  // what a byte can count

// Where channel 0 of a position lies in what is counted of a value: of planes a number for each bit, unused ones too.
inline int64_t place_in_map(const Value& value, int y, int x) {
    if (value.form == Form::planes) return y * value.row * 8 + int64_t(x) * value.position * 8;
    return (int64_t(y) * value.shape.width + x) * value.shape.channels;
}
inline int64_t map_size(const Value& value) {
    return value.form == Form::planes ? value.plane() * 8 : value.shape.size();
}

// The tables of factors that a run is given, as maps lie. All threads read them.
class Factors {
  public:
    Factors(const Plan& plan, const snnkd_results& wanted) : of_(plan.network.nodes.size()) {
        for (size_t i = 0; i < of_.size(); i++) {
            const int count = wanted.tables && plan.held[i] ? wanted.table_counts[i] : 0;
            for (int table = 0; table < count; table++) {
                const Value& value = plan.values[i];
                of_[i].push_back(laid_out(value, wanted.tables[i] + table * value.shape.size()));
            }
        }
    }

    struct One {
        Table<int32_t> map;
        Table<int16_t> narrow;  // the same where it fits
        int64_t most = 1;       // how many products with a byte 32 bits hold

        int64_t weigh(const Counters& counters, const uint8_t* given) const {
            if (!narrow.empty()) return counters.weigh_narrow(given, narrow.data(), int64_t(narrow.size()), most);
            return counters.weigh(given, map.data(), int64_t(map.size()), most);
        }
    };

    const std::vector<One>& of(int i) const { return of_[i]; }

  private:
    std::vector<std::vector<One>> of_;

    static One laid_out(const Value& value, const int32_t* from) {
        One made;
        made.map.assign(map_size(value), 0);
        int64_t largest = 1;
        for (int c = 0; c < value.shape.channels; c++)
            for (int y = 0; y < value.shape.height; y++)
                for (int x = 0; x < value.shape.width; x++, from++) {
                    made.map[place_in_map(value, y, x) + c] = *from;
                    largest = std::max<int64_t>(largest, std::abs(int64_t(*from)));
                }
        if (largest > INT32_MAX / FULL) throw Error("a factor of " + std::to_string(largest) + " is too large to count with");
        made.most = INT32_MAX / (FULL * largest);
        if (value.form == Form::planes && largest <= INT16_MAX) made.narrow.assign(made.map.begin(), made.map.end());
        return made;
    }
};

// Counts of one kind of one node: how often something was not zero, or the sums of values.
struct Kept {
    bool asked = false;        // for sums over all samples
    std::vector<int64_t> all;  // [row][column][channel], of the samples before
    Table<uint8_t> some;       // of planes, as a map, what was not yet added to `all`
    int used = 0;              // the most that a byte of it may hold
    int64_t* weighed = nullptr;  // [sample][1 + table]
};

class Tally {
  public:
    Tally(const Plan& plan, const Counters& counters, const Factors& factors, const snnkd_results& wanted)
        : plan_(plan), counters_(counters), factors_(factors), wanted_(wanted) {
        const size_t nodes = plan.network.nodes.size();
        events_.resize(nodes);
        amounts_.resize(nodes);
        steps_.resize(nodes);
        met_.resize(nodes);
        everywhere_.resize(nodes);
        reach.assign(nodes, 0);
        changes.assign(nodes, 0);
        for (size_t i = 0; i < nodes; i++) {
            if (!plan.held[i]) continue;
            ask(events_[i], int(i), wanted.nonzero, wanted.events);
            ask(amounts_[i], int(i), wanted.sums, wanted.amounts);
            if (wanted.step_spikes && wanted.step_spikes[i]) steps_[i].assign(plan.network.timesteps, 0);
            if (wanted.reached && plan.network.nodes[i].kind == Kind::neuron)
                everywhere_[i] = Arrivals::everywhere(plan.network, plan.network.nodes[i].inputs[0]);
            if (wanted.met && wanted.met[i]) met_[i].assign(size_t(1) << plan.values[i].planes, 0);
        }
    }

    std::vector<int64_t> reach;
    std::vector<int64_t> changes;  // of the sample in flight, but for those of the first step

    // One sample has been computed.
    void note(const Share& share, int64_t sample, int64_t count) {
        const Node& last = plan_.network.nodes.back();
        const int nodes = int(events_.size());
        if (wanted_.logits)
            std::memcpy(wanted_.logits + sample * last.shape.size(),
                        share.numbers(plan_.values.back(), 0), 4 * last.shape.size());
        for (int i = 0; i < nodes; i++) {
            if (!plan_.held[i]) continue;
            share.scratch.clear();
            if (plan_.values[i].form == Form::planes) count_planes(share, i, sample);
            else count_numbers(share, i, sample);
            if (!met_[i].empty()) note_values(share, i);
            if (plan_.network.nodes[i].kind != Kind::neuron) continue;
            if (wanted_.spikes && wanted_.spikes[i]) copy_spikes(share, i, sample, count);
            if (wanted_.reached) wanted_.reached[sample * nodes + i] = reached(share, i);
            if (wanted_.changes) {
                wanted_.changes[sample * nodes + i] = changes[i] + plan_.values[i].shape.size();
                changes[i] = 0;
            }
        }
    }

    // At the end of a thread's work.
    void hand_over(std::mutex& mutex) {
        std::lock_guard<std::mutex> lock(mutex);
        for (const Operation& op : plan_.operations)
            if (op.what == What::fire) reach[op.out] = in_file_units(op);
        for (size_t i = 0; i < events_.size(); i++) {
            const Value& value = plan_.values[i];
            if (events_[i].asked) add_up(value, events_[i], wanted_.nonzero[i]);
            if (amounts_[i].asked) add_up(value, amounts_[i], wanted_.sums[i]);
            for (size_t step = 0; step < steps_[i].size(); step++) wanted_.step_spikes[i][step] += steps_[i][step];
            for (size_t one = 0; one < met_[i].size(); one++) wanted_.met[i][one] |= met_[i][one];
            if (wanted_.reach) wanted_.reach[i] = std::max(wanted_.reach[i], reach[i]);
        }
    }

  private:
    const Plan& plan_;
    const Counters& counters_;
    const Factors& factors_;
    const snnkd_results& wanted_;
    std::vector<Kept> events_, amounts_;
    std::vector<std::vector<int64_t>> steps_;
    std::vector<std::vector<uint8_t>> met_;
    std::vector<bool> everywhere_;  // of neurons, whether something arrives at each of them at each step

    void ask(Kept& kept, int i, int64_t** maps, int64_t** sums) {
        kept.asked = maps && maps[i];
        if (kept.asked && plan_.values[i].form == Form::numbers) kept.all.assign(plan_.values[i].shape.size(), 0);
        if (sums) kept.weighed = sums[i];
    }

    // The largest membrane, which was computed with a point elsewhere where nothing falls below it.
    int64_t in_file_units(const Operation& op) const {
        const int bits = op.node->fraction_bits - op.fraction;
        return bits < 0 ? reach[op.out] >> -bits : reach[op.out] << bits;
    }

    static void add_up(const Value& value, const Kept& kept, int64_t* to) {
        const Shape& shape = value.shape;
        const int64_t places = int64_t(shape.height) * shape.width;
        for (int c = 0; c < shape.channels && kept.used; c++)
            for (int y = 0; y < shape.height; y++)
                for (int x = 0; x < shape.width; x++)
                    to[c * places + y * shape.width + x] += kept.some[place_in_map(value, y, x) + c];
        for (int64_t place = 0; place < places && !kept.all.empty(); place++)
            for (int c = 0; c < shape.channels; c++) to[c * places + place] += kept.all[place * shape.channels + c];
    }

    // What bytes can hold no longer.
    static void flush(const Value& value, Kept& kept) {
        kept.all.resize(value.shape.size());
        int64_t* to = kept.all.data();
        for (int y = 0; y < value.shape.height; y++)
            for (int x = 0; x < value.shape.width; x++) {
                const uint8_t* from = kept.some.data() + place_in_map(value, y, x);
                for (int c = 0; c < value.shape.channels; c++) *to++ += from[c];
            }
        std::fill(kept.some.begin(), kept.some.end(), 0);
        kept.used = 0;
    }

    // What weighs each sample: the counts of the sample in flight begin here; null if nobody asked.
    int64_t* begun(const Kept& kept, int i, int64_t sample) const {
        if (!kept.weighed) return nullptr;
        const size_t each = 1 + factors_.of(i).size();
        int64_t* found = kept.weighed + sample * int64_t(each);
        std::fill(found, found + each, 0);
        return found;
    }

    void count_planes(const Share& share, int i, int64_t sample) {
        const Value& value = plan_.values[i];
        const uint8_t* bits = share.arena + value.offset;
        const auto add = [&](int step, int steps, uint8_t* map) {
            for (int plane = 0; plane < value.planes; plane++)
                counters_.add_steps(bits + step * value.step() + plane * value.plane(), value.plane(), value.step(), steps,
                                    uint8_t(1 << plane), map);
        };
        const bool sums = amounts_[i].weighed || (events_[i].weighed && value.planes == 1) || !steps_[i].empty();
        const int64_t amount = sums ? amount_of(share, i) : 0;
        if (wants(amounts_[i])) count_map(share, i, sample, amounts_[i], (1 << value.planes) - 1, amount, add);
        if (!wants(events_[i])) return;
        if (value.planes == 1) return count_map(share, i, sample, events_[i], 1, amount, add);
        const int64_t bytes = value.plane();
        uint8_t* any = share.scratch.take<uint8_t>(bytes * value.steps);
        for (int step = 0; step < value.steps; step++)
            for (int64_t at = 0; at < bytes; at += 8) {
                uint64_t word = 0;
                for (int plane = 0; plane < value.planes; plane++)
                    word |= load<uint64_t>(bits + step * value.step() + plane * bytes + at);
                std::memcpy(any + step * bytes + at, &word, 8);
            }
        count_map(share, i, sample, events_[i], 1, counters_.ones(any, bytes * value.steps),
                  [&](int step, int steps, uint8_t* map) {
                      counters_.add_steps(any + step * bytes, bytes, bytes, steps, 1, map);
                  });
    }

    // The sum of a value over the sample, each step's noted where that was asked for.
    int64_t amount_of(const Share& share, int i) {
        const Value& value = plan_.values[i];
        int64_t total = 0;
        for (int step = 0; step < value.steps; step++) {
            int64_t sum = 0;
            for (int plane = 0; plane < value.planes; plane++)
                sum += counters_.ones(share.bits(value, step, plane, 0), value.plane()) << plane;
            if (!steps_[i].empty()) steps_[i][step] += sum;
            total += sum;
        }
        return total;
    }

    static bool wants(const Kept& kept) { return kept.weighed || kept.asked; }

    // `add(step, steps, map)` adds what some steps hold, each at most `most`; `total` is the sum over the sample.
    template <class Add>
    void count_map(const Share& share, int i, int64_t sample, Kept& kept, int most, int64_t total, Add add) {
        const Value& value = plan_.values[i];
        const std::vector<Factors::One>& factors = factors_.of(i);
        const int64_t size = map_size(value);
        int64_t* weighed = begun(kept, i, sample);
        if (weighed) weighed[0] = total;
        const bool apart = weighed && !factors.empty();  // a map of this sample alone
        if (!apart && !kept.asked) return;
        if (kept.asked && kept.some.empty()) kept.some.resize(size);
        uint8_t* map = apart ? share.scratch.take<uint8_t>(size) : nullptr;
        const int at_once = FULL / most;
        for (int step = 0; step < value.steps; step += at_once) {
            const int steps = std::min(at_once, value.steps - step);
            if (apart) {
                std::memset(map, 0, size_t(size));
                add(step, steps, map);
                for (size_t k = 0; k < factors.size(); k++) weighed[1 + k] += factors[k].weigh(counters_, map);
            }
            if (!kept.asked) continue;
            if (kept.used + steps * most > FULL) flush(value, kept);
            kept.used += steps * most;
            if (apart) counters_.add_bytes(kept.some.data(), map, size);
            else add(step, steps, kept.some.data());
        }
    }

    void count_numbers(const Share& share, int i, int64_t sample) {
        const Value& value = plan_.values[i];
        for (int step = 0; step < value.steps; step++) {
            const int32_t* from = share.numbers(value, step);
            add_numbers(i, sample, step, events_[i], [&](int64_t at) { return int64_t(from[at] != 0); });
            add_numbers(i, sample, step, amounts_[i], [&](int64_t at) { return int64_t(from[at]); });
        }
    }

    template <class Of> void add_numbers(int i, int64_t sample, int step, Kept& kept, Of of) {
        for (size_t at = 0; at < kept.all.size(); at++) kept.all[at] += of(int64_t(at));
        if (!kept.weighed) return;
        const std::vector<Factors::One>& factors = factors_.of(i);
        int64_t* weighed = step ? kept.weighed + sample * int64_t(1 + factors.size()) : begun(kept, i, sample);
        for (int64_t at = 0, size = map_size(plan_.values[i]); at < size; at++) {
            weighed[0] += of(at);
            for (size_t k = 0; k < factors.size(); k++) weighed[1 + k] += of(at) * factors[k].map[at];
        }
    }

    // Which values there are, until all were met that there can be; zeros are told from unused bits by their number.
    void note_values(const Share& share, int i) {
        const Value& value = plan_.values[i];
        std::vector<uint8_t>& met = met_[i];
        const int64_t most = std::min<int64_t>(plan_.network.nodes[i].high, int64_t(met.size()) - 1);
        if (std::count(met.begin(), met.begin() + most + 1, 1) == most + 1) return;
        int64_t others = 0;
        for (int step = 0; step < value.steps; step++)
            for (int64_t at = 0; at < value.plane(); at += 8) {
                uint64_t bits[LARGEST_PLANES], any = 0;
                for (int plane = 0; plane < value.planes; plane++) {
                    bits[plane] = load<uint64_t>(share.bits(value, step, plane, 0) + at);
                    any |= bits[plane];
                }
                if (!met[0]) others += __builtin_popcountll(any);
                for (int64_t one = 1; any && one <= most; one++) {
                    if (met[one]) continue;
                    uint64_t alike = any;
                    for (int plane = 0; plane < value.planes; plane++) alike &= one >> plane & 1 ? bits[plane] : ~bits[plane];
                    met[one] = alike != 0;
                }
            }
        if (!met[0]) met[0] = others < value.shape.size() * value.steps;
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

    // How often, over steps, something arrived at neurons, or one fired.
    int64_t reached(const Share& share, int i) {
        const Value& value = plan_.values[i];
        const int from = plan_.network.nodes[i].inputs[0];
        if (everywhere_[i]) return value.shape.size() * value.steps;
        const bool still = Arrivals::still(plan_, from);
        uint8_t* reached = nullptr;
        int64_t total = 0;
        for (int step = 0; step < value.steps; step++) {
            if (!step || !still) {
                share.scratch.clear();
                reached = Arrivals(share).behind(from, step).at;
            }
            const uint8_t* fired = share.bits(value, step, 0, 0);
            total += counters_.either(reached, fired, value.plane());
        }
        return total;
    }
};

}  // namespace snnkd
