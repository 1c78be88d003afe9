"""Samples follow the model's own distribution, each story by its own random numbers, whatever the engine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from refeed.core.errors import Stopped
from refeed.core.rows import Ragged, Rows
from refeed.core.seeds import Seed
from refeed.core.steps import Sample
from refeed.families.language import nets
from refeed.families.language.exhibit import stories as exhibit
from refeed.families.language.model import LanguageModel
from refeed.families.language.sampler import Ancestral
from refeed.families.language.sampling import native, wave
from refeed.families.language.sampling.draws import Draws, Job, choose, uniform
from refeed.families.language.sampling.network import read
from refeed.families.language.source import stories_of

needs_native = pytest.mark.skipif(native.build().library is None, reason=f"no native engine: {native.build().problem}")
ENGINES = ["torch", pytest.param("native", marks=needs_native)]


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def drawn(model, num_rows, *, seed=7, world=None, **options):
    return stories_of(Ancestral(**options).sample(model, num_rows, world=world, seed=Seed(seed)))


def same(a, b):
    return np.array_equal(a.values, b.values) and np.array_equal(a.offsets, b.offsets)


def test_rows_are_stories_that_end_or_reach_the_limit(model, engine):
    rows = Ancestral(engine=engine).sample(model, 60, world=None, seed=Seed(0))
    assert rows.names == ("tokens",)
    assert stories_of(rows).values.dtype == np.uint16
    for story in stories_of(rows):
        assert story[-1] == model.tokenizer.end or len(story) == model.context
        assert model.tokenizer.end not in story[:-1]
    cut = drawn(model, 60, max_tokens=9, engine=engine)
    assert cut.lengths.max() == 9
    whole = drawn(model, 60, engine=engine)
    assert all(np.array_equal(a, b[:9]) for a, b in zip(cut, whole, strict=True))


def agree(model, rows, others, *, seed=7, within=1e-5):
    """Equal stories, but for those whose random number lies on the boundary between two tokens."""
    for story, (row, other) in enumerate(zip(rows, others, strict=False)):
        if np.array_equal(row, other):
            continue
        place = next(place for place, (a, b) in enumerate(zip(row, other, strict=False)) if a != b)
        with torch.no_grad():
            logits = model.net(input_ids=torch.tensor([[model.tokenizer.end, *row[:place].tolist()]])).logits[0, -1]
        u = uniform(Seed(seed).integer(64), np.array([story]), place)
        assert np.abs(logits.double().softmax(-1).cumsum(-1).numpy() - u).min() < within


def test_a_story_does_not_depend_on_how_many_are_sampled_or_beside_which(model):
    """PyTorch's logits differ in the last bit between batch shapes: a draw on a boundary, one in a million, may differ."""
    whole = drawn(model, 120, engine="torch")
    for num_rows, batch in ((12, 1), (120, 7), (120, 50)):
        agree(model, drawn(model, num_rows, batch=batch, engine="torch"), whole)
    first = drawn(model, 40, engine="torch")
    agree(model, first, whole)
    assert np.array_equal(drawn(model, 40, engine="torch").values, first.values)
    assert drawn(model, 40, seed=8, engine="torch").values.tolist() != first.values.tolist()


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_native_stories_are_equal_to_the_last_bit_for_any_batch_threads_and_number(model, dtype, monkeypatch):
    whole = drawn(model, 150, dtype=dtype)
    assert not same(whole, drawn(model, 150, dtype=dtype, seed=8))
    for num_rows, batch in ((150, 1), (150, 7), (150, 64), (31, None), (1, None)):
        assert same(drawn(model, num_rows, batch=batch, dtype=dtype), whole.take(np.arange(num_rows)))
    for threads in (2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert same(drawn(model, 150, dtype=dtype), whole)


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_native_logits_are_equal_to_the_last_bit_for_any_batch_and_threads(model, dtype):
    """Stricter than equal stories: the numbers behind every draw."""

    def logits(slots, threads):
        job = Job(draws=Draws(), key=3, stories=40, limit=20, end=model.tokenizer.end, slots=slots, dtype=dtype)
        out = np.zeros((40, 20, model.tokenizer.size), np.float32)
        session = native.Session(native.build().library, read(model.net), job, threads=threads, logits=out)
        while session.advance(3):  # interrupted again and again
            pass
        session.close()
        return out

    whole = logits(40, 1)
    assert len(np.unique(whole)) > 10000
    for slots, threads in ((1, 1), (13, 1), (40, 2), (9, 3)):
        assert np.array_equal(logits(slots, threads), whole)


@needs_native
def test_ranges_of_stories_make_up_the_whole(model):
    """An interrupted sample may go on at any story: each has its own random numbers."""
    network, library = read(model.net), native.build().library

    def stories(first, count):
        job = Job(draws=Draws(), key=5, first=first, stories=count, limit=60, end=model.tokenizer.end, slots=8)
        found = {}
        for story, length, tokens in native.stories(library, network, job, threads=1):
            found |= dict(zip(story.tolist(), np.split(tokens, np.cumsum(length)[:-1]), strict=True))
        return [found[key].tolist() for key in sorted(found)]

    assert stories(0, 30) == stories(0, 11) + stories(11, 19)


@needs_native
def test_engines_agree(model):
    agree(model, drawn(model, 150, engine="native"), drawn(model, 150, engine="torch"))
    options = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02}
    pairs = zip(drawn(model, 150, engine="native", **options), drawn(model, 150, engine="torch", **options), strict=True)
    assert sum(not np.array_equal(a, b) for a, b in pairs) <= 1  # about one draw in a million lies on a boundary


