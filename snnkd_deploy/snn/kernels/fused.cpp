// A training step's BatchNorm, residual sum, LIF neurons and 2x2 average pool, each way in one pass over memory.
//
// Values lie as (step, sample, row, column, channel), the channels of a position side by side, so that every loop runs
// over whole positions: a chunk of them, small enough for the first-level cache, goes through all steps at once. Of the
// forward pass only its input is kept; the backward pass computes the membranes of a chunk again. Arithmetic is float32,
// also where memory holds bfloat16 (`narrow`). What the neuron computes is defined in lif.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using Index = int64_t;
using Half = uint16_t;  // bfloat16: the upper half of a float

constexpr Index WORKING = 16384;       // floats that all steps of a chunk may take
constexpr Index SHORTEST = 256, LONGEST = 2048;  // floats of one step of a chunk
constexpr int FLUSHED = 8;             // chunks whose sums are added up in float32 before they go to float64

}  // namespace

extern "C" {

struct Job {
    int64_t steps, samples, height, width, channels;
    int32_t still;     // the input is the same at every step, and is there once
    int32_t pool;      // 2x2 average pool behind the neurons
    int32_t narrow, threads;
    int32_t zero, detached, surrogate;  // resets; the place of the surrogate in surrogate.py's list
    float decay, threshold;
    const void *x, *residual;           // of the BatchNorm; current that is added to its output, or null
    const float *mean, *invstd, *gain, *bias;  // by channel
    void *spikes;                       // forward: pooled where `pool`
    void *rates;                        // forward, or null: their mean over time
    void *slopes;                       // its derivative by a constant current; read by snnkd_backward if not null
    const void *grad;                   // backward: by spikes, or by rates where slopes are given
    void *by_current, *by_x;            // gradients; one memory where there is no residual
    float *by_gain, *by_bias;
};

}  // extern "C"

namespace {

inline float widened(float x) { return x; }
inline float widened(Half x) {
    const uint32_t bits = uint32_t(x) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}
inline void put(float& out, float x) { out = x; }
inline void put(Half& out, float x) {  // to the nearest, ties to even; not a number stays one
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    out = Half(x == x ? rounded : 0x7FC0);
}

inline const float* wide(const float* x, float*, Index) { return x; }
inline const float* wide(const Half* x, float* room, Index n) {
    for (Index i = 0; i < n; i++) room[i] = widened(x[i]);
    return room;
}
inline void narrowed(Half* out, const float* x, Index n) {
    for (Index i = 0; i < n; i++) put(out[i], x[i]);
}
inline void narrowed(float* out, const float* x, Index n) {
    if (out != x) std::memcpy(out, x, size_t(n) * sizeof(float));
}
// Where a chunk's values are computed: in place, or in `room` to be narrowed afterwards.
inline float* place(float* out, float*) { return out; }
inline float* place(Half*, float* room) { return room; }

// exp(x) for x <= 0, to about one unit in the last place; loops over it become vector code.
inline float exponential(float x) {
    x = std::max(x, -87.0f);
    const float shifted = x * 1.44269504f + 12582912.0f;
    int32_t power;
    std::memcpy(&power, &shifted, 4);
    const float whole = shifted - 12582912.0f;
    const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    std::memcpy(&bits, &p, 4);
    bits += power << 23;
    std::memcpy(&p, &bits, 4);
    return p;
}

// The surrogates of surrogate.py, at the distance of the membrane from the threshold.
void surrogate(int kind, const float* h, float threshold, float* out, Index n) {
    constexpr float SQUARE = 9.8696044f;
    switch (kind) {
        case 0:
            for (Index i = 0; i < n; i++) {
                const float x = h[i] - threshold;
                out[i] = 1.0f / (1.0f + SQUARE * (x * x));
            }
            break;
        case 1:
            for (Index i = 0; i < n; i++) {
                const float e = exponential(-4.0f * std::fabs(h[i] - threshold));
                out[i] = 4.0f * e / ((1.0f + e) * (1.0f + e));
            }
            break;
        case 2:
            for (Index i = 0; i < n; i++) out[i] = std::max(0.0f, 1.0f - std::fabs(h[i] - threshold));
            break;
        default:
            for (Index i = 0; i < n; i++) out[i] = std::fabs(h[i] - threshold) < 0.5f ? 1.0f : 0.0f;
    }
}

// Memory of one thread, cut into rows that begin at a cache line.
class Room {
  public:
    explicit Room(Index length) : length_((length + 15) / 16 * 16) {}
    ~Room() {
        for (float* one : taken_) std::free(one);
    }
    float* rows(Index count) {
        void* memory = std::aligned_alloc(64, size_t(std::max<Index>(count, 1) * length_) * sizeof(float));
        if (memory == nullptr) std::abort();
        taken_.push_back(static_cast<float*>(memory));
        std::memset(memory, 0, size_t(std::max<Index>(count, 1) * length_) * sizeof(float));
        return taken_.back();
    }
    Index length() const { return length_; }

