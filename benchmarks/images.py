"""Training speed of the image VAE against a usual PyTorch loop and pythae's trainer, on the same network and images, interleaved.

    python benchmarks/images.py [--rounds 3]

Prints images a second of processor time (robust on a shared machine) and of wall time: median over rounds, one thread. pythae is
measured only if it can be imported. The usual loop: float32, a Dataset that turns each image into floats, a DataLoader, and
`.item()` at each step. All three fit the layers of ConvVAE by Adam with the same loss, each in a process of its own, taking turns;
an untimed first round warms each up.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import multiprocessing
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from refeed.core.loop import Lineage
from refeed.core.protocols import Data
from refeed.core.seeds import Seed
from refeed.core.shards import Pool
from refeed.families.images import training
from refeed.families.images.learner import VAE
from refeed.families.images.model import VAEModel, build
from refeed.families.images.nets import kl_to_prior
from refeed.families.images.sampler import Prior
from refeed.families.images.source import Faces
from refeed.families.images.worlds import ImageWorld, images_of
from refeed.policies import replace

SETTINGS = {
    "64 px, 32..512, latent 128": (64, 256, {"channels": (32, 64, 128, 256, 512), "latent": 128, "head": 32, "tanh": True}),
    "32 px, 32..256, latent 128": (32, 768, {"channels": (32, 64, 128, 256), "latent": 128, "head": 32}),
    "32 px, 32..128, latent 16, head 16": (32, 1280, {}),
}


class Images(Dataset):
    """One image at a time, turned into floats, as ToTensor does."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.from_numpy(self._images[row]).permute(2, 0, 1).contiguous().float().div(255)


def ours(learner: VAE, data: Data, world: ImageWorld) -> None:
    """The loop of `VAE.fit`, without the pass over reconstructions that it ends with."""
    config = learner._config(world)
    net = training.seeded(Seed(0), lambda: build(config))
    training.train(net, VAEModel(net=net, config=config).training_loss, data, learner=learner, seed=Seed(0))


def usual(learner: VAE, data: Data, world: ImageWorld) -> None:
    net = build(learner._config(world))
    optimizer = torch.optim.Adam(net.parameters(), lr=learner.learning_rate)
    losses = []
    for x in DataLoader(Images(images_of(world.train)), batch_size=learner.batch, shuffle=True):
        features = net.encoder(x).flatten(1)
        mean, log_variance = net.mean(features), net.log_variance(features)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        decoded = net.decoder(net.grow(z).view(-1, *channels_first(net)))
        loss = torch.nn.functional.mse_loss(decoded, x) + 0.00025 * kl_to_prior(mean, log_variance).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())


def channels_first(net: torch.nn.Module) -> tuple[int, int, int]:
    height, width, channels = net._small_HWC
    return channels, height, width


def with_pythae() -> Callable[..., None] | None:
    try:
        from pythae.models import VAE as TheirVAE
        from pythae.models import VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError:
        return None

    class Encoder(BaseEncoder):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.encoder, self.mean, self.log_variance, self.latent_dim = net.encoder, net.mean, net.log_variance, net.latent

        def forward(self, x: torch.Tensor) -> ModelOutput:
            features = self.encoder(x).flatten(1)
            return ModelOutput(embedding=self.mean(features), log_covariance=self.log_variance(features))

    class Decoder(BaseDecoder):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = torch.nn.ModuleDict({"grow": net.grow, "decoder": net.decoder})
            self.small = channels_first(net)

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net["decoder"](self.net["grow"](z).view(-1, *self.small)))

    def pythae(learner: VAE, data: Data, world: ImageWorld) -> None:
        net = build(learner._config(world))
        shape = (world.channels, world.size, world.size)
        model = TheirVAE(VAEConfig(input_dim=shape, latent_dim=learner.latent), encoder=Encoder(net), decoder=Decoder(net))
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            config = BaseTrainerConfig(
                output_dir=folder, num_epochs=1, learning_rate=learner.learning_rate, per_device_train_batch_size=learner.batch,
                optimizer_cls="Adam", steps_saving=None, no_cuda=True,
            )  # fmt: skip
            dataset = Images(images_of(world.train))
            rows = [{"data": dataset[row]} for row in range(len(dataset))]
            BaseTrainer(model=model, train_dataset=_Listed(rows), training_config=config).train()

    return pythae


class _Listed(Dataset):
    """Their trainer wants dictionaries; the floats are made beforehand, outside its loop."""

    def __init__(self, rows: list[dict[str, torch.Tensor]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return self._rows[row]


def serve(loop: str, name: str, pipe: Connection) -> None:
    """One contender: fits once for each message, and answers with images a second of processor time and of wall time."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    size, rows, options = SETTINGS[name]
    source = Faces(rows=rows, test_rows=8, size=size)
    lineage = Lineage(source=source, learner=None, sampler=None, metrics=(), policy=replace(), seed=Seed(0))
    world = source.draw(seed=Seed(0))
    data = Data(Pool.of(lineage.draw.shard), rows_of=lambda *_: world.train, statistic_of=lambda *_: np.zeros(0))
    learner = VAE(epochs=1, batch=64, **options)
    if loop == "sampling":
        model = learner.fit(data, world=world, seed=Seed(0))
    fit = {"ours": ours, "usual": usual, "pythae": with_pythae()}.get(loop)
    while pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        if fit is None:
            Prior().sample(model, rows, world=world, seed=Seed(0))
        else:
            fit(learner, data, world)
        pipe.send((rows / (time.process_time() - cpu), rows / (time.perf_counter() - wall)))


def measured(name: str, loops: list[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    context = multiprocessing.get_context("spawn")
    pipes, found = {}, {loop: [] for loop in loops}
    for loop in loops:
        pipes[loop], far = context.Pipe()
        context.Process(target=serve, args=(loop, name, far), daemon=True).start()
    for turn in range(rounds + 1):
        for loop, pipe in pipes.items():
            pipe.send(True)
            speeds = pipe.recv()
            if turn:
                found[loop].append(speeds)
    for pipe in pipes.values():
        pipe.send(False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    loops = ["ours", "usual", *(["pythae"] if with_pythae() else []), "sampling"]
    for name in SETTINGS:
        found = measured(name, loops, rounds)
        print(name)
        for loop, speeds in found.items():
            by_cpu, by_wall = (statistics.median(column) for column in zip(*speeds, strict=True))
            ratio = statistics.median(a[0] / b[0] for a, b in zip(found["ours"], speeds, strict=True))
            note = "" if loop == "sampling" else f"; ours is {ratio:.2f} x"
            print(f"  {loop:8} {by_cpu:7.0f} images a CPU-second, {by_wall:7.0f} a second{note}", flush=True)


if __name__ == "__main__":
    main()
