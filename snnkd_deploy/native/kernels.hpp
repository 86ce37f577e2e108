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
    const int fours;
    uint16_t* end;
#if defined(SNNKD_AVX512)
    // The rows of a word, which has no more bits than are to be read: of singles one for each bit, of fours one for each
    // nibble that is not zero.
    void word(uint64_t word, int base, int) { fours ? nibbles(word, base) : bits(word, base); }

    void bits(uint64_t word, int base) {
        __m512i rows = _mm512_add_epi16(_mm512_loadu_si512(counted()), _mm512_set1_epi16(int16_t(base)));
        for (int half = 0; half < 2 && word; half++, word >>= 32) {
            _mm512_storeu_si512(end, _mm512_maskz_compress_epi16(uint32_t(word), rows));
            end += __builtin_popcount(uint32_t(word));
            rows = _mm512_add_epi16(rows, _mm512_set1_epi16(32));
        }
    }

    void nibbles(uint64_t word, int base) {
        const __m128i bytes = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(int64_t(word)));
        const __m128i low = _mm_and_si128(bytes, _mm_set1_epi16(15)), high = _mm_srli_epi16(bytes, 4);
        const __m256i each = _mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high));
        const __m256i first = _mm256_slli_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(counted())), 4);
        const __m256i rows = _mm256_add_epi16(_mm256_add_epi16(each, first), _mm256_set1_epi16(int16_t(base)));
        const uint32_t there = _mm256_test_epi16_mask(each, each);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(end), _mm256_maskz_compress_epi16(there, rows));
        end += __builtin_popcount(there);
    }

    static const uint16_t* counted() {
        alignas(64) static const uint16_t numbers[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                         16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
        return numbers;
    }
#else
    void put(uint8_t byte, Entries base) {
        set(end, get<Entries>(of.row[byte]) + base);
        end += of.count[byte];
    }
    // The rows of a word's first bytes, those of each behind those of the one before.
    void word(uint64_t word, int base, int bytes) {
        Entries rows = Entries{} + uint16_t(base);
        const Entries next = Entries{} + uint16_t(8 << 2 * fours);
        for (int byte = 0; byte < bytes; byte++, word >>= 8, rows += next) put(uint8_t(word), rows);
    }
#endif
};

// All events of a row of one plane, in any order within a position.
inline uint16_t* list_row(const Value& value, const Events& events, const Places& of, int fours, const uint8_t* row,
                          uint16_t* out) {
    List list{of, fours, out};
    const int step = 8 << 2 * fours;
    if (value.position <= 8) {
        for (int64_t byte = 0; byte < value.row; byte += 8)
            if (const uint64_t word = load<uint64_t>(row + byte) & events.repeated) list.word(word, int(byte) * step, 8);
        return list.end;
    }
    for (int x = 0; x < value.shape.width; x++)
        for (int byte = 0; byte < events.bytes; byte += 8) {
            const uint8_t* from = row + x * value.position + events.first_byte + byte;
            if (const uint64_t word = load<uint64_t>(from) & events.mask[byte / 8])
                list.word(word, (x << events.shift[fours]) + byte * step, std::min(8, events.bytes - byte));
        }
    return list.end;
}

// The events of a row, all planes, position by position; those of column x start at starts[x].
inline void list_columns(const Value& value, const Events& events, const Places& of, int fours, int planes_apart,
                         const uint8_t* row, uint16_t* out, uint32_t* starts) {
    List list{of, fours, out};
    const int step = 8 << 2 * fours;
    for (int x = 0; x < value.shape.width; x++) {
        starts[x] = uint32_t(list.end - out);
        for (int plane = 0; plane < value.planes; plane++) {
            const uint8_t* from = row + plane * value.plane() + x * value.position + events.first_byte;
            const int base = plane * planes_apart + (x << events.shift[fours]);
            for (int byte = 0; byte < events.bytes; byte += 8)
                if (const uint64_t word = load<uint64_t>(from + byte) & events.mask[byte / 8])
                    list.word(word, base + byte * step, std::min(8, events.bytes - byte));
        }
    }
    starts[value.shape.width] = uint32_t(list.end - out);
}

// ---- one layer of synapses, as a population reads it ---------------------------------------------------------------

// Output rows that one input row adds to: those of kernel rows `apart` weights apart, the first from `first` on.
constexpr int REACHED = 4;
template <class Sum> struct Reached {
    Sum* row[REACHED];
    int count = 0;
    int64_t first = 0, apart = 0;
};