  private:
    const Index length_;
    std::vector<float*> taken_;
};

void tile(const float* channel, Index channels, float* out, Index length) {
    for (Index i = 0; i < length; i += channels)
        std::memcpy(out + i, channel, size_t(std::min(channels, length - i)) * sizeof(float));
}

// How the values of a step fall into chunks of whole positions: of the step, or (pool) of two rows of a sample.
struct Cut {
    Index channels, positions, pieces, count;  // positions of a full chunk; pieces in a row; chunks
    Index line;                                // positions that are cut: of the step, or of an even part of a row

    Cut(const Job& job, Index working) : channels(job.channels) {
        const Index whole = job.samples * job.height * job.width;
        line = job.pool ? job.width / 2 * 2 : whole;
        const Index wanted = std::clamp(working / job.steps, SHORTEST, LONGEST) / channels;
        positions = std::max<Index>(job.pool ? 2 : 1, job.pool ? wanted / 2 * 2 : wanted);
        positions = std::min(positions, std::max<Index>(line, 1));
        pieces = (line + positions - 1) / positions;
        count = job.pool ? job.samples * (job.height / 2) * pieces : pieces;
    }
    Index longest() const { return positions * channels; }
};

struct Chunk {
    Index rows, length;       // values of each row
    Index start[2], pooled;   // where they begin within a step, and where what they are pooled to begins

    Chunk(const Job& job, const Cut& cut, Index number) {
        const Index first = number % cut.pieces * cut.positions, pair = number / cut.pieces;
        rows = job.pool ? 2 : 1;
        length = std::min(cut.positions, cut.line - first) * cut.channels;
        if (!job.pool) {
            start[0] = pooled = first * cut.channels;
            return;
        }
        const Index sample = pair / (job.height / 2), row = pair % (job.height / 2);
        for (Index i = 0; i < 2; i++)
            start[i] = ((sample * job.height + 2 * row + i) * job.width + first) * cut.channels;
        pooled = (pair * (job.width / 2) + first / 2) * cut.channels;
    }
};

Index step_size(const Job& job) { return job.samples * job.height * job.width * job.channels; }
Index pooled_size(const Job& job) {
    return job.pool ? job.samples * (job.height / 2) * (job.width / 2) * job.channels : step_size(job);
}

// Means over 2x2 of two rows; `out` has half as many values as a row.
void average(const float* upper, const float* lower, Index length, Index channels, float* out) {
    for (Index i = 0; i < length; i += 2 * channels, out += channels)
        for (Index c = 0; c < channels; c++)
            out[c] = 0.25f * ((upper[i + c] + upper[i + channels + c]) + (lower[i + c] + lower[i + channels + c]));
}

// The gradient of a row from that of what it was pooled to.
template <class Value>
void spread(const Value* grad, Index length, Index channels, float* out) {
    for (Index i = 0; i < length; i += 2 * channels, grad += channels)
        for (Index c = 0; c < channels; c++) out[i + c] = out[i + channels + c] = 0.25f * widened(grad[c]);
}

// The per-channel values of the BatchNorm, repeated over a chunk.
struct Norm {
    float *scale, *shift, *mean;

