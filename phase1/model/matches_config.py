"""Whether a model's tensors fit its config.json: names, shapes, and the tied head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from phase1.files import BadInput
from phase1.model.tensors import Shape, Source, first_difference

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
OTHER_MODEL = "the shards are of another model"


def has_tied_copy(sources: Mapping[str, Source], config: Mapping[str, JsonValue]) -> bool:
    """Whether a tied model has a second copy of its embedding as the head, which verl 0.7.0 saves."""
    return bool(config.get("tie_word_embeddings")) and HEAD in sources and EMBEDDING in sources


def tensors_to_write(sources: Mapping[str, Source], config: Mapping[str, JsonValue]) -> list[Source]:
    """All tensors but that second copy, which readers must not find."""
    tied = has_tied_copy(sources, config)
    return [s for s in sources.values() if not (tied and s.name == HEAD)]


def check_tied(sources: Mapping[str, Source], config: Mapping[str, JsonValue], path: Path) -> None:
    """Check that what `tensors_to_write` leaves out is the copy that config.json, at `path`, says it is.

    Raises:
        BadInput: head and embedding differ.
    """
    if not has_tied_copy(sources, config):
        return
    head, embedding = sources[HEAD], sources[EMBEDDING]
    if difference := first_difference(head, embedding, head.dtype):
        raise BadInput(
            f"{path}: tie_word_embeddings is true, but {HEAD} and the embedding were trained apart "
            f"({difference}); set it to false to keep both"
        )


def check_shapes(sources: Sequence[Source], want: Mapping[str, Shape], path: Path) -> None:
    """Check names and shapes against those of the model that config.json, at `path`, describes.

    Raises:
        BadInput: names the first tensor that is foreign, of another shape, or missing.
    """
    for source in sources:
        if source.name not in want:
            raise BadInput(
                f"{source.where}: holds {source.name}, which the model of {path} does not have; {OTHER_MODEL}"
            )
        if source.shape != want[source.name]:
            raise BadInput(
                f"{source.where}: {source.name} is {source.shape}, {path} says {want[source.name]}; {OTHER_MODEL}"
            )
    if missing := sorted(set(want) - {s.name for s in sources}):
        raise BadInput(f"{sources[0].where}: lacks {missing[0]}, which the model of {path} needs; {OTHER_MODEL}")
