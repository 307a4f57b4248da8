"""One picture of a plan."""

from studio.results import Fact
from studio.settings import GenerationSettings


class BatchItem(Fact):
    """One picture of a plan, before it is made.

    Attributes:
        index: its place in the plan, from 0.
        generation: everything that draws it; LoRA tags and weights are still in its prompt.
        caption: its prompt's words alone.
        attributes: the value of every column, in the columns' order, as written.
    """

    index: int
    generation: GenerationSettings
    caption: str
    attributes: dict[str, str]
