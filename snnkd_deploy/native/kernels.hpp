// Populations: neurons with all the synapses in front of them, for all steps at once.
//
// Included once for each instruction set, with SNNKD_SET (a namespace) and SNNKD_WIDTH (bytes of a vector). The code is
// the same for all; what is a vector of how many numbers is left to the compiler.
//
// A row of outputs has its sums in scratch memory, [step][column][out channel], which events reach in one of two ways:
// they scatter, each adding its weights to every output that it reaches, where rows of weights are short or events rare;
// or outputs gather, each adding the rows of its events in registers, where there is much to add.

namespace snnkd::SNNKD_SET {

constexpr int WIDTH = SNNKD_WIDTH;
constexpr int LANES = WIDTH / 2, HALF = WIDTH / 4;  // of 16 bits, of 32 bits

typedef int16_t V16 __attribute__((vector_size(WIDTH)));
typedef int32_t V32 __attribute__((vector_size(WIDTH)));
typedef uint16_t Entries __attribute__((vector_size(16)));

template <class V> inline V get(const void* from) {
    V vector;
    std::memcpy(&vector, from, sizeof(V));
    return vector;
}
template <class V> inline void set(void* to, V vector) { std::memcpy(to, &vector, sizeof(V)); }
template <class V> inline void add(void* to, V vector) { set(to, get<V>(to) + vector); }

// Of 16-bit numbers the even ones and the odd ones, as 32-bit numbers times 2^shift.
inline V32 even(V16 both, int shift) { return (V32(both) << 16) >> (16 - shift); }
inline V32 odd(V16 both, int shift) { return (V32(both) & int32_t(0xFFFF0000)) >> (16 - shift); }

// Masks of 32 bits, even ones and odd ones, as bits in the order of the channels.
inline uint32_t bits_of(V32 evens, V32 odds) {
    const V32 both = (evens & 0xFFFF) | (odds & int32_t(0xFFFF0000));
#if defined(SNNKD_AVX512)
    return _mm512_movepi16_mask((__m512i)both);
#elif defined(SNNKD_AVX2)
    const __m128i low = _mm256_castsi256_si128((__m256i)both), high = _mm256_extracti128_si256((__m256i)both, 1);
    return _mm_movemask_epi8(_mm_packs_epi16(low, high));
#elif defined(__SSE2__)
    return _mm_movemask_epi8(_mm_packs_epi16((__m128i)both, _mm_setzero_si128()));
#else
    int16_t lanes[LANES];
    set(lanes, both);
    uint32_t found = 0;
    for (int i = 0; i < LANES; i++) found |= uint32_t(lanes[i] & 1) << i;
    return found;
#endif
}

// For the bits of LANES channels all ones where one is set.
inline void masks_of(uint32_t bits, V32& evens, V32& odds) {
    V32 bit;
    for (int i = 0; i < HALF; i++) bit[i] = 1 << 2 * i;
    evens = (int32_t(bits) & bit) == bit;
    odds = (int32_t(bits >> 1) & bit) == bit;
}

inline void add_wide(int32_t* sums, V16 one) {
    add(sums, even(one, 0));
    add(sums + HALF, odd(one, 0));
}
inline void add_to(int16_t* sums, V16 one) { add(sums, one); }
inline void add_to(int32_t* sums, V16 one) { add_wide(sums, one); }

// ---- lists of events ------------------------------------------------------------------------------------------------

struct List {
    const Places& of;
    uint16_t* end;
    void add(uint8_t byte, int base) {
        set(end, get<Entries>(of.row[byte]) + uint16_t(base));
        end += of.count[byte];
    }
    // The bytes of a word, the rows of each `step` behind those of the one before.
    void add_word(uint64_t word, int base, int step) {
        for (int byte = 0; byte < 8; byte++) add(uint8_t(word >> 8 * byte), base + byte * step);
    }
};

// All events of a row of one plane, in any order within a position.
inline uint16_t* list_row(const Value& value, const Events& events, const Places& of, int fours, const uint8_t* row,
                          uint16_t* out) {
    List list{of, out};
    const int step = 8 << 2 * fours;
    if (value.position <= 8) {
        for (int64_t byte = 0; byte < value.row; byte += 8)
            if (const uint64_t word = load<uint64_t>(row + byte) & events.repeated)
                list.add_word(word, int(byte) * step, step);
        return list.end;
    }
    for (int x = 0; x < value.shape.width; x++)
        for (int byte = 0; byte < events.bytes; byte += 8) {
            const uint8_t* from = row + x * value.position + events.first_byte + byte;
            if (const uint64_t word = load<uint64_t>(from) & events.mask[byte / 8])
                list.add_word(word, (x << events.shift[fours]) + byte * step, step);
        }
    return list.end;
}

// The events of a row, all planes, position by position; those of column x start at starts[x].
inline void list_columns(const Value& value, const Events& events, const Places& of, int fours, int planes_apart,
                         const uint8_t* row, uint16_t* out, uint32_t* starts) {
    List list{of, out};
    const int step = 8 << 2 * fours;
    for (int x = 0; x < value.shape.width; x++) {
        starts[x] = uint32_t(list.end - out);
        for (int plane = 0; plane < value.planes; plane++) {
            const uint8_t* from = row + plane * value.plane() + x * value.position + events.first_byte;
            const int base = plane * planes_apart + (x << events.shift[fours]);
            if (value.position < 8) {
                uint64_t word = load<uint64_t>(from) & events.mask[0];
                for (int byte = 0; word; byte++, word >>= 8) list.add(uint8_t(word), base + byte * step);
                continue;
            }
            for (int byte = 0; byte < events.bytes; byte += 8)
                if (const uint64_t word = load<uint64_t>(from + byte) & events.mask[byte / 8])
                    list.add_word(word, base + byte * step, step);
        }
    }
    starts[value.shape.width] = uint32_t(list.end - out);
}

// ---- one layer of synapses, as a population reads it ---------------------------------------------------------------

// Output rows that one input row adds to, and the weights for each.
template <class Sum> struct Reached {
    Sum* row[8];
    int64_t weights[8];
    int count = 0;
};

template <int NV, class Sum>
inline void scatter_events(const uint16_t* from, const uint16_t* end, int shift, const int16_t* table, int64_t stride,
                           const int32_t* column, const int32_t* phase, const Reached<Sum>& reached, int vectors) {
    const int count = NV ? NV : vectors, rest = (1 << shift) - 1;
    for (; from < end; from++) {
        const int x = *from >> shift, row = *from & rest;
        const int16_t* weights = table + phase[x] + row * stride;
        for (int k = 0; k < reached.count; k++) {
            Sum* to = reached.row[k] + column[x];
            const int16_t* add = weights + reached.weights[k];
#pragma GCC unroll 8
            for (int v = 0; v < count; v++) add_to(to + v * LANES, get<V16>(add + v * LANES));
        }
    }
}

// A run of events and what they read: row `entry - base` of the table.
struct Run {
    const uint16_t *from, *end;
    int64_t base;
    const void* table;
};

template <int NV, bool NARROW, class Sum>
inline void gather_events(const Run* runs, int count, int64_t stride, Sum* sums) {
    V16 sum[NV] = {};
    for (int k = 0; k < count; k++) {
        const int64_t base = runs[k].base;
        for (const uint16_t* one = runs[k].from; one < runs[k].end; one++) {
            const int64_t row = (*one - base) * stride;
            if constexpr (NARROW) {
                const int8_t* weights = static_cast<const int8_t*>(runs[k].table) + row;
#pragma GCC unroll 8
                for (int v = 0; v < NV; v += 2) {
                    const V16 both = get<V16>(weights + v * LANES);
                    sum[v] += (both << 8) >> 8;
                    sum[v + 1] += both >> 8;
                }
            } else {
                const int16_t* weights = static_cast<const int16_t*>(runs[k].table) + row;
#pragma GCC unroll 8
                for (int v = 0; v < NV; v++) sum[v] += get<V16>(weights + v * LANES);
            }
        }
    }
    for (int v = 0; v < NV; v++) add_to(sums + v * LANES, sum[v]);
}

template <bool NARROW, class Sum>
inline void gather_vectors(int vectors, const Run* runs, int count, int64_t stride, Sum* sums) {
    if constexpr (!NARROW) {  // bytes come in pairs of vectors
        switch (vectors) {
            case 1: return gather_events<1, false>(runs, count, stride, sums);
            case 3: return gather_events<3, false>(runs, count, stride, sums);
            case 5: return gather_events<5, false>(runs, count, stride, sums);
            case 7: return gather_events<7, false>(runs, count, stride, sums);
            default: break;
        }
    }
    switch (vectors) {
        case 2: return gather_events<2, NARROW>(runs, count, stride, sums);
        case 4: return gather_events<4, NARROW>(runs, count, stride, sums);
        case 6: return gather_events<6, NARROW>(runs, count, stride, sums);
        default: return gather_events<8, NARROW>(runs, count, stride, sums);
    }
}

// What a thread needs of one source of events while it works on one block.
struct Reading {
    const Source* source;
    const Events* events;
    const Value* value;
    int fours = 0;
    bool gathers = false;
    int next = 0;  // the first input row that has not been read
    uint16_t* list = nullptr;
    uint32_t* starts = nullptr;  // gathering: of the rows of a window, [step][row % rows][column]
    int64_t room = 0;            // entries of a row's list
    int rows = 1;
    int32_t *column = nullptr, *phase = nullptr;  // scattering: where each input column's weights go, and which

