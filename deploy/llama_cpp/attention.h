// Attention for many sequences in one cache, on AVX-512 or AVX2. Included by llama.cpp's ops.cpp (see build.cmake), whose own
// code serves what `takes` does not.
//
// llama.cpp takes each row, head and cell by itself, the cells of other sequences included; or 64 rows at once, and then all
// cells that any of the 64 sees. Here rows that see nearly the same cells are a group: some of one sequence's prompt, or one
// row that produces. A group's cells are listed once. 64 at a time are gathered, and all rows of the group with all heads
// that share these keys and values are multiplied with them, as one small matrix each way. All sums are f32.
//
// Softmax in one pass, with a running maximum: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
#pragma once

#if defined(__BMI2__) && defined(__F16C__) && defined(__FMA__) && (defined(__AVX512BW__) || defined(__AVX2__))
#define GATHERED_ATTENTION

#include <immintrin.h>

#include <algorithm>
#include <vector>

namespace gathered {

// --- vectors of floats ---------------------------------------------------------------------------------------------------

#if defined(__AVX512BW__)
using Vector = __m512;
constexpr int LANES = 16;
constexpr int TILE_VECTORS = 4; // of a tile of sums: with six rows, as many as the registers hold

inline Vector load(const float * from) { return _mm512_loadu_ps(from); }
inline Vector load_half(const void * from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from)); }
inline void store(float * to, Vector a) { _mm512_storeu_ps(to, a); }
inline Vector all(float x) { return _mm512_set1_ps(x); }
inline Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector larger(Vector a, Vector b) { return _mm512_max_ps(a, b); }
inline float largest(Vector a) { return _mm512_reduce_max_ps(a); }
inline float sum(Vector a) { return _mm512_reduce_add_ps(a); }
inline Vector where(uint64_t bits, Vector a, Vector b) { return _mm512_mask_blend_ps((__mmask16) bits, b, a); }

// One bit for each of 64 cells: whether it is seen, that is, not at minus infinity.
inline uint64_t seen_of_64(const ggml_fp16_t * mask) {
    const __m512i hidden = _mm512_set1_epi16((short) 0xFC00);
    return _mm512_cmpneq_epi16_mask(_mm512_loadu_si512(mask), hidden) |
        (uint64_t) _mm512_cmpneq_epi16_mask(_mm512_loadu_si512(mask + 32), hidden) << 32;
}

// out[column * stride + row] = rows[row][column]
inline void turn(const Vector (&rows)[LANES], float * out, int64_t stride) {
    Vector a[LANES], b[LANES];
    for (int i = 0; i < LANES; i += 2) {
        a[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        for (int j = 0; j < 2; ++j) {
            const __m512d first = _mm512_castps_pd(a[i + j]), second = _mm512_castps_pd(a[i + j + 2]);
            b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second));
            b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(first, second));
        }
    }
    for (int i = 0; i < 4; ++i) {
        const Vector even = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), odd = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        const Vector even2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        const Vector odd2 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        store(out + i * stride, _mm512_shuffle_f32x4(even, even2, 0x88));
        store(out + (i + 4) * stride, _mm512_shuffle_f32x4(odd, odd2, 0x88));
        store(out + (i + 8) * stride, _mm512_shuffle_f32x4(even, even2, 0xdd));
        store(out + (i + 12) * stride, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
    }
}
#else
using Vector = __m256;
constexpr int LANES = 8;
constexpr int TILE_VECTORS = 2;

inline Vector load(const float * from) { return _mm256_loadu_ps(from); }
inline Vector load_half(const void * from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from)); }
inline void store(float * to, Vector a) { _mm256_storeu_ps(to, a); }
inline Vector all(float x) { return _mm256_set1_ps(x); }
inline Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
inline Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
inline Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector larger(Vector a, Vector b) { return _mm256_max_ps(a, b); }

inline float largest(Vector a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

inline float sum(Vector a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

inline Vector where(uint64_t bits, Vector a, Vector b) {
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int) (bits & 255)), each), each);
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(set));
}

