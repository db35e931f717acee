/* From the currents of an E-I circuit to the spikes of its neurons, and back, on the CPU.
 *
 * Layout: [time, batch, position, channel], channels contiguous. `steps` is how many steps
 * the currents have: `T`, or 1 where they are the same at each step. Each row of channels is
 * processed in blocks that stay in registers and first-level cache over all time steps.
 * Currents, spikes and their gradients are float32 or bfloat16 ("images"), all else is float32.
 *
 * Positions are those of maps of H x W. What is put out are the means of spikes over windows of
 * size x size positions, side by side; windows of size 1 are the spikes themselves.
 *
 * The order of operations is that of eisnn.functional, one rounding each (compile with
 * -ffp-contract=off): given the same divisive current, spikes are the same to the last bit.
 *
 * Legend: T time, B batch, P = H W positions, Q windows, E / I excitatory / inhibitory channels,
 * C = E + I.
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
    int64_t steps, T, B, H, W, E, I, size;
    float decay;     /* 1 - 1/tau */
    float threshold; /* theta */
    int64_t surrogate;
    float width; /* alpha, alpha, leak */
    int64_t bfloat16, threads;
} circuit;

/* n values of an image from `at` on: where they lie, or converted into `room` */
static inline const float *values(const circuit *c, const void *image, int64_t at, int64_t n,
                                  float *room) {
    if (!c->bfloat16) return (const float *)image + at;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)((const uint16_t *)image)[at + i] << 16;
        memcpy(room + i, &bits, sizeof bits);
    }
    return room;
}

/* n values into an image from `at` on; to the nearest, ties to even, NaN stays NaN */
static inline void put(const circuit *c, void *image, int64_t at, int64_t n, const float *x) {
    if (!c->bfloat16)
        memcpy((float *)image + at, x, sizeof(float) * n);
    else
        for (int64_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
            ((uint16_t *)image)[at + i] = (uint16_t)(x[i] == x[i] ? bits : 0x7fc0);
        }
}

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
static inline void apply_surrogate(const circuit *c, float *restrict grad, const float *restrict h,
                                   int64_t n) {
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
        for (int64_t i = 0; i < n; i++) {
            float d = h[i] - theta >= 0 ? 1.0f : width;
            grad[i] *= d;
        }
    }
}

/* out [T, B, Q, E], smallest [steps, B] from currents [steps, B, P, C], i_div [steps, B, P, E] */
int eisnn_forward(const circuit *c, const void *restrict currents, const float *restrict i_div,
                  const float *restrict gain, const float *restrict bias, void *restrict out,
                  float *restrict smallest) {
    const int64_t T = c->T, E = c->E, C = c->E + c->I, P = c->H * c->W, rows = c->B * P;
    const int64_t down = c->H / c->size, across = c->W / c->size, windows = c->B * down * across;
    const float decay = c->decay, threshold = c->threshold, area = (float)(c->size * c->size);
    int failed = 0;
#pragma omp parallel num_threads(c->threads) reduction(|| : failed)
    {
        float *sums = malloc(sizeof(float) * BLOCK * T);
        failed = sums == NULL;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < c->steps * c->B; n++)
            smallest[n] = smallest_positive(i_div + n * P * E, P * E);

#pragma omp for schedule(static)
        for (int64_t window = 0; window < windows; window++) {
            if (failed) continue;
            const int64_t b = window / (down * across), top = window / across % down * c->size;
            const int64_t corner = b * P + top * c->W + window % across * c->size;
            for (int64_t first = 0; first < E; first += BLOCK) {
                const int64_t n = E - first < BLOCK ? E - first : BLOCK;
                for (int64_t at = 0; at < c->size * c->size; at++) {
                    const int64_t row = corner + at / c->size * c->W + at % c->size;
                    float v[BLOCK] = {0}, room[BLOCK];
                    for (int64_t t = 0; t < T; t++) {
                        const int64_t step = c->steps == 1 ? 0 : t;
                        const float *balanced =
                            values(c, currents, (step * rows + row) * C + first, n, room);
                        const float *div = i_div + (step * rows + row) * E + first;
                        const float least = smallest[step * c->B + b];
                        float *sum = sums + t * BLOCK;
                        for (int64_t i = 0; i < n; i++) {
                            float q = balanced[i] / divisor(div[i], least);
                            float h = decay * v[i] + (gain[first + i] * q + bias[first + i]);
                            float s = spike(h, threshold);
                            v[i] = h - threshold * s;
                            sum[i] = at == 0 ? s : sum[i] + s;
                        }
                    }
                }
                for (int64_t t = 0; t < T; t++) {
                    float *sum = sums + t * BLOCK;
                    if (c->size > 1)
                        for (int64_t i = 0; i < n; i++) sum[i] /= area;
                    put(c, out, (t * windows + window) * E + first, n, sum);
                }
            }
        }
        free(sums);
    }
    return failed;
}

