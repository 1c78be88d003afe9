// The decode loop of GPT-2 and Llama on a processor: products, attention over a cache, and the draw, for many stories at once.
//
// Every thread owns some slots. A slot holds one story; when that ends, it takes the next one. A step gives each live slot one
// token. Threads share nothing but the counter of stories, so there is no barrier, and memory is fixed when the session opens.
//
// Bits: the numbers of a story come from sums over its own row, in an order that depends on the shape of the network and on the
// story's position alone. So a story does not depend on the number of slots or threads, nor on what is sampled beside it.
//
// One layout serves every product y = W x. W is cut into blocks of V outputs; a block holds, for input after input, the V weights
// next to each other (bfloat16: inputs in pairs, as the instruction vdpbf16ps wants them). The cached keys of V successive
// positions are such a block (inputs: the head's dimensions), and so are V dimensions of the cached values (inputs: positions).
//
// bfloat16: weights, keys, values, and the inputs of products are rounded to it; sums, norms, the residual stream and the softmax
// are float32. float32: all is.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>
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
    x = x < -80.0f ? all(-80.0f) : x;  // beyond, e^-x overflows
    const Vec y = exponential(x < 0.0f ? x : -x);
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

// What will be read soon, fetched into the cache while a product is computed: what lies `ahead` of its weights, unless that is 0,
// and as many times two lines of 64 bytes as `pairs` says, from `at` on.
struct Soon {
    long ahead = 0;
    const char* at = nullptr;
    int pairs = 0;
};

// out[m][n] = sum over k of w[k, n] x[m, k], for M rows and N blocks, one k after the other.
template <class F, int M, int N>
void tile(int steps, const typename F::Number* x, long row, const typename F::Number* w, long next, long block, Soon soon,
          Vec* out) {
    Vec sums[M][N] = {};
    for (int k = 0; k < steps; k++) {
        typename F::Lanes lanes[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) lanes[n] = load<typename F::Lanes>(w + n * block);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const auto cell = load<typename F::Cell>(x + m * row);
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) sums[m][n] = F::multiply_add(sums[m][n], lanes[n], cell);
        }
        if (soon.ahead)
            for (int n = 0; n < N; n++) __builtin_prefetch(w + n * block + soon.ahead, 0, 2);
        if (k < soon.pairs) {
            __builtin_prefetch(soon.at, 0, 2);
            __builtin_prefetch(soon.at + 64, 0, 2);
            soon.at += 128;
        }
        w += next;
        x += F::PACK;
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) out[m * BLOCKS + n] = sums[m][n];
}

template <class F> using Tile = void (*)(int, const typename F::Number*, long, const typename F::Number*, long, long, Soon, Vec*);

template <class F, int... I> constexpr std::array<Tile<F>, sizeof...(I)> tiles(std::integer_sequence<int, I...>) {
    return {tile<F, I / BLOCKS + 1, I % BLOCKS + 1>...};
}
template <class F> constexpr auto TILES = tiles<F>(std::make_integer_sequence<int, ROWS * BLOCKS>());  // by rows, then blocks

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

// Ranges of memory that wait to be fetched, piece by piece.
struct Waiting {
    std::vector<std::pair<const char*, const char*>> ranges;  // the first is the last

    template <class T> void push(const T* from, const T* to) {
        ranges.push_back({reinterpret_cast<const char*>(from), reinterpret_cast<const char*>(to)});
    }

    Soon take(int steps) {
        while (!ranges.empty() && ranges.back().first >= ranges.back().second) ranges.pop_back();
        if (ranges.empty()) return {};
        auto& [at, end] = ranges.back();
        const Soon piece{0, at, int(std::min<long>(steps, (end - at + 127) / 128))};
        at += 128L * piece.pairs;
        return piece;
    }
};

