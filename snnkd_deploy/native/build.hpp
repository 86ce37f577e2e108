// From nodes to a plan: which values are kept, what is computed together, and weights in the order they are read.
#pragma once

#include <utility>

#include "plan.hpp"

namespace snnkd {

constexpr int BLOCK = 128;                 // output channels that are computed together: as many as registers hold
constexpr int64_t LISTED = 65536;          // entries of an event list are 16 bits
constexpr int64_t SCATTERED = 1 << 20;     // bytes of a table; larger ones leave the cache and are not worth it
constexpr int64_t FOURS = 1 << 19;
constexpr int64_t CACHED = 192 << 10;      // beyond it a table of int8 is faster than one of int16
constexpr int64_t EXACT_FLOAT = 1 << 24;

class Builder {
  public:
    Builder(Network network, int lanes) : widest_(lanes), lanes_(lanes) {
        plan_.network = std::move(network);
        plan_.values.resize(nodes().size());
        plan_.held.assign(nodes().size(), false);
        readers_.resize(nodes().size());
        for (size_t i = 0; i < nodes().size(); i++)
            for (int one : nodes()[i].inputs) readers_[one].push_back(int(i));
    }

    Plan build() {
        for (int i = 0; i < int(nodes().size()); i++) place(i);
        return std::move(plan_);
    }

  private:
    Plan plan_;
    std::vector<std::vector<int>> readers_;
    const int widest_;
    int lanes_;  // of the population that is being laid out

    const std::vector<Node>& nodes() const { return plan_.network.nodes; }
    const Value& value(int i) const { return plan_.values[i]; }

    void hold(int i, Value made) {
        made.offset = plan_.arena;
        plan_.arena += rounded(made.bytes(), 64) + 64;
        plan_.values[i] = made;
        plan_.held[i] = true;
    }

    int steps_of(const Node& node) const {
        int most = 1;
        for (int one : node.inputs) most = std::max(most, plan_.held[one] ? value(one).steps : steps_of(nodes()[one]));
        return most;
    }

    bool planes_in(const Node& node) const {
        for (int one : node.inputs)
            if (!plan_.held[one] || value(one).form != Form::planes) return false;
        return bits_for(node.high) <= LARGEST_PLANES;
    }

    // Whether only its reader needs it, which then computes it on the way.
    bool passing(int i) const {
        const Node& node = nodes()[i];
        if (node.kind != Kind::synapses && (node.kind != Kind::add || planes_in(node))) return false;
        if (readers_[i].size() != 1) return false;
        const Node& reader = nodes()[readers_[i][0]];
        return reader.kind == Kind::neuron || reader.kind == Kind::add;
    }

    Operation& push(What what, int i) {
        Operation made;
        made.what = what;
        made.node = &nodes()[i];
        made.out = i;
        made.in = nodes()[i].inputs;
        plan_.operations.push_back(std::move(made));
        return plan_.operations.back();
    }

    void place(int i) {
        const Node& node = nodes()[i];
        switch (node.kind) {
            case Kind::input: return place_input(i);
            case Kind::sum_pool: return place_pool(i, What::sum_pool);
            case Kind::max_pool: return place_pool(i, What::max_pool);
            case Kind::flatten: return place_flatten(i);
            case Kind::attention:
                hold(i, numbers_value(node.shape, steps_of(node)));
                push(What::attend, i);
                return;
            case Kind::add:
                if (!planes_in(node)) return place_current(i);
                hold(i, planes_value(node.shape, steps_of(node), bits_for(node.high)));
                push(What::add, i);
                return;
            case Kind::synapses: return place_current(i);
            case Kind::neuron:
                hold(i, planes_value(node.shape, plan_.network.timesteps, 1));
                return population(push(What::fire, i), node.inputs[0]);
            case Kind::output:
                hold(i, numbers_value(node.shape, 1));
                push(What::total, i);
        }
    }

    void place_input(int i) {
        const Node& node = nodes()[i];
        const bool few = !node.still && node.low >= 0 && bits_for(node.high) <= 4;
        const int steps = node.still ? 1 : plan_.network.timesteps;
        hold(i, few ? planes_value(node.shape, steps, bits_for(node.high)) : numbers_value(node.shape, steps));
        push(What::read, i);
    }

