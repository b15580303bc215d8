// Q8_0 weights times activations on AMX. Included by llama.cpp's amx/amx.cpp (see build.cmake), whose own code serves the
// other formats.
//
// What costs is not the product of tiles but its scaling: 32 numbers of a row have a factor of their own, for weights as for
// activations, so each tile of 16 x 16 sums over 32 is stored, converted, scaled and added up. Here the sums stay in
// registers through all of a row, tiles and factors lie where they are read in order, the next product is under way while
// the last one is added, and the weights that come next are fetched meanwhile. The table of words is read from the same
// layout, so that a model which uses it for its last product too has it once.
//
// Packed weights take as many bytes as in the file. For each 16 rows, in blocks of 32 columns:
//     int8   [blocks][8][16][4]   a tile: columns 0 to 3 of row 0, of row 1, ...; then columns 4 to 7
//     fp16   [blocks][16]         factors
// Activations, for each 16 rows: int8 [blocks][16][32]; and apart from them, float [blocks][16] and, as int32 [blocks][16],
// the numbers' sums times -128.
//
// For a few rows the tiles are not worth it: VNNI sums the same products there, to the same bits.
#pragma once

#include "common.h"
#include "quants.h"
#include "simd-mappings.h"

#include <immintrin.h>

#include <cstring>

namespace q8_0 {

constexpr int SIDE = 16;  // of a tile of sums
constexpr int DEPTH = 32; // numbers that share a factor
constexpr int TILE = SIDE * DEPTH;

// Whether these weights are laid out as above.
inline bool takes(const ggml_tensor * weights) {
    return weights->type == GGML_TYPE_Q8_0 && weights->ne[1] % SIDE == 0 && weights->ne[2] == 1 && weights->ne[3] == 1;
}

// Whether they are where rows are read from this layout. Other tables than that of words are not: models look at some of
// them in other ways too, and are laid out before it is known how. Of this one it is known: it may be the last product's.
inline bool is_table(const ggml_tensor * weights) {
    return takes(weights) && weights->ne[1] % (2 * SIDE) == 0 && strcmp(weights->name, "token_embd.weight") == 0;
}

// Bytes of 16 rows.
inline int64_t strip_size(int64_t blocks) {
    return blocks * (TILE + SIDE * (int64_t) sizeof(ggml_half));
}

inline void pack(ggml_tensor * weights, const void * rows) {
    const int64_t blocks = weights->ne[0] / DEPTH;
    parallel_for((int) (weights->ne[1] / SIDE), [&](int begin, int end) {
        for (int64_t strip = begin; strip < end; ++strip) {
            char * tiles = (char *) weights->data + strip * strip_size(blocks);
            char * factors = tiles + blocks * TILE;
            for (int64_t row = 0; row < SIDE; ++row) {
                const block_q8_0 * block = (const block_q8_0 *) rows + (strip * SIDE + row) * blocks;
                for (int64_t b = 0; b < blocks; ++b, ++block) {
                    for (int four = 0; four < DEPTH / 4; ++four) {
                        memcpy(tiles + b * TILE + (four * SIDE + row) * 4, block->qs + four * 4, 4);
                    }
                    memcpy(factors + (b * SIDE + row) * sizeof(ggml_half), &block->d, sizeof(ggml_half));
                }
            }
        }
    });
}

// All of them, as they came.
inline void unpack(const ggml_tensor * weights, void * rows) {
    const int64_t blocks = weights->ne[0] / DEPTH;
    block_q8_0 * block = (block_q8_0 *) rows;
    for (int64_t row = 0; row < weights->ne[1]; ++row) {
        const char * tiles = (const char *) weights->data + row / SIDE * strip_size(blocks);
        const char * factors = tiles + blocks * TILE;
        for (int64_t b = 0; b < blocks; ++b, ++block) {
            for (int four = 0; four < DEPTH / 4; ++four) {
                memcpy(block->qs + four * 4, tiles + b * TILE + (four * SIDE + row % SIDE) * 4, 4);
            }
            memcpy(&block->d, factors + (b * SIDE + row % SIDE) * sizeof(ggml_half), sizeof(ggml_half));
        }
    }
}

// Of a buffer for AMX, which llama.cpp never reads back; but the table of words is elsewhere in its own, and is read.
inline void get_tensor(ggml_backend_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    if (takes(tensor)) {
        GGML_ASSERT(!tensor->view_src && offset == 0 && size == ggml_nbytes(tensor));
        unpack(tensor, data);
    } else {
        GGML_ASSERT(!qtype_has_amx_kernels(tensor->type));
        memcpy(data, (const char *) tensor->data + offset, size);
    }
}

inline void unpack_row(const ggml_tensor * weights, int64_t row, float * out) {
    const int64_t blocks = weights->ne[0] / DEPTH;
    const char * tiles = (const char *) weights->data + row / SIDE * strip_size(blocks);
    const char * factors = tiles + blocks * TILE;
    for (int64_t b = 0; b < blocks; ++b) {
        ggml_half factor;
        memcpy(&factor, factors + (b * SIDE + row % SIDE) * sizeof(factor), sizeof(factor));
        for (int i = 0; i < DEPTH; ++i) {
            *out++ = GGML_CPU_FP16_TO_FP32(factor) * (int8_t) tiles[b * TILE + (i / 4 * SIDE + row % SIDE) * 4 + i % 4];
        }
    }
}

inline void get_rows(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * weights = dst->src[0], * wanted = dst->src[1];
    for (int64_t i = params->ith; i < ggml_nelements(wanted); i += params->nth) {
        const int32_t row = ((const int32_t *) wanted->data)[i];
        GGML_ASSERT(row >= 0 && row < weights->ne[1]);
        unpack_row(weights, row, (float *) dst->data + i * dst->ne[0]);
    }
}

// One row of activations to its place among 16.
inline void quantize(const float * row, int64_t blocks, int8_t * tiles, float * factors, int32_t * totals) {
    for (int64_t b = 0; b < blocks; ++b, row += DEPTH, tiles += TILE, factors += SIDE, totals += SIDE) {
        const __m512 left = _mm512_loadu_ps(row), right = _mm512_loadu_ps(row + 16);
        const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(left), _mm512_abs_ps(right)));
        const __m512 inverse = _mm512_set1_ps(most > 0.0f ? 127.0f / most : 0.0f);
        const __m128i whole_left = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(left, inverse)));
        const __m128i whole_right = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(right, inverse)));
        _mm_store_si128((__m128i *) tiles, whole_left);
        _mm_store_si128((__m128i *) (tiles + 16), whole_right);
        *factors = most / 127.0f;
        // Of what is stored: what is no number is the least there, and a sum of such would go round.
        const __m512i sums = _mm512_add_epi32(_mm512_cvtepi8_epi32(whole_left), _mm512_cvtepi8_epi32(whole_right));
        *totals = -128 * _mm512_reduce_add_epi32(sums);
    }
}