def test_sampling_leaves_the_global_generators(model, engine):
    before = torch.random.get_rng_state()
    drawn(model, 5, engine=engine)
    assert torch.equal(before, torch.random.get_rng_state())


def expected_counts(model, given, temperature, number):
    with torch.no_grad():
        logits = model.net(input_ids=torch.tensor([given])).logits[0, -1].double()
    return (logits / temperature).softmax(-1).numpy() * number


def check_counts(observed, expected, level=1e-4):
    large = expected >= 5
    observed = np.append(observed[large], observed[~large].sum())
    expected = np.append(expected[large], expected[~large].sum())
    if expected[-1] == 0:
        assert observed[-1] == 0
        observed, expected = observed[:-1], expected[:-1]
    if len(expected) > 1:
        assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > level


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_first_and_later_tokens_follow_the_softmax(model, engine, temperature):
    """Chi-square at the first token and, given the commonest first four, at the fifth; p > 1e-4 each: 24 tests, 1 in 400."""
    rows = drawn(model, 6000, temperature=temperature, max_tokens=5, engine=engine)
    matrix = np.stack([row for row in rows if len(row) == 5])
    prefixes, counts = np.unique(matrix[:, :4], axis=0, return_counts=True)
    prefix = prefixes[counts.argmax()]
    first = np.array([row[0] for row in rows])
    fifth = matrix[(matrix[:, :4] == prefix).all(axis=1), 4]
    assert len(fifth) > 100
    end, size = model.tokenizer.end, model.tokenizer.size
    for given, seen in (([end], first), ([end, *prefix.tolist()], fifth)):
        check_counts(np.bincount(seen, minlength=size), expected_counts(model, given, temperature, len(seen)))


@needs_native
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_bfloat16_follows_the_softmax_to_its_rounding(model, temperature):
    """The first token of 20,000 stories, a tenth of what would show its rounding; p > 1e-4."""
    first = drawn(model, 20000, temperature=temperature, max_tokens=1, dtype="bfloat16").values
    counts = np.bincount(first, minlength=model.tokenizer.size)
    check_counts(counts, expected_counts(model, [model.tokenizer.end], temperature, 20000))


def test_a_low_temperature_is_less_diverse(model):
    assert len(np.unique(drawn(model, 100, temperature=0.2).values)) < len(np.unique(drawn(model, 100).values))


def test_temperature_0_is_the_most_likely_token_every_time(model, world, engine):
    rows = drawn(model, 5, temperature=0.0, engine=engine)
    assert all(np.array_equal(row, rows[0]) for row in rows)
    assert same(rows, drawn(model, 5, temperature=0.0, engine=engine, seed=99))
    with torch.no_grad():
        logits = model.net(input_ids=torch.tensor([[model.tokenizer.end, *rows[0].tolist()]])).logits[0]
    assert np.array_equal(logits.argmax(-1).numpy()[: len(rows[0])], rows[0])
    # with prompts: the fixed continuation of each
    prompted = drawn(model, 40, temperature=0.0, prompt=6, world=world, engine=engine)
    assert len({row.tobytes() for row in prompted}) > 5
    by_prompt = {row[:6].tobytes(): row for row in prompted}
    assert all(np.array_equal(row, by_prompt[row[:6].tobytes()]) for row in prompted)


def test_equals_go_to_the_lowest_token():
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    assert choose(logits, torch.tensor([0.9]), Draws(temperature=0.0)).tolist() == [1]


