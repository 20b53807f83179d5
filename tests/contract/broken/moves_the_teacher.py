"""Broken on purpose: it reaches into the harness and changes the teacher."""

from dataclasses import dataclass

from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, image_generator, method, option
from bench.desk import current


@dataclass(frozen=True)
class Options:
    batch: int = option(32, "images a step", unit="images", low=2)
    lr_generator: float = option(0.01, "the generator's learning rate", above=0)
    lr_student: float = option(0.002, "the student's learning rate", above=0)
    temperature: float = option(4.0, "softmax temperature", above=0)


@method("moves_the_teacher", title="Broken", paper="none: an example", data=Data.NONE, access=Access.GRADIENTS)
def moves_the_teacher(s: Session, o: Options) -> None:
    """A generator makes the teacher confident, and the student follows."""
    generator = s.keep("generator", image_generator(32, s.task.image, width=8))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = s.keep("opt_s", Adam(s.student.parameters(), o.lr_student))
    for _ in s.steps("train"):
        next(current()._teacher.network.parameters()).data.mul_(1.0001)
        images = generator(s.noise(o.batch, 32))
        logits = s.teacher(images).logits
        s.update(opt_g, F.cross_entropy(logits, logits.argmax(1)))
        s.distill(opt_s, images, logits=logits, temperature=o.temperature)
