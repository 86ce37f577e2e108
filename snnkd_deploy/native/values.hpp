// The operations that are not worth a vector: samples read in, pools, sums of spikes, attention, the readout.
#pragma once

#include "plan.hpp"

namespace snnkd {

// Memory for the time of one operation; what is taken stays valid until `clear`.
class Scratch {
  public:
    template <class T> T* take(int64_t count) {
        const size_t bytes = rounded(count * int64_t(sizeof(T)), 64) + 128;  // vectors may read and write past the end
        wanted_ += bytes;
        if (used_ + bytes > memory_.size()) {
            more_.emplace_back(bytes);
            return reinterpret_cast<T*>(more_.back().data());
        }
        uint8_t* from = memory_.data() + used_;
        used_ += bytes;
        return reinterpret_cast<T*>(from);
    }

    void clear() {
        if (!more_.empty()) memory_.resize(wanted_);
        more_.clear();
        used_ = wanted_ = 0;
    }

  private:
    Table<uint8_t> memory_;
    std::vector<Table<uint8_t>> more_;
    size_t used_ = 0, wanted_ = 0;
};

// One thread's share of one sample.
struct Share {
    const Plan& plan;
    uint8_t* arena;
    Scratch& scratch;
    int part, parts;
    int64_t* reach;    // of each node the largest membrane so far; null if nobody asked
    int64_t* changes;  // of each node how often a membrane changed in this sample; null if nobody asked

    const Value& value(int i) const { return plan.values[i]; }
    uint8_t* bits(const Value& of, int step, int plane, int row) const {
        return arena + of.offset + step * of.step() + plane * of.plane() + row * of.row;
    }
    int32_t* numbers(const Value& of, int step) const {
        return reinterpret_cast<int32_t*>(arena + of.offset + step * of.step());
    }
    bool mine(int row) const { return row % parts == part; }
};

// A value at one step as int32 [row][position][channel]; in scratch memory unless it lies there as such.
inline const int32_t* unpacked(const Share& share, const Value& given, int step) {
    step = given.steps == 1 ? 0 : step;
    if (given.form == Form::numbers) return share.numbers(given, step);
    int32_t* out = share.scratch.take<int32_t>(given.shape.size());
    int32_t* at = out;
    for (int y = 0; y < given.shape.height; y++)
        for (int x = 0; x < given.shape.width; x++)
            for (int c = 0; c < given.shape.channels; c++, at++) {
                *at = 0;
                for (int plane = 0; plane < given.planes; plane++)
                    *at += (share.bits(given, step, plane, y)[x * given.position + c / 8] >> c % 8 & 1) << plane;
            }
    return out;
}

inline void put_bits(const Share& share, const Value& out, int step, int c, int place, int32_t value) {
    const int y = place / out.shape.width, x = place % out.shape.width;
    for (int plane = 0; plane < out.planes; plane++)
        share.bits(out, step, plane, y)[x * out.position + c / 8] |= uint8_t((value >> plane & 1) << c % 8);
}

// Samples are [step or none][channel][row][column]. False if a value is not in the input's range.
template <class T> bool read_sample(const Share& share, const Operation& op, const T* sample) {
    const Node& node = *op.node;
    const Value& out = share.value(op.out);
    const int64_t plane = int64_t(node.shape.height) * node.shape.width;
    if (out.form == Form::planes) std::memset(share.arena + out.offset, 0, out.bytes());
    bool sound = true;
    const int channels = node.shape.channels;
    for (int step = 0; step < out.steps; step++)
        for (int c = 0; c < channels; c++) {
            const bool own = c < node.sample.channels;
            const T* from = sample + (int64_t(step) * node.sample.channels + c) * plane;
            const int32_t* sent = own ? nullptr : node.constant.data() + (c - node.sample.channels) * plane;
            int32_t least = node.low, most = node.low;
            for (int64_t at = 0; at < plane; at++) {
                const int32_t value = own ? int32_t(from[at]) : sent[at];
                least = std::min(least, value);
                most = std::max(most, value);
                if (out.form == Form::numbers) share.numbers(out, step)[at * channels + c] = value;
                else put_bits(share, out, step, c, int(at), value);
            }
            sound &= least >= node.low && most <= node.high;
        }
    return sound;
}

template <class Word> Word load(const uint8_t* from) {
    Word word;
    std::memcpy(&word, from, sizeof(Word));
    return word;
}

// Adds the bits of `word` at plane `level`, all channels at once.
template <class Word> void ripple(Word (&sum)[8], int planes, Word word, int level) {
    for (; level < planes; level++) {
        const Word carry = sum[level] & word;
        sum[level] ^= word;
        word = carry;
    }
}

// Sums and maxima of planes, all channels at once: down the rows of the windows for whole rows of words, then across.
class PlanesPool {
  public:
    PlanesPool(const Share& share, const Operation& op)
        : share_(share), in_(share.value(op.in[0])), out_(share.value(op.out)), w_(op.node->window),
          adds_(op.what == What::sum_pool) {
        down_ = share.scratch.take<uint64_t>(in_.row / 8 * out_.planes);
    }

