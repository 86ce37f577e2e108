// The library behind snnkd_native.h: which instruction set runs, how samples are shared among threads, and errors.
#include "snnkd_native.h"

#include <unistd.h>

#include <exception>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "build.hpp"
#include "tally.hpp"
#include "team.hpp"

#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed to functions of this file alone

#define SNNKD_SET portable
#define SNNKD_WIDTH 16
#include "kernels.hpp"
#undef SNNKD_SET
#undef SNNKD_WIDTH

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,popcnt,lzcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt,lzcnt")
#endif
#define SNNKD_SET avx2
#define SNNKD_WIDTH 32
#define SNNKD_AVX2
#include "kernels.hpp"
#undef SNNKD_SET
#undef SNNKD_WIDTH
#undef SNNKD_AVX2
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,avx2,fma,bmi,bmi2,popcnt,lzcnt"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,fma,bmi,bmi2,popcnt,lzcnt")
#endif
#define SNNKD_SET avx512
#define SNNKD_WIDTH 64
#define SNNKD_AVX512
#include "kernels.hpp"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

namespace snnkd {

struct Instructions {
    const char* name;
    int lanes;
    const Counters& counters;
    bool (*here)();
};

// From the narrowest to the widest.
const std::vector<Instructions>& instruction_sets() {
    static const std::vector<Instructions> all = {
        {"portable", portable::LANES, portable::COUNTERS, [] { return true; }},
#if defined(__x86_64__)
        {"avx2", avx2::LANES, avx2::COUNTERS,
         [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
        {"avx512", avx512::LANES, avx512::COUNTERS,
         [] { return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi2"); }},
#endif
    };
    return all;
}

void run_operation(const Share& share, const Operation& op) {
    if (op.what != What::fire && op.what != What::current) {
        share.scratch.clear();
        return run_plain(share, op);
    }
#if defined(__x86_64__)
    if (op.lanes == avx512::LANES) return avx512::run_population(share, op);
    if (op.lanes == avx2::LANES) return avx2::run_population(share, op);
#endif
    portable::run_population(share, op);
}

// Everything behind the input, which is read already.
void run_sample(const Share& share) {
    for (const Operation& op : share.plan.operations)
        if (op.what != What::read) run_operation(share, op);
}

template <class T> bool read_input(const Share& share, const void* samples, int64_t index) {
    const Operation& op = share.plan.operations[0];
    const Node& node = *op.node;
    const int64_t size = node.sample.size() * (node.still ? 1 : share.plan.network.timesteps);
    return read_sample(share, op, static_cast<const T*>(samples) + index * size);
}

// ---- is a wider instruction set right? ------------------------------------------------------------------------------

// A small network of every kind of operation, with numbers from a fixed sequence.
class Sample {
  public:
    Sample() {
        network_.timesteps = 5;
        Node input = node(Kind::input, {}, {3, 9, 10});
        input.still = true;
        input.sample = input.shape;
        input.high = 255;
        add(input);
        int last = neuron(synapses(0, {20, 9, 10}, 3, 1, 1, 1), Reset::zero, 1, {1});
        const int skip = last;
        last = synapses(last, {40, 5, 5}, 3, 2, 1, 1);
        const int beside = synapses(skip, {40, 5, 5}, 1, 2, 0, 1);
        Node sum = node(Kind::add, {last, beside}, {40, 5, 5});
        last = neuron(add(sum), Reset::subtract, 12, {3000});
        last = neuron(synapses(last, {40, 5, 5}, 1, 1, 0, 40), Reset::subtract_late, 0, {1});
        last = pool(Kind::sum_pool, last, {40, 4, 4}, 4);
        last = neuron(synapses(last, {72, 4, 4}, 3, 1, 1, 4), Reset::none, 2, {1});
        last = pool(Kind::max_pool, last, {72, 3, 3}, 1);
        Node flat = node(Kind::flatten, {last}, {648, 1, 1});
        last = add(flat);
        last = neuron(synapses(last, {300, 1, 1}, 1, 1, 0, 1), Reset::zero, 3, {5});
        Node end = node(Kind::output, {synapses(last, {10, 1, 1}, 1, 1, 0, 1)}, {10, 1, 1});
        add(end);
    }

    const Network& network() const { return network_; }

    std::vector<uint8_t> picture() {
        std::vector<uint8_t> pixels(network_.nodes[0].shape.size());
        for (uint8_t& one : pixels) one = uint8_t(random());
        return pixels;
    }

  private:
    Network network_;
    uint32_t state_ = 1;

    uint32_t random() {
        state_ = state_ * 1664525u + 1013904223u;
        return state_ >> 16;
    }

    Node node(Kind kind, std::vector<int> inputs, Shape shape) {
        Node made{};
        made.kind = kind;
        made.inputs = std::move(inputs);
        made.shape = shape;
        made.low = -1 << 20;
        made.high = kind == Kind::neuron ? 1 : 1 << 20;
        if (kind == Kind::neuron) made.low = 0;
        return made;
    }

    int add(const Node& made) {
        network_.nodes.push_back(made);
        return int(network_.nodes.size()) - 1;
    }

    int synapses(int from, Shape shape, int kernel, int stride, int padding, int groups) {
        Node made = node(Kind::synapses, {from}, shape);
        for (int axis = 0; axis < 2; axis++) {
            made.window.kernel[axis] = kernel;
            made.window.stride[axis] = stride;
            made.window.padding[axis] = padding;
        }
        made.groups = groups;
        made.weight.resize(size_t(shape.channels) * network_.nodes[from].shape.channels / groups * kernel * kernel);
        for (int8_t& one : made.weight) one = int8_t(random() % 255 - 127);
        if (groups < shape.channels) made.bias.resize(shape.channels);
        for (int32_t& one : made.bias) one = int32_t(random() % 200) - 60;
        made.bias.resize(shape.channels);
        const bool few = from > 0 && made.weight.size() / shape.channels < 200;
        if (few) made.low = INT16_MIN / 2, made.high = INT16_MAX / 2;
        return add(made);
    }

    int neuron(int from, Reset reset, int bits, std::vector<int32_t> leak) {
        Node made = node(Kind::neuron, {from}, network_.nodes[from].shape);
        made.reset = reset;
        made.leak_bits = bits;
        made.fraction_bits = 6;
        made.own = made.shape.channels;
        made.membrane = 1 << 20;
        made.leak = std::move(leak);
        made.current_bits = reset == Reset::none ? 3 : 0;
        made.current = {reset == Reset::none ? 5 : 0};
        for (int c = 0; c < made.shape.channels; c++) made.threshold.push_back(int32_t(random() % 300) + 20);
        return add(made);
    }

    int pool(Kind kind, int from, Shape shape, int high) {
        Node made = node(kind, {from}, shape);
        made.window.kernel[0] = made.window.kernel[1] = 2;
        made.low = 0;
        made.high = high;
        return add(made);
    }
};

// All values of the sample network, as these lanes compute them.
Table<uint8_t> computed(int lanes) {
    Sample sample;
    const std::vector<uint8_t> picture = sample.picture();
    const Plan plan = Builder(sample.network(), lanes).build();
    Table<uint8_t> arena(plan.arena);
    Scratch scratch;
    const Share share{plan, arena.data(), scratch, 0, 1, nullptr, nullptr};
    read_input<uint8_t>(share, picture.data(), 0);
    run_sample(share);
    return arena;
}

// Looked at once in a process.
bool agrees(const Instructions& one) {
    static std::mutex mutex;
    static std::vector<std::pair<const Instructions*, bool>> known;
    std::lock_guard<std::mutex> lock(mutex);
    for (const auto& [set, sound] : known)
        if (set == &one) return sound;
    const Table<uint8_t> expected = computed(portable::LANES), met = computed(one.lanes);
    const bool sound = expected.size() == met.size() && !std::memcmp(expected.data(), met.data(), met.size());
    known.push_back({&one, sound});
    return sound;
}

// The widest that is here and computes what the portable code computes; or the one that was asked for.
const Instructions& chosen(const char* asked) {
    static const Instructions& best = [&]() -> const Instructions& {
        for (size_t i = instruction_sets().size(); i-- > 1;)
            if (instruction_sets()[i].here() && agrees(instruction_sets()[i])) return instruction_sets()[i];
        return instruction_sets()[0];
    }();
    if (!asked) return best;
    std::string names;
    for (const Instructions& one : instruction_sets()) {
        if (!one.here()) continue;
        names += (names.empty() ? "" : ", ") + std::string(one.name);
        if (one.name != std::string(asked)) continue;
        if (!agrees(one)) throw Error(std::string(asked) + " computes something else than the portable code here");
        return one;
    }
    throw Error("no instructions '" + std::string(asked) + "' here; there are " + names);
}

}  // namespace snnkd

// ---- the interface --------------------------------------------------------------------------------------------------

using namespace snnkd;

// Memory of one sample at a time.
struct Workspace {
    Table<uint8_t> arena;
    std::vector<Scratch> scratch;
};

struct snnkd_network {
    Plan plan;
    const Instructions& instructions;
    std::mutex mutex;  // of all below
    std::vector<std::unique_ptr<Workspace>> idle;
    std::unique_ptr<Team> team;
    int process = 0;

    std::unique_ptr<Workspace> workspace(int threads) {
        std::unique_ptr<Workspace> found;
        {
            std::lock_guard<std::mutex> lock(mutex);
            if (!idle.empty()) {
                found = std::move(idle.back());
                idle.pop_back();
            }
        }
        if (!found) {
            found = std::make_unique<Workspace>();
            found->arena.resize(plan.arena);
        }
        if (int(found->scratch.size()) < threads) found->scratch.resize(threads);
        return found;
    }

    void give_back(std::unique_ptr<Workspace> one) {
        std::lock_guard<std::mutex> lock(mutex);
        idle.push_back(std::move(one));
    }
};

namespace {

// What several threads have to know of one run.
class Running {
  public:
    Running(snnkd_network& network, const void* samples, int64_t count, const snnkd_results& results)
        : network_(network), samples_(samples), count_(count), results_(results), factors_(network.plan, results) {}

    Tally tally() const { return Tally(network_.plan, network_.instructions.counters, factors_, results_); }

    // Each thread takes the next sample, until there is none.
    void apart() {
        auto space = network_.workspace(1);
        Tally tally = this->tally();
        const Share share{network_.plan, space->arena.data(), space->scratch[0], 0, 1, reach_of(tally),
                          results_.changes ? tally.changes.data() : nullptr};
        for (int64_t i = next_++; i < count_ && !failed_; i = next_++) {
            if (!read(share, i)) break;
            run_sample(share);
            tally.note(share, i, count_);
        }
        tally.hand_over(mutex_);
        network_.give_back(std::move(space));
    }

    // All threads work on one sample after the other; `stages` are those of all samples.
    void together(Workspace& space, Tally& tally, std::vector<Stage>& stages, int thread, int parts) {
        const std::vector<Operation>& operations = network_.plan.operations;
        const auto share = [&](int part) {
            return Share{network_.plan, space.arena.data(), space.scratch[thread], part, parts, nullptr, nullptr};
        };
        for (int64_t i = 0; i < count_; i++) {
            Stage* stage = &stages[i * (operations.size() + 1)];
            stage->pass(1, [&](int) { guarded([&] { read(share(0), i); }); });
            for (const Operation& op : operations) {
                if (failed_) return;
                if (op.what == What::read) continue;
                (++stage)->pass(parts, [&](int part) { guarded([&] { run_operation(share(part), op); }); });
            }
            (++stage)->pass(1, [&](int) { guarded([&] { tally.note(share(0), i, count_); }); });
        }
    }

    // As `work`, an exception being kept for later.
    template <class F> void guarded(F work) {
        try {
            work();
        } catch (const std::exception& error) {
            fail(error.what());
        }
    }

    void fail(const std::string& why) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!failed_) why_ = why;
        failed_ = true;
    }

    int64_t* reach_of(Tally& tally) const { return results_.reach ? tally.reach.data() : nullptr; }
    std::mutex& mutex() { return mutex_; }
    void check() const {
        if (failed_) throw Error(why_);
    }

  private:
    snnkd_network& network_;
    const void* samples_;
    const int64_t count_;
    const snnkd_results& results_;
    const Factors factors_;
    std::atomic<int64_t> next_{0};
    std::atomic<bool> failed_{false};
    std::mutex mutex_;
    std::string why_;

    bool read(const Share& share, int64_t i) {
        const Node& input = network_.plan.network.nodes[0];
        const bool bytes = input.low >= 0 && input.high <= 255;
        if (bytes ? read_input<uint8_t>(share, samples_, i) : read_input<int32_t>(share, samples_, i)) return true;
        fail("sample " + std::to_string(i) + " leaves " + std::to_string(input.low) + ".." + std::to_string(input.high));
        return false;
    }
};

constexpr int64_t WORTH_SHARING = 1 << 15;  // neurons times steps of a sample, below which waiting costs more

int64_t work_of(const Plan& plan) {
    int64_t work = 0;
    for (const Operation& op : plan.operations)
        if (op.what == What::fire) work += op.node->shape.size() * plan.network.timesteps;
    return work;
}

void run_all(snnkd_network& network, const void* samples, int64_t count, int threads, const snnkd_results& results) {
    Running running(network, samples, count, results);
    const bool few = count < threads && !results.reach && !results.changes;
    if (few && work_of(network.plan) < WORTH_SHARING) threads = 1;
    if (!few) threads = int(std::min<int64_t>(threads, std::max<int64_t>(count, 1)));
    if (threads == 1) {
        running.guarded([&] { running.apart(); });
        return running.check();
    }
    static std::mutex one_team;
    std::unique_lock<std::mutex> turn(one_team);
    if (network.process != getpid()) {  // threads do not survive a fork
        network.team.release();
        network.team = std::make_unique<Team>();
        network.process = getpid();
    }
    if (few) {
        auto space = network.workspace(threads);
        Tally tally = running.tally();
        std::vector<Stage> stages(count * (network.plan.operations.size() + 1));
        network.team->run(threads, [&](int thread) { running.together(*space, tally, stages, thread, threads); });
        tally.hand_over(running.mutex());
        network.give_back(std::move(space));
    } else {
        network.team->run(threads, [&](int) { running.guarded([&] { running.apart(); }); });
    }
    running.check();
}

// Of a value that is kept as planes of bits, how many; else 0.
int bits_of(const Plan& plan, int index) {
    const Value& value = plan.values[index];
    return plan.held[index] && value.form == Form::planes ? value.planes : 0;
}

void tell(char* message, int32_t room, const char* what) {
    if (!message || room < 1) return;
    std::strncpy(message, what, size_t(room) - 1);
    message[room - 1] = 0;
}

}  // namespace

extern "C" {

snnkd_network* snnkd_open(const void* file, uint64_t bytes, const char* instructions, char* message, int32_t room) {
    try {
        const Instructions& set = chosen(instructions);
        Plan plan = Builder(read_network(file, bytes), set.lanes).build();
        return new snnkd_network{std::move(plan), set, {}, {}, {}, 0};
    } catch (const std::exception& error) {
        tell(message, room, error.what());
        return nullptr;
    }
}

void snnkd_close(snnkd_network* network) {
    if (network && network->process != getpid()) network->team.release();
    delete network;
}

snnkd_about snnkd_describe(const snnkd_network* of) {
    const Network& network = of->plan.network;
    const Node& input = network.nodes[0];
    const bool bytes = input.low >= 0 && input.high <= 255;
    return {network.name.c_str(), network.digest.c_str(), of->instructions.name, network.timesteps,
            input.still, int32_t(network.nodes.back().shape.size()),
            int32_t(network.nodes.size()), bytes ? 1 : 4, input.low, input.high,
            input.dimensions, {input.sample.channels, input.sample.height, input.sample.width}};
}

snnkd_node snnkd_node_of(const snnkd_network* of, int32_t index) {
    const Node& node = of->plan.network.nodes[index];
    const bool neurons = node.kind == Kind::neuron;
    return {node.name.c_str(), neurons, node.dimensions, {node.shape.channels, node.shape.height, node.shape.width},
            neurons ? node.own : node.shape.channels, of->plan.held[index], bits_of(of->plan, index)};
}

int snnkd_run(snnkd_network* network, const void* samples, int64_t count, int32_t threads, const snnkd_results* results,
              char* message, int32_t room) {
    try {
        run_all(*network, samples, count, std::max(1, threads), *results);
        return 0;
    } catch (const std::exception& error) {
        tell(message, room, error.what());
        return 1;
    }
}

}  // extern "C"
