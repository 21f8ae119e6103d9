"""What is done when a step of a protocol fails."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["FailurePolicy"]

Resort = Literal["abort", "skip", "ask", "park"]


class FailurePolicy(BaseModel):
    """What is done when a step fails, declared by a protocol or by the lab file.

    A lab file may write one word for it: ``abort``, ``skip``, ``ask``, ``park``, or
    ``retry`` for one more attempt before the job ends.

    Example:
        >>> FailurePolicy.model_validate("retry")
        FailurePolicy(retries=1, then='abort')
        >>> FailurePolicy.model_validate({"retries": 2, "then": "ask"})
        FailurePolicy(retries=2, then='ask')
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    retries: int = Field(
        default=0, ge=0, le=100, description="How often it is tried again at once"
    )
    then: Resort = Field(
        default="abort",
        description="abort ends the job; skip goes on without the step's result; ask "
        "waits for a person; park puts the sample away and then ends the job",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_a_word(cls, given: Any) -> Any:
        if given == "retry":
            return {"retries": 1}
        return {"then": given} if isinstance(given, str) else given