def test_prompts_are_first_tokens_of_real_stories(model, world, engine):
    rows = Ancestral(prompt=7, engine=engine).sample(model, 200, world=world, seed=Seed(3))
    real = {story[:7].tobytes() for story in stories_of(world.train)}
    firsts = [story[:7].tobytes() for story in stories_of(rows)]
    assert set(firsts) <= real
    assert len(set(firsts)) > 20
    assert (rows["prompt_tokens"] == 7).all()
    free = [story[7:].tobytes() for story in stories_of(rows)]
    assert len(set(free)) > 100
    more = Ancestral(prompt=7, engine=engine, batch=3).sample(model, 20, world=world, seed=Seed(3))
    assert all(np.array_equal(a, b) for a, b in zip(stories_of(more), stories_of(rows), strict=False))


def test_a_story_shorter_than_its_prompt_gives_all_but_its_end(model, world):
    end = model.tokenizer.end
    short = Rows(tokens=Ragged.of([[5, 6, end], [end]], np.uint16))
    world = type(world)(train=short, test=short, tokenizer=world.tokenizer)
    rows = Ancestral(prompt=4).sample(model, 30, world=world, seed=Seed(3))
    assert set(rows["prompt_tokens"].tolist()) == {0, 2}
    for story, count in zip(stories_of(rows), rows["prompt_tokens"], strict=True):
        assert story[:count].tolist() == [5, 6][:count]


def test_random_numbers_are_uniform_and_apart():
    """Kolmogorov-Smirnov and serial correlation: three tests at p > 1e-5."""
    story = np.arange(300)
    u = np.stack([uniform(12345, story, position) for position in range(100)], axis=1)
    assert ((u >= 0) & (u < 1)).all()
    assert len(np.unique(u)) == u.size
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-5
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):
        assert stats.pearsonr(a.ravel(), b.ravel()).pvalue > 1e-5
    assert not np.array_equal(u[:, 0], uniform(12346, story, 0))


def test_a_token_without_probability_is_never_chosen():
    logits = torch.tensor([[0.0, -float("inf"), 1.0, -float("inf")]]).repeat(3, 1)
    u = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert choose(logits, u, Draws()).tolist() == [0, 2, 2]


def test_logits_that_are_not_finite_end_the_lineage(model, engine):
    broken = LanguageModel(net=nets.build(model.net.config, seed=0), tokenizer=model.tokenizer)
    with torch.no_grad():
        broken.net.lm_head.weight[3] = float("nan")
    with pytest.raises(Stopped, match="non-finite"):
        drawn(broken, 5, engine=engine)


