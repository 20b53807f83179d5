"""A method of one's own in twenty lines; docs/writing-a-method.md walks through it."""

from dataclasses import dataclass

from torch.nn import functional as F
from torch.optim import Adam

from bench import Access, Data, Session, image_generator, method, option


@dataclass(frozen=True)
class Options:
    batch: int = option(32, "images per step", unit="images", low=2)
    lr_generator: float = option(0.01, "the generator's learning rate", above=0)
    lr_student: float = option(0.002, "the student's learning rate", above=0)
    temperature: float = option(4.0, "softmax temperature", above=0)


@method("one_hot", title="One-hot", paper="none: an example", data=Data.NONE, access=Access.GRADIENTS)
def one_hot(s: Session, o: Options) -> None:
    """A generator makes the teacher confident, and the student follows."""
    generator = s.keep("generator", image_generator(32, s.task.image, width=8))
    opt_g = s.keep("opt_g", Adam(generator.parameters(), o.lr_generator))
    opt_s = s.keep("opt_s", Adam(s.student.parameters(), o.lr_student))
    for _ in s.steps("train"):
        images = generator(s.noise(o.batch, 32))
        logits = s.teacher(images).logits
        s.update(opt_g, F.cross_entropy(logits, logits.argmax(1)))
        s.distill(opt_s, images, logits=logits, temperature=o.temperature)
