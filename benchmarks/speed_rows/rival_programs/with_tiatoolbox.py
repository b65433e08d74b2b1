"""TIAToolbox's patch predictor on one slide.

python with_tiatoolbox.py SLIDE MODEL CONFIG RESULTS STRIDE
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import zarr
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
from tiatoolbox.models.engine.patch_predictor import PatchPredictor
from tiatoolbox.models.models_abc import ModelABC


class Exported(ModelABC):  # type: ignore[misc]
    """A TorchScript network that takes RGB in 0..1."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.network = torch.jit.load(file).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities (N, 2) of images (N, P, P, 3)."""
        return self.network(images.permute(0, 3, 1, 2).float() / 255).softmax(dim=1)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        """What the predictor calls."""
        with torch.inference_mode():
            return model(batch_data.to(device)).cpu().numpy()


def main() -> None:
    """Print patches, seconds and version."""
    slide, model, config, results = map(Path, sys.argv[1:5])
    stride = int(sys.argv[5])
    settings = json.loads(config.read_text(encoding="utf-8"))
    patch_px = settings["patch_size_pixels"]
    resolution = {"units": "mpp", "resolution": settings["spacing_um_px"]}
    predictor = PatchPredictor(Exported(model), batch_size=32, num_workers=torch.get_num_threads())
    started = time.perf_counter()
    found = predictor.run(
        [slide],
        ioconfig=IOPatchPredictorConfig(
            input_resolutions=[resolution],
            output_resolutions=[resolution],
            patch_input_shape=(patch_px, patch_px),
            stride_shape=(stride, stride),
        ),
        patch_mode=False,
        save_dir=results,
        output_type="dict",
        return_probabilities=True,
    )
    seconds = time.perf_counter() - started
    patches = zarr.open(str(found[slide]), mode="r")["coordinates"].shape[0]
    print(json.dumps({"patches": patches, "seconds": seconds, "version": version("tiatoolbox")}))


if __name__ == "__main__":
    main()
