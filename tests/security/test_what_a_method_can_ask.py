"""What the judge answers, whatever it is told: no more than was declared, and nothing to a broken message."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

SPEAK = """
import struct

from bench.harness.isolation.channel import Kind, Message
from bench.harness.trial_context import current


def channel():
    return current()._remote._channel


def say(kind, **values):
    channel().send(Message(kind, **values))
    answer = channel().receive()
    return answer.kind is Kind.GOOD
"""
NOTHING = "bytes(7)"
ORDER = bytes(range(4))


def _forged(
    tensor: tuple[int, ...] = (0, 4, 0, 0, 1, 1, 32, 32),
    *,
    order: bytes = ORDER,
    kind: int = 3,
    tensors: int = 1,
    size: int = 7,
    magic: int = 0x44464B44,
) -> bytes:
    """A question about one tensor (type, axes, expanded axes, place, lengths), with one thing about it wrong."""
    code, axes, expanded, place, *lengths = tensor
    head = struct.pack("<IBBHIq7qd", magic, kind, 0, tensors, size, -1, *(0,) * 7, 0.0)
    padded = (*lengths, *(0,) * (8 - len(lengths)))
    described = struct.pack("<BBBB8sq8q", code, axes, expanded, 0, order.ljust(8, b"\0"), place, *padded)
    return head + described * min(tensors, 2) + b"\0" * min(size, 64)


FORGED = {
    "no message": _forged(magic=1),
    "unknown kind": _forged(kind=77),
    "an answer": _forged(kind=100),
    "out of turn": _forged(kind=11),
    "too many tensors": _forged(tensors=60_000),
    "huge text": _forged(size=2**31),
    "negative place": _forged((0, 4, 0, -64, 1, 1, 32, 32)),
    "at the end": _forged((0, 4, 0, 2**32 - 64, 1, 1, 32, 32)),
    "the judge's half": _forged((0, 4, 0, 2**32, 1, 1, 32, 32)),
    "odd place": _forged((0, 4, 0, 3, 1, 1, 32, 32)),
    "negative length": _forged((0, 4, 0, 0, -1, 1, 32, 32)),
    "huge length": _forged((0, 4, 0, 0, 2**40, 1, 32, 32)),
    "lengths that overflow": _forged((0, 4, 0, 0, 2**32, 2**32, 1, 1)),
    "huge when spread": _forged((0, 4, 1, 0, 2**40, 2**20, 32, 32)),
    "unknown type": _forged((99, 4, 0, 0, 1, 1, 32, 32)),
    "nine axes": _forged((0, 9, 0, 0, 1, 1, 32, 32)),
    "no order": _forged(order=bytes((0, 0, 1, 2))),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_broken_message_ends_the_trial(attempt: Callable[..., object], name: str) -> None:
    ran = attempt(f"os.write(channel()._writes, {FORGED[name]!r})\nchannel().receive()\ns.log(got=1.0)", top=SPEAK)
    assert ran.record.status == "denied", ran.record.reason
    assert "broke the rules" in ran.record.reason
    assert ran.got == 0


REFUSED = {  # what is said: the status that it ends with, or "ok" where it is only refused
    "scores": ("say(Kind.FACTS, payload=b'\"score\"')", "denied"),
    "features": ("say(Kind.ASK, token=-1, payload=bytes((1, 0, 0, 0, 0, 0, 0)), tensors=[x])", "denied"),
    "batch norm": ("say(Kind.ASK, token=-1, payload=bytes((0, 1, 0, 0, 0, 0, 0)), tensors=[x])", "denied"),
    "groups": ("say(Kind.ASK, token=-1, payload=bytes((0, 0, 0, 1, 0, 0, 0)), tensors=[x])", "denied"),
    "gradients": ("say(Kind.ASK, flags=1, token=-1, payload=bytes(7), tensors=[x])", "denied"),
    "weights": ("say(Kind.WEIGHTS, payload=b'\"all\"')", "denied"),
    "classifier": ("say(Kind.WEIGHTS, payload=b'\"weight\"')", "denied"),
    "layers": ("say(Kind.FACTS, payload=b'\"layers\"')", "denied"),
    "real images": ('say(Kind.REAL, payload=b\'{"do": "take", "batch": 4}\')', "leaked"),
    "a pool": ("say(Kind.FACTS, payload=b'\"real\"')", "leaked"),
    "an anchor": ("say(Kind.ASK, token=0, payload=bytes(7), tensors=[x])", "ok"),
    "integers": ("say(Kind.ASK, token=-1, payload=bytes(7), tensors=[x.long()])", "ok"),
    "another size": ("say(Kind.ASK, token=-1, payload=bytes(7), tensors=[x[..., :8]])", "ok"),
    "a teacher that is not there": ("say(Kind.ASK, token=-1, payload=bytes((0,) * 6 + (1,)), tensors=[x])", "denied"),
    "a last teacher": ("say(Kind.FACTS, token=-1, payload=b'\"layers\"')", "denied"),
    "counts of no teacher": ("say(Kind.USES, payload=bytes(8))", "denied"),
    "negative counts of a teacher": ("say(Kind.USES, payload=struct.pack('<3q', 1, -1, 1))", "denied"),
    "no batch": ("say(Kind.ASK, token=-1, payload=bytes(7))", "denied"),
    "more than memory": ("say(Kind.ASK, token=-1, payload=bytes(7), tensors=[x[:1].expand(2**22, -1, -1, -1)])", "ok"),
    "negative counts": ("say(Kind.STEP, counts=(-5,) * 7)", "denied"),
    "no JSON": ("say(Kind.FACTS, payload=b'[' * 100_000)", "denied"),
    "no graph": ("say(Kind.BACKWARD, token=99, payload=bytes(2), tensors=[x])", "denied"),
    "a second start": ("say(Kind.START)", "denied"),
    "the state of nobody": ("say(Kind.STATE, token=-1)", "denied"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_more_than_was_declared_is_refused(attempt: Callable[..., object], name: str) -> None:
    code, status = REFUSED[name]
    ran = attempt(f"s.log(got=float({code}))", top=SPEAK, budget={"steps": 1})
    assert ran.record.status == status, ran.record.reason
    assert ran.got == 0


def test_labels_come_without_logits(attempt: Callable[..., object]) -> None:
    ran = attempt("out = s.teacher(x)\ns.log(got=float(out._logits.numel()))")
    assert ran.record.status == "ok"
    assert ran.got == 0


def test_an_answer_leads_to_no_weight(attempt: Callable[..., object]) -> None:
    ran = attempt(
        """
        todo, found = [s.teacher(x.clone().requires_grad_()).logits.grad_fn], 0
        while todo:
            node = todo.pop()
            found += sum(hasattr(node, name) for name in ("_saved_weight", "_saved_mat2", "_saved_bias"))
            todo += [parent for parent, _ in node.next_functions if parent is not None]
        s.log(got=float(found))
        """,
        access="GRADIENTS",
    )
    assert ran.record.status == "ok", ran.record.reason
    assert ran.got == 0


def test_a_function_mode_sees_no_parameter_of_the_teacher(attempt: Callable[..., object]) -> None:
    top = """
    from torch.overrides import TorchFunctionMode

    SEEN = []


    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            SEEN.extend(each for each in args if isinstance(each, torch.nn.Parameter))
            return func(*args, **(kwargs or {}))
    """
    ran = attempt("with Watch():\n    s.teacher(x).labels\ns.log(got=float(len(SEEN)))", top=top)
    assert ran.record.status == "ok"
    assert ran.got == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("torch.vmap(lambda z: s.teacher(z).logits)(x[:, None])", "vmap"),
        ("torch.func.jacrev(lambda z: s.teacher(z).logits)(x)", "jacrev"),
        ("torch.func.jacfwd(lambda z: s.teacher(z).logits)(x)", "jacfwd"),
        ("torch.func.jvp(lambda z: s.teacher(z).logits, (x,), (x,))", "jvp, jacfwd"),
        ("torch.func.hessian(lambda z: s.teacher(z).logits.sum())(x)", "vmap|jacfwd"),
        (
            "z = x.clone().requires_grad_()\n"
            "out = s.teacher(z).logits\n"
            "torch.autograd.grad(out, z, torch.ones(3, *out.shape), is_grads_batched=True)",
            "vmap",
        ),
    ],
    ids=["vmap", "jacrev", "jacfwd", "jvp", "hessian", "batched"],
)
def test_transforms_that_hide_a_batch_are_refused_by_name(
    attempt: Callable[..., object], code: str, words: str
) -> None:
    import re

    ran = attempt(code, access="GRADIENTS")
    assert ran.record.status == "crashed"
    assert re.search(words, ran.record.reason), ran.record.reason
    assert ran.record.meter.teacher_images <= 64


@pytest.mark.parametrize("kind", ["func", "double", "retained", "checkpointed"])
def test_gradients_of_every_order_are_as_in_one_process_and_none_is_uncounted(
    attempt: Callable[..., object], kind: str
) -> None:
    code = {
        "func": "g = torch.func.grad(lambda z: s.teacher(z).logits.square().sum())(x)",
        "double": "z = x.clone().requires_grad_()\n"
        "g, = torch.autograd.grad(s.teacher(z).logits.square().sum(), z, create_graph=True)\n"
        "g, = torch.autograd.grad(g.square().sum(), z, create_graph=True)\n"
        "g, = torch.autograd.grad(g.square().sum(), z)",
        "retained": "z = x.clone().requires_grad_()\nout = s.teacher(z).logits\n"
        "g = sum(torch.autograd.grad(out[:, i].sum(), z, retain_graph=True)[0] * i for i in range(3))",
        "checkpointed": "from torch.utils.checkpoint import checkpoint\nz = x.clone().requires_grad_()\n"
        "g, = torch.autograd.grad(checkpoint(lambda y: s.teacher(y).logits, z, use_reentrant=False).square().sum(), z)",
    }[kind]
    whole = f"{code}\ns.log(got=float(g.double().abs().sum()), second=float(g.double().square().sum()))"
    here, there = (attempt(whole, access="GRADIENTS", how=how) for how in (None, "landlock"))
    assert there.record.status == here.record.status == "ok", (there.record.reason, here.record.reason)
    assert here.got > 0
    assert [row["logs"] for row in there.curve] == [row["logs"] for row in here.curve]
    # each way that a gradient takes counts there, and a pass that was begun again counts in full
    for name in ("teacher_images", "teacher_backward", "gmacs"):
        assert getattr(there.record.meter, name) >= getattr(here.record.meter, name), name