// What an event list is to be added with: for column x the weights from phase[x] on, to the sums from column[x] on.
struct Scattering {
    const uint16_t *from, *end;
    int shift;
    const int16_t* table;
    int64_t stride;
    const int32_t *column, *phase;
    int vectors;
};

// Everything in local variables: the compiler has to take for granted that the sums may lie anywhere else.
template <int ROWS, int NV, class Sum> void scatter_events(const Scattering& s, const Reached<Sum>& reached) {
    const int count = NV ? NV : s.vectors, shift = s.shift, rest = (1 << shift) - 1;
    const int64_t stride = s.stride, apart = reached.apart;
    const int32_t *columns = s.column, *phases = s.phase;
    const int16_t* table = s.table + reached.first;
    Sum* rows[ROWS];
    for (int k = 0; k < ROWS; k++) rows[k] = reached.row[k];
    const uint16_t* end = s.end;
    for (const uint16_t* one = s.from; one < end; one++) {
        const unsigned entry = *one, x = entry >> shift;
        const int64_t column = columns[x];
        const int16_t* weights = table + phases[x] + int64_t(entry & rest) * stride;
#pragma GCC unroll 4
        for (int k = 0; k < ROWS; k++, weights += apart) {
            Sum* to = rows[k] + column;
#pragma GCC unroll 6
            for (int v = 0; v < count; v++) add_to(to + v * LANES, get<V16>(weights + v * LANES));
        }
    }
}

template <int ROWS, class Sum> inline void scatter_rows(const Scattering& s, const Reached<Sum>& reached) {
    switch (s.vectors) {
        case 1: return scatter_events<ROWS, 1>(s, reached);
        case 2: return scatter_events<ROWS, 2>(s, reached);
        case 3: return scatter_events<ROWS, 3>(s, reached);
        case 4: return scatter_events<ROWS, 4>(s, reached);
        case 6: return scatter_events<ROWS, 6>(s, reached);
        default: return scatter_events<ROWS, 0>(s, reached);
    }
}

template <class Sum> void scatter_list(const Scattering& s, const Reached<Sum>& reached) {
    switch (reached.count) {
        case 1: return scatter_rows<1>(s, reached);
        case 2: return scatter_rows<2>(s, reached);
        case 3: return scatter_rows<3>(s, reached);
        default: return scatter_rows<4>(s, reached);
    }
}

// The events of one input row at one step: those of column x from list + starts[x] on; and the weights for them.
struct Listed {
    const uint16_t* list;
    const uint32_t* starts;
    const uint8_t* table;
};

// How outputs gather: for each step the rows of their windows, of which there are `rows`.
struct Gathering {
    const Listed* listed;  // [step][row]
    int steps, rows;
    int width, kernel, stride, padding;  // columns of the input; of the window
    int shift;
    int64_t row_bytes;  // of the table
    int most;           // rows of weights that 16 bits can add up, whatever they are
};

template <int NV, bool NARROW> inline void add_rows(V16 (&sum)[NV], const uint8_t* weights) {
    if constexpr (NARROW) {
        for (int v = 0; v < NV; v += 2) {
            const V16 both = get<V16>(weights + v * LANES);
            sum[v] += (both << 8) >> 8;
            sum[v + 1] += both >> 8;
        }
    } else {
        for (int v = 0; v < NV; v++) sum[v] += get<V16>(weights + v * WIDTH);
    }
}

// The outputs of a row, one column and step after the other; `apart` sums lie between steps, `next` between columns.
template <int NV, bool NARROW, class Sum>
void gather_row(const Gathering& g, int width, Sum* sums, int64_t next, int64_t apart) {
    const int steps = g.steps, rows = g.rows;
    const int64_t bytes = g.row_bytes;
    for (int x = 0; x < width; x++, sums += next) {
        const int first = x * g.stride - g.padding, from = std::max(first, 0), to = std::min(first + g.kernel, g.width);
        const int64_t skipped = int64_t(first) * bytes * (int64_t(1) << g.shift);
        const Listed* one = g.listed;
        for (int step = 0; to > from && step < steps; step++) {
            V16 sum[NV] = {};
            int room = g.most;
            for (const Listed* last = one + rows; one < last; one++) {
                const uint8_t* table = one->table - skipped;
                const uint16_t* at = one->list + one->starts[from];
                for (const uint16_t* end = one->list + one->starts[to]; at < end;) {
                    const uint16_t* stop = end;
                    if constexpr (sizeof(Sum) == 4) {  // 16 bits may wrap where the whole sum fits them; else they are emptied
                        if (room == 0) {
                            for (int v = 0; v < NV; v++) add_to(sums + step * apart + v * LANES, sum[v]), sum[v] = V16{};
                            room = g.most;
                        }
                        stop = std::min(end, at + room);
                        room -= int(stop - at);
                    }
#pragma GCC unroll 4
                    for (; at < stop; at++) add_rows<NV, NARROW>(sum, table + *at * bytes);
                }
            }
            for (int v = 0; v < NV; v++) add_to(sums + step * apart + v * LANES, sum[v]);
        }
    }
}

