/*
 * Runs the integer network of a `network.snn` file. Build the library with
 *
 *     c++ -std=c++17 -O3 -fwrapv -fPIC -shared -pthread snnkd_native.cpp -o libsnnkd_native.so
 *
 * It uses what the processor has (AVX-512, AVX2, or neither), so -march is not needed.
 *
 *     snnkd_network *network = snnkd_open(file, bytes, NULL, message, sizeof message);
 *     snnkd_run(network, samples, count, threads, &(snnkd_results){.logits = logits}, message, sizeof message);
 *     snnkd_close(network);
 *
 * A network is not changed by a run, and several threads may run the same one.
 */
#ifndef SNNKD_NATIVE_H
#define SNNKD_NATIVE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct snnkd_network snnkd_network;

/* A node of the network: its output, per sample. */
typedef struct {
    const char *name;
    int32_t neurons; /* of a layer of neurons 1, else 0 */
    int32_t dimensions, shape[3]; /* 3: channels, rows, columns; 1: features, and the last two are 1 */
    int32_t own;  /* of neurons: the first channels, which are no relays; else all */
    int32_t kept; /* 1 where its values are kept, and can be counted; 0 where its reader computes them on the way */
    int32_t bits; /* of each value, where it is kept as so many bits, never negative; else 0 */
} snnkd_node;

typedef struct {
    const char *name, *digest, *instructions; /* instructions: "avx512", "avx2" or "portable" */
    int32_t timesteps;
    int32_t still; /* 1: a sample is one picture, the same at each step; 0: a frame for each step */
    int32_t classes, nodes;
    int32_t input_bytes;       /* of a number of a sample: 1 is uint8_t, 4 is int32_t */
    int32_t low, high;         /* between which it lies */
    int32_t input_dimensions, input_shape[3]; /* of a frame, as of a node */
} snnkd_about;

/*
 * What a run shall write; what is NULL is left out. Arrays of pointers have one for each node, those
 * of counts NULL for one that is not kept. Of the sums over samples,
 * what is there before is added to; of a node that does not change over time a sample counts once, else once a step.
 */
typedef struct {
    int32_t *logits;        /* [sample][class]: sums over the steps */
    uint8_t **spikes;       /* of neurons: [step][sample][channel][row][column], 0 or 1 */
    int64_t **nonzero;      /* [channel][row][column]: how often it was not zero */
    int64_t **sums;         /* [channel][row][column]: of its values */
    int64_t **step_spikes;  /* of neurons: [step] */
    int64_t *reached;       /* [sample][node]: of neurons how often, over steps, an event or a bias arrived or one fired */
    int64_t *reach;         /* [node]: of neurons the largest |v| before the reset, in 2^-fraction of a weight unit; of
                               the output the largest |sum| */
    int64_t *changes;       /* [sample][node]: of neurons how often, over steps, v before the reset was another than at
                               the step before; at the first step that of every neuron counts */
    const int32_t **tables; /* not a result: [table][channel][row][column] factors of a node, table_counts[node] tables */
    const int32_t *table_counts;
    int64_t **events;       /* [sample][1 + table]: how often, over steps, something was not zero; the sums of the factors
                               at each such time */
    int64_t **amounts;      /* [sample][1 + table]: the same of the values, each times the factor of its place */
    uint8_t **met;          /* of nodes with `bits`: [value], 1 where it was met, 2^bits of them */
} snnkd_results;

/*
 * A network from the bytes of a file, which may be freed afterwards. NULL, and why in `message`, if they are not one.
 * `instructions`: NULL for the widest that the processor has and that passes the check against the portable code, or
 * the name of one.
 */
snnkd_network *snnkd_open(const void *file, uint64_t bytes, const char *instructions, char *message, int32_t room);
void snnkd_close(snnkd_network *network);

snnkd_about snnkd_describe(const snnkd_network *network);
snnkd_node snnkd_node_of(const snnkd_network *network, int32_t index);

/*
 * Runs `count` samples, [sample][frame][channel][row][column], on `threads` threads. 0, or 1 with why in `message`: a
 * value out of its range, no memory. Nothing can be said of the results then.
 */
int snnkd_run(snnkd_network *network, const void *samples, int64_t count, int32_t threads, const snnkd_results *results,
              char *message, int32_t room);

#ifdef __cplusplus
}
#endif
#endif
