// Vectors, number formats, and memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#ifdef __unix__
#include <sys/mman.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
constexpr int V = 16, ROWS = 6, BLOCKS = 4;  // lanes of a vector; a product's tile: 24 of the 32 registers
#else
constexpr int V = 8, ROWS = 4, BLOCKS = 2;
#endif

typedef float Vec __attribute__((vector_size(4 * V)));
typedef int32_t Int __attribute__((vector_size(4 * V)));
typedef uint32_t Bits __attribute__((vector_size(4 * V)));
typedef uint16_t Half __attribute__((vector_size(2 * V)));
typedef double Wide __attribute__((vector_size(8 * V)));

namespace {

constexpr size_t PAGE = size_t(1) << 21;
constexpr float INFINITE = std::numeric_limits<float>::infinity();

inline int padded(int n, int to) { return (n + to - 1) / to * to; }

template <class T> inline T load(const void* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

template <class T> inline void store(void* p, T value) { std::memcpy(p, &value, sizeof value); }

inline Vec all(float x) { return Vec{} + x; }

inline float sum(Vec v) {  // in a fixed order
    float total = 0;
    for (int i = 0; i < V; i++) total += v[i];
    return total;
}

inline float largest(Vec v) {
    float most = v[0];
    for (int i = 1; i < V; i++) most = std::max(most, v[i]);
    return most;
}

inline Vec exponential(Vec x) {  // e^x for x <= 88, to 1 unit in the last place; 0 below -87
    const Vec n = (x * 1.44269504f + 12582912.f) - 12582912.f;  // round(x / log 2)
    const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Int power = (__builtin_convertvector(n, Int) + 127) << 23;
    return x < -87.0f ? Vec{} : p * (Vec)power;
}

inline Vec sigmoid(Vec x) {
    const Vec least = x < 0.0f ? x : -x, y = exponential(least < -80.0f ? all(-80.0f) : least);  // beyond, 1 + y is 1, y next to 0
    return (x < 0.0f ? y : all(1.0f)) / (y + 1.0f);
}

// In its tanh form: (1 + tanh u) / 2 = sigmoid 2u.
inline Vec gelu(Vec x) { return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x)); }

template <class T> T rounded(T bits) { return bits + 0x7fff + ((bits >> 16) & 1); }  // to bfloat16 in the upper half, ties to even

// Number formats of weights, cache and inputs. PACK inputs stand together in a cell.
struct Float32 {
    using Number = float;
    using Cell = float;
    using Lanes = Vec;
    static constexpr int PACK = 1;
    static Number of(float x) { return x; }
    static void put(Number* to, Vec x) { store(to, x); }
    static void insert(Number* to, const Number* x, int count, int) { std::copy(x, x + count, to); }
    static Vec multiply_add(Vec sum, Lanes w, Cell x) { return sum + w * x; }
};

struct BFloat16 {
    using Number = uint16_t;
    using Cell = uint32_t;
    using Lanes = Bits;
    static constexpr int PACK = 2;
    static Number of(float x) { return rounded(load<uint32_t>(&x)) >> 16; }
    static void put(Number* to, Vec x) {
#ifdef __AVX512BF16__
        store(to, _mm512_cvtneps_pbh((__m512)x));
#else
        store(to, __builtin_convertvector(rounded((Bits)x) >> 16, Half));
#endif
    }
    static void insert(Number* to, const Number* x, int count, int second) {  // into the first or second halves of `count` pairs
        for (int i = 0; i < count; i += V) {
            const Bits number = __builtin_convertvector(load<Half>(x + i), Bits), first = load<Bits>(to + 2 * i) & 0xffff;
            store(to + 2 * i, second ? first | number << 16 : number);
        }
    }
    static Vec multiply_add(Vec sum, Lanes w, Cell x) {
#ifdef __AVX512BF16__
        return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(int(x)));
#else
        const uint32_t low = x << 16, high = x & 0xffff0000u;
        sum = sum + (Vec)(w << 16) * load<float>(&low);
        return sum + (Vec)(w & 0xffff0000u) * load<float>(&high);
#endif
    }
};

// Zeros that no other object shares, on huge pages where the system has them; what is never touched costs no memory.
template <class T> class Buffer {
    std::unique_ptr<void, void (*)(void*)> memory;
    T* first;

  public:
    explicit Buffer(size_t count) : memory(std::calloc(count * sizeof(T) + PAGE + 64, 1), std::free) {
        if (!memory) throw std::bad_alloc();
        const size_t bytes = count * sizeof(T);
        const uintptr_t at = uintptr_t(memory.get()), alignment = bytes >= PAGE ? PAGE : 64;
        first = reinterpret_cast<T*>((at + alignment - 1) / alignment * alignment);
#ifdef MADV_HUGEPAGE
        if (bytes >= PAGE) madvise(first, bytes / PAGE * PAGE, MADV_HUGEPAGE);
#endif
    }
    T* get() const { return first; }
    T& operator[](size_t i) const { return first[i]; }
};

}  // namespace
