"""Steps of few shapes that ask for no value, as a GPU records them: the same stories. All of it on a processor."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from refeed.core.errors import Stopped
from refeed.core.seeds import Seed
from refeed.families.language import nets
from refeed.families.language.learner import Causal
from refeed.families.language.model import LanguageModel
from refeed.families.language.sampler import Ancestral, slots
from refeed.families.language.sampling import graphs, wave
from refeed.families.language.sampling.decoders import decoder_of
from refeed.families.language.sampling.draws import Draws, Job, uniform, uniform_tensor
from refeed.families.language.sampling.network import read
from refeed.families.language.source import stories_of

SMALL = wave.Shapes(span=16, fewest=8, look=5)
TRUNCATED = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02}


@pytest.fixture(scope="session")
def grouped(data, world, tmp_path_factory):
    """A Llama whose query heads share keys, trained."""
    from transformers import LlamaConfig

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    folder = tmp_path_factory.mktemp("grouped")
    LlamaConfig(**shape, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    learner = Causal(model=str(folder), context=80, learning_rate=1e-2, batch_tokens=320, epochs=3)
    return learner.fit(data, world=world, seed=Seed(1))


def drawn(model, num_rows, *, world=None, **options):
    return stories_of(Ancestral(engine="torch", device="cpu", **options).sample(model, num_rows, world=world, seed=Seed(7)))


def in_few_shapes(monkeypatch, shapes=SMALL):
    monkeypatch.setattr(wave, "ANY", shapes)


def nearly_all_equal(rows, others):
    """One draw in some hundred thousand lies where the last bits decide."""
    assert len(rows) == len(others)
    assert sum(not np.array_equal(a, b) for a, b in zip(rows, others, strict=True)) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.3},
        {"temperature": 0.0, "prompt": 5},
        TRUNCATED,
        {"prompt": 7},
        {"max_tokens": 11},
        {"max_tokens": 1},
        {"batch": 1},
        {"batch": 7},
        {"batch": 50},
    ],
    ids=str,
)
def test_few_shapes_give_the_same_stories(model, grouped, world, monkeypatch, options):
    for each in (model, grouped):
        with monkeypatch.context() as patch:
            expected = drawn(each, 60 if "batch" in options else 150, world=world, **options)
            in_few_shapes(patch)
            nearly_all_equal(drawn(each, len(expected), world=world, **options), expected)


def test_the_shapes_of_a_gpu_too(model, monkeypatch):
    expected = drawn(model, 300)
    in_few_shapes(monkeypatch, wave.FEW)
    nearly_all_equal(drawn(model, 300, batch=256), expected)


def test_shapes_are_few_and_hold_what_is_live():
    sizes = {wave.FEW.rows(live) for live in range(1, 4097)}
    assert sizes == {64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096}
    for live in range(1, 4097):
        assert live <= wave.FEW.rows(live) <= max(64, 1.5 * live)
    assert [wave.ANY.rows(live) for live in (1, 5, 77)] == [1, 5, 77]
    assert [wave.FEW.spanned(position, 100) for position in (0, 63, 64, 99)] == [64, 64, 100, 100]
    assert [wave.ANY.spanned(position, 100) for position in (0, 63, 99)] == [1, 64, 100]


def test_logits_that_are_not_finite_are_noticed_between_looks(model, monkeypatch):
    broken = LanguageModel(net=nets.build(model.net.config, seed=0), tokenizer=model.tokenizer)
    with torch.no_grad():
        broken.net.lm_head.weight[3] = float("nan")
    in_few_shapes(monkeypatch)
    with pytest.raises(Stopped, match="9 stories have logits that are NaN"):
        drawn(broken, 9)
    with pytest.raises(Stopped, match="non-finite"):  # before the first look would be due
        drawn(broken, 9, max_tokens=2)


def test_random_numbers_of_tensors_are_those_of_numpy_to_the_bit():
    rng = np.random.default_rng(0)
    for key in [0, 1, 2**63 - 1, 2**63, 2**64 - 1, *(int(key) for key in rng.integers(0, 2**64, 20, dtype=np.uint64))]:
        story = np.concatenate([np.arange(50), rng.integers(0, 2**40, 200)])
        for position in (0, 1, 511, 100_000):
            found = uniform_tensor(key, torch.from_numpy(story), torch.tensor([position]))
            assert np.array_equal(found.numpy(), uniform(key, story, position))


class OnDevice(TorchDispatchMode):
    """Notes every operation with the shapes of its tensors, and refuses tensors that lie elsewhere than on `meta`.

    A tensor on `meta` has no values, so whatever asks for one fails there: `.item()`, a bool, `nonzero`, a boolean index, a copy
    to the processor. A recording on a GPU refuses the same; and `torch.tensor(...)`, which cannot be seen here.
    """

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
        assert all(tensor.device.type == "meta" for tensor in tensors), f"{operation} has a tensor outside of the device"
        self.seen.append((str(operation), [tuple(tensor.shape) for tensor in tensors]))
        return out


def on_meta(model, dtype, draws):
    job = Job(draws=draws, key=2**63 + 5, stories=300, limit=80, end=0, slots=128, dtype=dtype, prompts=np.full((300, 4), -1))
    return wave.Wave(decoder_of(model.net, read(model.net), job, "meta", masked=True), job, wave.FEW, "meta")


@pytest.mark.parametrize("draws", [Draws(), Draws(**TRUNCATED), Draws(temperature=0.0)], ids=["plain", "truncated", "greedy"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_asks_for_no_value_and_stays_on_its_device(model, grouped, dtype, draws):
    for each in (model, grouped):
        with torch.inference_mode():
            stepped = on_meta(each, dtype, draws)
            for rows, span in ((128, 64), (96, 80)):
                traces = []
                for _ in range(2):
                    with OnDevice() as mode:
                        stepped.step(rows, span)
                    traces.append(mode.seen)
                assert traces[0] == traces[1]
                assert len(traces[0]) > 50


@pytest.mark.parametrize(
    "step",
    [
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: torch.nn.functional.linear(x, torch.ones(3, 3)),
        lambda x: x[torch.zeros(2, dtype=torch.int64)],
        lambda x: x.__setitem__(0, torch.ones(3)),
    ],
    ids=["bool", "mask", "nonzero", "cpu", "product", "index", "assignment"],
)
def test_the_check_finds_what_a_recording_refuses(step):
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), OnDevice():
        step(torch.empty(3, 3, device="meta"))


class Double:
    """Stands for torch.cuda: while something is recorded nothing happens, and a replay does what was recorded."""

    def __init__(self):
        self.recording, self.recorded, self.replays = None, [], 0

    def step_of(self, stepped):
        def step(rows, span):
            if self.recording is None:
                stepped(rows, span)
            else:
                self.recording.append((stepped, rows, span))

        return step

    def graph_of(self):
        double = self

        class Graph(list):
            def replay(self):
                double.replays += 1
                [(stepped, rows, span)] = self
                stepped(rows, span)

        return Graph()

    @contextmanager
    def graph(self, graph, *, pool, stream):
        self.recording = graph
        yield
        self.recording = None
        self.recorded.append(graph[0][1:])


def test_each_shape_is_recorded_once_and_no_step_is_taken_twice(model, monkeypatch):
    expected = drawn(model, 150, batch=60)
    double = Double()
    stream = type("Stream", (), {"wait_stream": lambda self, other: None})()

    @contextmanager
    def aside(stream):
        yield

    for name, value in {
        "CUDAGraph": double.graph_of,
        "graph": double.graph,
        "graph_pool_handle": lambda: None,
        "current_stream": lambda: stream,
        "stream": aside,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(graphs, "_side_stream", lambda: stream)
    in_few_shapes(monkeypatch)
    run = wave.Wave.run
    monkeypatch.setattr(wave.Wave, "run", lambda self, first, step: run(self, first, recorded_of(self)))
    made = {}

    def recorded_of(stepped):
        return made.setdefault(stepped, graphs.Recorded(double.step_of(stepped.step)))

    nearly_all_equal(drawn(model, 150, batch=60), expected)
    assert len(double.recorded) == len(set(double.recorded)) > 3
    assert double.replays > len(double.recorded)


def test_a_gpu_has_as_many_stories_in_flight_as_its_free_memory_holds(model, monkeypatch):
    network = read(model.net)
    a_story = network.cache_bytes(80, 4) + 96 * network.vocabulary
    for free, expected in ((100 * a_story, 75), (10**12, 4096), (0, 1)):
        monkeypatch.setattr(graphs, "free_bytes", lambda free=free: free)
        assert slots(network, 80, "float32", "torch", "cuda") == expected
    assert slots(network, 80, "float32", "torch") == 512