    int64_t first_row(int y) const { return int64_t(y) * source->window.stride[0] - source->window.padding[0]; }
    int last_row(int y) const {
        return int(std::min<int64_t>(value->shape.height - 1, first_row(y) + source->window.reach(0)));
    }
};

// How busy a source is: ones, and fours that are not zero, in a word of bits, from a sample of its words.
struct Density {
    double ones = 0, fours = 0;
};

inline Density density(const Share& share, const Value& value) {
    const int64_t words = value.bytes() / 8, apart = std::max<int64_t>(1, words / 61);
    int64_t ones = 0, fours = 0, seen = 0;
    for (int64_t i = apart / 2; i < words; i += apart, seen++) {
        uint64_t word = load<uint64_t>(share.arena + value.offset + 8 * i);
        ones += __builtin_popcountll(word);
        word |= word >> 1;
        fours += __builtin_popcountll((word | word >> 2) & 0x1111111111111111ull);
    }
    return {double(ones) / double(std::max<int64_t>(seen, 1)), double(fours) / double(std::max<int64_t>(seen, 1))};
}

// Cycles for one step of a layer, roughly: what they are compared for is which way is cheaper.
inline double cost(const Reading& reading, const Shape& out, int padded, double events, int fours, bool gathers) {
    const Window& w = reading.source->window;
    const double vectors = double(padded) / LANES, rows = double(w.kernel[0]) / w.stride[0];
    if (!gathers) return events * (4 + 1.1 * rows * vectors * reading.source->across.span);
    const double taps = rows * w.kernel[1] / w.stride[1], places = double(out.height) * out.width;
    const bool narrow = !fours && !reading.events->narrow.empty();
    return events * taps * (1 + (narrow ? 1.0 : 0.6) * vectors) + places * (6 + 16 * w.kernel[0]);
}

inline void choose(const Share& share, Reading& reading, const Shape& out, int padded) {
    const Density busy = density(share, *reading.value);
    const double words = double(reading.value->step()) / 8;
    double least = 0;
    bool found = false;
    for (int fours = 0; fours < 2; fours++)
        for (bool gathers : {false, true}) {
            if (!(gathers ? reading.events->gathers : reading.events->scatters)[fours]) continue;
            const double met = cost(reading, out, padded, words * (fours ? busy.fours : busy.ones), fours, gathers);
            if (found && met >= least) continue;
            found = true;
            least = met;
            reading.fours = fours;
            reading.gathers = gathers;
        }
}

// ---- layers of synapses on numbers ---------------------------------------------------------------------------------

// The channels that a block reads, [row][column][channel], with the padding around.
template <class F> const F* padded_map(const Share& share, const Source& source, const Dense& dense, int step) {
    const Value& value = share.value(source.value);
    const Window& w = source.window;
    const int32_t* from = unpacked(share, value, step);
    const int64_t across = value.shape.width + 2 * w.padding[1], down = value.shape.height + 2 * w.padding[0];
    F* map = share.scratch.take<F>(across * down * dense.channels);
    std::fill(map, map + across * down * dense.channels, F(0));
    for (int y = 0; y < value.shape.height; y++)
        for (int x = 0; x < value.shape.width; x++) {
            F* to = map + ((y + w.padding[0]) * across + x + w.padding[1]) * dense.channels;
            const int32_t* values = from + (int64_t(y) * value.shape.width + x) * value.shape.channels + dense.first;
            for (int c = 0; c < dense.channels; c++) to[c] = F(values[c]);
        }
    return map;
}

// Adds one output row, [column][out channel], for PLACES columns from x on and VECTORS vectors of channels from o on.
template <class F, int PLACES, int VECTORS>
inline void dense_places(const Source& source, const Dense& dense, const F* table, const F* map, int64_t across, int y,
                         int x, int padded, int o, int32_t* sums) {
    typedef F V __attribute__((vector_size(WIDTH)));
    constexpr int EACH = WIDTH / sizeof(F);
    const Window& w = source.window;
    const int64_t apart = int64_t(w.stride[1]) * dense.channels;
    V sum[PLACES][VECTORS] = {};
    for (int ky = 0; ky < w.kernel[0]; ky++)
        for (int kx = 0; kx < w.kernel[1]; kx++) {
            const int64_t row = int64_t(y) * w.stride[0] + ky * w.dilation[0];
            const F* in = map + (row * across + int64_t(x) * w.stride[1] + kx * w.dilation[1]) * dense.channels;
            const F* weights = table + int64_t(ky * w.kernel[1] + kx) * dense.channels * padded + o;
            for (int c = 0; c < dense.channels; c++, weights += padded)
                for (int v = 0; v < VECTORS; v++) {
                    const V weight = get<V>(weights + v * EACH);
                    for (int p = 0; p < PLACES; p++) sum[p][v] += in[p * apart + c] * weight;
                }
        }
    for (int p = 0; p < PLACES; p++)
        for (int v = 0; v < VECTORS; v++)
            for (int i = 0; i < EACH; i++) sums[p * padded + o + v * EACH + i] += int32_t(sum[p][v][i]);
}

template <class F>
void dense_row(const Source& source, const Dense& dense, const F* table, const F* map, int64_t across, int y, int width,
               int padded, int32_t* sums) {
    constexpr int CHANNELS = 2 * WIDTH / sizeof(F);
    for (int o = 0; o < padded; o += CHANNELS) {
        int x = 0;
        for (; x + 4 <= width; x += 4)
            dense_places<F, 4, 2>(source, dense, table, map, across, y, x, padded, o, sums + int64_t(x) * padded);
        for (; x < width; x++)
            dense_places<F, 1, 2>(source, dense, table, map, across, y, x, padded, o, sums + int64_t(x) * padded);
    }
}

// ---- neurons -------------------------------------------------------------------------------------------------------

// A row of outputs, whose sums over events are there.
struct Row {
    const void* sums = nullptr;  // of step 0 and column 0, steps `apart` elements apart
    int64_t apart = 0;
    const int32_t* still = nullptr;
    int y = 0;
};

template <class Sum> inline void sums_at(const Sum* sums, int64_t place, int shift, V32& evens, V32& odds) {
    if constexpr (sizeof(Sum) == 2) {
        const V16 both = get<V16>(sums + place);
        evens = even(both, shift);
        odds = odd(both, shift);
    } else {
        evens = get<V32>(sums + place) << shift;
        odds = get<V32>(sums + place + HALF) << shift;
    }
}

inline void add_diagonals(const Share& share, const Block& block, int step, int y, int x, int o, V32& evens, V32& odds) {
    for (const Diagonal& one : block.diagonals) {
        const Value& value = share.value(one.value);
        const V32 first = get<V32>(one.weight.data() + o), second = get<V32>(one.weight.data() + o + HALF);
        for (int plane = 0; plane < value.planes; plane++) {
            const uint8_t* from = share.bits(value, step, plane, y) + x * value.position + (block.first + o) / 8;
            V32 low, high;
            masks_of(load<uint32_t>(from), low, high);
            evens += (first & low) << plane;
            odds += (second & high) << plane;
        }
    }
}

inline V32 leaked(const Operation& op, V32 v, V32 numerator) {
    if (op.leak_shift >= 0) return (v + ((v >> 31) & ((1 << op.leak_shift) - 1))) >> op.leak_shift;
    const V32 sign = v >> 31, magnitude = (v ^ sign) - sign;
    const int bits = op.node->leak_bits;
    // |v| * numerator >> bits without a product of more than 31 bits
    const V32 kept = (magnitude >> bits) * numerator + (((magnitude & ((1 << bits) - 1)) * numerator) >> bits);
    return (kept ^ sign) - sign;
}

inline V32 largest(V32 one, V32 other) { return one > other ? one : other; }

// One vector of neurons of any kind: v, and whether it fired, from step to step.
struct Membrane {
    V32 v = {}, fired = {}, reach = {};

