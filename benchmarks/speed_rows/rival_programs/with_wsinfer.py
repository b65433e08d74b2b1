"""WSInfer on one slide, as ``wsinfer run`` goes: patches found, then scored.

python with_wsinfer.py SLIDE MODEL CONFIG RESULTS STRIDE
"""

import csv
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from wsinfer.modellib.models import LocalModelTorchScript
from wsinfer.modellib.run_inference import run_inference
from wsinfer.patchlib import segment_and_patch_directory_of_slides
from wsinfer_zoo.client import ModelConfiguration


def main() -> None:
    """Print patches, seconds and version."""
    slide, model, config, results = map(Path, sys.argv[1:5])
    settings = ModelConfiguration.from_dict(json.loads(config.read_text(encoding="utf-8")))
    patch_px = settings.patch_size_pixels
    started = time.perf_counter()
    segment_and_patch_directory_of_slides(
        slide.parent,
        results,
        patch_px,
        settings.spacing_um_px,
        overlap=1 - int(sys.argv[5]) / patch_px,
    )
    run_inference(
        slide.parent,
        results,
        LocalModelTorchScript(config=settings, model_path=str(model)),
        num_workers=torch.get_num_threads(),
    )
    seconds = time.perf_counter() - started
    with (results / "model-outputs-csv" / f"{slide.stem}.csv").open(encoding="utf-8") as file:
        patches = sum(1 for _ in csv.DictReader(file))
    print(json.dumps({"patches": patches, "seconds": seconds, "version": version("wsinfer")}))


if __name__ == "__main__":
    main()