template <class F> struct Matrix {  // of a linear layer
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
            auto* to = weights.get() + size_t(place / V) * steps * V * F::PACK + place % V * F::PACK;
            for (int i = 0; i < inputs; i++) to[size_t(i / F::PACK) * V * F::PACK + i % F::PACK] = F::of(w[size_t(o) * inputs + i]);
        }
    }

    // put(row, first block, number of blocks, sums and biases) for every tile of the product with `rows` rows of x.
    template <class Put> void multiply(const typename F::Number* x, long row, int rows, Waiting& waiting, Put put) const {
        const long next = V * F::PACK, block = steps * next;
        for (int j = 0; j < blocks; j += BLOCKS) {
            const int n = std::min(BLOCKS, blocks - j);
            for (int i = 0; i < rows; i += ROWS) {
                const int m = std::min(ROWS, rows - i);
                Soon soon = waiting.take(steps);
                if (i == 0) soon.ahead = BLOCKS * block;
                Vec out[ROWS * BLOCKS];
                TILES<F>[(m - 1) * BLOCKS + n - 1](steps, x + i * row, row, weights.get() + j * block, next, block, soon, out);
                for (int r = 0; r < m; r++) {
                    for (int c = 0; c < n; c++) out[r * BLOCKS + c] += load<Vec>(&bias[(j + c) * V]);
                    put(i + r, j, n, out + r * BLOCKS);
                }
            }
        }
    }
};

}  // namespace

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

struct Slot {
    int64_t story;
    int position, token, place;  // place: where its tokens and its cache are
};

struct Finished {
    std::vector<int64_t> story;
    std::vector<int32_t> length, tokens;
};

struct Session {
    Shape shape;
    Settings settings;
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> bad{0};
    virtual ~Session() = default;
    virtual bool advance(int64_t steps) = 0;
    virtual Finished& finished(int thread) = 0;
    virtual int64_t cache_bytes() const = 0;
};

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

