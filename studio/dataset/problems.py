"""What can be wrong with a picture or its caption, how bad it is, and what one click can do about it."""

from typing import Literal

from studio.results import Fact

Severity = Literal["reject", "convert", "note"]
Remedy = Literal["exclude", "convert", "recode caption"]


class Problem(Fact):
    """One finding about one file.

    Attributes:
        code: what it is, in a few words that a filter can show: `cut short`, `transparent`, `caption missing`.
        severity: `reject`: the picture is not trained on until this is mended. `convert`: it is read rightly, but
            only because we convert it, and how is said. `note`: it is trained on as it is; worth knowing.
        sentence: what was seen, what it means and what to do. It does not name the file: whoever shows it does.
        remedies: what one click can do.
    """

    code: str
    severity: Severity
    sentence: str
    remedies: tuple[Remedy, ...] = ()
