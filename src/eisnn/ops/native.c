/* From the currents of an E-I circuit to the spikes of its neurons, and back, on the CPU.
 *
 * Layout: [time, batch, position, channel], channels contiguous. `steps` is how many steps
 * the currents have: `T`, or 1 where they are the same at each step. Each row of channels is
 * processed in blocks that stay in registers and first-level cache over all time steps.
 *
 * The order of operations is that of eisnn.functional, one rounding each (compile with
 * -ffp-contract=off): given the same divisive current, spikes are the same to the last bit.
 *
 * Legend: T time, B batch, P positions, E / I excitatory / inhibitory channels, C = E + I.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define BLOCK 64

enum surrogate { SIGMOID, ARCTAN, LEAKY_RELU };

typedef struct {
    int64_t steps, T, B, P, E, I;
    float decay;     /* 1 - 1/tau */
    float threshold; /* theta */
    int64_t surrogate;
    float width; /* alpha, alpha, leak */
    int64_t threads;
} circuit;

/* Smallest positive entry, +inf without any: the bits of positive floats are ordered as
 * unsigned integers; one less, and zero comes after all of them, as negatives and NaN do. */
static float smallest_positive(const float *x, int64_t n) {
    uint32_t least = 0x7f800000u - 1;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits -= 1;
        least = bits < least ? bits : least;
    }
    least += 1;
    float value;
    memcpy(&value, &least, sizeof value);
    return value;
}

static inline float divisor(float i_div, float smallest) { return i_div <= 0 ? smallest : i_div; }

static inline float spike(float h, float threshold) {
    float z = h - threshold;
    float s = z >= 0 ? 1.0f : 0.0f;
    return z == z ? s : z; /* a broken neuron must not pass for a silent one */
}

/* exp(x) for x <= 0 to two units in the last place, in a form that compilers vectorise. */
static inline float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    float k = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    k -= 12582912.0f;
    float r = x - k * 0.693359375f + k * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)k + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* grad *= derivative of the surrogate at z = h - theta */
static inline void apply_surrogate(const circuit *c, float *grad, const float *h, int64_t n) {
    const float theta = c->threshold, width = c->width;
    switch (c->surrogate) {
    case SIGMOID:
        for (int64_t i = 0; i < n; i++) {
            float z = h[i] - theta;
            float e = exp_negative(-fabsf(width * z));
            float d = width * e / ((1.0f + e) * (1.0f + e));
            grad[i] *= z == z ? d : z;
        }
        break;
    case ARCTAN:
        for (int64_t i = 0; i < n; i++) {
            float u = 1.57079632679f * width * (h[i] - theta);
            grad[i] *= width / 2 / (1.0f + u * u);
        }
        break;
    default:
        for (int64_t i = 0; i < n; i++) grad[i] *= h[i] - theta >= 0 ? 1.0f : width;
    }
}

/* spikes [T, B, P, E], smallest [steps, B] from currents [steps, B, P, C], i_div [.., E] */
void eisnn_forward(const circuit *c, const float *restrict currents, const float *restrict i_div,
                   const float *restrict gain, const float *restrict bias, float *restrict spikes,
                   float *restrict smallest) {
    const int64_t T = c->T, P = c->P, E = c->E, C = c->E + c->I, rows = c->B * P;
#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t n = 0; n < c->steps * c->B; n++)
        smallest[n] = smallest_positive(i_div + n * P * E, P * E);

#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t row = 0; row < rows; row++) {
        const int64_t b = row / P;
        for (int64_t first = 0; first < E; first += BLOCK) {
            const int64_t n = E - first < BLOCK ? E - first : BLOCK;
            float v[BLOCK] = {0};
            for (int64_t t = 0; t < T; t++) {
                const int64_t step = c->steps == 1 ? 0 : t;
                const float *balanced = currents + (step * rows + row) * C + first;
                const float *div = i_div + (step * rows + row) * E + first;
                const float least = smallest[step * c->B + b];
                float *out = spikes + (t * rows + row) * E + first;
                for (int64_t i = 0; i < n; i++) {
                    float q = balanced[i] / divisor(div[i], least);
                    float h = c->decay * v[i] + (gain[first + i] * q + bias[first + i]);
                    float s = spike(h, c->threshold);
                    v[i] = h - c->threshold * s;
                    out[i] = s;
                }
            }
        }
    }
}