template <bool NARROW, class Sum>
void gather_vectors(int vectors, const Gathering& g, int width, Sum* sums, int64_t next, int64_t apart) {
    if constexpr (!NARROW) {  // bytes come in pairs of vectors
        switch (vectors) {
            case 1: return gather_row<1, false>(g, width, sums, next, apart);
            case 3: return gather_row<3, false>(g, width, sums, next, apart);
            case 5: return gather_row<5, false>(g, width, sums, next, apart);
            case 7: return gather_row<7, false>(g, width, sums, next, apart);
            default: break;
        }
    }
    switch (vectors) {
        case 2: return gather_row<2, NARROW>(g, width, sums, next, apart);
        case 4: return gather_row<4, NARROW>(g, width, sums, next, apart);
        case 6: return gather_row<6, NARROW>(g, width, sums, next, apart);
        default: return gather_row<8, NARROW>(g, width, sums, next, apart);
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

// Instructions for one step of a layer, roughly: what they are compared for is which way is cheaper. `sum`: bytes of one.
inline double cost(const Reading& reading, const Shape& out, int padded, int sum, double events, int fours, bool gathers) {
    const Source& source = *reading.source;
    const double vectors = double(padded) / LANES, wider = sum == 4 ? 2.3 : 1;
    if (!gathers) return events * (12 + 3.2 * wider * vectors * source.rows * source.across.span);
    const bool narrow = !fours && !reading.events->narrow.empty();
    const double each = events * source.rows * source.columns * (3 + (narrow ? 2.5 : 1.2) * vectors);
    return each + double(out.height) * out.width * (25 + 60 * source.window.kernel[0]);  // a wrong guess for each list
}

inline void choose(const Share& share, Reading& reading, const Shape& out, int padded, int sum) {
    const Density busy = density(share, *reading.value);
    const double words = double(reading.value->step()) / 8;
    double least = 0;
    bool found = false;
    for (int fours = 0; fours < 2; fours++)
        for (bool gathers : {false, true}) {
            if (!(gathers ? reading.events->gathers : reading.events->scatters)[fours]) continue;
            const double met = cost(reading, out, padded, sum, words * (fours ? busy.fours : busy.ones), fours, gathers);
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

// A row of outputs of a layer on numbers.
template <class F> struct DenseRow {
    const F *table, *map;  // the weights; the padded map, from the row's first window on
    const int32_t* tap;
    int taps, padded, width;
    int64_t next;  // from one window to the next
};

// Adds to the sums, [column][out channel], of PLACES columns from x on and VECTORS vectors of channels from o on.
template <class F, int PLACES, int VECTORS> inline void dense_places(const DenseRow<F>& row, int x, int o, int32_t* sums) {
    typedef F V __attribute__((vector_size(WIDTH)));
    typedef int32_t Whole __attribute__((vector_size(WIDTH / sizeof(F) * 4)));
    constexpr int EACH = WIDTH / sizeof(F);
    const int64_t next = row.next;
    const F *in = row.map + x * next, *weights = row.table + o;
    V sum[PLACES][VECTORS] = {};
    for (int k = 0; k < row.taps; k++, weights += row.padded) {
        const F* from = in + row.tap[k];
        for (int v = 0; v < VECTORS; v++) {
            V weight;
            std::memcpy(&weight, weights + v * EACH, sizeof(V));
            for (int p = 0; p < PLACES; p++) sum[p][v] += from[p * next] * weight;
        }
    }
    for (int p = 0; p < PLACES; p++)
        for (int v = 0; v < VECTORS; v++) {
            int32_t* to = sums + (x + p) * row.padded + o + v * EACH;
            Whole whole;
            std::memcpy(&whole, to, sizeof(Whole));
            whole += __builtin_convertvector(sum[p][v], Whole);
            std::memcpy(to, &whole, sizeof(Whole));
        }
}

template <class F> void dense_row(const DenseRow<F>& row, int32_t* sums) {
    constexpr int CHANNELS = 2 * WIDTH / sizeof(F);
    for (int o = 0; o < row.padded; o += CHANNELS) {
        int x = 0;
        for (; x + 4 <= row.width; x += 4) dense_places<F, 4, 2>(row, x, o, sums);
        for (; x < row.width; x++) dense_places<F, 1, 2>(row, x, o, sums);
    }
}

// ---- neurons -------------------------------------------------------------------------------------------------------

// Spikes that reach the neuron of their own position and channel, at step 0 and column 0 of a row.
struct Direct {
    const uint8_t* bits;
    int64_t step;  // bytes from one step to the next
    int position;
    const int32_t* weight;
    int shift;
};

// A row of outputs, whose sums over events are there.
struct Row {
    void* sums = nullptr;  // of step 0 and column 0; null if there are none
    const void* biases = nullptr;
    int64_t apart = 0;           // elements from one step to the next
    const int32_t* still = nullptr;
    std::vector<Direct> directs;
    int y = 0;
};

struct Nothing {};  // instead of sums

// The sums at a place as 32-bit numbers times 2^shift; biases take their place.
template <class Sum, bool WHOLE>
inline void take_sums(Sum* sums, const Sum* biases, int64_t place, int o, int shift, V32& evens, V32& odds) {
    if constexpr (std::is_same_v<Sum, Nothing>) {
        evens = odds = V32{};
    } else if constexpr (sizeof(Sum) == 2) {
        const V16 both = get<V16>(sums + place);
        evens = WHOLE ? V32(both) << 16 : even(both, shift);
        odds = WHOLE ? V32(both) & int32_t(0xFFFF0000) : odd(both, shift);
        set(sums + place, get<V16>(biases + o));
    } else {
        evens = get<V32>(sums + place) << shift;
        odds = get<V32>(sums + place + HALF) << shift;
        set(sums + place, get<V32>(biases + o));
        set(sums + place + HALF, get<V32>(biases + o + HALF));
    }
}

inline void add_direct(const Direct& one, int step, int x, int byte, int o, V32& evens, V32& odds) {
    V32 low, high;
    masks_of(load<uint32_t>(one.bits + step * one.step + x * one.position + byte), low, high);
    evens += (get<V32>(one.weight + o) & low) << one.shift;
    odds += (get<V32>(one.weight + o + HALF) & high) << one.shift;
}

// What all neurons of a block share; a copy, so that the compiler knows that no store changes it.
struct Rule {
    int fraction, shift, bits;  // shift: of the leak, or -1; bits: of the leak's denominator
    int current_bits;           // of what is kept of a current, or -1
    Reset reset;
    bool reached, changed;  // whether the largest membrane is asked for, or how often it changed
};

// v * numerator / 2^bits, truncated toward zero, without a product of more than 31 bits.
inline V32 scaled(V32 v, V32 numerator, int bits) {
    const V32 sign = v >> 31, magnitude = (v ^ sign) - sign;
    const V32 low = magnitude & ((1 << bits) - 1);
    const V32 kept = (magnitude >> bits) * numerator + ((low * numerator) >> bits);
    return (kept ^ sign) - sign;
}

inline V32 leaked(const Rule& rule, V32 v, V32 numerator) {
    if (rule.shift < 0) return scaled(v, numerator, rule.bits);
    return (v + ((v >> 31) & ((1 << rule.shift) - 1))) >> rule.shift;
}

inline V32 largest(V32 one, V32 other) { return one > other ? one : other; }

// One vector of neurons of any kind: v, whether it fired, and the current that is kept, from step to step.
struct Membrane {
    V32 v = {}, fired = {}, reach = {}, u = {}, before = {}, later = {}, changes = {};

    V32 arriving(const Rule& rule, V32 current, const int32_t* numerators) {
        if (rule.current_bits >= 0) current = u = scaled(u, get<V32>(numerators), rule.current_bits) + current;
        return current;
    }

    V32 step(const Rule& rule, V32 current, V32 threshold, V32 numerator) {
        v = leaked(rule, v, numerator);
        if (rule.reset == Reset::subtract_late) v -= threshold & fired;
        v += current;
        if (rule.reached) reach = largest(reach, largest(v, -v));
        if (rule.changed) {
            changes -= (v != before) & later;
            before = v;
            later = ~V32{};
        }
        fired = v > threshold;
        if (rule.reset == Reset::zero) v &= ~fired;
        if (rule.reset == Reset::subtract) v -= threshold & fired;
        return fired;
    }
};

// The usual neuron: reset to zero, a leak by a shift that drops nothing.
struct Plain {
    V32 v = {};

    V32 arriving(const Rule&, V32 current, const int32_t*) { return current; }

    V32 step(const Rule& rule, V32 current, V32 threshold, V32) {
        v = (v >> rule.shift) + current;
        const V32 fired = v > threshold;
        v &= ~fired;
        return fired;
    }
};

// The same where it is asked how often the membrane changed.
struct Changing {
    V32 v = {}, before = {}, later = {}, changes = {};

    V32 arriving(const Rule&, V32 current, const int32_t*) { return current; }

    V32 step(const Rule& rule, V32 current, V32 threshold, V32) {
        v = (v >> rule.shift) + current;
        changes -= (v != before) & later;
        before = v;
        later = ~V32{};
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

// What two vectors of neurons were asked; `changes` of a row are added up first.
inline void note(const Share& share, const Operation& op, const Membrane& one, const Membrane& other, V32& changes) {
    changes += one.changes + other.changes;
    if (!share.reach) return;
    int64_t most = share.reach[op.out];
    for (int i = 0; i < HALF; i++) most = std::max<int64_t>({most, one.reach[i], other.reach[i]});
    share.reach[op.out] = most;
}
inline void note(const Share&, const Operation&, const Plain&, const Plain&, V32&) {}
inline void note(const Share&, const Operation&, const Changing& one, const Changing& other, V32& changes) {
    changes += one.changes + other.changes;
}

// DIRECTS: how many there are, or -1 for any number. Sums are left as they were before the events, at the biases.
template <class Sum, class Neuron, bool WHOLE, int DIRECTS>
void fire_row(const Share& share, const Operation& op, const Block& block, const Row& row) {
    const Value& out = share.value(op.out);
    const Rule rule{op.fraction, op.leak_shift, op.node->leak_bits, op.keeps_current ? op.node->current_bits : -1,
                    op.node->reset, share.reach != nullptr, share.changes != nullptr};
    const int steps = share.plan.network.timesteps, width = out.shape.width, position = out.position;
    const int padded = block.padded, bytes = std::min(LANES / 8, position), first_byte = block.first / 8;
    const int end = std::min(padded, position * 8 - block.first);
    const int64_t step_bytes = out.step(), apart = row.apart;
    const int32_t *still = row.still, *thresholds = block.threshold.data(), *leaks = block.leak.data();
    const int32_t* kept = block.current.data();
    Sum* sums = static_cast<Sum*>(row.sums);
    const Sum* biases = static_cast<const Sum*>(row.biases);
    const Direct direct = DIRECTS == 1 ? row.directs[0] : Direct{};
    uint8_t* bits = share.bits(out, 0, 0, row.y) + first_byte;
    V32 changes = {};
    for (int x = 0; x < width; x++, bits += position)
        for (int o = 0; o < end; o += LANES) {
            const V32 threshold[2] = {get<V32>(thresholds + o), get<V32>(thresholds + o + HALF)};
            const V32 numerator[2] = {get<V32>(leaks + o), get<V32>(leaks + o + HALF)};
            int64_t place = int64_t(x) * padded + o;
            V32 same[2] = {};
            if (still)
                for (int i = 0; i < 2; i++) same[i] = get<V32>(still + place + i * HALF) << rule.fraction;
            uint8_t* to = bits + o / 8;
            Neuron evens, odds;
            for (int step = 0; step < steps; step++, to += step_bytes, place += apart) {
                V32 current[2];
                take_sums<Sum, WHOLE>(sums, biases, place, o, rule.fraction, current[0], current[1]);
                if (!WHOLE)
                    for (int i = 0; i < 2; i++) current[i] += same[i];
                if (DIRECTS == 1) add_direct(direct, step, x, first_byte + o / 8, o, current[0], current[1]);
                if (DIRECTS < 0)
                    for (const Direct& one : row.directs)
                        add_direct(one, step, x, first_byte + o / 8, o, current[0], current[1]);
                current[0] = evens.arriving(rule, current[0], kept + o);
                current[1] = odds.arriving(rule, current[1], kept + o + HALF);
                const V32 even_fired = evens.step(rule, current[0], threshold[0], numerator[0]);
                store_bits(to, bits_of(even_fired, odds.step(rule, current[1], threshold[1], numerator[1])), bytes);
            }
            note(share, op, evens, odds, changes);
        }
    for (int i = 0; rule.changed && i < HALF; i++) share.changes[op.out] += changes[i];
}

template <class Sum, class Neuron>
void fire_usual(const Share& share, const Operation& op, const Block& block, const Row& row) {
    if constexpr (sizeof(Sum) == 2 && WIDTH > 16) {  // the common ones have code of their own
        if (op.fraction == 16 && !row.still && row.directs.empty())
            return fire_row<Sum, Neuron, true, 0>(share, op, block, row);
        if (op.fraction == 16 && !row.still && row.directs.size() == 1)
            return fire_row<Sum, Neuron, true, 1>(share, op, block, row);
    }
    if (row.directs.empty()) return fire_row<Sum, Neuron, false, 0>(share, op, block, row);
    fire_row<Sum, Neuron, false, -1>(share, op, block, row);
}

template <class Sum> void fire(const Share& share, const Operation& op, const Block& block, const Row& row) {
    const bool usual = op.leak_shift >= 0 && !op.rounds && op.node->reset == Reset::zero && !share.reach;
    if (!usual) return fire_row<Sum, Membrane, false, -1>(share, op, block, row);
    if (share.changes) return fire_usual<Sum, Changing>(share, op, block, row);
    fire_usual<Sum, Plain>(share, op, block, row);
}

// The same without neurons: the current itself, in the order of the channels.
template <class Sum> void current_row(const Share& share, const Operation& op, const Block& block, const Row& row) {
    const Value& out = share.value(op.out);
    Sum* sums = static_cast<Sum*>(row.sums);
    const Sum* biases = static_cast<const Sum*>(row.biases);
    for (int step = 0; step < out.steps; step++)
        for (int x = 0; x < out.shape.width; x++)
            for (int o = 0; o < block.padded; o += LANES) {
                const int64_t place = int64_t(x) * block.padded + o;
                V32 current[2];
                take_sums<Sum, false>(sums, biases, place + step * row.apart, o, 0, current[0], current[1]);
                if (row.still)
                    for (int i = 0; i < 2; i++) current[i] += get<V32>(row.still + place + i * HALF);
                for (const Direct& one : row.directs)
                    add_direct(one, step, x, (block.first + o) / 8, o, current[0], current[1]);
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
        choose(share_, one, out_.shape, block_.padded, sizeof(Sum));
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

    const Sum* biases() const {
        if constexpr (sizeof(Sum) == 2) return block_.bias16.data();
        else return block_.bias.data();
    }

    // Sums begin with the biases; whoever reads them leaves them so.
    void clear(int y) {
        for (int step = 0; step < steps_; step++) {
            Sum* to = sums(step, y);
            for (int column = 0; column < op_.columns; column++, to += block_.padded)
                std::memcpy(to, biases(), sizeof(Sum) * block_.padded);
        }
    }

    // Every input row that output row y needs adds to all the outputs that it reaches.
    void scatter(Reading& one, int y) {
        for (const int last = one.last_row(y); one.next <= last; one.next++) scatter_row(one, one.next);
    }

    void scatter_row(const Reading& one, int row) {
        const Window& w = one.source->window;
        const int64_t kernel_row = int64_t(one.source->across.span) * block_.padded;
        const int down = row + w.padding[0];
        std::vector<std::pair<int, int>>& found = found_;  // output row and kernel row
        found.clear();
        for (int ky = 0; ky < w.kernel[0]; ky++) {
            const int below = down - ky * w.dilation[0], y = below / w.stride[0];
            if (below >= 0 && below % w.stride[0] == 0 && y >= top_ && y < bottom_) found.push_back({y, ky});
        }
        for (size_t at = 0; at < found.size(); at += REACHED) {
            Reached<Sum> reached;
            reached.count = int(std::min(found.size() - at, size_t(REACHED)));
            reached.first = found[at].second * kernel_row;
            if (reached.count > 1) reached.apart = (found[at + 1].second - found[at].second) * kernel_row;
            for (int step = 0; step < steps_; step++) {
                for (int k = 0; k < reached.count; k++) reached.row[k] = sums(step, found[at + k].first);
                scatter_step(one, row, step, reached);
            }
        }
    }

    std::vector<std::pair<int, int>> found_;

    void scatter_step(const Reading& one, int row, int step, const Reached<Sum>& reached) {
        const Events& events = *one.events;
        Scattering s{one.list, nullptr, events.shift[one.fours], nullptr, events.scatter_row, one.column, one.phase,
                     one.source->across.span * block_.padded / LANES};
        for (int plane = 0; plane < one.value->planes; plane++) {
            const uint8_t* bits = share_.bits(*one.value, step, plane, row);
            s.end = list_row(*one.value, events, places(one.fours), one.fours, bits, one.list);
            s.table = events.scatter[one.fours].data() + (plane * events.scatter_row << s.shift);
            scatter_list(s, reached);
        }
    }

    // Lists of the input rows that output row y needs, then each output on its own.
    void gather(Reading& one, int y) {
        for (const int last = one.last_row(y); one.next <= last; one.next++) list(one, one.next);
        const Window& w = one.source->window;
        const Events& events = *one.events;
        const bool narrow = !one.fours && !events.narrow.empty();
        const int64_t bytes = (narrow ? 1 : 2) * block_.padded;
        const uint8_t* table = narrow ? reinterpret_cast<const uint8_t*>(events.narrow.data())
                                      : reinterpret_cast<const uint8_t*>(events.gather[one.fours].data());
        Gathering g{nullptr, steps_, 0, one.value->shape.width, w.kernel[1], w.stride[1], w.padding[1],
                    events.shift[one.fours], bytes, INT16_MAX / std::max(1, events.largest[one.fours])};
        for (int o = 0; o < block_.padded; o += 8 * LANES) {
            find_rows(one, y, table + (narrow ? o : 2 * o), g);
            const int vectors = std::min(block_.padded - o, 8 * LANES) / LANES;
            Sum* to = sums(0, y) + int64_t(op_.margin) * block_.padded + o;
            const int64_t apart = int64_t(op_.ring) * row_;
            if (narrow) gather_vectors<true>(vectors, g, out_.shape.width, to, block_.padded, apart);
            else gather_vectors<false>(vectors, g, out_.shape.width, to, block_.padded, apart);
        }
    }

    std::vector<Listed> listed_;

    void find_rows(const Reading& one, int y, const uint8_t* table, Gathering& g) {
        const Window& w = one.source->window;
        const int64_t apart = int64_t(one.value->planes) * w.kernel[1] << g.shift;  // rows of weights for a kernel row
        listed_.clear();
        for (int step = 0; step < steps_; step++)
            for (int ky = 0; ky < w.kernel[0]; ky++) {
                const int64_t row = one.first_row(y) + int64_t(ky) * w.dilation[0];
                if (row < 0 || row >= one.value->shape.height) continue;
                const int64_t place = int64_t(step) * one.rows + row % one.rows;
                listed_.push_back({one.list + place * one.room, one.starts + place * (one.value->shape.width + 1),
                                   table + ky * apart * g.row_bytes});
            }
        g.listed = listed_.data();
        g.rows = int(listed_.size()) / steps_;
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

    // What comes as numbers: into the part that is the same at each step, or into the sums.
    void add_numbers(int y) {
        const int width = out_.shape.width, padded = block_.padded;
        if (still_)
            for (int x = 0; x < width; x++) std::memcpy(still_ + x * padded, block_.still_bias.data(), 4 * padded);
        for (const Map& one : maps_) {
            int32_t* to = target(one.still, one.step, y);
            if (one.dense.wide.empty()) dense_row(whole_row(one, one.dense.exact, y), to);
            else dense_row(whole_row(one, one.dense.wide, y), to);
        }
        for (const Term& one : terms_) {
            int32_t* to = target(one.still, one.step, y);
            for (int x = 0; x < width; x++) {
                const int32_t* from = one.from + (int64_t(y) * width + x) * out_.shape.channels + block_.first;
                for (int o = 0; o < block_.count; o++) to[x * padded + place_of(o)] += from[o];
            }
        }
    }

    template <class F> DenseRow<F> whole_row(const Map& one, const Table<F>& table, int y) const {
        const Window& w = one.source.window;
        const int64_t across = share_.value(one.source.value).shape.width + 2 * w.padding[1];
        const F* map = static_cast<const F*>(one.map) + y * w.stride[0] * across * one.dense.channels;
        return {table.data(), map, one.dense.tap.data(), int(one.dense.tap.size()), block_.padded, out_.shape.width,
                int64_t(w.stride[1]) * one.dense.channels};
    }

    static int place_of(int o) { return o - o % LANES + o % LANES / 2 + o % 2 * HALF; }

    int32_t* target(bool still, int step, int y) {
        if (still) return still_;
        if constexpr (sizeof(Sum) == 4) return sums(step, y) + op_.margin * block_.padded;
        std::abort();  // the plan keeps 16 bits for events alone
    }

    void finish(int y) {
        Row row{nullptr, biases(), int64_t(op_.ring) * row_, still_, {}, y};
        for (const Diagonal& one : block_.diagonals) {
            const Value& value = share_.value(one.value);
            for (int plane = 0; plane < value.planes; plane++)
                row.directs.push_back(
                    {share_.bits(value, 0, plane, y), value.step(), value.position, one.weight.data(), plane});
        }
        if (steps_) row.sums = sums(0, y) + op_.margin * block_.padded;
        if (op_.what == What::current) steps_ ? current_row<Sum>(share_, op_, block_, row)
                                              : current_row<Nothing>(share_, op_, block_, row);
        else steps_ ? fire<Sum>(share_, op_, block_, row) : fire<Nothing>(share_, op_, block_, row);
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

// ---- counts --------------------------------------------------------------------------------------------------------

inline int64_t ones(const uint8_t* from, int64_t bytes) {
    int64_t found = 0;
    for (int64_t at = 0; at < bytes; at += 8) found += __builtin_popcountll(load<uint64_t>(from + at));
    return found;
}

inline int64_t either(const uint8_t* from, const uint8_t* other, int64_t bytes) {
    int64_t found = 0;
    for (int64_t at = 0; at < bytes; at += 8)
        found += __builtin_popcountll(load<uint64_t>(from + at) | load<uint64_t>(other + at));
    return found;
}

// Adds `worth` to a byte for each bit that is set, of steps that lie `apart`.
inline void add_steps(const uint8_t* from, int64_t bytes, int64_t apart, int steps, uint8_t worth, uint8_t* map) {
#if defined(SNNKD_AVX512)
    const __m512i each = _mm512_set1_epi8(char(worth));
    for (int64_t at = 0; at < bytes; at += 8, map += 64) {
        __m512i sum = _mm512_loadu_si512(map);
        for (int step = 0; step < steps; step++)
            sum = _mm512_mask_add_epi8(sum, load<uint64_t>(from + step * apart + at), sum, each);
        _mm512_storeu_si512(map, sum);
    }
#else
    const uint64_t* bytes_of = spread_bits();
    for (int64_t at = 0; at < bytes; at++, map += 8) {
        uint64_t sum = 0;
        for (int step = 0; step < steps; step++) sum += bytes_of[from[step * apart + at]];
        set(map, get<uint64_t>(map) + sum * worth);
    }
#endif
}

// The sum of products; those of `most` numbers fit 32 bits.
template <class Factor> inline int64_t weigh(const uint8_t* map, const Factor* table, int64_t size, int64_t most) {
    int64_t total = 0;
    for (int64_t from = 0; from < size; from += most) {
        const int64_t to = std::min(size, from + most);
        int64_t at = from;
        int32_t sum = 0;
#if defined(SNNKD_AVX512)
        if constexpr (sizeof(Factor) == 2) {
            V32 sums[2] = {};
            for (; at + 64 <= to; at += 64)
                for (int half = 0; half < 2; half++) {
                    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(map + at + 32 * half));
                    const __m512i factors = _mm512_loadu_si512(table + at + 32 * half);
                    sums[half] += V32(_mm512_madd_epi16(_mm512_cvtepu8_epi16(bytes), factors));
                }
            for (int i = 0; i < HALF; i++) sum += sums[0][i] + sums[1][i];
        }
#endif
        for (; at < to; at++) sum += int32_t(map[at]) * table[at];
        total += sum;
    }
    return total;
}

inline void add_bytes(uint8_t* to, const uint8_t* from, int64_t size) {
    for (int64_t at = 0; at < size; at++) to[at] = uint8_t(to[at] + from[at]);
}

constexpr Counters COUNTERS{ones, either, add_steps, weigh<int16_t>, weigh<int32_t>, add_bytes};

}  // namespace snnkd::SNNKD_SET
