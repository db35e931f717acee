/* Gradients of 3x3 convolutions (stride 1, padding 1) on the CPU by Winograd's algorithm
 * F(4x4, 3x3), which takes a quarter of the multiplications (Lavin & Gray 2016,
 * arXiv 1509.09308). Arithmetic is in float32; relative errors are some times 1e-6.
 *
 * Images are cut into tiles of 4x4 positions. With the matrices A, B, G of that paper, a tile x
 * of an image (6x6, overlapping its neighbours), a tile d of a gradient (4x4), a kernel g:
 *
 *   A' [(B' x B) * (G g G')] A       one tile of a convolution, as the gradient of the input is
 *   G' [sum (B' x B) * (A d A')] G   the gradient of the kernel, summed over tiles
 *
 * where * is, for each of the 36 entries, a matrix product over channels or tiles. Sums are
 * taken in an order that does not depend on the number of threads.
 *
 * Layout: images [N, H, W, channels], float32 or bfloat16; kernels [O, C, 3, 3], float32.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define WIDTH 16
#define ROWS 8
#elif defined(__AVX__)
#define WIDTH 8
#define ROWS 4
#else
#define WIDTH 4
#define ROWS 8
#endif
#define COLUMNS (2 * WIDTH)

typedef float vec __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

typedef struct {
    int64_t N, H, W, C, O, bfloat16, threads;
} convolution;

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
static inline int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* out [ROWS, COLUMNS] (+)= a b over k: a[i, k] at a + i a_row + k a_k, b[k] at b + k b_k */
static inline __attribute__((always_inline)) void
block_product(int64_t K, const float *restrict a, int64_t a_row, int64_t a_k,
              const float *restrict b, int64_t b_k, float *restrict out, int64_t out_row, int add) {
    vec sum[ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < 2; j++)
            sum[i][j] = add ? *(const vec *)(out + i * out_row + j * WIDTH) : (vec){0};
    for (int64_t k = 0; k < K; k++) {
        const vec b0 = *(const vec *)(b + k * b_k), b1 = *(const vec *)(b + k * b_k + WIDTH);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            const float x = a[i * a_row + k * a_k];
            sum[i][0] += x * b0;
            sum[i][1] += x * b1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < 2; j++) *(vec *)(out + i * out_row + j * WIDTH) = sum[i][j];
}

/* B' applied to six values */
static inline void input_transform(const vec x[6], vec y[6]) {
    const vec a = x[4] - 4 * x[2], b = x[3] - 4 * x[1], c = x[4] - x[2], d = 2 * (x[3] - x[1]);
    y[0] = 4 * x[0] - 5 * x[2] + x[4];
    y[1] = a + b;
    y[2] = a - b;
    y[3] = c + d;
    y[4] = c - d;
    y[5] = 4 * x[1] - 5 * x[3] + x[5];
}

/* A' applied to six values */
static inline void output_transform(const vec x[6], vec y[4]) {
    const vec a = x[1] + x[2], b = x[1] - x[2], c = x[3] + x[4], d = x[3] - x[4];
    y[0] = x[0] + a + c;
    y[1] = b + 2 * d;
    y[2] = a + 4 * c;
    y[3] = b + 8 * d + x[5];
}

/* A applied to four values */
static inline void gradient_transform(const vec x[4], vec y[6]) {
    const vec a = x[0] + x[2], b = x[1] + x[3], c = x[0] + 4 * x[2], d = 2 * x[1] + 8 * x[3];
    y[0] = x[0];
    y[1] = a + b;
    y[2] = a - b;
    y[3] = c + d;
    y[4] = c - d;
    y[5] = x[3];
}

/* G applied to three values */
static inline void kernel_transform(const vec x[3], vec y[6]) {
    const vec a = (x[0] + x[2]) * (-1.0f / 6), b = x[1] * (-1.0f / 6);
    const vec c = x[0] * (1.0f / 24) + x[2] * (1.0f / 6), d = x[1] * (1.0f / 12);
    y[0] = x[0] * 0.25f;
    y[1] = a + b;
    y[2] = a - b;
    y[3] = c + d;
    y[4] = c - d;
    y[5] = x[2];
}

/* G' applied to six values */
static inline void kernel_gradient_transform(const vec x[6], vec y[3]) {
    const vec a = x[1] + x[2], b = x[1] - x[2], c = x[3] + x[4], d = x[3] - x[4];
    y[0] = 0.25f * x[0] - (1.0f / 6) * a + (1.0f / 24) * c;
    y[1] = (-1.0f / 6) * b + (1.0f / 12) * d;
    y[2] = (1.0f / 6) * (c - a) + x[5];
}

