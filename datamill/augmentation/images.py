"""Augmentation of images with albumentations, which no other module imports."""

import inspect
import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from datamill.augmentation.policy import Policy, Streams, Transform, require_known
from datamill.errors import ParamsError

TRIALS = 3  # draws of each transform per picture when a policy is checked


class ImageAugmenter:
    """Applies albumentations transforms one after the other, without the cost of its ``Compose``."""

    def __init__(self, policy: Policy) -> None:
        """Build every transform of the policy.

        Raises:
            ParamsError: A name or an argument is wrong.
        """
        self._streams = Streams(policy.seed)
        self._steps = [(step.name, _build_transform(step)) for step in policy.transforms]
        for _, transform in self._steps:
            transform.set_random_state(self._streams.numpy, self._streams.python)

    @property
    def is_identity(self) -> bool:
        """Whether there is no transform."""
        return not self._steps

    def apply(self, x: NDArray[np.uint8], *, sample_ids: NDArray[np.uint8], epoch: int) -> NDArray[np.uint8]:
        """Images augmented one by one, shape (B, H, W, C); see ``Augmenter.apply``."""
        if self.is_identity:
            return x
        augmented = np.empty_like(x)
        for row, image in enumerate(x):
            self._streams.enter(sample_id=sample_ids[row].tobytes(), epoch=epoch)
            for name, transform in self._steps:
                image = _transformed(image, name=name, transform=transform)
            augmented[row] = image
        return augmented

    def check(self, image: NDArray[np.uint8]) -> None:
        """Apply every transform to a real image, whatever its probability.

        Raises:
            ParamsError: A transform fails, or changes the image's shape or type.
        """
        for name, transform in self._steps:
            for trial in range(TRIALS):
                self._streams.enter(sample_id=bytes(16), epoch=trial)
                _transformed(image, name=name, transform=transform, force=True)


def _library() -> Any:
    """albumentations, imported late because tables do without it and it takes two seconds."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import asks the internet for its version
    import albumentations

    return albumentations


def _image_transforms() -> dict[str, Any]:
    """Usable classes by name: single transforms of one picture."""
    library = _library()
    bases = {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D", "NoOp", "Lambda"}
    return {
        name: member
        for name, member in vars(library).items()
        if inspect.isclass(member) and issubclass(member, library.BasicTransform)
        if name not in bases and not issubclass(member, library.Transform3D)
    }


def _build_transform(step: Transform) -> Any:
    known = _image_transforms()
    require_known(step.name, known=known, kind="transform", where="augment.transforms")
    transform = known[step.name]
    accepted = set(inspect.signature(transform.__init__).parameters) - {"self", "p", "strict"}
    for argument in step.arguments:
        require_known(argument, known=accepted, kind="argument", where=f"augment.transforms: {step.name}")
    try:
        with warnings.catch_warnings():  # the library warns where it ignores or replaces what it was given
            warnings.simplefilter("error", UserWarning)
            return transform(**step.arguments, p=step.probability)
    except (ValueError, TypeError, UserWarning) as error:
        raise ParamsError(f"augment.transforms: {step.name}: {_reason(error, step=step)}") from error


def _reason(error: Exception, *, step: Transform) -> str:
    """Which argument is wrong, with its value; albumentations hides pydantic's error inside its own."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return f"{error}; arguments were {step.arguments}"
    fault = cause.errors(include_url=False)[0]
    argument = str(fault["loc"][0]) if fault["loc"] else "arguments"
    given = repr(step.arguments[argument]) if argument in step.arguments else "not given"
    return f"{argument} was {given}: {fault['msg']}"


def _transformed(image: NDArray[np.uint8], *, name: str, transform: Any, force: bool = False) -> NDArray[np.uint8]:
    try:
        result = transform(image=image, force_apply=force)["image"]
    except Exception as error:  # a transform is third-party code: whatever it raises, its name belongs to it
        raise ParamsError(f"augment.transforms: {name} fails on an image of shape {image.shape}: {error}") from error
    if getattr(result, "shape", None) != image.shape or result.dtype != image.dtype:
        found = (getattr(result, "shape", None), str(getattr(result, "dtype", type(result).__name__)))
        raise ParamsError(
            f"augment.transforms: {name} turns an image of {image.shape} {image.dtype} into {found[0]} {found[1]}; "
            f"training needs the same shape and type: resize and normalise in preprocess, and leave {name} out"
        )
    return np.asarray(result, np.uint8)