template <class F> struct Worker {
    using Number = typename F::Number;
    const Network<F>& net;
    Session& session;
    const Shape& s;
    const int width, qkv_width, h_row, inner, span, key_size, value_size;  // row lengths
    const size_t per_head;  // numbers of a head's cache: keys, then values
    std::vector<Slot> live;
    Buffer<float> x, qkv, logits, scores;
    Buffer<Number> h, wide, weights, cache;
    std::vector<int32_t> written;
    Waiting waiting;
    std::vector<float> kept;
    Finished done;

    Worker(const Network<F>& net, Session& session, int slots)
        : net(net), session(session), s(net.shape), width(padded(s.width, V)), qkv_width(net.blocks[0].qkv.blocks * V),
          h_row(std::max(width, padded(s.heads * s.head_size, V))), inner(padded(s.feed_forward, V)),
          span(padded(session.settings.limit, V) + V),  // one more: strides that are powers of two would share cache sets
          key_size(padded(s.head_size, F::PACK)), value_size(padded(s.head_size, V)),
          per_head(size_t(span) * (key_size + value_size)),
          x(size_t(slots) * width), qkv(size_t(slots) * qkv_width), logits(size_t(slots) * net.head.blocks * V),
          scores(size_t(ROWS) * span), h(size_t(slots) * h_row), wide(size_t(slots) * inner),
          weights(size_t(ROWS) * (span + V) + size_t(ROWS) * padded(s.head_size, V)),
          cache(size_t(slots) * s.layers * s.kv_heads * per_head), written(size_t(slots) * session.settings.limit) {
        for (int place = 0; place < slots; place++) begin(place);
    }

    void begin(int place) {
        const int64_t story = session.next++;
        if (story < session.settings.stories) live.push_back({story, 0, session.settings.end, place});
    }

    void normalise(const float* from, const std::vector<float>& gain, const std::vector<float>& bias, Number* to) const {
        const int d = s.width, whole = d / V * V;
        Vec total{}, squares{};
        float mean = 0;
        if (!s.llama) {
            for (int i = 0; i < whole; i += V) total += load<Vec>(from + i);
            mean = sum(total);
            for (int i = whole; i < d; i++) mean += from[i];
            mean /= d;
        }
        for (int i = 0; i < whole; i += V) {
            const Vec c = load<Vec>(from + i) - mean;
            squares += c * c;
        }
        float variance = sum(squares);
        for (int i = whole; i < d; i++) variance += (from[i] - mean) * (from[i] - mean);
        const float scale = 1 / std::sqrt(variance / d + s.epsilon);
        for (int i = 0; i < whole; i += V) {
            Vec y = (load<Vec>(from + i) - mean) * scale * load<Vec>(&gain[i]);
            if (!bias.empty()) y += load<Vec>(&bias[i]);
            F::put(to + i, y);
        }
        for (int i = whole; i < d; i++) to[i] = F::of((from[i] - mean) * scale * gain[i] + (bias.empty() ? 0 : bias[i]));
    }

    void rotate(float* head, int position) const {
        const int half = s.head_size / 2;
        const float *cosine = &net.rotary[size_t(position) * s.head_size], *sine = cosine + half;
        for (int i = 0; i < half; i++) {
            const float a = head[i], b = head[i + half];
            head[i] = a * cosine[i] - b * sine[i];
            head[i + half] = b * cosine[i] + a * sine[i];
        }
    }

    Number* cache_of(const Slot& slot, int layer) const {
        return cache.get() + (size_t(slot.place) * s.layers + layer) * s.kv_heads * per_head;
    }

    void rounded_to(Number* to, const float* head, float scale) const {
        for (int i = 0; i < value_size; i += V) F::put(to + i, load<Vec>(head + i) * scale);
        if (s.head_size % F::PACK) to[s.head_size] = 0;
    }

    // Puts the key and the value of position t where they belong.
    void remember(const float* key, const float* value, int t, Number* number, Number* keys, Number* values) const {
        rounded_to(number, key, 1);
        Number* column = keys + size_t(t / V) * key_size * V + t % V * F::PACK;
        for (int i = 0; i < key_size; i += F::PACK) store(column + i * V, load<typename F::Cell>(number + i));
        rounded_to(number, value, 1);
        F::insert(values + size_t(t / F::PACK) * value_size * F::PACK, number, value_size, t % F::PACK);
    }

    // Attention of one story at one layer: its query over the keys and values of positions 0 to its own.
    void attend(const Slot& slot, const Slot& following, int layer, float* row, Number* to) {
        const int d = s.head_size, t = slot.position, count = t + 1, group = s.heads / s.kv_heads;
        const long span_of_weights = span + V;
        float *q = row, *k = row + s.heads * d, *v = k + s.kv_heads * d;
        if (s.llama) {
            for (int i = 0; i < s.heads; i++) rotate(q + i * d, t);
            for (int i = 0; i < s.kv_heads; i++) rotate(k + i * d, t);
        }
        const float scale = net.blocks[layer].scale;
        Number* base = cache_of(slot, layer);
        Number *p = weights.get(), *query = p + ROWS * span_of_weights;
        Vec out[ROWS * BLOCKS];
        for (int g = 0; g < s.kv_heads; g++, base += per_head) {
            const long ahead = g + 1 < s.kv_heads ? long(per_head) : cache_of(following, layer) - base;
            Number *keys = base, *values = base + size_t(span) * key_size;
            remember(k + g * d, v + g * d, t, query, keys, values);
            for (int first = 0; first < group; first += ROWS) {
                const int heads = std::min(ROWS, group - first), query_size = value_size, blocks = (count + V - 1) / V;
                for (int m = 0; m < heads; m++) rounded_to(query + m * query_size, q + (g * group + first + m) * d, scale);
                for (int b = 0; b < blocks; b += BLOCKS) {
                    const int n = std::min(BLOCKS, blocks - b);
                    TILES<F>[(heads - 1) * BLOCKS + n - 1](key_size / F::PACK, query, query_size, keys + size_t(b) * key_size * V,
                                                           V * F::PACK, long(key_size) * V, {ahead}, out);
                    for (int m = 0; m < heads; m++)
                        for (int c = 0; c < n; c++) store(&scores[m * span + (b + c) * V], out[m * BLOCKS + c]);
                }
                float total[ROWS];
                for (int m = 0; m < heads; m++) total[m] = soften(&scores[m * span], count, p + m * span_of_weights);
                for (int b = 0; b < value_size / V; b += BLOCKS) {
                    const int n = std::min(BLOCKS, value_size / V - b);
                    TILES<F>[(heads - 1) * BLOCKS + n - 1]((count + F::PACK - 1) / F::PACK, p, span_of_weights,
                                                           values + b * V * F::PACK, value_size * F::PACK, V * F::PACK, {ahead}, out);
                    for (int m = 0; m < heads; m++) {
                        Number* head = to + (g * group + first + m) * d;
                        for (int c = 0; c < n; c++) {
                            const Vec mean = out[m * BLOCKS + c] / total[m];
                            const int at = (b + c) * V;
                            if (at + V <= d) F::put(head + at, mean);
                            else
                                for (int i = at; i < d; i++) head[i] = F::of(mean[i - at]);
                        }
                    }
                }
            }
        }
    }

    // Scores to weights e^(score - largest), rounded to the format, and their sum.
    float soften(float* score, int count, Number* to) const {
        const int full = padded(count, V);
        for (int i = count; i < full; i++) score[i] = -INFINITE;
        Vec most = load<Vec>(score), total{};
        for (int i = V; i < full; i += V) {
            const Vec v = load<Vec>(score + i);
            most = v > most ? v : most;
        }
        const float top = largest(most);
        for (int i = 0; i < full; i += V) {
            Vec e = exponential(load<Vec>(score + i) - top);
            if (F::PACK == 2) e = (Vec)(rounded((Bits)e) & 0xffff0000u);
            F::put(to + i, e);
            total += e;
        }
        return sum(total);
    }

    // One layer for all live slots. The keys and values that the next layer reads are fetched while this one computes.
    void layer(int l) {
        const Block<F>& block = net.blocks[l];
        const int rows = int(live.size());
        const auto add = [&](int row, int at, int n, const Vec* y) {
            float* to = &x[size_t(row) * width + at * V];
            for (int c = 0; c < n; c++) store(to + c * V, load<Vec>(to + c * V) + y[c]);
        };
        for (int i = 0; i < rows; i++) normalise(&x[size_t(i) * width], block.norm1, block.norm1_bias, &h[size_t(i) * h_row]);
        block.qkv.multiply(h.get(), h_row, rows, waiting, [&](int row, int at, int n, const Vec* y) {
            for (int c = 0; c < n; c++) store(&qkv[size_t(row) * qkv_width + (at + c) * V], y[c]);
        });
        for (int i = 0; i < rows; i++)
            attend(live[i], live[std::min(i + 1, rows - 1)], l, &qkv[size_t(i) * qkv_width], &h[size_t(i) * h_row]);
        await((l + 1) % s.layers);
        block.out.multiply(h.get(), h_row, rows, waiting, add);
        for (int i = 0; i < rows; i++) normalise(&x[size_t(i) * width], block.norm2, block.norm2_bias, &h[size_t(i) * h_row]);
        block.up.multiply(h.get(), h_row, rows, waiting, [&](int row, int at, int n, const Vec* y) {
            Number* to = &wide[size_t(row) * inner];
            if (s.llama)
                for (int c = 0; c < n; c += 2) F::put(to + (at + c) / 2 * V, y[c] * sigmoid(y[c]) * y[c + 1]);
            else
                for (int c = 0; c < n; c++) F::put(to + (at + c) * V, gelu(y[c]));
        });
        block.down.multiply(wide.get(), inner, rows, waiting, add);
    }

    // Queues what attention at layer l reads, in its order.
    void await(int l) {
        waiting.ranges.clear();
        for (auto slot = live.rbegin(); slot != live.rend(); ++slot) {
            const int count = slot->position;
            for (int g = s.kv_heads; g-- > 0;) {
                const Number *keys = cache_of(*slot, l) + g * per_head, *values = keys + size_t(span) * key_size;
                waiting.push(values, values + size_t(count) * value_size);
                waiting.push(keys, keys + size_t(padded(count, V)) * key_size);
            }
        }
    }

    void step() {
        const int rows = int(live.size());
        for (int i = 0; i < rows; i++) {
            const float* token = &net.tokens[size_t(live[i].token) * s.width];
            float* to = &x[size_t(i) * width];
            std::copy(token, token + s.width, to);
            if (!s.llama)
                for (int j = 0; j < s.width; j++) to[j] += net.positions[size_t(live[i].position) * s.width + j];
        }
        for (int l = 0; l < s.layers; l++) layer(l);
        for (int i = 0; i < rows; i++) normalise(&x[size_t(i) * width], net.norm, net.norm_bias, &h[size_t(i) * h_row]);
        const int full = net.head.blocks * V;
        net.head.multiply(h.get(), h_row, rows, waiting, [&](int row, int first, int n, const Vec* y) {
            for (int c = 0; c < n; c++) store(&logits[size_t(row) * full + (first + c) * V], y[c]);
        });
        draw(full);
    }

    void draw(int full) {
        const Settings& g = session.settings;
        size_t going = 0;
        std::vector<int> free;
        for (size_t i = 0; i < live.size(); i++) {
            Slot slot = live[i];
            float* row = &logits[i * full];
            std::fill(row + s.vocabulary, row + full, -INFINITE);
            if (g.logits) std::copy(row, row + s.vocabulary, g.logits + (slot.story * g.limit + slot.position) * s.vocabulary);
            int token = g.prompts && slot.position < g.prompt ? g.prompts[slot.story * g.prompt + slot.position] : -1;
            if (token < 0) token = choose(row, s.vocabulary, full, uniform(g.key, g.first + slot.story, slot.position), g, kept);
            if (token < 0) session.bad++, token = g.end;
            int32_t* tokens = &written[size_t(slot.place) * g.limit];
            tokens[slot.position++] = slot.token = token;
            if (token != g.end && slot.position < g.limit) {
                live[going++] = slot;
                continue;
            }
            done.story.push_back(g.first + slot.story);
            done.length.push_back(slot.position);
            done.tokens.insert(done.tokens.end(), tokens, tokens + slot.position);
            free.push_back(slot.place);
        }
        live.resize(going);
        for (const int place : free) begin(place);
    }
};

