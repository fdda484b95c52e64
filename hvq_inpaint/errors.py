"""The one error that a person, rather than a programmer, is expected to see."""


class InvalidInputError(ValueError):
    """An input that can't be used. The message is one sentence: what is wrong and what is accepted."""
