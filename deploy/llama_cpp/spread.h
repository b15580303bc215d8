// How sure a model is, of one row of logits, in two passes instead of numpy's six. Included by llama.cpp's ops.cpp after
// attention.h, and called by gateway/edge/model.py, which does without it where it is not.
#pragma once

#ifdef GATHERED_ATTENTION

namespace gathered {

// The exponential of what is at most zero, to four parts in a million.
inline Vector quick_exp(Vector a) {
#if defined(__AVX512BW__)
    const Vector turns = multiply(a, all(0x1.715476p+0f)); // powers of two
    const Vector whole = _mm512_roundscale_ps(turns, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const Vector rest = subtract(turns, whole); // at most a half, either way
    Vector power = all(0.00960046f);
    power = multiply_add(power, rest, all(0.05591691f));
    power = multiply_add(power, rest, all(0.24023717f));
    power = multiply_add(power, rest, all(0.69312200f));
    power = multiply_add(power, rest, all(1.0f));
    return _mm512_scalef_ps(power, whole);
#else
    return ggml_v_expf(a);
#endif
}

} // namespace gathered

// out: the place of the largest logit; the logarithm of the sum of all exponentials; the mean logit; and by how much the
// likeliest's probability exceeds the second's. `n` is at least 1. Of equal logits the first is the largest.
extern "C" __attribute__((visibility("default"))) void firstdraft_spread(const float * logits, int64_t n, double * out) {
    using namespace gathered;
    constexpr int CHAINS = 4; // that do not wait for each other
    constexpr int64_t BLOCK = 64 * LANES;
    float best = -INFINITY, second = -INFINITY; // of blocks
    int64_t block = 0;
    for (int64_t from = 0; from < n; from += BLOCK) {
        const int64_t to = std::min(from + BLOCK, n);
        Vector high[CHAINS] = {all(-INFINITY), all(-INFINITY), all(-INFINITY), all(-INFINITY)};
        int64_t i = from;
        for (; i + CHAINS * LANES <= to; i += CHAINS * LANES) {
            for (int chain = 0; chain < CHAINS; ++chain) {
                high[chain] = larger(high[chain], load(logits + i + chain * LANES));
            }
        }
        float here = largest(larger(larger(high[0], high[1]), larger(high[2], high[3])));
        for (; i < to; ++i) {
            here = std::max(here, logits[i]);
        }
        if (here > best) {
            second = best;
            best = here;
            block = from;
        } else {
            second = std::max(second, here);
        }
    }
    const int64_t end = std::min(block + BLOCK, n);
    int64_t top = block;
    while (top + 1 < end && logits[top] != best) {
        ++top;
    }
    for (int64_t i = block; i < end; ++i) {
        second = i == top ? second : std::max(second, logits[i]);
    }

    double total = 0.0, weighted = 0.0; // of exponentials, and of logits by them, both relative to the best
    for (int64_t from = 0; from < n; from += BLOCK) {
        const int64_t to = std::min(from + BLOCK, n);
        Vector sums = all(0.0f), products = all(0.0f);
        int64_t i = from;
        for (; i + LANES <= to; i += LANES) {
            const Vector below = subtract(load(logits + i), all(best)), weight = quick_exp(below);
            sums = add(sums, weight);
            products = multiply_add(weight, larger(below, all(-1e30f)), products); // minus infinity by zero is no number
        }
        total += sum(sums);
        weighted += sum(products);
        for (; i < to; ++i) {
            const float below = logits[i] - best, weight = expf(below);
            total += weight;
            weighted += weight * std::max(below, -1e30f);
        }
    }
    out[0] = (double) top;
    out[1] = best + log(total);
    out[2] = best + weighted / total;
    out[3] = (1.0 - exp((double) second - best)) / total;
}

#endif
