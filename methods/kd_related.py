"""KD-REL: distillation on real images of a related data set that only the teacher labels.

As KD-UNR (methods/kd_unrelated.py), loss and options too; the pool is the task's related one (CIFAR-100 for CIFAR-10,
SVHN for MNIST: DFAD's pairs).
"""

from bench import Access, Data, Session, method
from methods.kd_unrelated import Options, distil_on_pool


@method(
    "kd_related",
    title="KD-REL",
    paper="Hinton et al., Distilling the Knowledge in a Neural Network, 2015; protocol of Fang et al. (DFAD), 2019",
    data=Data.POOL,
    pool="related",
    access=Access.LOGITS,
    segmentation=True,
    quick={"batch": 32},
)
def kd_related(s: Session, o: Options) -> None:
    """The student follows the teacher on real images of the same kind as its own."""
    distil_on_pool(s, o)
