// Products of a few rows with blocks of weights, whose sums stay in registers.
#pragma once

#include <array>
#include <utility>
#include <vector>

#include "arithmetic.h"

namespace {

// Memory that will be read soon: two ranges, one after the other, fetched into the cache line by line while something is computed.
struct Soon {
    const char *at = nullptr, *end = nullptr, *then = nullptr, *then_end = nullptr;

    Soon() = default;
    Soon(const void* from, const void* to, const void* next, const void* next_end)
        : at((const char*)from), end((const char*)to), then((const char*)next), then_end((const char*)next_end) {}

    bool done() const { return at >= end && then >= then_end; }

    void fetch() {
        if (at >= end) {
            if (then >= then_end) return;
            at = then, end = then_end, then = then_end;
        }
        __builtin_prefetch(at);
        at += 64;
    }
};
constexpr int LINES = 3;  // fetched every second step

// out[m][n] = sum over k of w[k, n] x[m, k], for M rows and N blocks, one k after the other. w[k, n] stands at w + k next + n block;
// with APART every row has weights of its own, that of row m at so much times m. Else they are those of a Matrix, and meanwhile what
// `soon` names is fetched, and a line every second step of the weights at `ahead`.
template <class F, int M, int N, bool APART>
void tile(int steps, const typename F::Number* x, long row, const typename F::Number* w, long next, long block, long apart, Soon* soon,
          const char* ahead, Vec* out) {
    Vec sums[M][N];
#pragma GCC unroll 32
    for (int i = 0; i < M * N; i++) sums[i / N][i % N] = Vec{};
    Soon fetching;
    if (!APART) fetching = *soon, block = V * F::PACK, next = N * block;
    const auto step = [&]() __attribute__((always_inline)) {
        typename F::Lanes lanes[N];
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            if (APART || m == 0)
#pragma GCC unroll 8
                for (int n = 0; n < N; n++) lanes[n] = load<typename F::Lanes>(w + m * apart + n * block);
            const auto cell = load<typename F::Cell>(x + m * row);
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) sums[m][n] = F::multiply_add(sums[m][n], lanes[n], cell);
        }
        w += next;
        x += F::PACK;
    };
    for (int k = 1; k < steps; k += 2) {
        step();
        step();
        if (!APART) {
            __builtin_prefetch(ahead);
            ahead += 64;
            for (int i = 0; i < LINES; i++) fetching.fetch();
        }
    }
    if (steps % 2) step();
    if (!APART) *soon = fetching;
#pragma GCC unroll 32
    for (int i = 0; i < M * N; i++) out[i / N * BLOCKS + i % N] = sums[i / N][i % N];
}

template <class F>
using Tile = void (*)(int, const typename F::Number*, long, const typename F::Number*, long, long, long, Soon*, const char*, Vec*);

template <class F, bool APART, int... I> constexpr std::array<Tile<F>, sizeof...(I)> tiles(std::integer_sequence<int, I...>) {
    return {tile<F, I / BLOCKS + 1, I % BLOCKS + 1, APART>...};
}
template <class F, bool APART>  // by rows, then blocks
constexpr auto TILES = tiles<F, APART>(std::make_integer_sequence<int, ROWS * BLOCKS>());

// Of a linear layer. Blocks lie side by side in groups of BLOCKS, so that a tile reads its weights from one end to the other.
template <class F> struct Matrix {
    int steps = 0, blocks = 0;
    Buffer<typename F::Number> weights{0};
    std::vector<float> bias;

    // `w` has shape (outputs, inputs). `interleave`: blocks of the first half of the outputs and of the second half by turns.
    void pack(const float* w, const float* b, int outputs, int inputs, bool interleave = false) {
        const int halves = interleave ? 2 : 1, part = outputs / halves;
        steps = padded(inputs, F::PACK) / F::PACK;
        blocks = halves * padded(part, V) / V;
        weights = Buffer<typename F::Number>(size_t(blocks) * steps * V * F::PACK);
        bias.assign(size_t(blocks) * V, 0.0f);
        for (int o = 0; o < outputs; o++) {
            const int half = o / part, within = o % part, place = (within / V * halves + half) * V + within % V;
            if (b) bias[place] = b[o];
            const int block = place / V, first = block / BLOCKS * BLOCKS, n = std::min(BLOCKS, blocks - first);
            auto* to = weights.get() + (size_t(first) * steps + block - first) * V * F::PACK + place % V * F::PACK;
            for (int i = 0; i < inputs; i++) to[size_t(i / F::PACK) * n * V * F::PACK + i % F::PACK] = F::of(w[size_t(o) * inputs + i]);
        }
    }

    // put(row, first block, number of blocks, sums and biases) for every tile of the product with `rows` rows of x.
    // `ask()` says before every tile what to fetch during it.
    template <class Ask, class Put> void multiply(const typename F::Number* x, long row, int rows, Ask ask, Put put) const {
        if (rows == 0) return;
        const long tiles = (rows + ROWS - 1) / ROWS;
        for (int j = 0; j < blocks; j += BLOCKS) {
            const int n = std::min(BLOCKS, blocks - j);
            const long numbers = long(n) * steps * V * F::PACK, share = numbers / tiles;  // of the next weights, each tile fetches a share
            const auto* here = weights.get() + long(j) * steps * V * F::PACK;
            for (int i = 0; i < rows; i += ROWS) {
                const int m = std::min(ROWS, rows - i);
                Vec out[ROWS * BLOCKS];
                const auto product = TILES<F, false>[(m - 1) * BLOCKS + n - 1];
                const auto* ahead = reinterpret_cast<const char*>(here + numbers + i / ROWS * share);
                product(steps, x + i * row, row, here, 0, 0, 0, &ask(), ahead, out);
                for (int r = 0; r < m; r++) {
                    for (int c = 0; c < n; c++) out[r * BLOCKS + c] += load<Vec>(&bias[(j + c) * V]);
                    put(i + r, j, n, out + r * BLOCKS);
                }
            }
        }
    }
};

}  // namespace
