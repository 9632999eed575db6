"""What the table of methods says of a method beside its docstring: written where the method is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """One row of the table of methods; equation and parameters come from the class itself.

    Parameters
    ----------
    cost
        In FFT pairs (one real transform and its inverse), such as ``"2 FFT pairs an iteration"``.
    use
        When to choose it, in one sentence.
    reference
        Author, year and DOI.
    """

    cost: str
    use: str
    reference: str
