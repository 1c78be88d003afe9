// How a token is drawn from logits: the random number of (seed, story, position), truncation, inverse of the distribution.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "arithmetic.h"

extern "C" {

struct Settings {
    uint64_t key;
    int64_t first, stories;
    int32_t limit, end, top_k, prompt;
    double temperature, top_p, min_p;
    const int32_t* prompts;  // (stories, prompt) tokens that are given; -1 where the story is free. Or null
    float* logits;           // (stories, limit, vocabulary) where they are wanted, or null
};

}  // extern "C"

namespace {

inline uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

inline double uniform(uint64_t key, uint64_t story, uint64_t position) {
    const uint64_t state = key ^ mixed(story * 0x9E3779B97F4A7C15ull + 1);
    return double(mixed(mixed(state + position * 0xD1B54A32D192ED03ull)) >> 11) * 0x1p-53;
}

inline double wide_sum(const float* w, int first, int last) {  // over whole vectors
    Wide total{};
    for (int i = first; i < last; i += V) total += __builtin_convertvector(load<Vec>(w + i), Wide);
    double result = 0;
    for (int i = 0; i < V; i++) result += total[i];
    return result;
}

// The least weight that survives top-k, then top-p, then min-p; equal weights survive together. The largest weight is 1.
float threshold(const float* w, int size, const Settings& s, std::vector<float>& kept) {
    double least = s.min_p;
    const bool by_rank = s.top_k > 0 && s.top_k < size;
    if (by_rank || s.top_p < 1) {
        double floor = 0;
        if (s.top_p < 1 && !by_rank) {  // what is lighter than this adds up to less than top-p cuts off
            double total = 0;
            for (int i = 0; i < size; i++) total += w[i];
            floor = (1 - s.top_p) * total / size * 0.999;
        }
        kept.clear();
        for (int i = 0; i < size; i++)
            if (w[i] >= floor) kept.push_back(w[i]);
        if (by_rank) {
            std::nth_element(kept.begin(), kept.begin() + s.top_k - 1, kept.end(), std::greater<float>());
            const float rank = kept[s.top_k - 1];
            least = std::max(least, double(rank));
            if (s.top_p < 1) kept.erase(std::remove_if(kept.begin(), kept.end(), [&](float x) { return x < rank; }), kept.end());
        }
        if (s.top_p < 1) {
            std::sort(kept.begin(), kept.end(), std::greater<float>());
            double total = 0, reached = 0;
            if (by_rank)
                for (const float x : kept) total += x;
            else
                for (int i = 0; i < size; i++) total += w[i];
            size_t last = 0;
            while (last + 1 < kept.size() && (reached += kept[last]) < s.top_p * total) last++;
            least = std::max(least, double(kept[last]));
        }
    }
    return std::min(1.0f, float(least));
}

// The token at which the cumulative distribution passes u; -1 where logits are not finite. `logits` is padded with -infinity to
// whole vectors and becomes the weights e^((logit - largest) / temperature).
int choose(float* logits, int size, int full, double u, const Settings& s, std::vector<float>& kept) {
    Vec most = load<Vec>(logits);
    bool bad = false;
    for (int i = V; i < full; i += V) {
        const Vec x = load<Vec>(logits + i);
        most = x > most ? x : most;
    }
    const float top = largest(most);
    bad = !std::isfinite(top);
    if (s.temperature == 0) {
        int token = 0;
        while (token < size && logits[token] != top) token++;
        for (int i = 0; i < size; i++) bad |= std::isnan(logits[i]);
        return bad || token == size ? -1 : token;
    }
    const float inverse = float(1 / s.temperature);
    for (int i = 0; i < full; i += V) store(logits + i, exponential((load<Vec>(logits + i) - top) * inverse));
    if (s.top_k > 0 || s.top_p < 1 || s.min_p > 0) {
        const float least = threshold(logits, size, s, kept);
        for (int i = 0; i < full; i += V) {
            const Vec x = load<Vec>(logits + i);
            store(logits + i, x >= least ? x : Vec{});
        }
    }
    constexpr int CHUNK = 16 * V;
    double chunks[65536 / CHUNK + 64], total = 0;
    std::vector<double> more;
    const int number = (full + CHUNK - 1) / CHUNK;
    double* sums = chunks;
    if (size_t(number) > sizeof chunks / sizeof *chunks) more.resize(number), sums = more.data();
    for (int c = 0; c < number; c++) total += sums[c] = wide_sum(logits, c * CHUNK, std::min(full, (c + 1) * CHUNK));
    if (bad || !std::isfinite(total)) return -1;
    double before = 0;
    int c = 0, token = -1;
    while (c + 1 < number && before + sums[c] <= u * total) before += sums[c++];
    for (int i = c * CHUNK; i < std::min(size, (c + 1) * CHUNK); i++) {
        if (logits[i] <= 0) continue;
        token = i;  // rounding may leave the sum short of u * total: then the last token that has any probability
        if ((before += logits[i]) > u * total) break;
    }
    for (int i = c * CHUNK - 1; token < 0 && i >= 0; i--)
        if (logits[i] > 0) token = i;
    return token;
}

}  // namespace