inline uint64_t seen_of_64(const ggml_fp16_t * mask) {
    const __m256i hidden = _mm256_set1_epi16((short) 0xFC00);
    uint64_t bits = 0;
    for (int i = 0; i < 64; i += 32) {
        const __m256i low = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *) (mask + i)), hidden);
        const __m256i high = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *) (mask + i + 16)), hidden);
        const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xd8);
        bits |= (uint64_t) (uint32_t) ~_mm256_movemask_epi8(bytes) << i;
    }
    return bits;
}

inline void turn(const Vector (&rows)[LANES], float * out, int64_t stride) {
    Vector a[LANES], b[LANES];
    for (int i = 0; i < LANES; i += 2) {
        a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        for (int j = 0; j < 2; ++j) {
            b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
            b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
        }
    }
    for (int i = 0; i < 4; ++i) {
        store(out + i * stride, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
        store(out + (i + 4) * stride, _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
    }
}
#endif

// --- small products ------------------------------------------------------------------------------------------------------

// A matrix in memory: its first number, and how far a row is from the next.
template <typename T>
struct Matrix {
    T * at;
    int64_t stride;
    Matrix from(int64_t row, int64_t column) const { return {at + row * stride + column, stride}; }
};

// out [ROWS][VECTORS * LANES], or with `more` what it is and that: left [ROWS][depth] times right [depth][VECTORS * LANES]
template <int ROWS, int VECTORS>
inline void product_tile(Matrix<float> out, Matrix<const float> left, Matrix<const float> right, int depth, bool more) {
    Vector sums[ROWS][VECTORS];
    for (int row = 0; row < ROWS; ++row) {
        for (int i = 0; i < VECTORS; ++i) {
            sums[row][i] = more ? load(out.at + row * out.stride + i * LANES) : all(0.0f);
        }
    }
    for (int step = 0; step < depth; ++step) {
        Vector columns[VECTORS];
        for (int i = 0; i < VECTORS; ++i) {
            columns[i] = load(right.at + step * right.stride + i * LANES);
        }
        for (int row = 0; row < ROWS; ++row) {
            const Vector factor = all(left.at[row * left.stride + step]);
            for (int i = 0; i < VECTORS; ++i) {
                sums[row][i] = multiply_add(factor, columns[i], sums[row][i]);
            }
        }
    }
    for (int row = 0; row < ROWS; ++row) {
        for (int i = 0; i < VECTORS; ++i) {
            store(out.at + row * out.stride + i * LANES, sums[row][i]);
        }
    }
}

template <int VECTORS>
inline void product_rows(
    Matrix<float> out, Matrix<const float> left, Matrix<const float> right, int rows, int depth, bool more
) {
    int row = 0;
    for (; row + 6 <= rows; row += 6) {
        product_tile<6, VECTORS>(out.from(row, 0), left.from(row, 0), right, depth, more);
    }
    for (; row + 3 <= rows; row += 3) {
        product_tile<3, VECTORS>(out.from(row, 0), left.from(row, 0), right, depth, more);
    }
    for (; row < rows; ++row) {
        product_tile<1, VECTORS>(out.from(row, 0), left.from(row, 0), right, depth, more);
    }
}

// The same for any number of rows, and any number of columns that is a multiple of LANES.
inline void product(
    Matrix<float> out, Matrix<const float> left, Matrix<const float> right, int rows, int columns, int depth, bool more
) {
    int column = 0;
    for (; column + TILE_VECTORS * LANES <= columns; column += TILE_VECTORS * LANES) {
        product_rows<TILE_VECTORS>(out.from(0, column), left, right.from(0, column), rows, depth, more);
    }
    for (; column < columns; column += LANES) {
        product_rows<1>(out.from(0, column), left, right.from(0, column), rows, depth, more);
    }
}

// --- groups --------------------------------------------------------------------------------------------------------------

constexpr int CELLS = 64;     // that are gathered at once: one word of bits
constexpr int MOST_ROWS = 32; // of a group
constexpr int LINE = 16;      // floats of a line of the processor's cache

struct Group {
    int first, rows;
    std::vector<int32_t> cells; // that any of the rows sees, ascending
    std::vector<uint64_t> seen; // for each row, for each 64 of `cells`: which of them this row sees

    size_t words() const { return (cells.size() + CELLS - 1) / CELLS; }
};

// What a thread works with. Kept from call to call.
struct Scratch {
    std::vector<Group> groups;
    std::vector<uint64_t> rows, any, joined;
    std::vector<float> queries, keys, values, scores, sums, most, total;
};

inline int64_t count(const std::vector<uint64_t> & bits) {
    int64_t n = 0;
    for (const uint64_t word : bits) {
        n += __builtin_popcountll(word);
    }
    return n;
}

// `rows`: for each row of the group, for each cell of the cache, whether it is seen; `any`: by one of them at least.
inline void list_cells(Group & group, const std::vector<uint64_t> & rows, const std::vector<uint64_t> & any) {
    group.cells.clear();
    for (size_t i = 0; i < any.size(); ++i) {
        for (uint64_t rest = any[i]; rest; rest &= rest - 1) {
            group.cells.push_back((int32_t) (i * CELLS + __builtin_ctzll(rest)));
        }
    }
    group.seen.assign(group.rows * group.words(), 0);
    for (int row = 0; row < group.rows; ++row) {
        uint64_t * seen = group.seen.data() + row * group.words();
        int64_t place = 0;
        for (size_t i = 0; i < any.size(); ++i) {
            const int n = __builtin_popcountll(any[i]), shift = place % CELLS;
            if (n == 0) {
                continue;
            }
            const uint64_t packed = _pext_u64(rows[row * any.size() + i], any[i]);
            seen[place / CELLS] |= packed << shift;
            if (shift + n > CELLS) {
                seen[place / CELLS + 1] |= packed >> (CELLS - shift);
            }
            place += n;
        }
    }
}

// Returns how many of `s.groups` hold this stream's rows. A row joins those before it where that makes the cells to be
// looked at, over all rows, hardly more.
inline size_t make_groups(Scratch & s, const ggml_tensor * mask, int64_t stream, int rows) {
    const size_t words = mask->ne[0] / CELLS;
    s.rows.resize(MOST_ROWS * words);
    s.any.resize(words);
    s.joined.resize(words);
    size_t made = 0;
    for (int row = 0; row < rows;) {
        if (made == s.groups.size()) {
            s.groups.emplace_back();
        }
        Group & group = s.groups[made++];
        group.first = row;
        group.rows = 0;
        std::fill(s.any.begin(), s.any.end(), 0);
        int64_t looked_at = 0; // by one row
        for (; row < rows && group.rows < MOST_ROWS; ++row, ++group.rows) {
            const char * from = (const char *) mask->data + row * mask->nb[1] + stream * mask->nb[3];
            uint64_t * bits = s.rows.data() + group.rows * words;
            int64_t alone = 0;
            for (size_t i = 0; i < words; ++i) {
                bits[i] = seen_of_64((const ggml_fp16_t *) from + i * CELLS);
                alone += __builtin_popcountll(bits[i]);
                s.joined[i] = s.any[i] | bits[i];
            }
            const int64_t together = count(s.joined);
            if (group.rows > 0 && (group.rows + 1) * together > (group.rows * looked_at + alone) * 5 / 4 + CELLS) {
                break;
            }
            s.any.swap(s.joined);
            looked_at = together;
        }
        list_cells(group, s.rows, s.any);
    }
    return made;
}

// --- attention -----------------------------------------------------------------------------------------------------------

// `size` floats, from a line of the cache on.
inline float * room(std::vector<float> & what, size_t size) {
    if (what.size() < size + LINE) {
        what.resize(size + LINE);
    }
    return (float *) (((uintptr_t) what.data() + 63) / 64 * 64);
}

// Of the scores of one row for 64 cells: the weights, not yet divided by their sum. `sums` of the row so far are made smaller
// where a score is higher than all before.
inline void soften(float * scores, uint64_t seen, float & most, float & total, float * sums, int width) {
    constexpr int PARTS = CELLS / LANES;
    Vector part[PARTS], high = all(-INFINITY);
    for (int i = 0; i < PARTS; ++i) {
        part[i] = where(seen >> (i * LANES), load(scores + i * LANES), all(-INFINITY));
        high = larger(high, part[i]);
    }
    const float now = std::max(most, largest(high));
    if (now == -INFINITY) { // it has seen nothing yet
        std::fill(scores, scores + CELLS, 0.0f);
        return;
    }
    if (now > most) {
        const float less = expf(most - now);
        for (int i = 0; i < width; i += LANES) {
            store(sums + i, multiply(load(sums + i), all(less)));
        }
        total *= less;
        most = now;
    }
    Vector added = all(0.0f);
    for (int i = 0; i < PARTS; ++i) {
        const Vector weight = ggml_v_expf(subtract(part[i], all(now)));
        store(scores + i * LANES, weight);
        added = add(added, weight);
    }
    total += sum(added);
}

// One group's rows, for all heads that share these keys and values. Whether all that came out are numbers.
inline bool attend(Scratch & s, ggml_tensor * dst, const Group & group, int64_t stream, int64_t head) {
    const ggml_tensor * q = dst->src[0], * k = dst->src[1], * v = dst->src[2];
    const int width = (int) k->ne[0];
    const int heads = (int) (q->ne[2] / k->ne[2]);
    const int rows = group.rows * heads; // row 0 for each head, row 1 for each head, ...
    const int n_cells = (int) group.cells.size();
    float scale;
    memcpy(&scale, dst->op_params, sizeof(float));

    float * queries = room(s.queries, rows * width), * sums = room(s.sums, rows * width);
    float * keys = room(s.keys, width * CELLS), * values = room(s.values, CELLS * width);
    float * scores = room(s.scores, rows * CELLS), * most = room(s.most, rows), * total = room(s.total, rows);
    for (int row = 0; row < rows; ++row) {
        const float * from = (const float *) ((const char *) q->data + (group.first + row / heads) * q->nb[1] +
            (head * heads + row % heads) * q->nb[2] + stream * q->nb[3]);
        for (int i = 0; i < width; i += LANES) {
            store(queries + row * width + i, multiply(load(from + i), all(scale)));
        }
    }
    std::fill(sums, sums + rows * width, 0.0f);
    std::fill(most, most + rows, -INFINITY);
    std::fill(total, total + rows, 0.0f);

    const char * k_head = (const char *) k->data + head * k->nb[2] + stream / (q->ne[3] / k->ne[3]) * k->nb[3];
    const char * v_head = (const char *) v->data + head * v->nb[2] + stream / (q->ne[3] / v->ne[3]) * v->nb[3];
    for (int first = 0; first < n_cells; first += CELLS) {
        const int n = std::min(CELLS, n_cells - first);
        const int32_t * cells = group.cells.data() + first;
        for (int i = CELLS; i < std::min(2 * CELLS, n_cells - first); ++i) { // the next ones
            for (int at = 0; at < width; at += 32) {
                _mm_prefetch(k_head + cells[i] * k->nb[1] + at * sizeof(ggml_fp16_t), _MM_HINT_T0);
                _mm_prefetch(v_head + cells[i] * v->nb[1] + at * sizeof(ggml_fp16_t), _MM_HINT_T0);
            }
        }
        for (int block = 0; block < CELLS; block += LANES) { // keys: [width][CELLS]
            for (int at = 0; at < width; at += LANES) {
                Vector of[LANES];
                for (int i = 0; i < LANES; ++i) {
                    const char * key = k_head + cells[std::min(block + i, n - 1)] * k->nb[1];
                    of[i] = load_half(key + at * sizeof(ggml_fp16_t));
                }
                turn(of, keys + at * CELLS + block, CELLS);
            }
        }
        for (int i = 0; i < n; ++i) { // values: [CELLS][width]
            for (int at = 0; at < width; at += LANES) {
                store(values + i * width + at, load_half(v_head + cells[i] * v->nb[1] + at * sizeof(ggml_fp16_t)));
            }
        }
        product({scores, CELLS}, {queries, width}, {keys, CELLS}, rows, CELLS, width, false);
        for (int row = 0; row < rows; ++row) {
            const uint64_t seen = group.seen[row / heads * group.words() + first / CELLS];
            soften(scores + row * CELLS, seen, most[row], total[row], sums + row * width, width);
        }
        product({sums, width}, {scores, CELLS}, {values, width}, rows, width, n, true);
    }
    Vector nothing = all(0.0f);
    for (int row = 0; row < rows; ++row) {
        float * to = (float *) ((char *) dst->data + (head * heads + row % heads) * dst->nb[1] +
            (group.first + row / heads) * dst->nb[2] + stream * dst->nb[3]);
        const Vector factor = all(total[row] == 0.0f ? 0.0f : 1.0f / total[row]);
        for (int i = 0; i < width; i += LANES) {
            const Vector result = multiply(load(sums + row * width + i), factor);
            nothing = multiply_add(result, all(0.0f), nothing);
            store(to + i, result);
        }
    }
    return sum(nothing) == 0.0f;
}

// One row of a group, with the cells that it sees.
inline Group alone(const Group & group, int row) {
    Group one = {group.first + row, 1, {}, {}};
    for (size_t i = 0; i < group.cells.size(); ++i) {
        if (group.seen[row * group.words() + i / CELLS] >> (i % CELLS) & 1) {
            one.seen.resize(one.cells.size() / CELLS + 1);
            one.seen.back() |= (uint64_t) 1 << (one.cells.size() % CELLS);
            one.cells.push_back(group.cells[i]);
        }
    }
    return one;
}

// Where a value is infinite or no number, so is its product with the weight zero of a row that does not see it: then each
// row by itself, that no sequence comes into another's.
inline void attend_apart(Scratch & s, ggml_tensor * dst, const Group & group, int64_t stream, int64_t head) {
    if (!attend(s, dst, group, stream, head) && group.rows > 1) {
        for (int row = 0; row < group.rows; ++row) {
            attend(s, dst, alone(group, row), stream, head);
        }
    }
}

// Whether `forward` can do it. A mask without slopes holds zero where a cell is seen and minus infinity elsewhere.
inline bool takes(const ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0], * k = dst->src[1], * v = dst->src[2], * mask = dst->src[3], * sinks = dst->src[4];
    float slope, softcap;
    memcpy(&slope, (const float *) dst->op_params + 1, sizeof(float));
    memcpy(&softcap, (const float *) dst->op_params + 2, sizeof(float));
    return mask && !sinks && slope == 0.0f && softcap == 0.0f &&
        q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && mask->type == GGML_TYPE_F16 &&
        q->nb[0] == sizeof(float) && k->nb[0] == sizeof(ggml_fp16_t) && v->nb[0] == sizeof(ggml_fp16_t) &&
        k->ne[0] == v->ne[0] && k->ne[0] % 16 == 0 && k->ne[1] % CELLS == 0 && k->ne[2] == v->ne[2] &&
        mask->ne[0] == k->ne[1] && mask->ne[2] == 1;
}

inline void forward(const ggml_compute_params * params, ggml_tensor * dst) {
    static thread_local Scratch s;
    const ggml_tensor * q = dst->src[0], * k = dst->src[1], * mask = dst->src[3];
    int64_t turn = 0;
    for (int64_t stream = 0; stream < q->ne[3]; ++stream) {
        const size_t groups = make_groups(s, mask, stream % mask->ne[3], (int) q->ne[1]);
        for (size_t i = 0; i < groups; ++i) {
            for (int64_t head = 0; head < k->ne[2]; ++head, ++turn) {
                if (turn % params->nth == params->ith) {
                    attend_apart(s, dst, s.groups[i], stream, head);
                }
            }
        }
    }
}

} // namespace gathered
#endif
