"""YAML files that people write, checked."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ofvl_core.errors import DataError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path, model: type[Model], explained: str) -> Model:
    """What a file holds, as `model` wants it; `explained` is where a user finds every key.

    Raises DataError naming the first key that is wrong.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise DataError(f"{path}: not readable as YAML ({cause}); correct the file") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(str(part) for part in wrong["loc"]) or "the file"
        raise DataError(f"{path}: {key}: {wrong['msg']}; {explained} explains every key") from None