    void place_pool(int i, What what) {
        const Node& node = nodes()[i];
        const bool bits = planes_in(node) && (what == What::sum_pool || value(node.inputs[0]).planes == 1);
        hold(i, bits ? planes_value(node.shape, steps_of(node), bits_for(node.high))
                     : numbers_value(node.shape, steps_of(node)));
        push(what, i);
    }

    void place_flatten(int i) {
        const Value& given = value(nodes()[i].inputs[0]);
        bool looked_at = given.shape.height == 1 && given.shape.width == 1;
        if (!looked_at) {
            looked_at = !readers_[i].empty();
            for (int reader : readers_[i]) looked_at &= nodes()[reader].kind == Kind::synapses;
        }
        if (looked_at) {
            plan_.values[i] = given;
            plan_.held[i] = true;
            return;
        }
        hold(i, numbers_value(nodes()[i].shape, given.steps));
        push(What::flatten, i);
    }

    void place_current(int i) {
        if (passing(i)) return;
        hold(i, numbers_value(nodes()[i].shape, steps_of(nodes()[i])));
        population(push(What::current, i), i);
    }

    // Sort what adds up to the current `from` into the sources of the operation, then lay out its blocks.
    void population(Operation& made, int from) {
        std::vector<std::pair<int, const Node*>> diagonals;
        const bool itself = made.what == What::current;
        lanes_ = made.lanes = made.node->shape.channels <= widest_ / 2 && widest_ > 16 ? widest_ / 2 : widest_;
        collect(made, from, itself, diagonals);
        decide(made);
        size_rows(made);
        for (int first = 0, step = block_of(made); first < made.node->shape.channels; first += step)
            add_block(made, first, std::min(step, made.node->shape.channels - first), diagonals);
    }

    void collect(Operation& made, int i, bool itself, std::vector<std::pair<int, const Node*>>& diagonals) {
        const Node& node = nodes()[i];
        if (!itself && !passing(i)) {
            if (value(i).form == Form::planes) diagonals.push_back({i, nullptr});
            else made.terms.push_back(i);
        } else if (node.kind == Kind::add) {
            for (int one : node.inputs) collect(made, one, false, diagonals);
        } else if (diagonal(node)) {
            diagonals.push_back({node.inputs[0], &node});
        } else {
            const Source source = source_of(node);
            (listed(source) ? made.events : made.dense).push_back(source);
        }
    }

    Source source_of(const Node& node) const {
        Source source{node.inputs[0], &node, node.window, {}, 1, 1};
        const Shape& picture = value(node.inputs[0]).shape;
        if (nodes()[node.inputs[0]].shape != picture) {  // a row of features that is a picture still
            source.window.kernel[0] = picture.height;
            source.window.kernel[1] = picture.width;
        }
        source.across = spread(source.window, 1);
        source.rows = reached(source.window, 0, picture.height, node.shape.height);
        source.columns = reached(source.window, 1, picture.width, node.shape.width);
        return source;
    }

    // How many outputs a row or column of inputs reaches, on average.
    static double reached(const Window& w, int axis, int in, int out) {
        int64_t met = 0;
        for (int k = 0; k < w.kernel[axis]; k++)
            for (int i = 0; i < out; i++) {
                const int at = i * w.stride[axis] + k * w.dilation[axis] - w.padding[axis];
                met += at >= 0 && at < in;
            }
        return double(met) / in;
    }

    bool diagonal(const Node& node) const {
        const Window& w = node.window;
        bool plain = value(node.inputs[0]).form == Form::planes && node.groups == node.shape.channels;
        plain &= node.shape == value(node.inputs[0]).shape && !w.padding[0] && !w.padding[1];
        for (int axis = 0; axis < 2; axis++) plain &= w.kernel[axis] == 1 && w.stride[axis] == 1;
        for (int32_t one : node.bias) plain &= one == 0;
        return plain;
    }

    bool listed(const Source& source) const {
        const Value& given = value(source.value);
        if (given.form != Form::planes) return false;
        const int64_t rows = int64_t(1) << bits_for(int64_t(given.position) * 8 - 1);
        return ((given.planes - 1) * source.window.kernel[1] + given.shape.width) * rows <= LISTED;
    }