template <int ROWS>
inline void add(__m512 (&sums)[ROWS], const __m512i * tile, const float * factors, const char * weights_factors) {
    const __m512 columns = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) weights_factors));
    for (int row = 0; row < ROWS; ++row) {
        const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(tile[row]), columns);
        sums[row] = _mm512_fmadd_ps(product, _mm512_set1_ps(factors[row]), sums[row]);
    }
}

// What a call works on: 16 rows of activations, of which `rows` are there, and 16 of weights.
struct Work {
    const int8_t * tiles;
    const float * factors;
    const int32_t * totals;
    const char * weights;
    int64_t blocks;
    float * out;
    int64_t stride; // between rows of `out`
    int rows;
    const char * ahead; // what to fetch meanwhile, so many lines of 64 bytes for each block
    int lines;
};

inline void fetch_ahead(const Work & work, int64_t b) {
    for (int i = 0; i < work.lines; ++i) {
        _mm_prefetch(work.ahead + (b * work.lines + i) * 64, _MM_HINT_T1);
    }
}

template <int ROWS>
inline void store(const Work & work, const __m512 (&sums)[ROWS]) {
    for (int row = 0; row < std::min(ROWS, work.rows); ++row) {
        _mm512_storeu_ps(work.out + row * work.stride, sums[row]);
    }
}

template <int ROWS>
inline void multiply_few(const Work & work) {
    const __m512i middle = _mm512_set1_epi8((char) 0x80);
    const char * weights_factors = work.weights + work.blocks * TILE;
    __m512 sums[ROWS];
    for (int row = 0; row < ROWS; ++row) {
        sums[row] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < work.blocks; ++b) {
        fetch_ahead(work, b);
        // The instruction wants one side unsigned: to the weights 128 is added, and taken back at once.
        __m512i tile[ROWS];
        for (int row = 0; row < ROWS; ++row) {
            tile[row] = _mm512_set1_epi32(work.totals[b * SIDE + row]);
        }
        for (int four = 0; four < DEPTH / 4; ++four) {
            const __m512i weights = _mm512_xor_si512(_mm512_loadu_si512(work.weights + b * TILE + four * 64), middle);
            for (int row = 0; row < ROWS; ++row) {
                int32_t numbers;
                memcpy(&numbers, work.tiles + b * TILE + row * DEPTH + four * 4, sizeof(numbers));
                tile[row] = _mm512_dpbusd_epi32(tile[row], weights, _mm512_set1_epi32(numbers));
            }
        }
        add<ROWS>(sums, tile, work.factors + b * SIDE, weights_factors + b * SIDE * sizeof(ggml_half));
    }
    store(work, sums);
}

