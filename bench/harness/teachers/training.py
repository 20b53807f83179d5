"""Training a teacher by its recipe: seeded, saved on the way, and told about from the first seconds on."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from bench.data import Dataset
from bench.data.batches import RealImages
from bench.errors import Diverged
from bench.harness.checkpoint import load_checkpoint, save_checkpoint, state_of
from bench.harness.teachers.progress import Report, TrainingProgress
from bench.models import build
from bench.spec.task import Recipe, TaskSpec, TeacherSpec, get_recipe
from bench.utils.determinism import only_deterministic
from bench.utils.rng import derive, seed_everything
from bench.utils.stopping import Stopped, asked

CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 2.0
FOCUS = 2.0  # the focal loss's gamma


Watch: TypeAlias = Callable[[int, int, nn.Module], None]


def train(
    task: TaskSpec,
    spec: TeacherSpec,
    dataset: Dataset,
    work: Path,
    *,
    key: str,
    device: torch.device,
    report: Report,
    prepare: Callable[[nn.Module], None] = lambda network: None,  # noqa: ARG005
    watch: Watch = lambda step, steps, network: None,  # noqa: ARG005
) -> tuple[nn.Module, float]:
    """Train a teacher; resumes from the checkpoint in ``work`` if there is one.

    Args:
        task: the images' geometry and augmentation.
        spec: network, recipe and seed.
        dataset: its training images.
        work: a folder for checkpoints, made if needed and removed at the end.
        key: names the teacher; a checkpoint of another one is not used.
        device: where to train. Only a CPU gives the same bytes every time.
        report: called with the progress every few seconds.
        prepare: called with the fresh network, before training; puts a pretrained backbone in.
        watch: called after each step with the number of steps made, of all steps, and the network, to look at only.

    Returns:
        The network in evaluation mode on the CPU, and the seconds that training took.

    Raises:
        Diverged: the loss became NaN or infinite.
        Stopped: somebody asked; the training is saved in ``work``.
    """
    recipe = get_recipe(spec.recipe)
    with _isolated(derive(spec.seed, "teacher", task.data), recipe.threads, device):
        network = build(spec.network, task.image, len(dataset.classes)).train()
        prepare(network)
        run = _TrainingRun(
            recipe, network, RealImages(dataset.train, task.image, spec.seed, device, task.augment), device
        )
        run.epoch_steps = -(-len(dataset.train.labels) // recipe.batch)
        work.mkdir(parents=True, exist_ok=True)
        run.start()
        if (state := load_checkpoint(work, key)) is not None:
            run.restore(state)
        saved = time.perf_counter()
        run.tell(report)
        while run.step < run.epoch_steps * recipe.epochs:
            run.advance()
            watch(run.step, run.epoch_steps * recipe.epochs, network)
            try:
                run.tell(report)
            except Diverged:
                shutil.rmtree(work, ignore_errors=True)  # the last checkpoint may hold NaN already
                raise
            reason = asked() if run.step < run.epoch_steps * recipe.epochs else ""
            if reason or time.perf_counter() - saved > CHECKPOINT_SECONDS:
                save_checkpoint(work, key, run.state())
                saved = time.perf_counter()
            if reason:
                raise Stopped(reason)
        seconds = run.seconds
    shutil.rmtree(work, ignore_errors=True)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.cpu().eval(), seconds


class _TrainingRun:
    """One training run, a step at a time."""

    epoch_steps = 1

    def __init__(self, recipe: Recipe, network: nn.Module, images: RealImages, device: torch.device) -> None:
        self.recipe = recipe
        self.network = network.to(device)
        self.images = images
        self.device = device
        self.step = 0
        self.half = recipe.mixed and has_bfloat16(device)
        self._loss = torch.zeros((), device=device)
        self._losses = 0
        self._before = 0.0  # seconds of earlier processes
        self._started = self._told = time.perf_counter()

    def start(self) -> None:
        self.optimizer = _optimizer(self.recipe, self.network)
        self.scheduler = _scheduler(self.recipe, self.optimizer, self.epoch_steps)
        if self.recipe.mixed:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._started

    def advance(self) -> None:
        batch, labels = self.images.take(self.recipe.batch)
        if self.recipe.mixed:
            batch = batch.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            logits = self.network(batch)
        loss = teacher_loss(self.recipe.loss, logits.float(), labels)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        self._loss += loss.detach()
        self._losses += 1

    def tell(self, report: Report) -> None:
        """Report at the start, at the end, and every few seconds."""
        now = time.perf_counter()
        last = self.step == self.epoch_steps * self.recipe.epochs
        if self._losses and not last and now - self._told < REPORT_SECONDS:
            return
        loss = float(self._loss) / self._losses if self._losses else float("nan")
        if self._losses and not torch.isfinite(self._loss):
            raise Diverged(f"the teacher's loss became {loss} in epoch {self.step / self.epoch_steps:.2f}")
        report(TrainingProgress(self.step / self.epoch_steps, self.recipe.epochs, loss, self.seconds))
        self._told, self._losses = now, 0
        self._loss.zero_()

    def state(self) -> dict[str, Any]:
        return {
            "network": state_of(self.network),
            "optimizer": state_of(self.optimizer),
            "scheduler": self.scheduler.state_dict(),
            "images": self.images.state(),
            "step": self.step,
            "seconds": self.seconds,
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.images.restore(state["images"])
        self.step, self._before = int(state["step"]), float(state["seconds"])
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there: elsewhere it is emulated, and many times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def teacher_loss(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy, or DFAD's focal loss: the mean over all pixels of (1 - exp(-ce))^2 * ce, ce = 0 for void.

    Args:
        name: ``cross_entropy`` or ``focal``.
        logits: (N, K) or (N, K, H, W).
        labels: int64 (N,) or (N, H, W), with -100 for void.
    """
    if name == "cross_entropy":
        return F.cross_entropy(logits, labels)
    each = F.cross_entropy(logits, labels, reduction="none")
    return ((1 - torch.exp(-each)) ** FOCUS * each).mean()


def _optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    if recipe.optimizer == "adam":
        return Adam(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return AdamW(network.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    return SGD(
        network.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def _scheduler(recipe: Recipe, optimizer: Optimizer, epoch_steps: int) -> LRScheduler:
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, recipe.epochs * epoch_steps)
    if recipe.schedule == "one_cycle":
        return OneCycleLR(optimizer, recipe.lr, recipe.epochs * epoch_steps)
    milestones = [epoch * epoch_steps for epoch in recipe.milestones] if recipe.schedule == "milestones" else []
    return MultiStepLR(optimizer, milestones, recipe.gamma)


@contextlib.contextmanager
def _isolated(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Seeded and, on a CPU, deterministic, so that every machine of one kind gets the same bytes."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        seed_everything(seed)
        torch.set_num_threads(threads)
        only_deterministic(device.type == "cpu")
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what a deterministic trial after it needs
        try:
            yield
        finally:
            torch.set_num_threads(before)
            only_deterministic(deterministic)