/* From grad [T, B, P, E] to the excitatory channels of d_currents [steps, B, P, C], to
 * d_div [steps, B, P, E], and to each thread's share of d_gain and d_bias [threads, E]. */
int eisnn_backward(const circuit *c, const float *restrict grad, const float *restrict currents,
                   const float *restrict i_div, const float *restrict gain,
                   const float *restrict bias, const float *restrict smallest,
                   float *restrict d_currents, float *restrict d_div, float *restrict d_gain,
                   float *restrict d_bias) {
    const int64_t T = c->T, P = c->P, E = c->E, C = c->E + c->I, rows = c->B * P;
    int failed = 0;
#pragma omp parallel num_threads(c->threads) reduction(|| : failed)
    {
#ifdef _OPENMP
        const int64_t thread = omp_get_thread_num();
#else
        const int64_t thread = 0;
#endif
        float *h_seq = malloc(sizeof(float) * BLOCK * T);
        failed = h_seq == NULL;
        float *gain_share = d_gain + thread * E, *bias_share = d_bias + thread * E;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            if (failed) continue;
            const int64_t b = row / P;
            for (int64_t first = 0; first < E; first += BLOCK) {
                const int64_t n = E - first < BLOCK ? E - first : BLOCK;
                float v[BLOCK] = {0}, carry[BLOCK] = {0}, sum_balanced[BLOCK] = {0},
                      sum_div[BLOCK] = {0};
                for (int64_t t = 0; t < T; t++) { /* the potentials once more */
                    const int64_t step = c->steps == 1 ? 0 : t;
                    const float *balanced = currents + (step * rows + row) * C + first;
                    const float *div = i_div + (step * rows + row) * E + first;
                    const float least = smallest[step * c->B + b];
                    float *h_t = h_seq + t * BLOCK;
                    for (int64_t i = 0; i < n; i++) {
                        float q = balanced[i] / divisor(div[i], least);
                        float h = c->decay * v[i] + (gain[first + i] * q + bias[first + i]);
                        v[i] = h - c->threshold * spike(h, c->threshold);
                        h_t[i] = h;
                    }
                }
                for (int64_t t = T - 1; t >= 0; t--) {
                    const int64_t step = c->steps == 1 ? 0 : t;
                    const float *balanced = currents + (step * rows + row) * C + first;
                    const float *div = i_div + (step * rows + row) * E + first;
                    const float least = smallest[step * c->B + b];
                    float d[BLOCK];
                    memcpy(d, grad + (t * rows + row) * E + first, sizeof(float) * n);
                    apply_surrogate(c, d, h_seq + t * BLOCK, n);
                    float *to_balanced = d_currents + (step * rows + row) * C + first;
                    float *to_div = d_div + (step * rows + row) * E + first;
                    for (int64_t i = 0; i < n; i++) {
                        float dh = d[i] + c->decay * carry[i];
                        carry[i] = dh;
                        float by = divisor(div[i], least);
                        float q = balanced[i] / by;
                        float db = gain[first + i] * dh / by;
                        bias_share[first + i] += dh;
                        gain_share[first + i] += dh * q;
                        sum_balanced[i] = c->steps == 1 ? sum_balanced[i] + db : db;
                        sum_div[i] = c->steps == 1 ? sum_div[i] - db * q : -db * q;
                    }
                    if (step == t) { /* with a single step: the last one visited */
                        memcpy(to_balanced, sum_balanced, sizeof(float) * n);
                        memcpy(to_div, sum_div, sizeof(float) * n);
                    }
                }
            }
        }
        free(h_seq);
    }
    return failed;
}