template <int ROWS>
inline void multiply(const Work & work) {
    __m512i even[SIDE], odd[SIDE];
    const char * weights_factors = work.weights + work.blocks * TILE;
    __m512 sums[ROWS];
    for (int row = 0; row < ROWS; ++row) {
        sums[row] = _mm512_setzero_ps();
    }
    // A tile's register is part of the instruction's text, so there is a product for each of two sets.
    const auto product_even = [&](int64_t b) {
        fetch_ahead(work, b);
        _tile_loadd(TMM0, work.weights + b * TILE, 64);
        _tile_loadd(TMM2, work.tiles + b * TILE, DEPTH);
        _tile_zero(TMM4);
        _tile_dpbssd(TMM4, TMM2, TMM0);
        _tile_stored(TMM4, even, 64);
    };
    const auto product_odd = [&](int64_t b) {
        fetch_ahead(work, b);
        _tile_loadd(TMM1, work.weights + b * TILE, 64);
        _tile_loadd(TMM3, work.tiles + b * TILE, DEPTH);
        _tile_zero(TMM5);
        _tile_dpbssd(TMM5, TMM3, TMM1);
        _tile_stored(TMM5, odd, 64);
    };
    const auto add_up = [&](int64_t b, const __m512i * tile) {
        add<ROWS>(sums, tile, work.factors + b * SIDE, weights_factors + b * SIDE * sizeof(ggml_half));
    };
    product_even(0);
    for (int64_t b = 0; b < work.blocks; b += 2) {
        if (b + 1 < work.blocks) {
            product_odd(b + 1);
        }
        add_up(b, even);
        if (b + 2 < work.blocks) {
            product_even(b + 2);
        }
        if (b + 1 < work.blocks) {
            add_up(b + 1, odd);
        }
    }
    store(work, sums);
}

inline void multiply(const Work & work) {
    if (work.rows > 12) {
        multiply<16>(work);
    } else if (work.rows > 8) {
        multiply<12>(work);
    } else if (work.rows > 4) {
        multiply<8>(work);
    } else if (work.rows > 1) {
        multiply_few<4>(work);
    } else {
        multiply_few<1>(work);
    }
}

// The tiles' shapes: as amx/mmq.cpp has them, so that each finds them whoever came first.
inline void shape_tiles() {
    static thread_local bool done = false;
    if (done) {
        return;
    }
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, unused[14] = {};
        uint16_t row_bytes[16] = {64, 64, 32, 32, 64, 64, 64, 64};
        uint8_t rows[16] = {8, 8, 16, 16, 16, 16, 16, 16};
    } shapes;
    _tile_loadconfig(&shapes);
    done = true;
}

inline int64_t strips(int64_t rows) {
    return (rows + SIDE - 1) / SIDE;
}

// Bytes that `forward` wants to work in.
inline size_t work_size(const ggml_tensor * dst) {
    if (dst->op == GGML_OP_GET_ROWS) {
        return 0;
    }
    const int64_t blocks = dst->src[0]->ne[0] / DEPTH;
    return strips(ggml_nrows(dst)) * blocks * (TILE + SIDE * (sizeof(float) + sizeof(int32_t))) + 64;
}

inline void mul_mat(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * weights = dst->src[0], * input = dst->src[1];
    const int64_t width = weights->ne[0], blocks = width / DEPTH, columns = dst->ne[0], rows = ggml_nrows(dst);
    GGML_ASSERT(params->wsize >= work_size(dst));
    int8_t * tiles = (int8_t *) (((uintptr_t) params->wdata + 63) / 64 * 64);
    float * factors = (float *) (tiles + strips(rows) * blocks * TILE);
    int32_t * totals = (int32_t *) (factors + strips(rows) * blocks * SIDE);
    for (int64_t row = params->ith; row < rows; row += params->nth) {
        const int64_t first = row / SIDE * blocks, place = row % SIDE;
        const float * from = (const float *) input->data + row * width;
        const int64_t at = first * SIDE + place;
        quantize(from, blocks, tiles + first * TILE + place * DEPTH, factors + at, totals + at);
    }
    ggml_barrier(params->threadpool);

    shape_tiles();
    const int64_t in_a_block = (strip_size(1) + 63) / 64; // lines
    const int lines = (int) ((in_a_block + strips(rows) - 1) / strips(rows));
    parallel_for_ggml(params, (int) (columns / SIDE), [&](int begin, int end) {
        for (int64_t column = begin; column < end; ++column) {
            const char * strip = (const char *) weights->data + column * strip_size(blocks);
            for (int64_t i = 0; i < strips(rows); ++i) {
                multiply({
                    tiles + i * blocks * TILE, factors + i * blocks * SIDE, totals + i * blocks * SIDE, strip, blocks,
                    (float *) dst->data + i * SIDE * columns + column * SIDE, columns, (int) std::min<int64_t>(SIDE, rows - i * SIDE),
                    strip + strip_size(blocks) + i * blocks * lines * 64, lines,
                });
            }
        }
    });
}

inline void forward(const ggml_compute_params * params, ggml_tensor * dst) {
    if (dst->op == GGML_OP_GET_ROWS) {
        get_rows(params, dst);
    } else {
        mul_mat(params, dst);
    }
}

} // namespace q8_0