template <class F> struct Running : Session {
    Network<F> net;
    std::vector<std::unique_ptr<Worker<F>>> workers;

    Running(const Shape& shape_, const Weights& w, const Settings& settings_, int slots, int threads) : net(shape_, w) {
        shape = shape_;
        settings = settings_;
        for (int i = 0; i < threads; i++)
            workers.push_back(std::make_unique<Worker<F>>(net, *this, slots / threads + (i < slots % threads)));
    }

    bool advance(int64_t steps) override {
        const auto work = [&](Worker<F>& worker) {
            for (int64_t i = 0; i < steps && !worker.live.empty() && !bad; i++) worker.step();
        };
        std::vector<std::thread> others;
        for (size_t i = 1; i < workers.size(); i++) others.emplace_back(work, std::ref(*workers[i]));
        work(*workers[0]);
        for (auto& thread : others) thread.join();
        return std::any_of(workers.begin(), workers.end(), [](const auto& worker) { return !worker->live.empty(); });
    }

    Finished& finished(int thread) override { return workers[thread]->done; }

    int64_t cache_bytes() const override {
        int64_t total = 0;
        for (const auto& w : workers)
            total += w->written.size() / settings.limit * shape.layers * shape.kv_heads * w->per_head * sizeof(typename F::Number);
        return total;
    }
};

}  // namespace

