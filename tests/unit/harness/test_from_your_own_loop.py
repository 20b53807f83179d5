"""What a plain training script becomes, and what is said where one was carried over too literally."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from method_fixtures import IMAGE, trial
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from bench import Session, StudentBatch, image_generator, kl_divergence
from bench.errors import DataLeak, MethodError
from bench.execution.status import ending_of
from bench.harness.isolation.method_process import _told
from bench.spec.method_loader import load_method
from bench.spec.method_registry import read_cards
from bench.utils.determinism import only_deterministic

PAGE = Path(__file__).parents[3] / "docs" / "from-your-own-loop.md"
SCRIPT, METHOD = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_the_script_and_the_method_give_the_same_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_loop.py").write_text(METHOD)
    (card,) = read_cards(tmp_path / "own_loop.py")
    method = load_method(card)
    before, loop = SCRIPT.split("for step in")
    with torch.random.fork_rng():
        script: dict[str, Any] = {}
        exec(before, script)
        drawn = torch.get_rng_state()
        first = copy.deepcopy({name: script[name] for name in ("teacher", "student", "generator")})
        exec(f"for step in{loop}", script)
    assert (tmp_path / "student.pth").is_file()

    stream = torch.Generator()
    stream.set_state(drawn)
    monkeypatch.setattr(Session, "noise", lambda _, *shape: torch.randn(*shape, generator=stream))
    with trial(steps=20, teacher=first["teacher"], student=first["student"], loops=True) as (s, context):
        monkeypatch.setattr(nn, "Sequential", lambda *_: first["generator"])  # the script's, with its first weights
        method.run(s, method.make_options({}))
        context.check_end()
    for name, value in context.student.state_dict().items():
        torch.testing.assert_close(value, script["student"].state_dict()[name], rtol=1e-4, atol=1e-5)
    assert context.meter.steps == 20
    assert context.meter.student_images == context.meter.teacher_images == 20 * 16


# ---- mistakes ------------------------------------------------------------------------------------------------------

Body = Callable[[Session, Optimizer, Tensor], Any]
MISTAKES: dict[str, Body] = {}
LINES = re.findall(r"^\| (`.+?`) \| `+ ?(.+?) ?`+ \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def mistake(written: str) -> Callable[[Body], Body]:
    def note(body: Body) -> Body:
        MISTAKES[f"`{written}`"] = body
        return body

    return note


@mistake("F.cross_entropy(s.teacher(images), labels)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    return F.cross_entropy(s.teacher(images), torch.zeros(16).long())


@mistake("s.teacher(images).softmax(1)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    return s.teacher(images).softmax(1)


@mistake("torch.cat([s.teacher(a), s.teacher(b)])")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    return torch.cat([s.teacher(images), s.teacher(images)])


@mistake("s.teacher(images) / 4.0")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    return s.teacher(images) / 4.0


@mistake("logits, features = s.teacher(images, features=True)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    return [*s.teacher(images, features=True)]  # what unpacking does


@mistake("s.distill(opt_s, images, logits=s.teacher(images))")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.distill(opt, images, logits=s.teacher(images))


@mistake("s.update(loss, opt_s)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.update(s.student(images).mean(), opt)


@mistake("s.teacher.eval()")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.teacher.eval()


@mistake("s.teacher.logits(images)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.teacher.logits(images)


@mistake("s.step()")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.step()


@mistake("opt_s = SGD(s.student.parameters(), 0.1)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.distill(SGD(s.student.parameters(), 0.1), images)


@mistake("generator = image_generator(32, s.task.image)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.distill(opt, image_generator(32, s.task.image, width=4)(s.noise(16, 32)))


@mistake("s.keep(SGD(s.student.parameters(), 0.1))")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.keep(SGD(s.student.parameters(), 0.1))


@mistake("s.keep(opt_s, 'opt_s')")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.keep(opt, "opt_s")


@mistake("loss.backward(); s.update(opt_s, loss)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    loss = F.mse_loss(s.student(images), s.teacher(images).logits)
    loss.backward()
    s.update(opt, loss)


@mistake("s.update(opt_s, loss); loss.backward()")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    loss = F.mse_loss(s.student(images), s.teacher(images).logits)
    s.update(opt, loss)
    loss.backward()


@mistake("s.distill(opt_s, images, criterion=lambda t, s, x: ...)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.distill(opt, images, criterion=lambda t, s, x: F.mse_loss(s, t))  # type: ignore[arg-type,misc]


@mistake("s.distill(opt_s, images, criterion=nn.L1Loss)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.distill(opt, images, criterion=nn.L1Loss)  # type: ignore[arg-type]


@mistake("s.distill(opt_s, images, group_loss=attention)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.distill(opt, images, group_loss=F.mse_loss)  # type: ignore[call-arg]


@mistake("s.student_step(opt_s, images, F.l1_loss(a, b))")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.student_step(opt, images, F.l1_loss(s.student(images), s.teacher(images).logits))  # type: ignore[arg-type]


@mistake("s.student_step(opt_s, images, kl_divergence)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.student_step(opt, images, kl_divergence)  # type: ignore[arg-type]


@mistake("lambda batch: F.mse_loss(batch, batch.teacher)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.student_step(opt, images, lambda batch: F.mse_loss(batch, batch.teacher))  # type: ignore[arg-type]


@mistake("lambda batch: batch.layers[0][-1].mean()")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.student_step(opt, images, lambda batch: batch.layers[0][-1].mean())


@mistake("lambda batch: (batch.student - batch.teacher).abs()")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.student_step(opt, images, lambda batch: (batch.student - batch.teacher).abs())


@mistake("def loss(batch): F.mse_loss(batch.student, batch.teacher)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    def loss(batch: StudentBatch) -> Tensor:  # type: ignore[return]
        F.mse_loss(batch.student, batch.teacher)

    s.student_step(opt, images, loss)


@mistake("s.student_step(opt_s, images, loss, rows=labels[:8])")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.student_step(opt, images, lambda batch: F.cross_entropy(batch.student, batch.rows), rows=torch.arange(8))


@mistake("s.distill(opt_s, images).backward()")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.distill(opt, images).backward()


@mistake("for step in range(1000): s.distill(opt_s, images)")
def before_distill(s: Session, opt: Optimizer, images: Tensor) -> Any:
    for _ in range(1000):
        s.distill(opt, images)


@mistake("for _ in s.steps(1000):")
def before_steps(s: Session, opt: Optimizer, images: Tensor) -> Any:
    for _ in s.steps(1000):
        pass


@mistake("for _ in range(s.steps('train')):")
def before_range(s: Session, opt: Optimizer, images: Tensor) -> Any:
    for _ in range(s.steps("train")):
        pass


@mistake("images = images.cuda()")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    if torch.version.cuda is None:
        images.cuda()
    raise AssertionError("Torch not compiled with CUDA enabled")  # where it is, torch says something else, or nothing


@mistake("images + torch.zeros(16, 1, 32, 32)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    raise RuntimeError(  # what torch says on a GPU
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
    )


@mistake("datasets.MNIST('data')")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    raise DataLeak("the method opened real data: train-images-idx3-ubyte")  # what the fence says


@mistake("s.images(16)")
def _(s: Session, opt: Optimizer, images: Tensor) -> Any:
    s.images(16)


def ends(body: Body) -> BaseException:
    with trial(steps=3, loops=True) as (s, context), pytest.raises(BaseException) as caught:  # noqa: PT011
        opt = s.keep("opt_s", SGD(s.student.parameters(), 0.1))
        images = torch.randn(16, *IMAGE.shape)
        if body.__name__.startswith("before"):
            body(s, opt, images)
        else:
            for _ in s.steps("train"):
                body(s, opt, images)
        context.check_end()
    return caught.value


@pytest.fixture(autouse=True)
def _as_in_a_trial() -> Iterator[None]:
    only_deterministic(True)
    yield
    only_deterministic(False)


@pytest.mark.parametrize(("written", "message"), LINES, ids=[written.strip("`") for written, _ in LINES])
def test_a_mistake_of_the_page_has_its_message(written: str, message: str) -> None:
    error = ends(MISTAKES[written])
    ended = ending_of(error, Path(__file__), from_method=True)
    assert ended is not None
    plain = re.sub(r" \(test_from_your_own_loop\.py, line \d+\)", "", ended.reason)
    assert re.sub(r" \(or directly.+?backward\.;", "...;", plain) == message
    assert ended.status == ("leaked" if isinstance(error, DataLeak) else "crashed")
    if not isinstance(error, DataLeak | MethodError):  # the same where the method is in a process of its own
        assert _told(error, Path(__file__))["reason"] == ended.reason


def test_every_mistake_is_on_the_page() -> None:
    assert [written for written, _ in LINES] == list(MISTAKES)
