// The network: its weights as products want them.
#pragma once

#include "products.h"

extern "C" {

struct Shape {
    int32_t llama, bfloat16, vocabulary, context, width, layers, heads, kv_heads, head_size, feed_forward;
    float epsilon;
};

// Pointers to float32 arrays of shape (outputs, inputs), or null where the network has none.
struct Layer {
    const float *norm1, *norm1_bias, *qkv, *qkv_bias, *out, *out_bias, *norm2, *norm2_bias, *up, *up_bias, *down, *down_bias;
};

struct Weights {
    const float *tokens, *positions, *rotary, *norm, *norm_bias, *head;  // rotary: (context, head_size): cosines, then sines
    const Layer* layers;
    const float* attention_scale;  // of each layer
};

}  // extern "C"

namespace {

template <class F> struct Block {
    std::vector<float> norm1, norm1_bias, norm2, norm2_bias;
    Matrix<F> qkv, out, up, down;
    float scale;
};

template <class F> struct Network {
    Shape shape;
    std::vector<float> tokens, positions, rotary, norm, norm_bias;
    std::vector<Block<F>> blocks;
    Matrix<F> head;

    Network(const Shape& s, const Weights& w) : shape(s), blocks(s.layers) {
        const auto copy = [](const float* from, size_t n) { return std::vector<float>(from, from ? from + n : from); };
        const int d = s.width, q = s.heads * s.head_size, kv = s.kv_heads * s.head_size, ff = s.feed_forward;
        tokens = copy(w.tokens, size_t(s.vocabulary) * d);
        positions = copy(w.positions, size_t(s.context) * d);
        rotary = copy(w.rotary, size_t(s.context) * s.head_size);
        norm = copy(w.norm, d);
        norm_bias = copy(w.norm_bias, d);
        head.pack(w.head, nullptr, s.vocabulary, d);
        for (int l = 0; l < s.layers; l++) {
            const Layer& from = w.layers[l];
            Block<F>& to = blocks[l];
            to.norm1 = copy(from.norm1, d);
            to.norm1_bias = copy(from.norm1_bias, d);
            to.norm2 = copy(from.norm2, d);
            to.norm2_bias = copy(from.norm2_bias, d);
            to.qkv.pack(from.qkv, from.qkv_bias, q + 2 * kv, d);
            to.out.pack(from.out, from.out_bias, d, q);
            to.up.pack(from.up, from.up_bias, s.llama ? 2 * ff : ff, d, s.llama);
            to.down.pack(from.down, from.down_bias, d, ff);
            to.scale = w.attention_scale[l];
        }
    }
};

}  // namespace