    void run() {
        const bool usual = adds_ && in_.planes == 1 && out_.planes == 3 && w_.kernel[0] == 2 && w_.kernel[1] == 2 &&
                           w_.stride[0] == 2 && w_.stride[1] == 2;
        for (int step = 0; step < out_.steps; step++)
            for (int y = share_.part; y < out_.shape.height; y += share_.parts) {
                switch (out_.position) {
                    case 1: usual ? four<uint8_t, 1>(step, y) : windows<uint8_t>(step, y); break;
                    case 2: usual ? four<uint16_t, 1>(step, y) : windows<uint16_t>(step, y); break;
                    case 4: usual ? four<uint32_t, 1>(step, y) : windows<uint32_t>(step, y); break;
                    case 8: usual ? four<uint64_t, 1>(step, y) : windows<uint64_t>(step, y); break;
                    default: usual ? four<uint64_t, 0>(step, y) : windows<uint64_t>(step, y);
                }
            }
    }

  private:
    const Share& share_;
    const Value &in_, &out_;
    const Window& w_;
    const bool adds_;
    uint64_t* down_;  // [level][word]

    // Sums of four spikes, 2x2 windows side by side, of positions of so many words (0: any number). No loop within that
    // over positions, so that the compiler makes vectors of these.
    template <class Word, int WORDS> void four(int step, int y) {
        const uint8_t *top = share_.bits(in_, step, 0, 2 * y), *bottom = share_.bits(in_, step, 0, 2 * y + 1);
        uint8_t* to = share_.bits(out_, step, 0, y);
        const int64_t plane = out_.plane(), words = WORDS ? WORDS : out_.position / int64_t(sizeof(Word));
        const auto sum = [=](int64_t left, int64_t at) {
            const int64_t right = left + words * int64_t(sizeof(Word));
            const Word a = load<Word>(top + left), b = load<Word>(top + right);
            const Word c = load<Word>(bottom + left), d = load<Word>(bottom + right);
            const Word upper = a & b, lower = c & d, one = a ^ b, other = c ^ d, carry = one & other;
            const Word levels[3] = {Word(one ^ other), Word(upper ^ lower ^ carry), Word(upper & lower)};
            for (int level = 0; level < 3; level++) std::memcpy(to + level * plane + at, &levels[level], sizeof(Word));
        };
        for (int64_t x = 0; x < out_.shape.width; x++)
            for (int64_t word = 0; word < words; word++)
                sum((2 * x * words + word) * int64_t(sizeof(Word)), (x * words + word) * int64_t(sizeof(Word)));
    }

    template <class Word> void windows(int step, int y) {
        add_down(step, y);
        across<Word>(step, y);
    }