extern "C" {

void* refeed_open(const Shape* shape, const Weights* weights, const Settings* settings, int32_t slots, int32_t threads) {
    try {
        if (shape->bfloat16) return static_cast<Session*>(new Running<BFloat16>(*shape, *weights, *settings, slots, threads));
        return static_cast<Session*>(new Running<Float32>(*shape, *weights, *settings, slots, threads));
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

// At most `steps` tokens for every slot. 1: stories are left; 0: all are done; -1: some logits are not finite.
int32_t refeed_advance(void* session, int64_t steps) {
    auto& running = *static_cast<Session*>(session);
    const bool more = running.advance(steps);
    return running.bad ? -1 : more;
}

// What a thread has finished since it was last asked: the number of stories; `collect` copies them out and forgets them.
int64_t refeed_finished(void* session, int32_t thread, int64_t* num_tokens) {
    const Finished& done = static_cast<Session*>(session)->finished(thread);
    *num_tokens = int64_t(done.tokens.size());
    return int64_t(done.story.size());
}

void refeed_collect(void* session, int32_t thread, int64_t* story, int32_t* length, int32_t* tokens) {
    Finished& done = static_cast<Session*>(session)->finished(thread);
    std::copy(done.story.begin(), done.story.end(), story);
    std::copy(done.length.begin(), done.length.end(), length);
    std::copy(done.tokens.begin(), done.tokens.end(), tokens);
    done.story.clear(), done.length.clear(), done.tokens.clear();
}

int64_t refeed_cache_bytes(void* session) { return static_cast<Session*>(session)->cache_bytes(); }

void refeed_close(void* session) { delete static_cast<Session*>(session); }

}  // extern "C"
