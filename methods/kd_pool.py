"""KD-REL and KD-UNR: distillation on other real images, related or unrelated, that only the teacher labels.

L = KL_tau(T || S), with the factor tau^2, averaged over the batch

The images pass through the task's own transform and normalisation, as in CMI's ``vanilla_kd`` on a transfer set, whose
settings these are (learning rate * 0.1 at epochs 120, 150 and 180 of 200). It has no LeNet: there the optimiser is that
of DAFL's teacher, as for ``kd``. Which images are related and which are not is the task's or the study's to say
(``pools``); the pairs are DFAD's where the data sets are there (CIFAR-100 and Fashion-MNIST for CIFAR-10). One file
declares both methods: they differ in the pool alone.
"""

from dataclasses import dataclass

from bench import Access, Data, Session, method, option
from methods.common.options import RealImageOptions
from methods.common.training import kept_optimizer, scheduled_steps


@dataclass(frozen=True)
class Options(RealImageOptions):
    temperature: float = option(1.0, "softmax temperature tau of the distillation loss", above=0)


@method(
    "kd_related", title="KD-REL", data=Data.POOL, pool="related", access=Access.LOGITS, segmentation=True,
    paper="Hinton et al., Distilling the Knowledge in a Neural Network, 2015; protocol of Fang et al. (DFAD), 2019",
    quick={"batch": 32},
)  # fmt: skip
def kd_related(s: Session, o: Options) -> None:
    """The student follows the teacher on real images of the same kind as its own."""
    distil_on_pool(s, o)


@method(
    "kd_unrelated", title="KD-UNR", data=Data.POOL, pool="unrelated", access=Access.LOGITS, segmentation=True,
    paper="Hinton et al., Distilling the Knowledge in a Neural Network, 2015; protocol of Fang et al. (DFAD), 2019",
    quick={"batch": 32},
)  # fmt: skip
def kd_unrelated(s: Session, o: Options) -> None:
    """The student follows the teacher on real images of another kind."""
    distil_on_pool(s, o)


def distil_on_pool(s: Session, o: Options) -> None:
    """Hinton's distillation on the pool that the method declared, to the end of the budget."""
    opt_s = kept_optimizer(s, o)
    for _ in scheduled_steps(s, opt_s, o):
        images, _ = s.images(o.batch)
        s.distill(opt_s, images, temperature=o.temperature)