    Norm(const Job& job, Room& room, Index length) : scale(room.rows(1)), shift(room.rows(1)), mean(room.rows(1)) {
        std::vector<float> scales(job.channels), shifts(job.channels);
        for (Index c = 0; c < job.channels; c++) {
            scales[c] = job.invstd[c] * (job.gain ? job.gain[c] : 1.0f);
            shifts[c] = (job.bias ? job.bias[c] : 0.0f) - job.mean[c] * scales[c];
        }
        tile(scales.data(), job.channels, scale, length);
        tile(shifts.data(), job.channels, shift, length);
        tile(job.mean, job.channels, mean, length);
    }
};

// h = decay * v + current; v is overwritten with h.
void charge(const Norm& norm, const float* x, const float* residual, float decay, float* v, Index n) {
    if (residual == nullptr)
        for (Index i = 0; i < n; i++) v[i] = decay * v[i] + (norm.scale[i] * x[i] + norm.shift[i]);
    else
        for (Index i = 0; i < n; i++)
            v[i] = decay * v[i] + ((norm.scale[i] * x[i] + norm.shift[i]) + residual[i]);
}

void fire(const float* h, float threshold, bool zero, float* v, float* spikes, Index n) {
    if (zero)
        for (Index i = 0; i < n; i++) {
            const bool fired = h[i] > threshold;
            spikes[i] = fired ? 1.0f : 0.0f;
            v[i] = fired ? 0.0f : h[i];
        }
    else
        for (Index i = 0; i < n; i++) {
            const bool fired = h[i] > threshold;
            spikes[i] = fired ? 1.0f : 0.0f;
            v[i] = fired ? h[i] - threshold : h[i];
        }
}

// The derivative of the spikes by a constant current: see `sensitivity` in rate.py.
void follow(const Job& job, const float* h, const float* slope, float* tangent, float* total, Index n) {
    const float share = 1.0f / float(job.steps);
    for (Index i = 0; i < n; i++) {
        const float spike = h[i] > job.threshold ? 1.0f : 0.0f;
        const float now = job.decay * tangent[i] + 1.0f;
        float left = job.zero ? 1.0f - spike : 1.0f;
        if (!job.detached) left -= (job.zero ? h[i] : job.threshold) * slope[i];
        total[i] += share * (now * slope[i]);
        tangent[i] = now * left;
    }
}

template <class Value>
class Forward {
  public:
    Forward(const Job& job, const Cut& cut)
        : job_(job), cut_(cut), room_(cut.longest()), norm_(job, room_, cut.longest()), size_(step_size(job)),
          wide_(room_.rows(1)), more_(room_.rows(1)), slope_(room_.rows(1)), pooled_(room_.rows(1)), v_(room_.rows(2)),
          spikes_(room_.rows(2)), tangent_(room_.rows(2)), total_(room_.rows(2)), sums_(room_.rows(2)) {}

    void run(Index number) {
        const Chunk chunk(job_, cut_, number);
        const Index n = chunk.length, apart = room_.length();
        for (float* one : {v_, tangent_, total_, sums_}) std::memset(one, 0, size_t(2 * apart) * sizeof(float));
        for (Index t = 0; t < job_.steps; t++) {
            Value* out = static_cast<Value*>(job_.spikes) + t * pooled_size(job_) + chunk.pooled;
            for (Index row = 0; row < chunk.rows; row++) {
                float* spikes = job_.pool ? spikes_ + row * apart : place(out, spikes_);
                step(t, chunk.start[row], row * apart, spikes, n);
            }
            if (job_.pool) {
                float* means = place(out, pooled_);
                average(spikes_, spikes_ + apart, n, job_.channels, means);
                narrowed(out, means, n / 2);
            } else {
                narrowed(out, place(out, spikes_), n);
            }
        }
        if (job_.rates != nullptr) finish(chunk);
    }

  private:
    void step(Index t, Index start, Index row, float* spikes, Index n) {
        const Index at = start + (job_.still ? 0 : t * size_);
        const float* x = wide(static_cast<const Value*>(job_.x) + at, wide_, n);
        const float* residual = nullptr;
        if (job_.residual) residual = wide(static_cast<const Value*>(job_.residual) + start + t * size_, more_, n);
        float* v = v_ + row;
        charge(norm_, x, residual, job_.decay, v, n);
        if (job_.rates != nullptr) {
            surrogate(job_.surrogate, v, job_.threshold, slope_, n);
            follow(job_, v, slope_, tangent_ + row, total_ + row, n);
        }
        fire(v, job_.threshold, job_.zero, v, spikes, n);
        if (job_.rates != nullptr)
            for (Index i = 0; i < n; i++) sums_[row + i] += spikes[i];
    }

    void finish(const Chunk& chunk) {
        const Index n = chunk.length, apart = room_.length();
        const float share = 1.0f / float(job_.steps);
        for (Index row = 0; row < chunk.rows; row++)
            narrowed(static_cast<Value*>(job_.slopes) + chunk.start[row], total_ + row * apart, n);
        const float* means = sums_;
        if (job_.pool) average(sums_, sums_ + apart, n, job_.channels, pooled_), means = pooled_;
        Value* out = static_cast<Value*>(job_.rates) + chunk.pooled;
        for (Index i = 0; i < (job_.pool ? n / 2 : n); i++) put(out[i], share * means[i]);
    }

