// How a network is computed: where each value lies, and the operations in their order, with weights laid out for them.
//
// Spikes, and small sums of spikes, are kept as planes of bits: a value is the sum over k of 2^k times bit k. All other
// values are int32. A layer of synapses that feeds neurons alone is no operation of its own, but a source of theirs.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "network.hpp"

namespace snnkd {

template <class T> struct Aligned {  // to cache lines
    using value_type = T;
    Aligned() = default;
    template <class U> Aligned(const Aligned<U>&) {}
    T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))); }
    void deallocate(T* from, size_t) { ::operator delete(from, std::align_val_t(64)); }
    template <class U> bool operator==(const Aligned<U>&) const { return true; }
    template <class U> bool operator!=(const Aligned<U>&) const { return false; }
};
template <class T> using Table = std::vector<T, Aligned<T>>;

inline int64_t rounded(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

inline int bits_for(int64_t value) {
    int bits = 1;
    while (value >> bits) bits++;
    return bits;
}

constexpr int LARGEST_PLANES = 8;

enum class Form { planes, numbers };

struct Value {
    Form form = Form::numbers;
    Shape shape;       // of a picture that is only looked at as a row of features: of the picture
    int steps = 1;     // 1 where nothing changes over time
    int planes = 1;    // [step][plane][row][position][channel], a bit each; numbers: [step][row][position][channel]
    int position = 0;  // bytes that the channels of one position take: 1, 2, 4 or a multiple of 8
    int64_t row = 0;   // bytes
    int64_t offset = 0;

    int64_t plane() const { return row * shape.height; }
    int64_t step() const { return plane() * planes; }
    int64_t bytes() const { return step() * steps; }
};

inline Value planes_value(const Shape& shape, int steps, int planes) {
    Value value{Form::planes, shape, steps, planes};
    const int bytes = (shape.channels + 7) / 8;
    value.position = bytes > 4 ? int(rounded(bytes, 8)) : bytes == 3 ? 4 : bytes;
    value.row = rounded(int64_t(shape.width) * value.position, 8);
    return value;
}

inline Value numbers_value(const Shape& shape, int steps) {
    Value value{Form::numbers, shape, steps, 1};
    value.position = 4 * shape.channels;
    value.row = int64_t(shape.width) * value.position;
    return value;
}

// How input columns meet output columns: column x, in phase (x + padding) % stride, adds to `span` output columns from
// (x + padding) / stride + low on; tap[phase][i] is the kernel column for the i-th of them, or -1.
struct Spread {
    int low = 0, span = 0;
    std::vector<std::vector<int>> tap;
};

inline Spread spread(const Window& w, int axis) {
    const int stride = w.stride[axis], low = -(w.reach(axis) / stride);
    Spread found{low, 1 - low, {}};
    found.tap.assign(stride, std::vector<int>(found.span, -1));
    for (int phase = 0; phase < stride; phase++)
        for (int k = 0; k < w.kernel[axis]; k++) {
            const int shift = phase - k * w.dilation[axis];
            if (shift % stride == 0) found.tap[phase][shift / stride - low] = k;
        }
    return found;
}

// What reads events: a layer of synapses on planes, for the output channels of one block.
//
// An entry of an event list is (column << shift) + row of weights. Singles: a row for each channel. Fours: a row for each
// of the 16 patterns of 4 neighbouring channels, the sum of theirs, so that busy layers add fewer rows.
struct Events {
    int first_byte = 0, bytes = 0;  // of a position: the channels that this block reads
    std::vector<uint64_t> mask;     // of these bytes, in words; of less than a word also repeated to fill one
    uint64_t repeated = 0;
    int shift[2] = {0, 0};          // singles, fours
    bool scatters[2] = {false, false}, gathers[2] = {false, false};
    Table<int16_t> scatter[2];  // [phase][plane][row][kernel row][output column of the spread][out]
    Table<int16_t> gather[2];   // [kernel row][plane][kernel column][row][out]
    Table<int8_t> narrow;       // as gather of singles, where that would leave the cache; out channels interleaved
    int64_t scatter_row = 0;    // elements
    int largest[2] = {0, 0};    // magnitude in gather
};

struct Source {
    int value = 0;
    const Node* node = nullptr;
    Window window;
    Spread across;
    double rows = 1, columns = 1;  // of outputs that an input reaches, on average
};

struct Dense {  // a layer of synapses on numbers, for the output channels of one block
    int first = 0, channels = 0;  // that this block reads
    std::vector<int32_t> tap;     // [kernel row][kernel column][in]: where it lies in the padded map, from its window on
    Table<float> exact;           // [tap][out], even out channels of `lanes` first;
    Table<double> wide;           // where float cannot hold every sum
};

struct Diagonal {  // one weight for each channel, on the same position
    int value = 0;
    Table<int32_t> weight;
};

// Output channels that are computed together. 32-bit values of `lanes` channels lie even ones first, then odd ones.
struct Block {
    int first = 0, count = 0, padded = 0;
    std::vector<Events> events;
    std::vector<Dense> dense;
    std::vector<Diagonal> diagonals;
    Table<int16_t> bias16;
    Table<int32_t> bias, still_bias, threshold, leak, current;
};

// For each byte the rows of weights that its bits name, and how many: of singles a row a bit, of fours a row a nibble.
struct Places {
    uint16_t row[256][8];
    uint8_t count[256];
};

inline const Places& places(int fours) {
    static const auto made = [] {
        std::vector<Places> both(2);
        for (int byte = 0; byte < 256; byte++) {
            for (int bit = 0; bit < 8; bit++)
                if (byte >> bit & 1) both[0].row[byte][both[0].count[byte]++] = uint16_t(bit);
            for (int nibble = 0; nibble < 2; nibble++)
                if (const int pattern = byte >> 4 * nibble & 15)
                    both[1].row[byte][both[1].count[byte]++] = uint16_t(16 * nibble + pattern);
        }
        return both;
    }();
    return made[fours];
}

enum class What { read, sum_pool, max_pool, add, flatten, attend, fire, current, total };
enum class Sums { none, narrow, wide };  // what events add up to: nothing, int16, int32

struct Operation {
    What what;
    const Node* node;
    int out = 0;
    std::vector<int> in;
    std::vector<Source> events, dense;
    std::vector<int> terms;  // numbers that are added as they are
    std::vector<Block> blocks;
    Sums sums = Sums::none;
    bool still = false;  // a part of the current is the same at each step
    int lanes = 16;
    int margin = 0, columns = 0, ring = 1;  // of the rows of sums
    int fraction = 0;                       // bits behind the point of a membrane
    int leak_shift = -1;                    // where the leak is a shift; -1: it multiplies
    bool rounds = false;                    // whether that shift can drop anything
    bool keeps_current = false;
};

struct Plan {
    Network network;
    std::vector<Value> values;        // of each node
    std::vector<bool> held;           // whether there is one
    std::vector<Operation> operations;
    int64_t arena = 0;
};

}  // namespace snnkd