    void decide(Operation& made) {
        int64_t low = 0, high = 0;
        for (const Source& one : made.events) low += one.node->low, high += one.node->high;
        bool others = false;
        for (const Source& one : made.dense) (value(one.value).steps == 1 ? made.still : others) = true;
        for (int one : made.terms) (value(one).steps == 1 ? made.still : others) = true;
        const bool small = low >= INT16_MIN && high <= INT16_MAX;
        made.sums = others || (!made.events.empty() && !small) ? Sums::wide
                    : made.events.empty()                      ? Sums::none
                                                               : Sums::narrow;
        if (made.what == What::fire) decide_neuron(made);
    }

    void decide_neuron(Operation& made) {
        const Node& node = *made.node;
        const int steps = plan_.network.timesteps;
        made.fraction = node.fraction_bits;
        made.keeps_current = node.keeps_current();
        if (node.leak.size() != 1 || node.leak[0] != 1) return;
        made.leak_shift = node.leak_bits;
        made.rounds = made.keeps_current || int64_t(node.leak_bits) * (steps - 1) > node.fraction_bits;
        if (made.rounds) return;
        // Nothing falls below the point, so that its place is free; 16 saves the neurons a shift.
        int64_t most = node.membrane >> node.fraction_bits;
        for (int32_t one : node.threshold) most = std::max<int64_t>(most, one);
        made.fraction = most + 2 < 32768 && made.sums == Sums::narrow ? 16 : node.leak_bits * (steps - 1);
    }

    void size_rows(Operation& made) {
        int least = 0, most = made.node->shape.width;
        for (const Source& one : made.events) {
            const Window& w = one.window;
            least = std::min(least, w.padding[1] / w.stride[1] + one.across.low);
            most = std::max(most, (value(one.value).shape.width - 1 + w.padding[1]) / w.stride[1] + 1);
            made.ring = std::max(made.ring, w.reach(0) / w.stride[0] + 1);
        }
        made.margin = -least;
        made.columns = most + made.margin;
    }

    int block_of(const Operation& made) const {
        int widest = made.events.empty() && made.dense.empty() ? BLOCK : 1;
        for (const auto* sources : {&made.events, &made.dense})
            for (const Source& one : *sources) widest = std::max(widest, one.node->shape.channels / one.node->groups);
        return std::min(BLOCK, int(rounded(widest, made.lanes)));
    }

    void add_block(Operation& made, int first, int count, const std::vector<std::pair<int, const Node*>>& diagonals) {
        Block block;
        block.first = first;
        block.count = count;
        block.padded = int(rounded(count, made.lanes));
        for (const Source& one : made.events) block.events.push_back(events_of(one, block));
        for (const Source& one : made.dense) block.dense.push_back(dense_of(one, block));
        for (const auto& [given, node] : diagonals) block.diagonals.push_back(diagonal_of(made, block, given, node));
        biases(made, block);
        if (made.what == What::fire) {
            const Node& node = *made.node;
            block.threshold = split(made, block, [&](int c) { return of(node.threshold, c) << made.fraction; }, INT32_MAX);
            block.leak = split(made, block, [&](int c) { return of(node.leak, c); }, 0);
            if (made.keeps_current)
                block.current = split(made, block, [&](int c) { return of(node.current, c); }, 0);
        }
        made.blocks.push_back(std::move(block));
    }

    static int32_t of(const std::vector<int32_t>& values, int c) { return values[values.size() == 1 ? 0 : c]; }

    // Values of a block's channels as 32-bit vectors have them: of each `lanes` the even ones first.
    template <class F> static Table<int32_t> split(const Operation& made, const Block& block, F of_channel, int32_t rest) {
        Table<int32_t> values(block.padded, rest);
        for (int o = 0; o < block.count; o++) values[place_of(o, made.lanes)] = of_channel(block.first + o);
        return values;
    }

    static int place_of(int o, int lanes) {
        const int within = o % lanes;
        return o - within + within / 2 + (within % 2) * (lanes / 2);
    }