    const Job& job_;
    const Cut& cut_;
    Room room_;
    const Norm norm_;
    const Index size_;
    float *wide_, *more_, *slope_, *pooled_, *v_, *spikes_, *tangent_, *total_, *sums_;
};

// dL/dh from dL/ds (g) and from dL/dv behind the reset (after): see `_sweep_back` in lif.py.
template <bool ZERO, bool DETACHED>
void descend(const float* h, const float* g, const float* slope, float threshold, float decay, float* after, float* out,
             Index n) {
    for (Index i = 0; i < n; i++) {
        float by_spike = g[i], kept = after[i];
        if (!DETACHED) by_spike -= (ZERO ? h[i] : threshold) * after[i];
        if (ZERO) kept = h[i] > threshold ? 0.0f : kept;
        const float d = by_spike * slope[i] + kept;
        out[i] = d;
        after[i] = d * decay;
    }
}

template <class Value>
class Backward {
  public:
    std::vector<double> by_bias, by_gain;  // sums over positions of d, and of d * (x - mean), by channel

    Backward(const Job& job, const Cut& cut)
        : by_bias(job.channels), by_gain(job.channels), job_(job), cut_(cut), room_(cut.longest()),
          norm_(job, room_, cut.longest()), size_(step_size(job)), wide_(room_.rows(1)), more_(room_.rows(1)),
          v_(room_.rows(1)), spikes_(room_.rows(1)), slope_(room_.rows(1)), g_(room_.rows(1)), after_(room_.rows(1)),
          d_(room_.rows(1)), whole_(room_.rows(1)), sum_(room_.rows(1)), product_(room_.rows(1)),
          h_(room_.rows(job.steps)) {}

    void run(Index number) {
        const Chunk chunk(job_, cut_, number);
        for (Index row = 0; row < chunk.rows; row++) {
            if (job_.slopes != nullptr)
                scale(chunk, chunk.start[row]);
            else
                sweep(chunk, chunk.start[row]);
        }
        if (++pending_ == FLUSHED) flush();
    }

    void flush() {
        for (Index i = 0; i < cut_.longest(); i += job_.channels)
            for (Index c = 0; c < job_.channels; c++) {
                by_bias[c] += sum_[i + c];
                by_gain[c] += product_[i + c];
            }
        std::memset(sum_, 0, size_t(room_.length()) * sizeof(float));
        std::memset(product_, 0, size_t(room_.length()) * sizeof(float));
        pending_ = 0;
    }

  private:
    const float* input(Index t, Index start, Index n) {
        return wide(static_cast<const Value*>(job_.x) + start + (job_.still ? 0 : t * size_), wide_, n);
    }

    const float* gradient(Index t, const Chunk& chunk, Index start) {
        if (!job_.pool) return wide(static_cast<const Value*>(job_.grad) + t * size_ + start, g_, chunk.length);
        const Value* grad = static_cast<const Value*>(job_.grad) + t * pooled_size(job_) + chunk.pooled;
        spread(grad, chunk.length, job_.channels, g_);
        return g_;
    }

    void add(const float* d, const float* x, Index n) {
        for (Index i = 0; i < n; i++) {
            sum_[i] += d[i];
            product_[i] += d[i] * (x[i] - norm_.mean[i]);
        }
    }

    void sweep(const Chunk& chunk, Index start) {
        const Index n = chunk.length, apart = room_.length();
        std::memset(v_, 0, size_t(n) * sizeof(float));
        for (Index t = 0; t < job_.steps; t++) {
            const float* residual = nullptr;
            if (job_.residual) residual = wide(static_cast<const Value*>(job_.residual) + start + t * size_, more_, n);
            charge(norm_, input(t, start, n), residual, job_.decay, v_, n);
            std::memcpy(h_ + t * apart, v_, size_t(n) * sizeof(float));
            fire(v_, job_.threshold, job_.zero, v_, spikes_, n);
        }
        std::memset(after_, 0, size_t(n) * sizeof(float));
        std::memset(whole_, 0, size_t(n) * sizeof(float));
        for (Index t = job_.steps; t-- > 0;) {
            Value* out = static_cast<Value*>(job_.by_current) + start + t * size_;
            const bool kept = !job_.still || job_.residual;  // whether each step's own is asked for
            float* d = kept ? place(out, d_) : d_;
            step(h_ + t * apart, gradient(t, chunk, start), d, n);
            if (kept) narrowed(out, d, n);
            if (job_.still)
                for (Index i = 0; i < n; i++) whole_[i] += d[i];
            else
                add(d, input(t, start, n), n);
        }
        if (job_.still) {
            add(whole_, input(0, start, n), n);
            narrowed(static_cast<Value*>(job_.by_x) + start, whole_, n);
        }
    }