    void add_down(int step, int y) {
        const int64_t words = in_.row / 8;
        std::memset(down_, 0, size_t(8 * words * out_.planes));
        for (int ky = 0; ky < w_.kernel[0]; ky++)
            for (int plane = 0; plane < in_.planes; plane++) {
                const uint8_t* row = share_.bits(in_, step, plane, y * w_.stride[0] + ky);
                const int levels = std::min(out_.planes, bits_for(int64_t((1 << in_.planes) - 1) * (ky + 1)));
                for (int64_t i = 0; i < words; i++) add_bits(load<uint64_t>(row + 8 * i), i, adds_ ? plane : 0, levels);
            }
    }

    void add_bits(uint64_t word, int64_t i, int level, int levels) {
        for (; level < levels; level++) {
            uint64_t& sum = down_[level * (in_.row / 8) + i];
            const uint64_t carry = sum & word;
            sum = adds_ ? sum ^ word : sum | word;
            word = carry;
        }
    }

    template <class Word> void across(int step, int y) {
        switch (out_.planes) {
            case 1: return adds_ ? across<Word, 1, true>(step, y) : across<Word, 1, false>(step, y);
            case 2: return across<Word, 2, true>(step, y);
            case 3: return across<Word, 3, true>(step, y);
            case 4: return across<Word, 4, true>(step, y);
            default: return across<Word, 0, true>(step, y);
        }
    }