    Diagonal diagonal_of(const Operation& made, const Block& block, int given, const Node* node) const {
        return {given, split(made, block, [&](int c) { return (node ? node->weight[c] : 1) << made.fraction; }, 0)};
    }

    void biases(const Operation& made, Block& block) const {
        const auto dense = [&](bool still, int c) {
            int32_t total = 0;
            for (const Source& one : made.dense)
                if ((value(one.value).steps == 1) == still) total += one.node->bias[c];
            return total;
        };
        const auto moving = [&](int c) {
            int32_t total = dense(false, c);
            for (const Source& one : made.events) total += one.node->bias[c];
            return total;
        };
        block.bias = split(made, block, moving, 0);
        block.still_bias = split(made, block, [&](int c) { return dense(true, c); }, 0);
        block.bias16.assign(block.padded, 0);
        for (int o = 0; o < block.count; o++) block.bias16[o] = int16_t(moving(block.first + o));
    }

    // The input channels that a block reads.
    static std::pair<int, int> reads(const Source& source, const Block& block, int channels) {
        const int per = channels / source.node->groups, outs = source.node->shape.channels / source.node->groups;
        return {block.first / outs * per, ((block.first + block.count - 1) / outs + 1) * per};
    }

    // Weight of output channel `o` for input channel `c`, 0 across groups.
    static int weight(const Source& source, int o, int c, int channels, int row, int column) {
        const Node& node = *source.node;
        const int per = channels / node.groups, outs = node.shape.channels / node.groups;
        if (c / per != o / outs) return 0;
        const Window& w = source.window;
        return node.weight[((int64_t(o) * per + c % per) * w.kernel[0] + row) * w.kernel[1] + column];
    }

    Dense dense_of(const Source& source, const Block& block) const {
        const int channels = value(source.value).shape.channels;
        const auto [from, to] = reads(source, block, channels);
        const Node& given = nodes()[source.node->inputs[0]];
        Dense made{from, to - from, {}, {}, {}};
        const Window& w = source.window;
        const int across = value(source.value).shape.width + 2 * w.padding[1];
        for (int k = 0; k < w.kernel[0] * w.kernel[1]; k++)
            for (int c = 0; c < made.channels; c++) {
                const int place = k / w.kernel[1] * w.dilation[0] * across + k % w.kernel[1] * w.dilation[1];
                made.tap.push_back(place * made.channels + c);
            }
        Table<double> all(int64_t(w.kernel[0]) * w.kernel[1] * made.channels * block.padded, 0);
        double most = 0;
        for (int o = 0; o < block.count; o++) {
            double reach = 0;
            for (int k = 0; k < w.kernel[0] * w.kernel[1]; k++)
                for (int c = from; c < to; c++) {
                    const int one = weight(source, block.first + o, c, channels, k / w.kernel[1], k % w.kernel[1]);
                    all[(int64_t(k) * made.channels + c - from) * block.padded + place_of(o, lanes_)] = one;
                    reach += std::abs(one) * std::max(std::abs(double(given.low)), std::abs(double(given.high)));
                }
            most = std::max(most, reach);
        }
        if (most < EXACT_FLOAT) made.exact.assign(all.begin(), all.end());
        else made.wide = std::move(all);
        return made;
    }

    Events events_of(const Source& source, const Block& block) const {
        const Value& given = value(source.value);
        const auto [from, to] = reads(source, block, given.shape.channels);
        Events made;
        made.bytes = given.position;
        if (given.position > 8) {
            made.first_byte = from / 64 * 8;
            made.bytes = int(rounded(to, 64)) / 8 - made.first_byte;
        }
        made.mask.assign((made.bytes + 7) / 8, 0);
        for (int c = from - made.first_byte * 8; c < to - made.first_byte * 8; c++) made.mask[c / 64] |= 1ull << c % 64;
        for (int bit = 0; bit < 64; bit += made.bytes * 8) made.repeated |= made.mask[0] << bit;
        made.shift[0] = bits_for(int64_t(made.bytes) * 8 - 1);
        made.shift[1] = made.shift[0] + 2;
        for (int fours = 0; fours < 2; fours++) tables(made, source, block, fours);
        return made;
    }

