// How sure a model is, of one row of logits, in two passes instead of numpy's six. Included by llama.cpp's ops.cpp after
// attention.h, and called by gateway/edge/model.py, which does without it where it is not.
#pragma once

#ifdef GATHERED_ATTENTION

// out: the place of the largest logit; the logarithm of the sum of all exponentials; the mean logit; and by how much the
// likeliest's probability exceeds the second's. `n` is at least 1. Of equal logits the first is the largest.
extern "C" __attribute__((visibility("default"))) void firstdraft_spread(const float * logits, int64_t n, double * out) {
    using namespace gathered;
    constexpr int64_t BLOCK = 64 * LANES;
    const auto largest_of = [&](int64_t from, int64_t to, int64_t but) {
        Vector high = all(-INFINITY);
        float highest = -INFINITY;
        int64_t i = from;
        for (; i + LANES <= to; i += LANES) {
            if (i <= but && but < i + LANES) {
                for (int64_t j = i; j < i + LANES; ++j) {
                    highest = j == but ? highest : std::max(highest, logits[j]);
                }
            } else {
                high = larger(high, load(logits + i));
            }
        }
        for (; i < to; ++i) {
            highest = i == but ? highest : std::max(highest, logits[i]);
        }
        return std::max(highest, largest(high));
    };
    float best = -INFINITY, second = -INFINITY; // of blocks
    int64_t block = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        const float here = largest_of(i, std::min(i + BLOCK, n), -1);
        if (here > best) {
            second = best;
            best = here;
            block = i;
        } else {
            second = std::max(second, here);
        }
    }
    int64_t top = block;
    while (top + 1 < std::min(block + BLOCK, n) && logits[top] != best) {
        ++top;
    }
    second = std::max(second, largest_of(block, std::min(block + BLOCK, n), top));

    double total = 0.0, weighted = 0.0; // of exponentials, and of logits by them, both relative to the best
    for (int64_t from = 0; from < n; from += BLOCK) {
        const int64_t to = std::min(from + BLOCK, n);
        Vector sums = all(0.0f), products = all(0.0f);
        int64_t i = from;
        for (; i + LANES <= to; i += LANES) {
            const Vector below = subtract(load(logits + i), all(best)), weight = ggml_v_expf(below);
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