    V32 step(const Operation& op, V32 current, V32 threshold, V32 numerator) {
        v = leaked(op, v, numerator);
        if (op.node->reset == Reset::subtract_late) v -= threshold & fired;
        v += current;
        reach = largest(reach, largest(v, -v));
        fired = v > threshold;
        if (op.node->reset == Reset::zero) v &= ~fired;
        if (op.node->reset == Reset::subtract) v -= threshold & fired;
        return fired;
    }
};

// The usual neuron: reset to zero, a leak by a shift that drops nothing.
struct Plain {
    V32 v = {};

    V32 step(const Operation& op, V32 current, V32 threshold, V32) {
        v = (v >> op.leak_shift) + current;
        const V32 fired = v > threshold;
        v &= ~fired;
        return fired;
    }
};

inline void store_bits(uint8_t* to, uint32_t bits, int bytes) {
    if (bytes >= 4) std::memcpy(to, &bits, 4);
    else if (bytes >= 2) std::memcpy(to, &bits, 2);
    else *to = uint8_t(bits);
}

inline void note_reach(const Share& share, const Operation& op, const Membrane& one, const Membrane& other) {
    if (!share.reach) return;
    int64_t most = share.reach[op.out];
    for (int i = 0; i < HALF; i++) most = std::max<int64_t>({most, one.reach[i], other.reach[i]});
    share.reach[op.out] = most;
}
inline void note_reach(const Share&, const Operation&, const Plain&, const Plain&) {}

template <class Sum, class Neuron> void fire_row(const Share& share, const Operation& op, const Block& block, const Row& row) {
    const Value& out = share.value(op.out);
    const int steps = share.plan.network.timesteps, bytes = std::min(LANES / 8, out.position);
    const Sum* sums = static_cast<const Sum*>(row.sums);
    const int64_t step_bytes = out.step();
    for (int x = 0; x < out.shape.width; x++)
        for (int o = 0; o < block.padded; o += LANES) {
            const int byte = (block.first + o) / 8;
            if (byte >= out.position) break;
            uint8_t* to = share.bits(out, 0, 0, row.y) + x * out.position + byte;
            const int64_t place = int64_t(x) * block.padded + o;
            const V32 threshold[2] = {get<V32>(block.threshold.data() + o), get<V32>(block.threshold.data() + o + HALF)};
            const V32 numerator[2] = {get<V32>(block.leak.data() + o), get<V32>(block.leak.data() + o + HALF)};
            V32 still[2] = {};
            if (row.still)
                for (int i = 0; i < 2; i++) still[i] = get<V32>(row.still + place + i * HALF) << op.fraction;
            Neuron evens, odds;
            for (int step = 0; step < steps; step++, to += step_bytes) {
                V32 current[2] = {};
                if (sums) sums_at(sums, place + step * row.apart, op.fraction, current[0], current[1]);
                for (int i = 0; i < 2; i++) current[i] += still[i];
                add_diagonals(share, block, step, row.y, x, o, current[0], current[1]);
                const V32 even_fired = evens.step(op, current[0], threshold[0], numerator[0]);
                store_bits(to, bits_of(even_fired, odds.step(op, current[1], threshold[1], numerator[1])), bytes);
            }
            note_reach(share, op, evens, odds);
        }
}

// The same without neurons: the current itself, in the order of the channels.
template <class Sum> void current_row(const Share& share, const Operation& op, const Block& block, const Row& row) {
    const Value& out = share.value(op.out);
    const Sum* sums = static_cast<const Sum*>(row.sums);
    for (int step = 0; step < out.steps; step++)
        for (int x = 0; x < out.shape.width; x++)
            for (int o = 0; o < block.padded; o += LANES) {
                const int64_t place = int64_t(x) * block.padded + o;
                V32 current[2] = {};
                if (sums) sums_at(sums, place + step * row.apart, 0, current[0], current[1]);
                if (row.still)
                    for (int i = 0; i < 2; i++) current[i] += get<V32>(row.still + place + i * HALF);
                add_diagonals(share, block, step, row.y, x, o, current[0], current[1]);
                const int64_t pixel = int64_t(row.y) * out.shape.width + x;
                int32_t* to = share.numbers(out, step) + pixel * out.shape.channels + block.first + o;
                for (int i = 0; i < LANES && o + i < block.count; i++) to[i] = current[i % 2][i / 2];
            }
}

// ---- a block of a population, on some of its rows ------------------------------------------------------------------

template <class Sum> class Population {
  public:
    Population(const Share& share, const Operation& op, const Block& block, int top, int bottom)
        : share_(share), op_(op), block_(block), out_(share.value(op.out)), top_(top), bottom_(bottom) {
        steps_ = op.sums == Sums::none ? 0 : share.plan.network.timesteps;
        row_ = int64_t(op.columns) * block.padded;
        if (steps_) sums_ = share.scratch.take<Sum>(row_ * op.ring * steps_);
        if (op.still) still_ = share.scratch.take<int32_t>(int64_t(out_.shape.width) * block.padded);
        for (size_t i = 0; i < op.events.size(); i++) start(op.events[i], block.events[i]);
        for (size_t i = 0; i < op.dense.size(); i++) map(op.dense[i], block.dense[i]);
        for (int one : op.terms)
            for (int step = 0; step < share.value(one).steps; step++)
                terms_.push_back({share.value(one).steps == 1, step, unpacked(share, share.value(one), step)});
    }

    void run() {
        for (int y = top_; y < std::min(bottom_, top_ + op_.ring); y++) clear(y);
        for (int y = top_; y < bottom_; y++) {
            for (Reading& one : readings_) one.gathers ? gather(one, y) : scatter(one, y);
            add_numbers(y);
            finish(y);
            if (y + op_.ring < bottom_) clear(y + op_.ring);
        }
    }

  private:
    const Share& share_;
    const Operation& op_;
    const Block& block_;
    const Value& out_;
    int top_, bottom_, steps_;
    int64_t row_ = 0;
    Sum* sums_ = nullptr;
    int32_t* still_ = nullptr;
    std::vector<Reading> readings_;
    struct Map {
        const Source& source;
        const Dense& dense;
        bool still;
        int step;
        const void* map;
    };
    std::vector<Map> maps_;
    struct Term {
        bool still;
        int step;
        const int32_t* from;
    };
    std::vector<Term> terms_;

    Sum* sums(int step, int y) { return sums_ + (int64_t(step) * op_.ring + y % op_.ring) * row_; }

    void start(const Source& source, const Events& events) {
        Reading one{&source, &events, &share_.value(source.value)};
        choose(share_, one, out_.shape, block_.padded);
        const int width = one.value->shape.width, planes = one.value->planes;
        one.next = int(std::max<int64_t>(0, one.first_row(top_)));
        one.room = int64_t(width) * std::max(one.events->bytes, one.value->position) * 8 * planes + 64;
        if (one.gathers) {
            one.rows = source.window.reach(0) + 1;
            one.list = share_.scratch.take<uint16_t>(one.room * one.rows * steps_);
            one.starts = share_.scratch.take<uint32_t>(int64_t(width + 1) * one.rows * steps_);
        } else {
            one.list = share_.scratch.take<uint16_t>(one.room);
            spread_columns(one);
        }
        readings_.push_back(one);
    }

    void spread_columns(Reading& one) {
        const Window& w = one.source->window;
        const int width = one.value->shape.width;
        const int64_t phase = one.events->scatter_row * one.value->planes << one.events->shift[one.fours];
        one.column = share_.scratch.take<int32_t>(width);
        one.phase = share_.scratch.take<int32_t>(width);
        for (int x = 0; x < width; x++) {
            const int place = x + w.padding[1];
            one.column[x] = (place / w.stride[1] + one.source->across.low + op_.margin) * block_.padded;
            one.phase[x] = int32_t(place % w.stride[1] * phase);
        }
    }

    void map(const Source& source, const Dense& dense) {
        const Value& value = share_.value(source.value);
        for (int step = 0; step < value.steps; step++) {
            const void* made = dense.wide.empty() ? static_cast<const void*>(padded_map<float>(share_, source, dense, step))
                                                  : padded_map<double>(share_, source, dense, step);
            maps_.push_back({source, dense, value.steps == 1, step, made});
        }
    }

    // Sums begin with the biases.
    void clear(int y) {
        for (int step = 0; step < steps_; step++) {
            Sum* to = sums(step, y);
            for (int column = 0; column < op_.columns; column++, to += block_.padded)
                if constexpr (sizeof(Sum) == 2) std::memcpy(to, block_.bias16.data(), 2 * block_.padded);
                else std::memcpy(to, block_.bias.data(), 4 * block_.padded);
        }
    }

    // Every input row that output row y needs adds to all the outputs that it reaches.
    void scatter(Reading& one, int y) {
        for (const int last = one.last_row(y); one.next <= last; one.next++) scatter_row(one, one.next);
    }

    void scatter_row(const Reading& one, int row) {
        const Window& w = one.source->window;
        const int64_t kernel_row = int64_t(one.source->across.span) * block_.padded;
        for (int ky = 0; ky < w.kernel[0];) {
            Reached<Sum> reached;
            int offset[8];
            for (; ky < w.kernel[0] && reached.count < 8; ky++) {
                const int below = row + w.padding[0] - ky * w.dilation[0];
                if (below < 0 || below % w.stride[0]) continue;
                const int y = below / w.stride[0];
                if (y < top_ || y >= bottom_) continue;
                offset[reached.count] = y;
                reached.weights[reached.count++] = ky * kernel_row;
            }
            for (int step = 0; reached.count && step < steps_; step++) {
                for (int k = 0; k < reached.count; k++) reached.row[k] = sums(step, offset[k]);
                scatter_step(one, row, step, reached);
            }
        }
    }

    void scatter_step(const Reading& one, int row, int step, const Reached<Sum>& reached) {
        const Events& events = *one.events;
        const int vectors = one.source->across.span * block_.padded / LANES;
        for (int plane = 0; plane < one.value->planes; plane++) {
            const uint8_t* bits = share_.bits(*one.value, step, plane, row);
            const uint16_t* end = list_row(*one.value, events, places(one.fours), one.fours, bits, one.list);
            const int shift = events.shift[one.fours];
            const int16_t* table = events.scatter[one.fours].data() + (plane * events.scatter_row << shift);
            const auto run = [&](auto kernel) {
                kernel(one.list, end, shift, table, events.scatter_row, one.column, one.phase, reached, vectors);
            };
            switch (vectors) {
                case 1: run(scatter_events<1, Sum>); break;
                case 2: run(scatter_events<2, Sum>); break;
                case 3: run(scatter_events<3, Sum>); break;
                case 4: run(scatter_events<4, Sum>); break;
                case 6: run(scatter_events<6, Sum>); break;
                default: run(scatter_events<0, Sum>); break;
            }
        }
    }

    // Lists of the input rows that output row y needs, then each output on its own.
    void gather(Reading& one, int y) {
        const Window& w = one.source->window;
        for (const int last = one.last_row(y); one.next <= last; one.next++) list(one, one.next);
        const int width = one.value->shape.width, shift = one.events->shift[one.fours];
        const int64_t apart = int64_t(one.value->planes) * w.kernel[1] << shift;  // rows of a kernel row
        Table<Run> whole(size_t(steps_) * w.kernel[0]);  // of each step and kernel row: its list, and its table
        Table<const uint32_t*> starts(whole.size());
        int rows = 0;
        for (int ky = 0; ky < w.kernel[0]; ky++) {
            const int64_t row = one.first_row(y) + int64_t(ky) * w.dilation[0];
            if (row < 0 || row >= one.value->shape.height) continue;
            for (int step = 0; step < steps_; step++) {
                const int64_t place = int64_t(step) * one.rows + row % one.rows;
                whole[step * w.kernel[0] + rows] = {one.list + place * one.room, nullptr, 0, table(one, ky * apart)};
                starts[step * w.kernel[0] + rows] = one.starts + place * (width + 1);
            }
            rows++;
        }
        Table<Run> runs(rows);
        for (int x = 0; x < out_.shape.width; x++) {
            const int first = x * w.stride[1] - w.padding[1];
            const int from = std::max(first, 0), to = std::min(first + w.kernel[1], width);
            if (to <= from) continue;
            for (int step = 0; step < steps_; step++) {
                for (int k = 0; k < rows; k++) {
                    const Run& all = whole[step * w.kernel[0] + k];
                    const uint32_t* at_column = starts[step * w.kernel[0] + k];
                    const int64_t base = int64_t(first) * (int64_t(1) << shift);
                    runs[k] = {all.from + at_column[from], all.from + at_column[to], base, all.table};
                }
                gather_place(one, runs.data(), rows, sums(step, y) + int64_t(x + op_.margin) * block_.padded);
            }
        }
    }

    const void* table(const Reading& one, int64_t row) const {
        const Events& events = *one.events;
        if (!one.fours && !events.narrow.empty()) return events.narrow.data() + row * block_.padded;
        return events.gather[one.fours].data() + row * block_.padded;
    }

    void list(const Reading& one, int row) {
        const Window& w = one.source->window;
        const int apart = w.kernel[1] << one.events->shift[one.fours];
        for (int step = 0; step < steps_; step++) {
            const int64_t place = int64_t(step) * one.rows + row % one.rows;
            list_columns(*one.value, *one.events, places(one.fours), one.fours, apart,
                         share_.bits(*one.value, step, 0, row), one.list + place * one.room,
                         one.starts + place * (one.value->shape.width + 1));
        }
    }

    // 16 bits may wrap where the whole sum fits them; where it may not, no more than fits is added at a time.
    void gather_place(const Reading& one, const Run* runs, int rows, Sum* to) {
        if constexpr (sizeof(Sum) == 4) {
            const int64_t most = INT16_MAX / std::max(1, one.events->largest[one.fours]);
            int64_t count = 0;
            for (int k = 0; k < rows; k++) count += runs[k].end - runs[k].from;
            if (count > most) {
                for (int k = 0; k < rows; k++)
                    for (Run part = runs[k]; part.from < part.end; part.from += most) {
                        part.end = std::min(part.from + most, runs[k].end);
                        gather_block(one, &part, 1, to);
                    }
                return;
            }
        }
        gather_block(one, runs, rows, to);
    }

    void gather_block(const Reading& one, const Run* runs, int rows, Sum* to) {
        const bool narrow = !one.fours && !one.events->narrow.empty();
        for (int o = 0; o < block_.padded; o += 8 * LANES) {
            const int vectors = std::min(block_.padded - o, 8 * LANES) / LANES;
            if (o) shifted(runs, rows, narrow ? o : 2 * o);
            const Run* from = o ? parts_.data() : runs;
            if (narrow) gather_vectors<true>(vectors, from, rows, block_.padded, to + o);
            else gather_vectors<false>(vectors, from, rows, block_.padded, to + o);
        }
    }

    std::vector<Run> parts_;

    void shifted(const Run* runs, int rows, int64_t bytes) {
        parts_.assign(runs, runs + rows);
        for (Run& one : parts_) one.table = static_cast<const uint8_t*>(one.table) + bytes;
    }

    // What comes as numbers: into the part that is the same at each step, or into the sums.
    void add_numbers(int y) {
        const int width = out_.shape.width, padded = block_.padded;
        if (still_)
            for (int x = 0; x < width; x++) std::memcpy(still_ + x * padded, block_.still_bias.data(), 4 * padded);
        for (const Map& one : maps_) {
            const Value& value = share_.value(one.source.value);
            const int64_t across = value.shape.width + 2 * one.source.window.padding[1];
            int32_t* to = target(one.still, one.step, y);
            if (one.dense.wide.empty())
                dense_row<float>(one.source, one.dense, one.dense.exact.data(), static_cast<const float*>(one.map), across,
                                 y, width, padded, to);
            else
                dense_row<double>(one.source, one.dense, one.dense.wide.data(), static_cast<const double*>(one.map),
                                  across, y, width, padded, to);
        }
        for (const Term& one : terms_) {
            int32_t* to = target(one.still, one.step, y);
            for (int x = 0; x < width; x++) {
                const int32_t* from = one.from + (int64_t(y) * width + x) * out_.shape.channels + block_.first;
                for (int o = 0; o < block_.count; o++) to[x * padded + place_of(o)] += from[o];
            }
        }
    }

    static int place_of(int o) { return o - o % LANES + o % LANES / 2 + o % 2 * HALF; }

    int32_t* target(bool still, int step, int y) {
        if (still) return still_;
        if constexpr (sizeof(Sum) == 4) return sums(step, y) + op_.margin * block_.padded;
        std::abort();  // the plan keeps 16 bits for events alone
    }

    void finish(int y) {
        Row row{nullptr, int64_t(op_.ring) * row_, still_, y};
        if (steps_) row.sums = sums(0, y) + op_.margin * block_.padded;
        const bool plain = op_.leak_shift >= 0 && !op_.rounds && op_.node->reset == Reset::zero && !share_.reach;
        if (op_.what == What::current) current_row<Sum>(share_, op_, block_, row);
        else if (plain) fire_row<Sum, Plain>(share_, op_, block_, row);
        else fire_row<Sum, Membrane>(share_, op_, block_, row);
    }
};

// Blocks, and where there are fewer than threads also rows, are shared out.
inline void run_population(const Share& share, const Operation& op) {
    const int blocks = int(op.blocks.size()), height = share.value(op.out).shape.height;
    const int chunks = std::min(height, (share.parts + blocks - 1) / blocks);
    for (int i = share.part; i < blocks * chunks; i += share.parts) {
        const int top = i % chunks * height / chunks, bottom = (i % chunks + 1) * height / chunks;
        share.scratch.clear();
        if (op.sums == Sums::wide) Population<int32_t>(share, op, op.blocks[i / chunks], top, bottom).run();
        else Population<int16_t>(share, op, op.blocks[i / chunks], top, bottom).run();
    }
}

}  // namespace snnkd::SNNKD_SET