    void tables(Events& made, const Source& source, const Block& block, int fours) const {
        const Value& given = value(source.value);
        const Window& w = source.window;
        const int64_t rows = int64_t(1) << made.shift[fours], plain = rows * block.padded * w.kernel[0];
        const int64_t last = ((given.planes - 1) * w.kernel[1] + given.shape.width) * rows;
        if (last > LISTED || (fours && given.planes > 6)) return;  // the sum of four has to fit 16 bits
        const int64_t gathered = 2 * plain * w.kernel[1] * given.planes;
        const int64_t scattered = 2 * plain * source.across.span * w.stride[1] * given.planes;
        made.gathers[fours] = w.dilation[1] == 1 && (!fours || gathered <= FOURS);
        made.scatters[fours] = fours ? scattered <= FOURS : scattered <= SCATTERED || !made.gathers[0];
        if (made.gathers[fours]) gather_table(made, source, block, fours);
        if (made.scatters[fours]) scatter_table(made, source, block, fours);
        if (!fours && made.gathers[0] && gathered > CACHED && made.largest[0] < 128) narrow_table(made, block);
    }

    // What row `row` adds to output channel `o`: the weight of a channel, or of all of four that a pattern names.
    int row_sum(const Events& made, const Source& source, int fours, int row, int o, int ky, int kx) const {
        const int channels = value(source.value).shape.channels, start = made.first_byte * 8;
        if (!fours) return start + row < channels ? weight(source, o, start + row, channels, ky, kx) : 0;
        int total = 0;
        for (int i = 0; i < 4; i++) {
            const int c = start + row / 16 * 4 + i;
            if (row >> i & 1 && c < channels) total += weight(source, o, c, channels, ky, kx);
        }
        return total;
    }

    void gather_table(Events& made, const Source& source, const Block& block, int fours) const {
        const Window& w = source.window;
        const int rows = 1 << made.shift[fours], planes = value(source.value).planes;
        Table<int16_t>& table = made.gather[fours];
        table.assign(int64_t(w.kernel[0]) * planes * w.kernel[1] * rows * block.padded, 0);
        int64_t at = 0;
        for (int ky = 0; ky < w.kernel[0]; ky++)
            for (int plane = 0; plane < planes; plane++)
                for (int kx = 0; kx < w.kernel[1]; kx++)
                    for (int row = 0; row < rows; row++, at += block.padded)
                        for (int o = 0; o < block.count; o++) {
                            const int sum = row_sum(made, source, fours, row, block.first + o, ky, kx) << plane;
                            table[at + o] = int16_t(sum);
                            made.largest[fours] = std::max(made.largest[fours], std::abs(sum));
                        }
    }

    void scatter_table(Events& made, const Source& source, const Block& block, int fours) const {
        const Window& w = source.window;
        const int rows = 1 << made.shift[fours], planes = value(source.value).planes, span = source.across.span;
        made.scatter_row = int64_t(w.kernel[0]) * span * block.padded;
        Table<int16_t>& table = made.scatter[fours];
        table.assign(w.stride[1] * planes * rows * made.scatter_row, 0);
        int64_t at = 0;
        for (int phase = 0; phase < w.stride[1]; phase++)
            for (int plane = 0; plane < planes; plane++)
                for (int row = 0; row < rows; row++)
                    for (int ky = 0; ky < w.kernel[0]; ky++)
                        for (int i = 0; i < span; i++, at += block.padded)
                            if (const int kx = source.across.tap[phase][i]; kx >= 0)
                                for (int o = 0; o < block.count; o++)
                                    table[at + o] =
                                        int16_t(row_sum(made, source, fours, row, block.first + o, ky, kx) << plane);
    }

    // The gathered singles in bytes. Of two vectors of `lanes` channels, one's bytes are the even ones.
    void narrow_table(Events& made, const Block& block) const {
        if (block.padded % (2 * lanes_)) return;
        made.narrow.resize(made.gather[0].size());
        for (size_t at = 0; at < made.narrow.size(); at++) {
            const size_t within = at % (2 * lanes_), base = at - within;
            made.narrow[base + within % lanes_ * 2 + within / lanes_] = int8_t(made.gather[0][at]);
        }
        made.gather[0].clear();
        made.gather[0].shrink_to_fit();
    }
};

}  // namespace snnkd