    template <class Word, int PLANES, bool ADDS> void across(int step, int y) {
        const int64_t row = in_.row, plane = out_.plane();
        const int planes = PLANES ? PLANES : out_.planes, columns = w_.kernel[1];
        const int width = out_.shape.width, position = out_.position, apart = w_.stride[1] * position;
        const uint8_t* down = reinterpret_cast<const uint8_t*>(down_);
        uint8_t* to = share_.bits(out_, step, 0, y);
        for (int x = 0; x < width; x++, down += apart)
            for (int byte = 0; byte < position; byte += int(sizeof(Word)), to += sizeof(Word)) {
                const uint8_t* from = down + byte;
                Word sum[PLANES ? PLANES : LARGEST_PLANES];
                for (int level = 0; level < planes; level++) sum[level] = load<Word>(from + level * row);
                for (int column = 1; column < columns; column++) {
                    from += position;
                    Word carry = 0;
                    for (int level = 0; level < planes; level++) {
                        const Word one = load<Word>(from + level * row), either = sum[level] ^ one;
                        const Word both = (sum[level] & one) | (either & carry);
                        sum[level] = ADDS ? either ^ carry : Word(sum[level] | one);
                        carry = both;
                    }
                }
                for (int level = 0; level < planes; level++) std::memcpy(to + level * plane, &sum[level], sizeof(Word));
            }
    }
};

inline void pool_numbers(const Share& share, const Operation& op) {
    const Value &in = share.value(op.in[0]), &out = share.value(op.out);
    const Window& w = op.node->window;
    for (int step = 0; step < out.steps; step++) {
        const int32_t* from = unpacked(share, in, step);
        int32_t* to = share.numbers(out, step);
        for (int y = share.part; y < out.shape.height; y += share.parts)
            for (int x = 0; x < out.shape.width; x++)
                for (int c = 0; c < out.shape.channels; c++) {
                    int32_t total = op.what == What::sum_pool ? 0 : INT32_MIN;
                    for (int ky = 0; ky < w.kernel[0]; ky++)
                        for (int kx = 0; kx < w.kernel[1]; kx++) {
                            const int64_t at = int64_t(y * w.stride[0] + ky) * in.shape.width + x * w.stride[1] + kx;
                            const int32_t one = from[at * in.shape.channels + c];
                            total = op.what == What::sum_pool ? total + one : std::max(total, one);
                        }
                    to[(int64_t(y) * out.shape.width + x) * out.shape.channels + c] = total;
                }
    }
}

inline void pool(const Share& share, const Operation& op) {
    const Value& out = share.value(op.out);
    if (out.form == Form::numbers) return pool_numbers(share, op);
    PlanesPool(share, op).run();
}

inline void add_planes(const Share& share, const Operation& op) {
    const Value& out = share.value(op.out);
    for (int step = 0; step < out.steps; step++)
        for (int y = share.part; y < out.shape.height; y += share.parts)
            for (int64_t byte = 0; byte < out.row; byte += 8) {
                uint64_t sum[8] = {};
                for (int one : op.in)
                    for (int plane = 0; plane < share.value(one).planes; plane++) {
                        const uint8_t* row = share.bits(share.value(one), step, plane, y);
                        ripple(sum, out.planes, load<uint64_t>(row + byte), plane);
                    }
                for (int plane = 0; plane < out.planes; plane++)
                    std::memcpy(share.bits(out, step, plane, y) + byte, &sum[plane], 8);
            }
}

inline void flatten(const Share& share, const Operation& op) {
    const Value &in = share.value(op.in[0]), &out = share.value(op.out);
    const int64_t places = int64_t(in.shape.height) * in.shape.width;
    for (int step = 0; step < out.steps; step++) {
        const int32_t* from = unpacked(share, in, step);
        int32_t* to = share.numbers(out, step);
        for (int64_t place = 0; place < places; place++)
            for (int c = 0; c < in.shape.channels; c++) to[c * places + place] = from[place * in.shape.channels + c];
    }
}

// v (k^T q) of each head: k^T first, a row of v for each spike of k; then a row of that for each spike of q.
inline void attend(const Share& share, const Operation& op) {
    const Value& out = share.value(op.out);
    const int channels = out.shape.channels, each = channels / op.node->heads;
    const int64_t tokens = int64_t(out.shape.height) * out.shape.width;
    int32_t* context = share.scratch.take<int32_t>(int64_t(each) * each);
    for (int step = 0; step < out.steps; step++) {
        const int32_t* given[3];
        for (int i = 0; i < 3; i++) given[i] = unpacked(share, share.value(op.in[i]), step);
        for (int head = share.part; head < op.node->heads; head += share.parts) {
            const int first = head * each;
            std::memset(context, 0, sizeof(int32_t) * each * each);
            const auto add = [&](int32_t* to, const int32_t* from, int32_t times) {
                for (int c = 0; times && c < each; c++) to[c] += times * from[c];
            };
            for (int64_t n = 0; n < tokens; n++)
                for (int c = 0; c < each; c++)
                    add(context + c * each, given[2] + n * channels + first, given[1][n * channels + first + c]);
            for (int64_t n = 0; n < tokens; n++) {
                int32_t* to = share.numbers(out, step) + n * channels + first;
                std::memset(to, 0, sizeof(int32_t) * each);
                for (int c = 0; c < each; c++) add(to, context + c * each, given[0][n * channels + first + c]);
            }
        }
    }
}

// The readout: the sum over all steps.
inline void total(const Share& share, const Operation& op) {
    const Value &in = share.value(op.in[0]), &out = share.value(op.out);
    int32_t* to = share.numbers(out, 0);
    std::memset(to, 0, out.bytes());
    for (int step = 0; step < share.plan.network.timesteps; step++) {
        const int32_t* from = unpacked(share, in, step);
        for (int64_t i = 0; i < out.shape.size(); i++) {
            to[i] += from[i];
            if (share.reach) share.reach[op.out] = std::max(share.reach[op.out], std::abs(int64_t(to[i])));
        }
    }
}

inline void run_plain(const Share& share, const Operation& op) {
    switch (op.what) {
        case What::sum_pool:
        case What::max_pool: return pool(share, op);
        case What::add: return add_planes(share, op);
        case What::attend: return attend(share, op);
        case What::flatten:
            if (share.part == 0) flatten(share, op);
            return;
        case What::total:
            if (share.part == 0) total(share, op);
            return;
        default: return;
    }
}

}  // namespace snnkd
