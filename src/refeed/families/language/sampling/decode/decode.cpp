// The decode loop of GPT-2 and Llama on a processor: products, attention over a cache, and the draw, for many stories at once.
//
// Every thread owns some slots. A slot holds one story; when that ends, it takes the next one. A step gives each live slot one
// token. Threads share nothing but the counter of stories, so there is no barrier, and memory is fixed when the session opens.
//
// A thread's slots are two groups that take turns: while the products of one are computed, which needs no memory to speak of, the
// keys and values of the other's slots are fetched, slot by slot, and each attends once its own are in the cache.
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

#include <atomic>
#include <thread>

#include "draw.h"
#include "network.h"

namespace {

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

// Stories that go through the network together, layer by layer. Between two stages their queries, keys and values are ready, and
// attention is due.
template <class F> struct Group {
    std::vector<Slot> live;
    int layer = 0;        // at which attention is due
    size_t attended = 0;  // so many slots have had it
    Buffer<float> x, qkv;
    Buffer<typename F::Number> h;

    Group(int slots, int width, int qkv_width, int h_row)
        : x(size_t(slots) * width), qkv(size_t(slots) * qkv_width), h(size_t(slots) * h_row) {}
};

template <class F> struct Worker {
    using Number = typename F::Number;
    const Network<F>& net;
    Session& session;
    const Shape& s;
    const int half;                                                        // slots of a group, at most
    const int width, qkv_width, h_row, inner, span, key_size, value_size;  // row lengths
    const long key_block, value_row;     // numbers from V positions to the next, from PACK positions to the next
    const size_t keys_size, cache_size;  // numbers of a slot's keys at one layer; of keys and values
    std::array<Group<F>, 2> groups;
    Group<F>* other = &groups[1];                         // whose attention is computed meanwhile
    Soon soon;                                            // what is being fetched for it
    bool asked = false;                                   // for its next slot
    Buffer<float> logits, scores;
    Buffer<Number> wide, weights, cache;
    std::vector<int32_t> written;
    std::vector<float> kept;
    Finished done;

    Worker(const Network<F>& net, Session& session, int slots)
        : net(net), session(session), s(net.shape), half((slots + 1) / 2), width(padded(s.width, V)), qkv_width(net.blocks[0].qkv.blocks * V),
          h_row(std::max(width, padded(s.heads * s.head_size, V))), inner(padded(s.feed_forward, V)),
          span(padded(session.settings.limit, V) + V),  // one more: strides that are powers of two would share cache sets
          key_size(padded(s.head_size, F::PACK)), value_size(padded(s.head_size, V)),
          key_block(long(s.kv_heads) * key_size * V), value_row(long(s.kv_heads) * value_size * F::PACK),
          keys_size(size_t(span) * s.kv_heads * key_size), cache_size(keys_size + size_t(span) * s.kv_heads * value_size),
          groups{Group<F>(half, width, qkv_width, h_row), Group<F>(half, width, qkv_width, h_row)},
          logits(size_t(half) * net.head.blocks * V), scores(size_t(ROWS) * span), wide(size_t(half) * inner),
          weights(size_t(ROWS) * (span + V) + size_t(ROWS) * padded(s.head_size, V)),
          cache(size_t(slots) * s.layers * cache_size), written(size_t(slots) * session.settings.limit) {
        for (int place = 0; place < slots; place++) begin(groups[place >= half], place);
        for (auto& group : groups) group.attended = group.live.size();
        for (auto& group : groups) enter(group);
        other->attended = 0;
        attend_rest();
    }

    void begin(Group<F>& group, int place) {
        const int64_t story = session.next++;
        if (story < session.settings.stories) group.live.push_back({story, 0, session.settings.end, place});
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
        return cache.get() + (size_t(slot.place) * s.layers + layer) * cache_size;
    }

    void rounded_to(Number* to, const float* head, float scale) const {
        for (int i = 0; i < value_size; i += V) F::put(to + i, load<Vec>(head + i) * scale);
        if (s.head_size % F::PACK) to[s.head_size] = 0;
    }

    // Puts a key and a value of position t among those of its head.
    void remember(const float* key, const float* value, int t, Number* number, Number* keys, Number* values) const {
        rounded_to(number, key, 1);
        Number* column = keys + t / V * key_block + t % V * F::PACK;
        for (int i = 0; i < key_size; i += F::PACK) store(column + i * V, load<typename F::Cell>(number + i));
        rounded_to(number, value, 1);
        F::insert(values + t / F::PACK * value_row, number, value_size, t % F::PACK);
    }

    // Attention of one story at one layer: its queries over the keys and values of positions 0 to its own. Several heads at a time:
    // those that share their keys, or, where no two do, any.
    void attend(const Slot& slot, int layer, float* row, Number* to) {
        const int d = s.head_size, t = slot.position, count = t + 1, blocks = (count + V - 1) / V;
        const int group = s.heads / s.kv_heads, together = group == 1 ? s.heads : group, weights_size = span + V;
        const long next_key = group == 1 ? long(key_size) * V : 0, next_value = group == 1 ? long(value_size) * F::PACK : 0;
        float *q = row, *k = row + s.heads * d, *v = k + s.kv_heads * d;
        if (s.llama) {
            for (int i = 0; i < s.heads; i++) rotate(q + i * d, t);
            for (int i = 0; i < s.kv_heads; i++) rotate(k + i * d, t);
        }
        Number *all_keys = cache_of(slot, layer), *all_values = all_keys + keys_size;
        Number *p = weights.get(), *query = p + ROWS * weights_size;
        const auto keys_of = [&](int g) { return all_keys + g * long(key_size) * V; };
        const auto values_of = [&](int g) { return all_values + g * long(value_size) * F::PACK; };
        for (int g = 0; g < s.kv_heads; g++) remember(k + g * d, v + g * d, t, query, keys_of(g), values_of(g));
        for (int first = 0, heads; first < s.heads; first += heads) {
            heads = std::min(ROWS, together - first % together);
            const Number *keys = keys_of(first / group), *values = values_of(first / group);
            const auto product = [&](int n) { return TILES<F, true>[(heads - 1) * BLOCKS + n - 1]; };
            Vec out[ROWS * BLOCKS];
            for (int m = 0; m < heads; m++) rounded_to(query + m * value_size, q + (first + m) * d, net.blocks[layer].scale);
            for (int b = 0, n; b < blocks; b += n) {
                n = std::min(BLOCKS, blocks - b);
                product(n)(key_size / F::PACK, query, value_size, keys + b * key_block, V * F::PACK, key_block, next_key, nullptr, nullptr,
                           out);
                for (int m = 0; m < heads; m++)
                    for (int c = 0; c < n; c++) store(&scores[m * span + (b + c) * V], out[m * BLOCKS + c]);
            }
            float total[ROWS];
            for (int m = 0; m < heads; m++) total[m] = soften(&scores[m * span], count, p + m * weights_size);
            const int steps = (count + F::PACK - 1) / F::PACK;
            for (int b = 0, n; b < value_size / V; b += n) {
                n = std::min(BLOCKS, value_size / V - b);
                product(n)(steps, p, weights_size, values + b * V * F::PACK, value_row, V * F::PACK, next_value, nullptr, nullptr,
                           out);
                for (int m = 0; m < heads; m++) {
                    Number* head = to + (first + m) * d;
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

    void attend_next() {  // the next slot of the other group
        const size_t i = other->attended++;
        attend(other->live[i], other->layer, &other->qkv[i * qkv_width], &other->h[i * h_row]);
    }

    void attend_rest() {
        while (other->attended < other->live.size()) attend_next();
        soon = {};
        asked = false;
    }

    // What is to be fetched now: keys and values of the other group's next slot. When all of them have been asked for, it attends at
    // once, while they are in the cache.
    Soon& meanwhile() {
        while (soon.done()) {
            if (asked) attend_next();
            asked = other->attended < other->live.size();
            if (!asked) break;
            const Slot& slot = other->live[other->attended];
            const Number *keys = cache_of(slot, other->layer), *values = keys + keys_size;
            const int positions = slot.position + 1;
            soon = Soon(keys, keys + padded(positions, V) / V * key_block, values,
                        values + padded(positions, F::PACK) / F::PACK * value_row);
        }
        return soon;
    }

    // One layer of one group, from its attention to the next one's queries, keys and values, while the other attends.
    void turn() {
        Group<F>& group = *other;
        other = &groups[other == &groups[0]];
        other->attended = 0;
        if (!group.live.empty()) stage(group);
        attend_rest();
    }

    void stage(Group<F>& group) {
        const Block<F>& block = net.blocks[group.layer];
        const auto ask = [&]() -> Soon& { return meanwhile(); };
        const int rows = int(group.live.size());
        Number* h = group.h.get();
        const auto add = [&](int row, int at, int n, const Vec* y) {
            float* to = &group.x[size_t(row) * width + at * V];
            for (int c = 0; c < n; c++) store(to + c * V, load<Vec>(to + c * V) + y[c]);
        };
        block.out.multiply(h, h_row, rows, ask, add);
        normalise(group, block.norm2, block.norm2_bias);
        block.up.multiply(h, h_row, rows, ask, [&](int row, int at, int n, const Vec* y) {
            Number* to = &wide[size_t(row) * inner];
            if (s.llama)
                for (int c = 0; c < n; c += 2) F::put(to + (at + c) / 2 * V, y[c] * sigmoid(y[c]) * y[c + 1]);
            else
                for (int c = 0; c < n; c++) F::put(to + (at + c) * V, gelu(y[c]));
        });
        block.down.multiply(wide.get(), inner, rows, ask, add);
        if (++group.layer < s.layers) return query(group);
        normalise(group, net.norm, net.norm_bias);
        const int full = net.head.blocks * V;
        net.head.multiply(h, h_row, rows, ask, [&](int row, int first, int n, const Vec* y) {
            for (int c = 0; c < n; c++) store(&logits[size_t(row) * full + (first + c) * V], y[c]);
        });
        draw(group, full);
        enter(group);
    }

    // The way into the first layer.
    void enter(Group<F>& group) {
        for (size_t i = 0; i < group.live.size(); i++) {
            const float* token = &net.tokens[size_t(group.live[i].token) * s.width];
            float* to = &group.x[i * width];
            std::copy(token, token + s.width, to);
            if (!s.llama)
                for (int j = 0; j < s.width; j++) to[j] += net.positions[size_t(group.live[i].position) * s.width + j];
        }
        group.layer = 0;
        query(group);
    }

    void query(Group<F>& group) {
        const Block<F>& block = net.blocks[group.layer];
        normalise(group, block.norm1, block.norm1_bias);
        block.qkv.multiply(group.h.get(), h_row, int(group.live.size()), [&]() -> Soon& { return meanwhile(); },
                           [&](int row, int at, int n, const Vec* y) {
            for (int c = 0; c < n; c++) store(&group.qkv[size_t(row) * qkv_width + (at + c) * V], y[c]);
        });
    }

    void normalise(Group<F>& group, const std::vector<float>& gain, const std::vector<float>& bias) const {
        for (size_t i = 0; i < group.live.size(); i++) normalise(&group.x[i * width], gain, bias, &group.h[i * h_row]);
    }

    bool idle() const { return groups[0].live.empty() && groups[1].live.empty(); }

    void step() {
        for (int i = 0; i < 2 * s.layers; i++) turn();
    }

    void draw(Group<F>& group, int full) {
        auto& live = group.live;
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
        for (const int place : free) begin(group, place);
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
            for (int64_t i = 0; i < steps && !worker.idle() && !bad; i++) worker.step();
        };
        std::vector<std::thread> others;
        for (size_t i = 1; i < workers.size(); i++) others.emplace_back(work, std::ref(*workers[i]));
        work(*workers[0]);
        for (auto& thread : others) thread.join();
        return std::any_of(workers.begin(), workers.end(), [](const auto& worker) { return !worker->idle(); });
    }

    Finished& finished(int thread) override { return workers[thread]->done; }

    int64_t cache_bytes() const override {
        int64_t total = 0;
        for (const auto& w : workers)
            total += w->written.size() / settings.limit * shape.layers * w->cache_size * sizeof(typename F::Number);
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