typedef uint16_t half_vec __attribute__((vector_size(WIDTH * 2), aligned(2), may_alias));
typedef uint32_t bits_vec __attribute__((vector_size(WIDTH * 4)));

/* up to n channels from `at` on, zeros after them; images are float32 or bfloat16 */
static inline vec load(const convolution *c, const void *image, int64_t at, int64_t n) {
    vec x = {0};
    if (n <= 0) return x;
    if (c->bfloat16) {
        half_vec half = {0};
        if (n >= WIDTH)
            half = *(const half_vec *)((const uint16_t *)image + at);
        else
            memcpy(&half, (const uint16_t *)image + at, sizeof(uint16_t) * n);
        const bits_vec bits = __builtin_convertvector(half, bits_vec) << 16;
        memcpy(&x, &bits, sizeof x);
    } else if (n >= WIDTH)
        x = *(const vec *)((const float *)image + at);
    else
        memcpy(&x, (const float *)image + at, sizeof(float) * n);
    return x;
}

static inline void store(const convolution *c, void *image, int64_t at, vec x, int64_t n) {
    if (c->bfloat16) { /* to the nearest, ties to even; NaN stays NaN */
        bits_vec bits, number = (bits_vec)(x == x);
        memcpy(&bits, &x, sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        const half_vec half = __builtin_convertvector((bits & number) | (0x7fc0 & ~number), half_vec);
        if (n >= WIDTH)
            *(half_vec *)((uint16_t *)image + at) = half;
        else
            memcpy((uint16_t *)image + at, &half, sizeof(uint16_t) * n);
    } else if (n >= WIDTH)
        *(vec *)((float *)image + at) = x;
    else
        memcpy((float *)image + at, &x, sizeof(float) * n);
}

typedef struct {
    int64_t image, top, left;
} tile;

static inline tile tile_at(const convolution *c, int64_t index) {
    const int64_t across = (c->W + 3) / 4, down = (c->H + 3) / 4;
    return (tile){index / (across * down), index / across % down * 4, index % across * 4};
}

/* B' x B of one tile with its margin, into out [36, stride] */
static void transform_image(const convolution *c, const void *image, int64_t channels, tile at,
                            float *out, int64_t stride) {
    const int64_t base = at.image * c->H * c->W * channels;
    for (int64_t k = 0; k < channels; k += WIDTH) {
        vec half[6][6];
        for (int j = 0; j < 6; j++) {
            vec x[6], y[6];
            const int64_t column = at.left + j - 1;
            for (int i = 0; i < 6; i++) {
                const int64_t row = at.top + i - 1;
                const int inside = row >= 0 && row < c->H && column >= 0 && column < c->W;
                x[i] = inside ? load(c, image, base + (row * c->W + column) * channels + k, channels - k)
                              : (vec){0};
            }
            input_transform(x, y);
            for (int i = 0; i < 6; i++) half[i][j] = y[i];
        }
        for (int i = 0; i < 6; i++) {
            vec y[6];
            input_transform(half[i], y);
            for (int j = 0; j < 6; j++) *(vec *)(out + (6 * i + j) * stride + k) = y[j];
        }
    }
}

/* A d A' of one tile, `n` channels from `first` on, into out [36, stride] */
static void transform_gradient(const convolution *c, const void *d_y, int64_t first, int64_t n,
                               tile at, float *out, int64_t stride) {
    const int64_t base = at.image * c->H * c->W * c->O + first;
    for (int64_t k = 0; k < n; k += WIDTH) {
        vec half[6][4];
        for (int j = 0; j < 4; j++) {
            vec x[4], y[6];
            const int64_t column = at.left + j;
            for (int i = 0; i < 4; i++) {
                const int64_t row = at.top + i;
                x[i] = row < c->H && column < c->W
                           ? load(c, d_y, base + (row * c->W + column) * c->O + k, c->O - first - k)
                           : (vec){0};
            }
            gradient_transform(x, y);
            for (int i = 0; i < 6; i++) half[i][j] = y[i];
        }
        for (int i = 0; i < 6; i++) {
            vec y[6];
            gradient_transform(half[i], y);
            for (int j = 0; j < 6; j++) *(vec *)(out + (6 * i + j) * stride + k) = y[j];
        }
    }
}

/* A' m A of m [36, stride], into `n` channels from `first` on of one tile */
static void transform_output(const convolution *c, const float *m, int64_t stride, void *d_x,
                             int64_t first, int64_t n, tile at) {
    const int64_t base = at.image * c->H * c->W * c->C + first;
    for (int64_t k = 0; k < least(n, c->C - first); k += WIDTH) {
        vec half[4][6];
        for (int j = 0; j < 6; j++) {
            vec x[6], y[4];
            for (int i = 0; i < 6; i++) x[i] = *(const vec *)(m + (6 * i + j) * stride + k);
            output_transform(x, y);
            for (int i = 0; i < 4; i++) half[i][j] = y[i];
        }
        for (int64_t i = 0; i < least(4, c->H - at.top); i++) {
            vec y[4];
            output_transform(half[i], y);
            for (int64_t j = 0; j < least(4, c->W - at.left); j++)
                store(c, d_x, base + ((at.top + i) * c->W + at.left + j) * c->C + k, y[j],
                      c->C - first - k);
        }
    }
}

/* G g G' of the kernels turned by 180 degrees, for `n` input channels from `first` on:
 * out [36, n / COLUMNS, O, COLUMNS]. Each thread of a parallel region does a share. */
static void transform_kernels(const convolution *c, const float *kernels, int64_t first, int64_t n,
                              float *out) {
#pragma omp for schedule(static)
    for (int64_t o = 0; o < c->O; o++)
        for (int64_t k = 0; k < n; k += WIDTH) {
            float taps[9][WIDTH] = {{0}};
            for (int64_t i = 0; i < least(WIDTH, c->C - first - k); i++)
                for (int t = 0; t < 9; t++)
                    taps[8 - t][i] = kernels[(o * c->C + first + k + i) * 9 + t];
            vec half[6][3];
            for (int j = 0; j < 3; j++) {
                vec x[3], y[6];
                for (int i = 0; i < 3; i++) x[i] = *(const vec *)taps[3 * i + j];
                kernel_transform(x, y);
                for (int i = 0; i < 6; i++) half[i][j] = y[i];
            }
            for (int i = 0; i < 6; i++) {
                vec y[6];
                kernel_transform(half[i], y);
                for (int j = 0; j < 6; j++)
                    *(vec *)(out + ((6 * i + j) * n + k / COLUMNS * COLUMNS) * c->O +
                             o * COLUMNS + k % COLUMNS) = y[j];
            }
        }
}

/* G' d_u G of d_u [36, O, stride], into `n` input channels of the kernel of output channel o */
static void transform_kernel_gradient(const convolution *c, const float *d_u, int64_t entry,
                                      float *d_kernel) {
    for (int64_t k = 0; k < c->C; k += WIDTH) {
        vec half[3][6];
        for (int j = 0; j < 6; j++) {
            vec x[6], y[3];
            for (int i = 0; i < 6; i++) x[i] = *(const vec *)(d_u + (6 * i + j) * entry + k);
            kernel_gradient_transform(x, y);
            for (int i = 0; i < 3; i++) half[i][j] = y[i];
        }
        float taps[9][WIDTH];
        for (int i = 0; i < 3; i++) {
            vec y[3];
            kernel_gradient_transform(half[i], y);
            for (int j = 0; j < 3; j++) *(vec *)taps[3 * i + j] = y[j];
        }
        for (int64_t i = 0; i < least(WIDTH, c->C - k); i++)
            for (int t = 0; t < 9; t++) d_kernel[(k + i) * 9 + t] = taps[t][i];
    }
}

static float *buffer(int64_t floats) {
    return aligned_alloc(64, round_up(floats * (int64_t)sizeof(float), 64));
}

/* Bytes of one thread's transformed tiles: they stay in its second-level cache ... */
#define BLOCK_BYTES 700000
/* ... unless transformed kernels are so large that reading them again costs more. */
#define KERNEL_SHARE 8
/* Bytes of transformed kernels at a time, below what allocators hand back to the system. */
#define GROUP_BYTES 12000000
/* Least bytes of all threads' transformed tiles when gradients of kernels are summed. */
#define SUM_BYTES 4000000

/* Channels whose transformed kernels, of so many bytes a channel, are held at a time. */
static int64_t group_size(int64_t channels, int64_t bytes) {
    return round_up(ceil_div(channels, ceil_div(channels * bytes, GROUP_BYTES)), COLUMNS);
}

/* d_x [N, H, W, C] from d_y [N, H, W, O] and kernels [O, C, 3, 3] */
int eisnn_input_gradient(const convolution *c, const void *d_y, const float *kernels, void *d_x) {
    const int64_t tiles = c->N * ((c->H + 3) / 4) * ((c->W + 3) / 4);
    const int64_t wide_o = round_up(c->O, WIDTH), column = 36 * c->O * sizeof(float);
    const int64_t wide_c = round_up(c->C, COLUMNS);
    const int64_t group = group_size(wide_c, column), per_tile = 36 * (group + wide_o) * sizeof(float);
    const int64_t bytes = most(BLOCK_BYTES, group * column / KERNEL_SHARE);
    const int64_t block = least(round_up(bytes / per_tile + 1, ROWS),
                                round_up(ceil_div(tiles, c->threads), ROWS));
    float *u = buffer(36 * group * c->O);
    int failed = u == NULL;
    if (failed) return failed;
#pragma omp parallel num_threads(c->threads) reduction(|| : failed)
    {
        float *v = buffer(block * 36 * wide_o), *m = buffer(block * 36 * group);
        failed = v == NULL || m == NULL;
        for (int64_t from = 0; from < c->C; from += group) {
            const int64_t n_c = least(group, wide_c - from);
            transform_kernels(c, kernels, from, n_c, u);
#pragma omp for schedule(static)
            for (int64_t first = 0; first < tiles; first += block) {
                if (failed) continue;
                const int64_t n = least(block, tiles - first);
                const int64_t rows = round_up(n, ROWS); /* those after n: anything, unread */
                for (int64_t i = 0; i < n; i++)
                    transform_image(c, d_y, c->O, tile_at(c, first + i), v + i * wide_o,
                                    block * wide_o);
                for (int64_t e = 0; e < 36; e++)
                    for (int64_t k = 0; k < n_c; k += COLUMNS)
                        for (int64_t i = 0; i < rows; i += ROWS)
                            block_product(c->O, v + (e * block + i) * wide_o, wide_o, 1,
                                          u + (e * n_c + k) * c->O, COLUMNS,
                                          m + (e * block + i) * n_c + k, n_c, 0);
                for (int64_t i = 0; i < n; i++)
                    transform_output(c, m + i * n_c, block * n_c, d_x, from, n_c,
                                     tile_at(c, first + i));
            }
        }
        free(v);
        free(m);
    }
    free(u);
    return failed;
}

/* d_kernels [O, C, 3, 3] from x [N, H, W, C] and d_y [N, H, W, O] */
int eisnn_kernel_gradient(const convolution *c, const void *x, const void *d_y, float *d_kernels) {
    const int64_t tiles = c->N * ((c->H + 3) / 4) * ((c->W + 3) / 4);
    const int64_t wide_c = round_up(c->C, COLUMNS), row = 36 * wide_c * sizeof(float);
    const int64_t wide_o = round_up(c->O, COLUMNS);
    const int64_t group = group_size(wide_o, row), per_tile = 36 * (wide_c + group) * sizeof(float);
    const int64_t block = least(most(SUM_BYTES, group * row) / per_tile + 1, tiles);
    float *d_u = buffer(36 * group * wide_c);
    float *v = buffer(block * 36 * wide_c), *z = buffer(block * 36 * group);
    const int failed = d_u == NULL || v == NULL || z == NULL;
#pragma omp parallel num_threads(c->threads) if (!failed)
    for (int64_t from = 0; from < c->O && !failed; from += group) {
        const int64_t n_o = least(group, wide_o - from);
        for (int64_t first = 0; first < tiles; first += block) {
            const int64_t n = least(block, tiles - first);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n; i++) {
                const tile at = tile_at(c, first + i);
                transform_image(c, x, c->C, at, v + i * wide_c, block * wide_c);
                transform_gradient(c, d_y, from, n_o, at, z + i * n_o, block * n_o);
            }
#pragma omp for schedule(static)
            for (int64_t e = 0; e < 36; e++)
                for (int64_t k = 0; k < wide_c; k += COLUMNS)
                    for (int64_t i = 0; i < n_o; i += ROWS)
                        block_product(n, z + e * block * n_o + i, 1, n_o,
                                      v + e * block * wide_c + k, wide_c,
                                      d_u + (e * n_o + i) * wide_c + k, wide_c, first > 0);
        }
#pragma omp for schedule(static)
        for (int64_t o = 0; o < least(n_o, c->O - from); o++)
            transform_kernel_gradient(c, d_u + o * wide_c, n_o * wide_c,
                                      d_kernels + (from + o) * c->C * 9);
    }
    free(d_u);
    free(v);
    free(z);
    return failed;
}