/* From grad [T, B, Q, E] to the excitatory channels of d_currents [steps, B, P, C], to the
 * gradient of i_div [steps, B, P, E], which takes its place, and to each thread's share of
 * d_gain and d_bias [threads, E]. */
int eisnn_backward(const circuit *c, const void *restrict grad, const void *restrict currents,
                   float *restrict i_div, const float *restrict gain, const float *restrict bias,
                   const float *restrict smallest, void *restrict d_currents,
                   float *restrict d_gain, float *restrict d_bias) {
    const int64_t T = c->T, E = c->E, C = c->E + c->I, P = c->H * c->W, rows = c->B * P;
    const int64_t down = c->H / c->size, across = c->W / c->size, windows = c->B * down * across;
    const float decay = c->decay, threshold = c->threshold, area = (float)(c->size * c->size);
    int failed = 0;
#pragma omp parallel num_threads(c->threads) reduction(|| : failed)
    {
#ifdef _OPENMP
        const int64_t thread = omp_get_thread_num();
#else
        const int64_t thread = 0;
#endif
        /* potentials, divisors and quotients of one block over time */
        float *h_seq = malloc(sizeof(float) * BLOCK * T * 3);
        failed = h_seq == NULL;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            if (failed) continue;
            const int64_t b = row / P, y = row % P / c->W / c->size, x = row % c->W / c->size;
            const int64_t window = (b * down + y) * across + x;
            const int inside = y < down && x < across;
            for (int64_t first = 0; first < E; first += BLOCK) {
                const int64_t n = E - first < BLOCK ? E - first : BLOCK;
                const float *g = gain + first;
                float v[BLOCK] = {0}, room[BLOCK];
                for (int64_t t = 0; t < T; t++) { /* as in the forward pass */
                    const int64_t step = c->steps == 1 ? 0 : t;
                    const float *balanced =
                        values(c, currents, (step * rows + row) * C + first, n, room);
                    const float *div = i_div + (step * rows + row) * E + first;
                    const float least = smallest[step * c->B + b];
                    float *restrict h_t = h_seq + 3 * t * BLOCK;
                    float *restrict by_t = h_t + BLOCK, *restrict q_t = by_t + BLOCK;
                    for (int64_t i = 0; i < n; i++) {
                        float by = divisor(div[i], least);
                        float q = balanced[i] / by;
                        float h = decay * v[i] + (g[i] * q + bias[first + i]);
                        v[i] = h - threshold * spike(h, threshold);
                        h_t[i] = h;
                        by_t[i] = by;
                        q_t[i] = q;
                    }
                }
                float carry[BLOCK] = {0}, sum_gain[BLOCK] = {0}, sum_bias[BLOCK] = {0};
                float to_balanced[BLOCK] = {0}, to_div[BLOCK] = {0};
                for (int64_t t = T - 1; t >= 0; t--) {
                    const float *h_t = h_seq + 3 * t * BLOCK;
                    const float *by_t = h_t + BLOCK, *q_t = by_t + BLOCK;
                    const int sums = c->steps == 1;
                    float d[BLOCK] = {0};
                    if (inside) {
                        const int64_t at = (t * windows + window) * E + first;
                        const float *from = values(c, grad, at, n, room);
                        for (int64_t i = 0; i < n; i++) d[i] = from[i] / area;
                    }
                    apply_surrogate(c, d, h_t, n);
                    for (int64_t i = 0; i < n; i++) {
                        float dh = d[i] + decay * carry[i];
                        float db = g[i] * dh / by_t[i];
                        carry[i] = dh;
                        sum_bias[i] += dh;
                        sum_gain[i] += dh * q_t[i];
                        to_balanced[i] = sums ? to_balanced[i] + db : db;
                        to_div[i] = sums ? to_div[i] - db * q_t[i] : -db * q_t[i];
                    }
                    if (c->steps > 1 || t == 0) {
                        const int64_t at = (c->steps == 1 ? 0 : t) * rows + row;
                        put(c, d_currents, at * C + first, n, to_balanced);
                        memcpy(i_div + at * E + first, to_div, sizeof(float) * n);
                    }
                }
                float *gain_share = d_gain + thread * E + first;
                float *bias_share = d_bias + thread * E + first;
                for (int64_t i = 0; i < n; i++) gain_share[i] += sum_gain[i];
                for (int64_t i = 0; i < n; i++) bias_share[i] += sum_bias[i];
            }
        }
        free(h_seq);
    }
    return failed;
}