    void step(const float* h, const float* g, float* d, Index n) {
        surrogate(job_.surrogate, h, job_.threshold, slope_, n);
        const auto one = job_.zero ? (job_.detached ? descend<true, true> : descend<true, false>)
                                   : (job_.detached ? descend<false, true> : descend<false, false>);
        one(h, g, slope_, job_.threshold, job_.decay, after_, d, n);
    }

    // Mean rates: what the neurons do to the gradient is known.
    void scale(const Chunk& chunk, Index start) {
        const Index n = chunk.length;
        const float* g = gradient(0, chunk, start);
        const float* slope = wide(static_cast<const Value*>(job_.slopes) + start, slope_, n);
        Value* out = static_cast<Value*>(job_.by_current) + start;
        float* d = place(out, d_);
        for (Index i = 0; i < n; i++) d[i] = g[i] * slope[i];
        add(d, input(0, start, n), n);
        narrowed(out, d, n);
    }

    const Job& job_;
    const Cut& cut_;
    Room room_;
    const Norm norm_;
    const Index size_;
    float *wide_, *more_, *v_, *spikes_, *slope_, *g_, *after_, *d_, *whole_, *sum_, *product_, *h_;
    int pending_ = 0;
};

// work(worker, i) for i from 0 to count - 1; each thread makes a worker of its own. Their order is that of the threads.
template <class Make, class Work>
auto in_parallel(Index count, int threads, const Make& make, const Work& work) {
    using Worker = decltype(make());
    std::vector<Worker> workers(static_cast<size_t>(threads));
#pragma omp parallel num_threads(threads)
    {
#ifdef _OPENMP
        const int number = omp_get_thread_num(), all = omp_get_num_threads();
#else
        const int number = 0, all = 1;
#endif
        workers[size_t(number)] = make();
        for (Index i = count * number / all; i < count * (number + 1) / all; i++) work(*workers[size_t(number)], i);
    }
    return workers;
}

int useful(Index values, int threads) { return values < 8192 ? 1 : std::max(1, threads); }

template <class Value>
void forward(const Job& job) {
    const Cut cut(job, LONGEST * job.steps);
    in_parallel(
        cut.count, useful(step_size(job) * job.steps, job.threads),
        [&] { return std::make_unique<Forward<Value>>(job, cut); }, [](auto& one, Index i) { one.run(i); });
}

// dL/dx of the BatchNorm: gain * invstd * (d - mean(d) - (x - mean) * invstd^2 * mean(d * (x - mean))).
template <class Value>
void renormalised(const Job& job, const std::vector<double>& sums, const std::vector<double>& products) {
    const Index channels = job.channels, steps = job.still || job.slopes ? 1 : job.steps;
    const Index total = step_size(job) * steps;
    const double count = double(total / channels);
    std::vector<float> factor(channels), level(channels), along(channels);
    for (Index c = 0; c < channels; c++) {
        const double invstd = job.invstd[c], scale = invstd * (job.gain ? job.gain[c] : 1.0);
        factor[c] = float(scale);
        level[c] = float(scale * sums[c] / count);
        along[c] = float(scale * invstd * invstd * products[c] / count);
    }
    const Index length = std::max<Index>(1, LONGEST / channels) * channels;
    Room room(length);
    float *factors = room.rows(1), *levels = room.rows(1), *alongs = room.rows(1), *means = room.rows(1);
    tile(factor.data(), channels, factors, length);
    tile(level.data(), channels, levels, length);
    tile(along.data(), channels, alongs, length);
    tile(job.mean, channels, means, length);
    const Value* x = static_cast<const Value*>(job.x);
    const Value* d = static_cast<const Value*>(job.still ? job.by_x : job.by_current);
    Value* out = static_cast<Value*>(job.by_x);
    const Index chunks = (total + length - 1) / length;
    const int threads = useful(total, job.threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (Index chunk = 0; chunk < chunks; chunk++) {
        const Index start = chunk * length, n = std::min(length, total - start);
        for (Index i = 0; i < n; i++)
            put(out[start + i], factors[i] * widened(d[start + i]) - levels[i] -
                                    alongs[i] * (widened(x[start + i]) - means[i]));
    }
}

template <class Value>
void backward(const Job& job) {
    const Cut cut(job, WORKING);
    const Index steps = job.slopes ? 1 : job.steps, size = step_size(job);
    if (job.pool && (job.height % 2 || job.width % 2)) {  // neurons that no pool reads
        if (!job.still || job.residual) std::memset(job.by_current, 0, size_t(steps * size) * sizeof(Value));
        if (job.still) std::memset(job.by_x, 0, size_t(size) * sizeof(Value));
    }
    const auto workers = in_parallel(
        cut.count, useful(size * steps, job.threads), [&] { return std::make_unique<Backward<Value>>(job, cut); },
        [](auto& one, Index i) { one.run(i); });
    std::vector<double> sums(job.channels), products(job.channels);
    for (const auto& one : workers) {
        if (!one) continue;
        one->flush();
        for (Index c = 0; c < job.channels; c++) sums[c] += one->by_bias[c], products[c] += one->by_gain[c];
    }
    for (Index c = 0; c < job.channels; c++) {
        job.by_bias[c] = float(sums[c]);
        job.by_gain[c] = float(products[c] * job.invstd[c]);
    }
    renormalised<Value>(job, sums, products);
}

// Sums over rows of x - shift and of its square, by channel; shift is close to the mean, so that little cancels.
template <class Value>
struct Sums {
    std::vector<double> sum, square;

    Sums(Index channels, Index length, const float* shift)
        : sum(channels), square(channels), channels_(channels), room_(length), shift_(shift), one_(room_.rows(1)),
          two_(room_.rows(1)) {}

    void add(const Value* x, Index n) {
        for (Index i = 0; i < n; i++) {
            const float off = widened(x[i]) - shift_[i];
            one_[i] += off;
            two_[i] += off * off;
        }
        used_ = std::max(used_, n);
        if (++pending_ == FLUSHED) flush();
    }

    void flush() {
        for (Index i = 0; i < used_; i += channels_)
            for (Index c = 0; c < channels_; c++) sum[c] += one_[i + c], square[c] += two_[i + c];
        std::memset(one_, 0, size_t(used_) * sizeof(float));
        std::memset(two_, 0, size_t(used_) * sizeof(float));
        pending_ = 0;
    }

  private:
    const Index channels_;
    Room room_;
    const float* shift_;
    float *one_, *two_;
    Index used_ = 0;
    int pending_ = 0;
};

constexpr Index PROBES = 64;  // rows, spread over all, whose mean is the shift

template <class Value>
void statistics(const Value* x, Index rows, Index channels, int threads, float* mean, float* variance) {
    const Index length = std::max<Index>(1, LONGEST / channels) * channels, total = rows * channels;
    const Index probes = std::min(PROBES, rows);
    std::vector<float> shift(channels);
    for (Index probe = 0; probe < probes; probe++)
        for (Index c = 0; c < channels; c++)
            shift[c] += widened(x[probe * rows / probes * channels + c]) / float(probes);
    Room room(length);
    float* shifts = room.rows(1);
    tile(shift.data(), channels, shifts, length);
    const auto workers = in_parallel(
        (total + length - 1) / length, useful(total, threads),
        [&] { return std::make_unique<Sums<Value>>(channels, length, shifts); },
        [&](auto& one, Index i) { one.add(x + i * length, std::min(length, total - i * length)); });
    std::vector<double> sum(channels), square(channels);
    for (const auto& one : workers) {
        if (!one) continue;
        one->flush();
        for (Index c = 0; c < channels; c++) sum[c] += one->sum[c], square[c] += one->square[c];
    }
    for (Index c = 0; c < channels; c++) {
        const double off = sum[c] / double(rows);
        mean[c] = float(shift[c] + off);
        variance[c] = float(std::max(0.0, square[c] / double(rows) - off * off));
    }
}

}  // namespace

extern "C" {

// Mean and (biased) variance of each channel.
void snnkd_statistics(const void* x, int64_t rows, int64_t channels, int32_t narrow, int32_t threads, float* mean,
                      float* variance) {
    if (narrow)
        statistics(static_cast<const Half*>(x), rows, channels, threads, mean, variance);
    else
        statistics(static_cast<const float*>(x), rows, channels, threads, mean, variance);
}

void snnkd_forward(const Job* job) { job->narrow ? forward<Half>(*job) : forward<float>(*job); }

void snnkd_backward(const Job* job) { job->narrow ? backward<Half>(*job) : backward<float>(*job); }

}  // extern "C"
