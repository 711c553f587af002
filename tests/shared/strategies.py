"""Hypothesis strategies: any message of a stream, with any arrays that may travel with it."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec import Struct

from shared.streams import Stream

PLAIN = {
    str: st.text(max_size=20),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),  # JSON has neither
    bool: st.booleans(),
    type(None): st.none(),
}


def messages(kind: type[Struct]) -> st.SearchStrategy[Struct]:
    """Any message of one kind."""
    return st.builds(kind, **{name: values(hint) for name, hint in get_type_hints(kind).items()})


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, Struct):
        return messages(hint)
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return st.one_of(*map(values, inner))
    if get_origin(hint) is tuple and inner[-1] is Ellipsis:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if get_origin(hint) is tuple:
        return st.tuples(*map(values, inner))
    if get_origin(hint) is dict:
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=3)
    return st.from_type(hint)


@st.composite
def traffic(draw: st.DrawFn, stream: Stream) -> tuple[Struct, dict[str, np.ndarray]]:
    """A message of a stream and its arrays, empty and non-contiguous ones too."""
    message = draw(st.sampled_from(stream.carries).flatmap(messages))
    names = [name for name in stream.arrays if name in stream.required or draw(st.booleans())]
    return message, {name: draw(arrays(stream.arrays[name].dtype, stream.arrays[name].axes)) for name in names}


def arrays(dtype: str, axes: int) -> st.SearchStrategy[np.ndarray]:
    """Any small array, sometimes mirrored (so not contiguous)."""
    shapes = hnp.array_shapes(min_dims=axes, max_dims=axes, min_side=0, max_side=5)
    plain = hnp.arrays(dtype, shapes, elements={"allow_nan": False} if dtype.startswith("float") else None)
    return st.tuples(plain, st.booleans()).map(lambda pair: pair[0][::-1] if pair[1] else pair[0])
