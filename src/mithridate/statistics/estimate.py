"""A number with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core.core_schema import CoreSchema


class _FiniteOrMissing:
    """How pydantic reads a number back: null is NaN, which JSON lacks."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def read(value: Any) -> Any:
            return math.nan if value is None else value

        return core_schema.no_info_before_validator_function(read, core_schema.float_schema(strict=True))


Number = Annotated[float, _FiniteOrMissing()]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the number of units it is over."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    value: Number
    low: Number | None = None
    high: Number | None = None
    n: int | None = None
