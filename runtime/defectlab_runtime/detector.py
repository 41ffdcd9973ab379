"""The class `Detector`, which loads an exported file and scores images."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from defectlab_runtime.description import Description
from defectlab_runtime.errors import DescriptionError
from defectlab_runtime.graphs import Graph, open_graph
from defectlab_runtime.image_sources import Pixels
from defectlab_runtime.preprocessing import PreprocessingSettings
from defectlab_runtime.scoring import ImageScorer, Maps

logger = logging.getLogger("defectlab.runtime")  # one logger, "defectlab", for runtime and toolkit


class Detector(ImageScorer[NDArray[np.float32]]):
    """An exported model that scores images and decides at the thresholds of its run.

    Attributes:
        description: What the file says of its model.
    """

    def __init__(self, graph: Graph, description: Description, batch_size: int = 8) -> None:
        levels = {**description.categories, "": (description.image_threshold, description.pixel_threshold)}
        levels = {name: (_threshold("image", one[0]), _threshold("map", one[1])) for name, one in levels.items()}
        super().__init__(*levels.pop(""), batch_size, levels)
        self.graph = graph
        self.description = description
        self._preprocessing = PreprocessingSettings.from_dict(description.preprocessing)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        batch_size: int = 8,
        category: str | None = None,
    ) -> Self:
        """Load an exported file: `model.onnx`, or the `model.xml` of an OpenVINO pair.

        Args:
            path: The file.
            device: "auto" takes the GPU where ONNX Runtime is built for one; cpu, cuda.
            threads: Of the arithmetic; None leaves it to the library.
            batch_size: Images that are scored at once.
            category: That of all images, for a model that serves several; it decides at that category's thresholds.

        Raises:
            InputError: No such file, damaged, or of a kind that is not read.
            DescriptionError: DefectLab did not export it, its description is damaged or newer, or the graph is not the
                one described.
        """
        path = Path(path).expanduser()
        graph = open_graph(path, device, threads)
        description = Description.from_json(graph.text or "", str(path))
        detector = cls(graph, description, batch_size)
        detector._check_graph(path)
        return detector if category is None else detector.of_category(category)

    def _check_graph(self, path: Path) -> None:
        """Compare inputs and outputs of the graph with the description."""
        size, map_size = self.preprocessing.whole_size, self.preprocessing.map_size
        expected = {"images": (None, 3, *size), "score": (None,)}
        if self.description.has_maps:
            expected["map"] = (None, 1, *map_size)
        found = {**self.graph.inputs, **self.graph.outputs}
        problems = [f"there is no {name}" for name in expected if name not in found]
        problems += [f"{name} is not described" for name in found if name not in expected]
        for name, shape in expected.items():
            sides = found.get(name, shape)
            if len(sides) != len(shape) or any(
                side not in (None, want) for side, want in zip(sides, shape, strict=True)
            ):
                problems.append(f"{name} has the shape {_text(sides)} and not {_text(shape)}")
        if problems:
            raise DescriptionError(
                f"The graph in {path} is not the one that its description speaks of: {'; '.join(problems)}. Export the "
                "run again."
            )

    @property
    def preprocessing(self) -> PreprocessingSettings:
        """What happens to an image before the model sees it; crop, tiles and normalisation are in the graph."""
        return self._preprocessing

    @property
    def score_range(self) -> tuple[float, float]:
        """Smallest and largest raw image score of the validation images."""
        return self.description.score_range

    @property
    def map_range(self) -> tuple[float, float]:
        """Smallest and largest value of the validation maps: one scale for all heat maps of a run."""
        return self.description.map_range

    @property
    def relative_maps(self) -> bool:
        """Whether heat maps range from 0 to twice the pixel threshold."""
        return self.description.relative_maps

    @property
    def model_name(self) -> str:
        """Name of the model for titles of pictures."""
        return self.description.run.model

    @property
    def dataset(self) -> str | None:
        """Name of the dataset that the model was trained on."""
        return self.description.run.dataset

    @property
    def has_maps(self) -> bool:
        """Whether the model gives maps."""
        return self.description.has_maps

    def prepare(self, image: Pixels) -> NDArray[np.float32]:
        """Bring an image (H, W, 3), uint8 or float32 in [0, 1], to the graph's input (3, h, w).

        Raises:
            DataError: The image does not fit the region that the model looks at.
        """
        return self.preprocessing.prepare(image)

    def score(self, images: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], Maps | None]:
        """Return raw scores (B,) and maps (B, h, w) on the model's input, None without maps, of prepared images."""
        return self.graph.run(np.stack(images))


def _threshold(kind: str, value: float | None) -> float | None:
    """Return a threshold; None for NaN, to which nothing compares as above, so that all would be good."""
    if value is None or not math.isnan(value):
        return value
    logger.warning("The %s threshold in the file is NaN: nothing is decided by it", kind)
    return None


def _text(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("any" if side is None else str(side) for side in shape) + ")"