def kept_by_transformers(scores, temperature, top_k, top_p, min_p):
    """Which tokens transformers' own warpers leave, in the order in which `generate` applies them."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return MinPLogitsWarper(min_p)(None, scores) if min_p else scores


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(7, 1.0, 0.0), (0, 0.6, 0.0), (0, 1.0, 0.1), (30, 0.8, 0.05), (1, 1.0, 0.0)])
@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_truncation_is_that_of_transformers(model, engine, temperature, top_k, top_p, min_p):
    """Only tokens that its warpers keep are drawn, and as often as they say: p > 1e-4 each, 20 models and engines."""
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    rows = drawn(model, 3000, max_tokens=4, engine=engine, **options)
    end, size = model.tokenizer.end, model.tokenizer.size
    matrix = np.stack([row for row in rows if len(row) == 4])
    prefix = matrix[0, :3].tolist()
    seen = matrix[(matrix[:, :3] == prefix).all(axis=1), 3]
    for given, tokens in (([end], np.array([row[0] for row in rows])), ([end, *prefix], seen)):
        with torch.no_grad():
            scores = model.net(input_ids=torch.tensor([given])).logits[:, -1].double()
        expected = kept_by_transformers(scores, temperature, top_k, top_p, min_p).softmax(-1)[0].numpy()
        counts = np.bincount(tokens, minlength=size)
        assert (counts[expected == 0] == 0).all()
        check_counts(counts, expected * len(tokens))


@pytest.mark.parametrize("options", [{"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.2}, {"top_k": 50, "top_p": 0.9, "min_p": 0.01}])
def test_truncation_keeps_what_transformers_keeps_on_any_logits(options):
    """Every kept token can be drawn, no other: 200 random rows against its warpers."""
    full = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | options
    scores = torch.randn(200, 97, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    expected = kept_by_transformers(scores, 0.8, **full).softmax(-1)
    middle = expected.cumsum(-1) - expected / 2  # a random number in the middle of each token's share
    for token in range(97):
        rows = expected[:, token] > 0
        if rows.any():
            assert (choose(scores[rows], middle[rows, token], Draws(temperature=0.8, **full)) == token).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_those_of_transformers(model, samples, engine, dtype):
    """Against its float32, teacher-forced: root mean square and KL; in bfloat16 no worse than its own bfloat16 is."""
    tokens = np.stack([row[:20] for row in stories_of(samples) if len(row) > 20][:30]).astype(np.int32)
    end, size = model.tokenizer.end, model.tokenizer.size
    if engine == "native":
        job = Job(draws=Draws(), key=0, stories=30, limit=20, end=end, slots=7, dtype=dtype, prompts=tokens)
        found = np.zeros((30, 20, size), np.float32)
        session = native.Session(native.build().library, read(model.net), job, threads=1, logits=found)
        while session.advance(100):
            pass
        session.close()
    else:
        job = Job(draws=Draws(), key=0, stories=30, limit=20, end=end, slots=30, dtype=dtype)
        found = wave.logits_of(model.net, job, tokens)
    inputs = torch.from_numpy(np.concatenate([np.full((30, 1), end), tokens[:, :-1]], axis=1).astype(np.int64))
    with torch.no_grad():
        truth = model.net(input_ids=inputs).logits
        theirs = LanguageModel(net=nets.build(model.net.config, seed=0), tokenizer=model.tokenizer).net
        theirs.load_state_dict(model.net.state_dict())
        theirs = theirs.bfloat16()(input_ids=inputs).logits.float()

    def apart(other):
        p, q = truth.log_softmax(-1), other.log_softmax(-1)
        return float((truth - other).square().mean().sqrt()), float((p.exp() * (p - q)).sum(-1).mean())

    rms, kl = apart(torch.from_numpy(found))
    if dtype == "float32":
        assert rms < 2e-5
        assert kl < 1e-7
    else:
        reference = apart(theirs)
        assert rms < reference[0]
        assert kl < 1.5 * reference[1]


def test_duplicates_are_at_chance(model, engine):
    """Two stories sampled side by side are equal as often as two from batches apart: t test over 40 pairs of blocks, p > 1e-4."""
    rows = [row.tobytes() for row in drawn(model, 2000, max_tokens=9, engine=engine, batch=100)]
    blocks = [Counter(rows[first : first + 50]) for first in range(0, 2000, 50)]
    beside = [sum(n * (n - 1) / 2 for n in block.values()) / (50 * 49 / 2) for block in blocks]
    apart = [
        sum(n * other[text] for text, n in block.items()) / 2500 for block, other in zip(blocks, np.roll(blocks, 7), strict=True)
    ]
    assert sum(apart) > 0
    assert stats.ttest_rel(beside, apart).pvalue > 1e-4
    assert len({row.tobytes() for row in drawn(model, 300, engine=engine)}) == 300


def test_no_rows_are_no_rows(model, world, engine):
    assert len(Ancestral(engine=engine).sample(model, 0, world=None, seed=Seed(0))) == 0
    assert len(Ancestral(engine=engine, temperature=0.0).sample(model, 0, world=None, seed=Seed(0))) == 0


def test_exhibit_shows_stories_as_people_write_them(world, samples):
    shown = exhibit(world.train, world=world, count=2)
    assert len(shown) == 2
    assert shown[0].startswith("Once there was a ")
    assert shown[0].endswith(".")
    assert len(exhibit(samples, world=world, count=1000)) == len(samples)


def joined(sampler, model, num_rows, parts, world):
    """The rows of all parts, put together as a step does it."""
    step = Sample(sampler, None, num_rows, 1, Seed(7), parts)
    drawn = [sampler.sample_part(model, num_rows, part=(part, parts), world=world, seed=Seed(7)) for part in range(parts)]
    return step._joined(lambda part: drawn[part.number])


@needs_native
@pytest.mark.parametrize("options", [{}, {"prompt": 4}, {"temperature": 0.0, "prompt": 3}, {"temperature": 0.0}], ids=str)
@pytest.mark.parametrize("parts", [2, 3, 40])
def test_stories_drawn_in_parts_are_the_stories_drawn_at_once(model, world, options, parts):
    sampler = Ancestral(engine="native", **options)
    whole = sampler.sample(model, 31, world=world, seed=Seed(7))
    found = joined(sampler, model, 31, parts, world)
    assert found.names == whole.names
    assert same(stories_of(found), stories_of(whole))
    assert stories_of(found).values.dtype == stories_of(whole).values.dtype
    if "prompt" in options:
        assert np.array_equal(found["prompt_tokens"], whole["prompt_tokens"])
        assert found["prompt_tokens"].dtype == whole["prompt_tokens"].dtype


def test_pytorch_draws_no_parts_since_its_logits_depend_on_the_company(model, world):
    assert Ancestral(engine="torch").sample_part(model, 31, part=(0, 2), world=world, seed=Seed(7)) is None
